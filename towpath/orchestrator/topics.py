"""What the catalogue must say so that the project's sagas can run: topics, and the records that travel in them. Pure.

The one rule: a worker can encode only what a topic of its own lists, so a record that is missing here would stop a saga
at the first instance that needs it. Commands are not looked at: which ones a saga sends, `towpath saga check` knows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.finding import Finding
from towpath.contract.record import Record
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import wire_name
from towpath.saga.definition import Activity, Definition, Kind, StepDefinition

CARRIED_BYTES_SPARE = 32_768
"""What a state or an entry says beside the record that it carries: some hundred bytes, and the business key twice."""

Sagas = Mapping[str, Mapping[int, Definition]]
_GENERATE = "towpath contracts generate"


@dataclass(frozen=True, slots=True)
class Need:
    """A record that must travel in a topic, from `writer` (empty: whoever) to `reader` (empty: whoever)."""

    topic: str
    record: str
    writer: str
    reader: str


def children_of(sagas: Sagas) -> frozenset[str]:
    """Return the sagas that other sagas start."""
    return frozenset(
        step.child.name
        for versions in sagas.values()
        for definition in versions.values()
        for step in definition.steps
        if step.child is not None
    )


def topic_findings(sagas: Sagas, catalogue: Catalogue) -> tuple[Finding, ...]:
    """Return what the catalogue lacks for `sagas`, each finding once."""
    found: dict[Finding, None] = {}
    for name, versions in sagas.items():
        for definition in versions.values():
            told_only = _told_only(definition, sagas, catalogue)
            keeps_signals = envelope.topic_of(name, envelope.SIGNALS) in catalogue.topics
            needs = tuple(needs_of(definition, told_only=told_only, keeps_signals=keeps_signals))
            for need in needs:
                found.update(dict.fromkeys(_unmet(need, name, catalogue)))
            meeting = {need.topic for need in needs} | set(_meeting(definition, catalogue))
            found.update(dict.fromkeys(_apart(meeting, name, catalogue)))
            found.update(dict.fromkeys(_narrow(definition, catalogue)))
    return tuple(found)


def only_started_by_sagas(name: str, starts_on: str, sagas: Sagas, catalogue: Catalogue) -> bool:
    """Say whether other sagas start the saga called `name`, and no topic of events does."""
    events = (topic for topic in catalogue.carrying(starts_on) if topic.kind is TopicKind.EVENTS)
    return name in children_of(sagas) and not any(name in topic.consumers for topic in events)


def started_by_events(name: str, sagas: Sagas, catalogue: Catalogue) -> tuple[type[Record], ...]:
    """Return the records of topics of events that start the newest version of the saga called `name`."""
    starts = [kind for kind in sagas[name][max(sagas[name])].starts if issubclass(kind, Record)]
    return tuple(kind for kind in starts if not only_started_by_sagas(name, kind.SCHEMA_NAME, sagas, catalogue))


def _told_only(definition: Definition, sagas: Sagas, catalogue: Catalogue) -> bool:
    """Say whether parents alone hear of a saga's result: only they start it, and they may still ask it back."""
    starts = [wire_name(kind) for kind in definition.starts]
    children = all(only_started_by_sagas(definition.name, kind, sagas, catalogue) for kind in starts)
    return children and definition.kind is Kind.COMPENSATABLE


def needs_of(definition: Definition, *, told_only: bool, keeps_signals: bool) -> Iterator[Need]:
    """Yield what one version of a saga needs of topics.

    `told_only` says that parents alone hear of its result; `keeps_signals` that it has a topic of signals, which may
    come before it waits for them.
    """
    name = definition.name
    signals = envelope.topic_of(name, envelope.SIGNALS)
    own: list[tuple[str, type[Record]]] = [
        (envelope.STATE, wire.SagaState),
        (envelope.HISTORY, wire.HistoryEntry),
        (envelope.TIMERS, wire.TimerFired),
        *([(envelope.STATE, wire.EarlySignals)] if keeps_signals else []),
    ]
    for kind, record in own:
        yield Need(envelope.topic_of(name, kind), record.SCHEMA_NAME, name, "")
    for cancelling in definition.cancels:
        yield Need(signals, wire_name(cancelling), "", name)
    for starting in definition.starts if definition.keyed_by is not None else ():
        yield Need(signals, wire_name(starting), name, name)
    for step in definition.steps:
        if step.activity is not Activity.RESULT or not told_only:
            yield from _needs_of_step(name, step)


