"""How the verbs of `replay` make a plan: what is read, whom it reaches, and what this release can decode of it."""

import importlib
import sys
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towpath.cli import output
from towpath.cli.collecting import few_collections
from towpath.cli.files import read_text
from towpath.cli.view_versions import broker_of
from towpath.errors import ConfigurationError, NotFoundError, TowpathError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.codec import Codec
    from towpath.replay.judgement import Judgement
    from towpath.replay.plan import Counted, Plan, Ranges, Target
    from towpath.replay.progress import Choose
    from towpath.replay.selection import Judged, Selection
    from towpath.replay.source import Source
    from towpath.stream.broker.kafka import KafkaBroker
    from towpath.stream.broker.record import ConsumedRecord


LOOKED_UP_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked to be replayed. `file` and `outbox` (a service) are read in place of topics."""

    selection: "Selection"
    target: "Target"
    file: Path | None = None
    outbox: str | None = None
    by_time: bool = False
    rate: float | None = None
    decode: bool = False

    @property
    def every(self) -> bool:
        """Return whether all that is retained is to be looked at: every topic of the catalogue, and every outbox."""
        return self.decode and not self.selection.topics and self.file is None and self.outbox is None


def make_plan(settings: Settings, asked: Asked) -> "Plan":
    """Look at all that a replay would read, and return what it would send. Sends nothing.

    Raises NotFoundError for what is not there to be read, RefusedError for what is never sent again, WorldError where a
    part of the stack is away.
    """
    from towpath.replay.plan import Counted, problems_of
    from towpath.replay.selection import Judged

    target = asked.target
    require_possible(asked.selection)
    _require_target(settings, target)
    unlooked = _unlooked(settings, asked)
    topics = sorted({place.topic for place in unlooked.ranges})
    codec = codec_of_topics(settings, topics)
    told = [] if target.file or asked.decode else [target.topic] if target.topic else topics
    judgement = _judgement(settings, told, elsewhere=target.cluster is not None)
    counted, judged = Counted(), Judged()
    choose = chooser(settings, asked.selection, codec, judged)
    with few_collections():
        for record in choose(_looked_at(settings, asked, unlooked)):
            counted.add(record, problem_of(codec, record))
            judgement.meet(record, target.topic_of(record))
        if asked.every:
            _count_outboxes(settings, choose, codec, counted)
    _tell_judged(judged)
    recognitions = judgement.recognitions()
    problems: tuple[str, ...] = ()
    if not asked.decode:
        problems = (
            *problems_of(counted, target, recognitions),
            *_foreign_problems(settings, target, counted),
            *_clock_problems(settings, target, topics),
            *(_moved_problems(settings, unlooked, choose) if told == topics else ()),
        )
    return replace(unlooked, counted=counted.to_json(), recognitions=recognitions, problems=problems)


def _looked_at(settings: Settings, asked: Asked, unlooked: "Plan") -> "Iterator[ConsumedRecord]":
    """Yield what a plan reads; of a file that is only decoded the records may lie in any order: none is sent."""
    from towpath.replay.reading import read_file

    if asked.decode and asked.file is not None:
        return read_file(asked.file)
    return source_of_plan(settings, unlooked).read(unlooked.ranges)


def problems_since(settings: Settings, plan: "Plan") -> tuple[str, ...]:
    """Return what those who receive a plan's records have forgotten since it was made."""
    if plan.target.file is not None or plan.target.cluster is not None or not plan.recognitions:
        return ()
    return _judgement(settings, {one.topic for one in plan.recognitions}, elsewhere=False).since(plan.recognitions)


