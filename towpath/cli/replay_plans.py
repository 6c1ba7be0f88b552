"""Verbs of `replay` that send: plan first, then run the plan, look at runs, stop one."""

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.cli.deciding import require_reason, user_name
from towpath.cli.view_versions import broker_of
from towpath.errors import ConfigurationError, ContractError, NotFoundError, PartlyDoneError, RefusedError, TowpathError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.contract.codec import Codec
    from towpath.replay.judgement import Judgement
    from towpath.replay.plan import Plan, Ranges, Target
    from towpath.replay.selection import Selection
    from towpath.replay.sending import Progress
    from towpath.stream.broker.kafka import KafkaBroker
    from towpath.stream.broker.record import ConsumedRecord

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ReplayId = Annotated[str, typer.Argument(metavar="REPLAY", help="The replay, as `replay list` names it.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A file that `replay plan --output` wrote.")]
Force = Annotated[bool, typer.Option("--force", help="Even where something may be done twice.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the replay.")]
TELL_SECONDS = 1.0


def register(group: typer.Typer) -> None:
    """Add the verbs to the group `replay`."""
    group.command()(plan)
    group.command()(run)
    group.command("list")(list_replays)
    group.command()(show)
    group.command()(stop)


def plan(
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="Repeat it; with --decode by default all.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A captured file in place of the topics.")] = None,
    since: Annotated[datetime | None, typer.Option("--since", help="Records of this time (UTC) or later.")] = None,
    until: Annotated[datetime | None, typer.Option("--until", help="Records before this time (UTC).")] = None,
    from_offset: Annotated[int | None, typer.Option("--from-offset", min=0)] = None,
    to_offset: Annotated[int | None, typer.Option("--to-offset", min=0, help="Exclusive.")] = None,
    partitions: Annotated[list[int] | None, typer.Option("--partition", help="Repeat it.")] = None,
    keys: Annotated[list[str] | None, typer.Option("--key", help="Repeat it.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="In full or by its last part; repeat it.")] = None,
    headers: Annotated[list[str] | None, typer.Option("--header", help="NAME=VALUE; repeat it.")] = None,
    ids: Annotated[Path | None, typer.Option("--ids", help="A file with one event id a line.")] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="An expression in CEL about record, key, type and topic.")
    ] = None,
    to_topic: Annotated[str | None, typer.Option("--to-topic", help="Send to this topic instead.")] = None,
    to_file: Annotated[Path | None, typer.Option("--to-file", help="Write to this file instead.")] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Send nothing: would this release decode all of it? Else exit 3.")
    ] = False,
    by_time: Annotated[bool, typer.Option("--by-time", help="Across partitions in the order of their time.")] = False,
    rate: Annotated[float | None, typer.Option("--rate", min=0.1, help="Most records a second.")] = None,
    to: Annotated[Path | None, typer.Option("--output", help="Write the plan, for `replay run`.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Look at what a replay would read and send, and who would recognise it. Sends nothing.

    Without --to-topic or --to-file the records go to their own topics, to the same consumers. Exit 6 where one of them
    cannot tell that it has done them before.
    """
    from towpath.replay.plan import Target
    from towpath.replay.selection import Selection

    settings = load_settings()
    selection = Selection(
        topics=tuple(topics or ()),
        partitions=frozenset(partitions or ()),
        since_milliseconds=_milliseconds(since),
        until_milliseconds=_milliseconds(until),
        from_offset=from_offset,
        to_offset=to_offset,
        keys=frozenset(keys or ()),
        types=frozenset(types or ()),
        headers=_headers(headers or ()),
        ids=_ids(ids),
        where=where,
    )
    target = Target(to_topic, None if to_file is None else str(to_file.resolve()))
    made = _made(settings, selection, target, source, by_time=by_time, rate=rate, decode=decode)
    if as_json:
        output.emit_json(made.to_json())
    else:
        _show(made)
    if decode:
        _require_decodable(made)
        return
    if made.problems and not force:
        raise RefusedError(
            "; ".join(made.problems),
            kept="everything: nothing was sent",
            next_step="choose less, or say --force and, when it is run, --reason",
        )
    if to is not None:
        to.write_text(json.dumps(made.to_json(), indent=2) + "\n", encoding="utf-8")
        output.note(f"run it: towpath replay run {to} --reason REASON")


def run(
    file: PlanFile,
    reason: Reason = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Who; by default the user of this machine.")] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left to be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a plan: each record once, its progress in the transaction that sends it.

    Interrupted, stopped or killed anywhere, the same command goes on where it stood.
    """
    from towpath.replay import postgres
    from towpath.replay.reading import few_collections
    from towpath.replay.sending import Sending, left_of, standing_of, write_file
    from towpath.view.versions.postgres import views_connection

    settings = load_settings()
    made = _plan_in(file)
    broker = broker_of(settings)
    if dry_run:
        left = left_of(made, {} if made.target.file else standing_of(broker, settings.project.name, made))
        output.emit_json(_done(made, 0, left, done=False)) if as_json else _show(made)
        return
    why = require_reason(reason, "a replay")
    if made.problems and not force:
        raise RefusedError(
            "; ".join(made.problems), kept="everything: nothing was sent", next_step="say --force, with the reason"
        )
    output.ask(f"Send {made.records} records again?", yes=yes)
    choose = _chooser(made.selection, _codec(settings, made) if made.selection.where else None)
    with views_connection(settings) as connection:
        before = postgres.begin(connection, made, actor=actor or user_name(), reason=why, forced=force)
        watch = _Watch(made, before, lambda sent: postgres.note(connection, made.replay_id, sent=sent))
        state = "interrupted"
        try:
            with few_collections():
                if made.target.file is not None:
                    progress = write_file(broker, made, Path(made.target.file), choose, watch.keep_on)
                else:
                    progress = Sending(broker, settings.project.name, made, choose).run(watch.keep_on)
            state = "stopped" if watch.stopped else "done"
        finally:
            postgres.note(connection, made.replay_id, sent=watch.sent, state=state)
    left = left_of(made, progress.offsets)
    if as_json:
        output.emit_json(_done(made, progress.sent, left, done=state == "done"))
    else:
        output.note(f"{progress.sent} records sent in {progress.seconds:.1f} s, {watch.sent} in all")
    if state == "stopped":
        raise PartlyDoneError(
            f"replay {made.replay_id} was asked to stop", kept="where it stands", next_step=f"towpath replay run {file}"
        )


def list_replays(as_json: AsJson = False) -> None:
    """List the replays that were run: who, why, how far."""
    from towpath.replay.postgres import known
    from towpath.view.versions.postgres import views_connection

    with views_connection(load_settings()) as connection:
        rows = [one.to_json() for one in known(connection)]
    if as_json:
        output.emit_json(rows)
    elif rows:
        output.show_rows(rows)
    else:
        output.note("nothing was replayed yet")


def show(replay: ReplayId, as_json: AsJson = False) -> None:
    """Show one replay: its plan, who ran it, and what is left."""
    from towpath.replay.plan import Plan
    from towpath.replay.postgres import show as find
    from towpath.replay.sending import left_of, standing_of
    from towpath.view.versions.postgres import views_connection

    settings = load_settings()
    with views_connection(settings) as connection:
        found = find(connection, replay)
    made = Plan.from_text(replay, json.dumps(found.plan))
    left = {} if made.target.file else left_of(made, standing_of(broker_of(settings), settings.project.name, made))
    unread = sum(max(end - begin, 0) for begin, end in left.values())
    if as_json:
        output.emit_json({**found.to_json(), "offsets_left": unread, "plan": found.plan})
        return
    output.show_facts(found.to_json())
    output.note(f"{unread} offsets are left to be read")


def stop(replay: ReplayId) -> None:
    """Ask the run of a replay to stop after its transaction; run its plan again to go on."""
    from towpath.replay.postgres import ask_to_stop
    from towpath.view.versions.postgres import views_connection

    with views_connection(load_settings()) as connection:
        found = ask_to_stop(connection, replay)
    output.note(
        f"replay {replay} stops after its transaction" if found.state == "running" else f"it is {found.state} already"
    )


# --- what they do -----------------------------------------------------------------------------------------------------


def _made(
    settings: Settings,
    selection: "Selection",
    target: "Target",
    source: Path | None,
    *,
    by_time: bool,
    rate: float | None,
    decode: bool,
) -> "Plan":
    from towpath.replay.plan import Counted, Plan, problems_of
    from towpath.replay.reading import few_collections, read_file

    broker = broker_of(settings)
    ranges = _ranges(settings, broker, selection, source, every=decode)
    topics = sorted({place.topic for place in ranges})
    codec = _codec_of(settings, topics)
    judgement = _judgement(settings, [] if target.file or decode else [target.topic] if target.topic else topics)
    counted = Counted()
    records = read_file(source) if source is not None else _read(broker, ranges)
    with few_collections():
        for record in _chooser(selection, codec)(records):
            counted.add(record, _problem(codec, record))
            judgement.meet(record, target.topic_of(record))
    recognitions = judgement.recognitions()
    return Plan(
        replay_id=uuid.uuid4().hex[:12],
        selection=selection,
        target=target,
        ranges=ranges,
        topic_ids=broker.topic_ids(topics) if source is None else {},
        by_time=by_time,
        rate=rate,
        counted=counted.to_json(),
        recognitions=recognitions,
        problems=()
        if decode
        else (*problems_of(counted, target, recognitions), *_clock_problems(broker, target, topics)),
        source=None if source is None else str(source.resolve()),
    )


def _read(broker: "KafkaBroker", ranges: "Ranges") -> "Iterator[ConsumedRecord]":
    from towpath.replay.reading import read_ranges

    return read_ranges(broker, ranges)


def _ranges(
    settings: Settings, broker: "KafkaBroker", selection: "Selection", source: Path | None, *, every: bool
) -> "Ranges":
    """Return the offsets to read, as they are now. Raises NotFoundError for a topic that is not there."""
    from towpath.contract.catalogue import Catalogue
    from towpath.replay.reading import ranges_in, read_file
    from towpath.stream.broker.record import TopicPartition

    if source is not None:
        return ranges_in(read_file(source))
    wanted = selection.topics or (tuple(topic.name for topic in Catalogue.load(settings).live()) if every else ())
    if not wanted:
        raise ConfigurationError("nothing says what to replay", next_step="say --topic TOPIC, or --from FILE")
    counts = broker.partition_counts(wanted)
    for topic in wanted:
        if topic not in counts and not every:
            raise NotFoundError(f"there is no topic {topic}", next_step="towpath provision, or say another --topic")
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


def _judgement(settings: Settings, topics: Iterable[str]) -> "Judgement":
    """Return who reads `topics`, and what each of them has forgotten."""
    from towpath.contract.catalogue import Catalogue, TopicKind
    from towpath.orchestrator.sagas_view import sagas_view
    from towpath.parties import load_parties
    from towpath.project import load_sagas, load_views
    from towpath.replay.judgement import Judgement, consumers_of
    from towpath.replay.postgres import forgotten
    from towpath.stream.broker.record import TopicPartition
    from towpath.view.versions.postgres import views_connection
    from towpath.view.view import group_name

    catalogue = Catalogue.load(settings)
    consumers = consumers_of(catalogue, load_parties(settings, catalogue), topics)
    now = datetime.now(UTC)
    known: dict[tuple[str, TopicPartition], tuple[int, str]] = {}
    views = {f"view {name}": list(versions.values()) for name, versions in load_views(settings).items()}
    views["view sagas"] = [sagas_view(load_sagas(settings))]
    groups = {
        group_name(settings.project.name, view.name, view.version): label
        for label, versions in views.items()
        for view in versions
    }
    with views_connection(settings) as connection:
        for (application, place), until in forgotten(connection, groups).items():
            known[groups[application], place] = (until, "it has forgotten the ids of that time")
    counts = broker_of(settings).partition_counts({one.topic for one in consumers}) if consumers else {}
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


def _clock_problems(broker: "KafkaBroker", target: "Target", topics: Iterable[str]) -> list[str]:
    """Return the topics that give records the time of the broker: a consumer could not tell how old they are."""
    if target.file is not None:
        return []
    return [
        f"{topic} has message.timestamp.type=LogAppendTime: what is sent again would look new"
        for topic in ([target.topic] if target.topic else topics)
        if broker.topic_config(topic).get("message.timestamp.type") == "LogAppendTime"
    ]


def _problem(codec: "Codec", record: "ConsumedRecord") -> str | None:
    if record.value is None:
        return None
    try:
        codec.decode(record.value)
    except TowpathError as error:
        return error.cause
    return None


def _chooser(
    selection: "Selection", codec: "Codec | None"
) -> "Callable[[Iterable[ConsumedRecord]], Iterable[ConsumedRecord]]":
    from towpath.replay.plan import chosen
    from towpath.replay.selection import compile_predicate

    if selection.where is None or codec is None:
        return lambda records: chosen(records, selection, bytes, None)
    predicate = compile_predicate(selection.where, codec.to_json)
    return partial(chosen, selection=selection, decode=codec.decode, predicate=predicate)


def _codec(settings: Settings, made: "Plan") -> "Codec":
    return _codec_of(settings, sorted({place.topic for place in made.ranges}))


def _codec_of(settings: Settings, topics: Iterable[str]) -> "Codec":
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec

    catalogue = Catalogue.load(settings)
    return load_codec(settings, catalogue, [topic for topic in topics if topic in catalogue.topics])


class _Watch:
    """Tells how a run gets on, and whether it is to go on."""

    def __init__(self, made: "Plan", before: int, note: Callable[[int], bool]) -> None:
        self._made = made
        self._before = before
        self._note = note
        self._told_at = 0.0
        self.sent = before
        self.stopped = False

    def keep_on(self, progress: "Progress") -> bool:
        """Take note of a transaction; return False where the run is to stop."""
        self.sent = self._before + progress.sent
        now = time.monotonic()
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self.stopped = self._note(self.sent)
            rate = progress.sent / progress.seconds if progress.seconds else 0.0
            left = max(self._made.records - self.sent, 0)
            estimate = f", about {timedelta(seconds=int(left / rate))} left" if rate else ""
            output.note(f"{self.sent} of {self._made.records} records, {rate:,.0f} a second{estimate}")
        return not self.stopped


def _require_decodable(made: "Plan") -> None:
    unreadable = made.counted["unreadable"]
    if unreadable:
        first = unreadable[0]
        raise ContractError(
            f"{sum(one['records'] for one in unreadable)} of {made.records} records cannot be decoded by this release; "
            f"the first is {first['first']}: {first['problem']}",
            kept="everything: nothing was sent",
            next_step="towpath contracts check names what broke",
        )
    output.note(f"this release decodes all of {made.records} records")


def _show(made: "Plan") -> None:
    counted = made.counted
    where = made.target.file or made.target.topic or "the same topics"
    output.results.print(
        f"replay {made.replay_id}: {counted['records']} records, {counted['bytes']:,} bytes, {counted['keys']} keys, "
        f"to {where}; {made.order}",
        highlight=False,
    )
    if counted["types"]:
        output.show_rows([{"type": type_, "records": count} for type_, count in counted["types"].items()])
        output.show_rows([{"key": key, "records": count} for key, count in counted["top_keys"].items()])
        output.show_rows([dict(one) for one in counted["schemas"]] or [{"schemas": "none"}])
    if made.recognitions:
        output.show_rows(
            [
                {
                    "consumer": one.consumer,
                    "topic": one.topic,
                    "records": one.records,
                    "recognises them by": one.recognises or "nothing: it would do them twice",
                    "beyond": one.beyond,
                }
                for one in made.recognitions
            ]
        )
    for one in counted["unreadable"]:
        output.note(f"{one['records']} records cannot be decoded ({one['first']} first): {one['problem']}")
    if made.seconds is not None:
        output.note(f"about {timedelta(seconds=int(made.seconds))} at {made.rate:g} records a second")


def _done(made: "Plan", sent: int, left: "Ranges", *, done: bool) -> dict[str, Any]:
    return {
        "replay_id": made.replay_id,
        "records": made.records,
        "sent": sent,
        "offsets_left": sum(max(end - begin, 0) for begin, end in left.values()),
        "done": done,
    }


def _plan_in(file: Path) -> "Plan":
    from towpath.replay.plan import Plan

    try:
        return Plan.from_text(str(file), sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(
            f"{file} cannot be read: {error}", next_step="towpath replay plan --topic TOPIC --output FILE"
        ) from error


def _ids(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    try:
        return frozenset(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except OSError as error:
        raise NotFoundError(f"{file} cannot be read: {error}", next_step="name a file with one id a line") from error


def _headers(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ConfigurationError(f"{one!r} is no header", next_step="write it as NAME=VALUE")
        found[name] = value
    return found


def _milliseconds(at: datetime | None) -> int | None:
    if at is None:
        return None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