def _needs_of_step(name: str, step: StepDefinition) -> Iterator[Need]:
    replies, signals = envelope.topic_of(name, envelope.REPLIES), envelope.topic_of(name, envelope.SIGNALS)
    events = envelope.topic_of(name, envelope.EVENTS)
    if step.remind is not None:
        yield Need(events, wire_name(step.remind.event), name, "")
    for kind in step.gather.signals if step.gather is not None else ():
        yield Need(signals, wire_name(kind), "", name)
    if step.prolong is not None:
        yield Need(signals, wire_name(step.prolong.signal), "", name)
    does = step.participant if step.child is None else step.child.name
    travels = {
        Activity.WAIT: (signals, "", name),
        Activity.NEXT: (signals, name, name),
        Activity.EVENT: (events, name, ""),
        Activity.RESULT: (events, name, ""),
    }
    topic, writer, reader = travels.get(step.activity, (replies, does, name))
    for kind in step.outcomes:
        yield Need(topic, wire_name(kind), writer, reader)
    if step.undo is not None:
        for kind in step.undo.outcomes:
            yield Need(replies, wire_name(kind), step.undo.participant or does, name)
    if step.child is not None:
        child = envelope.topic_of(step.child.name, envelope.SIGNALS)
        asked = (wire.ParentAsked,) if step.undo is not None else ()
        if step.child.result is not None:
            for kind in step.child.steps[step.child.result].outcomes:
                yield Need(replies, wire_name(kind), does, name)
        for record in (*step.child.starts, *asked, wire.ParentEnded):
            yield Need(child, wire_name(record), name, step.child.name)


def _meeting(definition: Definition, catalogue: Catalogue) -> Iterator[str]:
    """Yield the other topics whose records belong to one saga: what starts it, what it asks, what people ask of it."""
    yield envelope.topic_of(definition.name, envelope.OPERATOR)
    for kind in definition.starts:
        for topic in catalogue.carrying(wire_name(kind)):
            if definition.name in topic.consumers:  # one worker reads it and the saga's own, by partition numbers
                yield topic.name
    for step in definition.steps:
        for participant in (step.participant, step.undo.participant if step.undo else ""):
            if participant and step.child is None:
                yield f"{participant}.{TopicKind.COMMANDS}"


def _unmet(need: Need, saga: str, catalogue: Catalogue) -> Iterator[Finding]:
    topic, file = catalogue.topics.get(need.topic), f"schemas/topics/{need.topic}.yaml"
    hit = (f"saga {saga}",)
    if topic is None:
        yield Finding("saga-topics", need.topic, "it is not declared", hit, _GENERATE)
        return
    if need.record not in topic.values:
        fix = f"{_GENERATE}; or add it to the values in {file}"
        yield Finding("saga-topics", need.topic, f"{need.record} is not among its values", hit, fix)
    for role, party, listed in (
        ("producers", need.writer, topic.producers),
        ("consumers", need.reader, topic.consumers),
    ):
        if party and party not in listed:
            fix = f"{_GENERATE}; or add it in {file}"
            yield Finding("saga-topics", need.topic, f"{party} is not among its {role}", hit, fix)


def _narrow(definition: Definition, catalogue: Catalogue) -> Iterator[Finding]:
    """Yield what cannot hold a record that it has to carry: a start is kept in the state, each input in the history."""
    limits, name = catalogue.message_bytes_max(), definition.name
    starts = [
        topic.name
        for kind in definition.starts
        for topic in catalogue.carrying(wire_name(kind))
        if name in topic.consumers
    ]
    own = [envelope.topic_of(name, kind) for kind in (envelope.REPLIES, envelope.SIGNALS)]
    for kind, carried in ((envelope.STATE, starts), (envelope.HISTORY, [*starts, *own])):
        holder = envelope.topic_of(name, kind)
        widest = max((topic for topic in carried if topic in limits), key=lambda topic: limits[topic], default="")
        if not widest or holder not in limits:
            continue
        least = limits[widest] + CARRIED_BYTES_SPARE
        if limits[holder] < least:
            yield Finding(
                "saga-topics",
                holder,
                f"its records may have {limits[holder]} bytes, and carry those of {widest}, which may have "
                f"{limits[widest]}: with what is said beside them {least} are needed",
                (f"saga {name}",),
                f'set max.message.bytes: "{least}" in the config of schemas/topics/{holder}.yaml',
            )


def _apart(topics: Iterable[str], saga: str, catalogue: Catalogue) -> Iterator[Finding]:
    counts = {name: catalogue.topics[name].partitions for name in sorted(topics) if name in catalogue.topics}
    if len(set(counts.values())) > 1:
        yield Finding(
            "saga-topics",
            saga,
            "its topics differ in their partitions, so its records would not meet: "
            + ", ".join(f"{name} has {count}" for name, count in counts.items()),
            (f"saga {saga}",),
            "give them the same count, in a new generation of those that hold records already",
        )