def _moved_problems(settings: Settings, plan: "Plan", choose: "Choose") -> tuple[str, ...]:
    """Return why messages of an outbox would not be known again by the views: their topics have grown since.

    The outbox does not say in which partition a message lay; a view does, of those that it remembers.
    """
    from towpath.replay.postgres import noted_elsewhere
    from towpath.view.versions.postgres import views_connection

    if plan.outbox is None or plan.target.cluster is not None:
        return ()
    groups, most = _view_groups(settings), max(plan.partition_counts.values(), default=0)
    records = iter(choose(source_of_plan(settings, plan).read(plan.ranges)))
    with views_connection(settings) as connection:
        while chunk := list(islice(records, LOOKED_UP_AT_ONCE)):
            if (found := noted_elsewhere(connection, groups, chunk, most)) is not None:
                problem = (
                    f"{groups[found.application]} has had {found.id} in {found.topic}[{found.noted_in}], and would not "
                    f"know it in {found.topic}[{found.partition}]: the topic has been given partitions since"
                )
                return (problem,)
    return ()


def require_possible(selection: "Selection") -> None:
    """Raise ConfigurationError for a selection that no record can meet."""
    for what, begin, end in (
        ("--since and --until", selection.since_milliseconds, selection.until_milliseconds),
        ("--from-offset and --to-offset", selection.from_offset, selection.to_offset),
    ):
        if begin is not None and end is not None and begin >= end:
            raise ConfigurationError(f"nothing lies between {what}", next_step="say the earlier one first")


def _require_target(settings: Settings, target: "Target") -> None:
    """Raise NotFoundError where the topic to send to is not there."""
    if target.topic is not None and target.topic not in target_broker(settings, target).partition_counts(
        [target.topic]
    ):
        raise NotFoundError(
            f"there is no topic {target.topic} to send to", next_step="towpath provision, or say another --to-topic"
        )


def _tell_judged(judged: "Judged") -> None:
    """Say of how many records a predicate could not be judged. Raises ConfigurationError where of none it could."""
    asked = "what is asked of fields cannot be judged for"
    if judged.not_judged and not judged.judged:
        raise ConfigurationError(
            f"{asked} any of {judged.not_judged} records; the first is {judged.first}",
            kept="everything: nothing was sent",
            next_step="see what fields the type has (schemas/), and how the expression names them: record.FIELD",
        )
    if judged.not_judged:
        output.note(f"{asked} {output.counted(judged.not_judged, 'record')}: left out; the first is {judged.first}")


def _unlooked(settings: Settings, asked: Asked) -> "Plan":
    """Return the plan before anything was counted: which ranges it reads, as they are now."""
    from towpath.replay.outbox.postgres import outbox_connection, range_of
    from towpath.replay.plan import Plan
    from towpath.replay.reading import ranges_in, read_file
    from towpath.stream.broker.record import TopicPartition

    selection = asked.selection
    made = Plan(
        replay_id=uuid.uuid4().hex[:12],
        selection=selection,
        target=asked.target,
        ranges={},
        topic_ids={},
        by_time=asked.by_time,
        rate=asked.rate,
        counted={},
        recognitions=(),
    )
    if asked.file is not None:
        return replace(made, source=str(asked.file.resolve()), ranges=ranges_in(read_file(asked.file)))
    broker = broker_of(settings)
    topics = _topics(settings, asked)
    counts = broker.partition_counts(topics)
    lacking = sorted(number for number in selection.partitions if number >= max(counts.values(), default=number + 1))
    if lacking:
        raise NotFoundError(
            f"no topic that is read has a partition {lacking[0]}",
            next_step=f"say a --partition below {max(counts.values())}",
        )
    for topic in topics:
        if topic not in counts and not asked.every:
            raise NotFoundError(f"there is no topic {topic}", next_step="towpath provision, or say another --topic")
    if asked.outbox is not None:
        with outbox_connection(settings, asked.outbox) as connection:
            found = range_of(connection, asked.outbox, topics)
        selection = replace(selection, topics=topics)
        places = [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])]
        ranges = dict.fromkeys(places, (0, found.messages))
        return replace(made, outbox=found, selection=selection, partition_counts=counts, ranges=ranges)
    return replace(
        made,
        ranges=_ranges(broker, selection, counts),
        topic_ids=broker.topic_ids(counts) if counts else {},
        partition_counts=counts,
    )


def _topics(settings: Settings, asked: Asked) -> tuple[str, ...]:
    """Return the topics that are read. Raises ConfigurationError where nothing says which."""
    from towpath.contract.catalogue import Catalogue

    if asked.outbox is not None:
        written = set(writers_of(settings).get(asked.outbox, ()))
        unwritten = sorted(set(asked.selection.topics) - written)
        if unwritten or not written:
            raise NotFoundError(
                f"{asked.outbox} writes no messages" + (f" of {', '.join(unwritten)}" if unwritten else ""),
                next_step="name the service that does: its topics name it as a producer, in schemas/topics",
            )
        return asked.selection.topics or tuple(sorted(written))
    if asked.every:
        return tuple(topic.name for topic in Catalogue.load(settings).live())
    if not asked.selection.topics:
        raise ConfigurationError(
            "nothing says what to replay", next_step="say --topic TOPIC, --outbox SERVICE or --from FILE"
        )
    return asked.selection.topics


def _ranges(broker: "KafkaBroker", selection: "Selection", counts: Mapping[str, int]) -> "Ranges":
    """Return the offsets to read, as they are now."""
    from towpath.stream.broker.record import TopicPartition

    places = [
        TopicPartition(topic, number)
        for topic, count in counts.items()
        for number in range(count)
        if not selection.partitions or number in selection.partitions
    ]
    begins, ends = broker.begin_offsets(places), broker.end_offsets(places)
    if selection.since_milliseconds is not None:
        begins = broker.offsets_at(places, selection.since_milliseconds)
    low, high = selection.from_offset or 0, selection.to_offset
    return {
        place: (max(begins[place], low), ends[place] if high is None else min(ends[place], high)) for place in places
    }


def source_of_plan(settings: Settings, plan: "Plan") -> "Source":
    """Return what a plan's records are read from."""
    from towpath.replay.outbox.postgres import OutboxSource
    from towpath.replay.source import source_of

    if plan.outbox is not None:
        return OutboxSource(settings, plan.outbox, plan.selection.topics, plan.partition_counts)
    return source_of(broker_of(settings), plan)


def target_broker(settings: Settings, target: "Target") -> "KafkaBroker":
    """Return the cluster that records go to."""
    from towpath.replay.cluster import load_cluster
    from towpath.stream.broker.kafka import KafkaBroker

    if target.cluster is None:
        return broker_of(settings)
    return KafkaBroker(load_cluster(Path(target.cluster)).kafka, settings.stream)


@contextmanager
def translation(settings: Settings, plan: "Plan") -> "Iterator[Callable[[bytes], bytes] | None]":
    """Yield what gives values the schema ids of the target's registry; None where it has none of its own."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import RegistryClient
    from towpath.contract.subjects import SubjectStrategy
    from towpath.replay.cluster import SchemaTranslation, load_cluster

    there = None if plan.target.cluster is None else load_cluster(Path(plan.target.cluster)).registry
    if there is None:
        yield None
        return
    with RegistryClient(settings.registry) as ours, RegistryClient(there) as theirs:
        topics = sorted({place.topic for place in plan.ranges})
        codec, strategy = codec_of_topics(settings, topics), SubjectStrategy(there.subject_strategy)
        yield SchemaTranslation(codec, Catalogue.load(settings), ours, theirs, strategy)


def _count_outboxes(settings: Settings, choose: "Choose", codec: "Codec", counted: "Counted") -> None:
    """Count the messages of every service's outbox, each place told by service and id."""
    for service, topics in writers_of(settings).items():
        for record in choose(outbox_records(settings, service, topics)):
            counted.add(record, problem_of(codec, record), f"outbox of {service}, message {record.header('id')}")


def writers_of(settings: Settings, topics: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the services whose outboxes write messages to `topics` (None: to any), each with those that it writes."""
    from towpath.contract.catalogue import Catalogue
    from towpath.outbox.topics import writable_topics
    from towpath.project import load_services
    from towpath.replay.judgement import NEVER

    catalogue = Catalogue.load(settings)
    wanted = set(catalogue.topics if topics is None else topics)
    found = {}
    for service in load_services(settings):
        written = sorted(wanted & writable_topics(catalogue, service).keys())
        messages = tuple(topic for topic in written if catalogue.topics[topic].kind not in NEVER)
        if messages:
            found[service] = messages
    return found


def outbox_records(
    settings: Settings, service: str, topics: tuple[str, ...]
) -> "Generator[ConsumedRecord, None, None]":
    """Yield what the outbox of a service holds now of `topics`, as records, in the order of commit."""
    from towpath.replay.plan import Target
    from towpath.replay.selection import Selection

    plan = _unlooked(settings, Asked(Selection(topics=topics), Target(), outbox=service))
    yield from source_of_plan(settings, plan).read(plan.ranges)


def _view_groups(settings: Settings) -> dict[str, str]:
    """Return the groups of the project's views and the engine's own, with what a plan calls the view."""
    from towpath.orchestrator.sagas_view import own_views
    from towpath.project import load_sagas, load_views
    from towpath.view.view import group_name

    views = {f"view {name}": list(versions.values()) for name, versions in load_views(settings).items()}
    views["view sagas"] = own_views(load_sagas(settings))
    return {
        group_name(settings.project.name, view.name, view.version): label
        for label, versions in views.items()
        for view in versions
    }


def _judgement(settings: Settings, topics: Iterable[str], *, elsewhere: bool) -> "Judgement":
    """Return who reads `topics`, and what each of them has forgotten; `elsewhere` nobody here has read anything."""
    from towpath.contract.catalogue import Catalogue, TopicKind
    from towpath.parties import load_parties
    from towpath.replay.judgement import Judgement, consumers_of
    from towpath.replay.postgres import forgotten
    from towpath.stream.broker.record import TopicPartition
    from towpath.view.versions.postgres import views_connection

    catalogue = Catalogue.load(settings)
    consumers = consumers_of(catalogue, load_parties(settings, catalogue), topics)
    if elsewhere or not consumers:
        return Judgement(consumers, {})
    now = datetime.now(UTC)
    known: dict[tuple[str, TopicPartition], tuple[int, str]] = {}
    groups = _view_groups(settings)
    with views_connection(settings) as connection:
        for (application, place), until in forgotten(connection, groups).items():
            known[groups[application], place] = (until, "it has forgotten the ids of that time")
    counts = broker_of(settings).partition_counts({one.topic for one in consumers})
    for one in consumers:
        kind = catalogue.topics[one.topic].kind
        days: float | None = None
        why = ""
        if one.name.startswith("service ") and kind is TopicKind.COMMANDS:
            days, why = settings.participant.inbox_keep_days, "its inbox keeps [participant] inbox_keep_days"
        elif one.name.startswith("saga ") and kind is TopicKind.EVENTS:
            days, why = (
                settings.saga.finished_retention_days,
                "finished instances are kept [saga] finished_retention_days",
            )
        if days is not None:
            until = int((now - timedelta(days=days)).timestamp() * 1000)
            for number in range(counts.get(one.topic, 0)):
                known[one.name, TopicPartition(one.topic, number)] = (until, f"{why} = {days:g}")
    return Judgement(consumers, known)


def _foreign_problems(settings: Settings, target: "Target", counted: "Counted") -> list[str]:
    """Return which records another topic does not take, where the catalogue has it: its readers would not know them."""
    from towpath.contract.catalogue import Catalogue

    known = None if target.topic is None else Catalogue.load(settings).topics.get(target.topic)
    if known is None:
        return []
    foreign = sorted(counted.types.keys() - set(known.values) - {"no type"})
    return [f"{known.name} takes no {', '.join(foreign)}: whoever reads it does not know them"] if foreign else []


def _clock_problems(settings: Settings, target: "Target", topics: Iterable[str]) -> list[str]:
    """Return the topics that give records the time of the broker: a consumer could not tell how old they are."""
    if target.file is not None:
        return []
    broker = target_broker(settings, target)
    return [
        f"{topic} has message.timestamp.type=LogAppendTime: what is sent again would look new"
        for topic in ([target.topic] if target.topic else topics)
        if broker.topic_config(topic).get("message.timestamp.type") == "LogAppendTime"
    ]


def problem_of(codec: "Codec", record: "ConsumedRecord") -> str | None:
    """Return why this release cannot decode a record, or what lies inside it; None where it can."""
    from towpath.replay.nested import kept_otherwise, payloads_in

    if record.value is None or kept_otherwise(record.topic, record.key):
        return None
    try:
        for payload in payloads_in(codec.decode(record.value)):
            codec.decode(payload)
    except TowpathError as error:
        return error.cause
    return None


def chooser(
    settings: Settings, selection: "Selection", codec: "Codec | None", judged: "Judged | None" = None
) -> "Choose":
    """Return what takes of records those that a selection wants. Raises ConfigurationError for a wrong predicate."""
    from towpath.replay.plan import chosen
    from towpath.replay.selection import both, compile_predicate, guarded

    predicates = []
    if codec is not None and selection.where is not None:
        predicates.append(compile_predicate(selection.where, codec.to_json, judged))
    if codec is not None and selection.function is not None:
        predicates.append(guarded(selection.function, load_function(settings, selection.function), judged))
    if codec is None or not predicates:
        return lambda records: chosen(records, selection, bytes, None)
    return partial(chosen, selection=selection, decode=codec.decode, predicate=both(predicates), judged=judged)


def load_function(settings: Settings, path: str) -> Callable[..., Any]:
    """Return the project's function of that path (MODULE:FUNCTION). Raises ConfigurationError where there is none."""
    module, _, attribute = path.partition(":")
    if str(settings.root) not in sys.path:
        sys.path.insert(0, str(settings.root))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} names no function: {error}", next_step="say MODULE:FUNCTION") from error
    except Exception as error:
        raise ConfigurationError(f"{module} cannot be imported: {error!r}", next_step="fix the module") from error
    if not callable(found):
        raise ConfigurationError(f"{path} is no function", next_step="say MODULE:FUNCTION")
    function: Callable[..., Any] = found
    return function


def codec_of_topics(settings: Settings, topics: Iterable[str]) -> "Codec":
    """Return the codec for the records of those topics that the catalogue has, and for what may lie inside them."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec

    catalogue = Catalogue.load(settings)
    known = [topic for topic in topics if topic in catalogue.topics]
    if any(name.startswith("towpath.") for topic in known for name in catalogue.topics[topic].values):
        return load_codec(settings, catalogue)  # the engine's own records have any of the project's inside
    return load_codec(settings, catalogue, known)


def milliseconds(at: datetime | None) -> int | None:
    """Return a time as milliseconds since 1970; one without a zone is UTC."""
    if at is None:
        return None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)


def ids_in(file: Path | None) -> frozenset[str]:
    """Return the event ids of a file, one a line. Raises NotFoundError where it cannot be read."""
    if file is None:
        return frozenset()
    text = read_text(file, next_step="name a file with one id a line")
    found = frozenset(line.strip() for line in text.splitlines() if line.strip())
    if not found:  # an empty selection would take every record
        raise ConfigurationError(f"{file} has no ids", next_step="name a file with one id a line")
    return found


def headers_in(given: Iterable[str]) -> dict[str, str]:
    """Return headers written as NAME=VALUE. Raises ConfigurationError for anything else."""
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ConfigurationError(f"{one!r} is no header", next_step="write it as NAME=VALUE")
        found[name] = value
    return found
