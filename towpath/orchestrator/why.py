"""Says in sentences why an instance stands where it stands, and what would move it. Pure: the facts come in.

The one rule: the first sentence is how the instance stands; each further one is a fact that was looked up, with the
command that acts on it. What could not be looked up is said, never guessed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from towpath.saga.state import CauseKind, SagaState, Status, StepStatus


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence; `command` is what a person can run about it, None where there is nothing to do."""

    sentence: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """How a service's outbox is carried. `slot` is there, missing or lost; `connector` is Connect's word (RUNNING,
    PAUSED, FAILED ...), missing, or None where Connect did not answer; `lag_bytes` is what it has yet to carry;
    `next_step` is what to run where it carries nothing, None where that is not known.
    """

    service: str
    slot: str
    connector: str | None
    lag_bytes: int = 0
    trace: str = ""
    next_step: str | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer group at the partition in question: `position` is its offset there (None: it never committed), `end`
    the partition's end, `members` how many workers it has, `way_back` what to run where it has none, or stands still.

    `still` is why it does nothing though it is there, as its processes say; empty where one works, or none is known.
    """

    group: str
    worker: str
    members: int
    position: int | None
    end: int
    way_back: str
    still: str = ""

    def has_read(self, offset: int) -> bool:
        """Say whether the record at `offset` is behind this group."""
        return self.position is not None and self.position > offset


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way: written to an outbox or sent, in its topic, read, dead.

    `service` is whose outbox it went through, None for one that the orchestrator sent; `written` says whether the
    outbox has it (None: not looked up, or none). `topic`, `partition` and `offset` are where it lies in Kafka, offset
    None where it is not there. `letter` is where its dead letter lies, `parked_behind` the letter that its key waits
    for, `parked_topic` the topic of that, where it is another one; `cause` is why. Where that letter is not there any
    more, `parked_behind` is where its record died, and `release` lets the key go on.
    """

    what: str
    topic: str
    partition: int | None = None
    offset: int | None = None
    service: str | None = None
    written: bool | None = None
    letter: str | None = None
    parked_behind: str | None = None
    cause: str = ""
    parked_topic: str | None = None
    release: str | None = None
    reader: Reader | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A command (or sub-saga) that the instance waits for.

    `recorded` says whether the participant's inbox has its outcome, None where that could not be looked up.
    """

    step: str
    item: str
    undo: bool
    attempt: int
    due_milliseconds: int
    participant: str
    command: Message
    recorded: bool | None = None
    reply: Message | None = None
    child: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was looked up about one instance; `state` is None where there is none. Times: milliseconds, UTC.

    `waits` are the records that an open wait takes, and one that halted; `stuck` says why a step is stuck where that is
    not because its attempts are used up. Both by step. `rests` is what was asked last where the next attempt is yet to
    go out. `dead_hold_attempts` says whether the clock of an attempt stands still while its command is in quarantine.
    """

    saga: str
    which: str
    now_milliseconds: int
    state: SagaState | None = None
    version_known: bool = True
    start: Message | None = None
    refused: str | None = None
    asked: tuple[Asked, ...] = ()
    rests: tuple[Asked, ...] = ()
    waits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    capture: dict[str, Capture] = field(default_factory=dict)
    capture_behind: tuple[str, ...] = ()
    dead_hold_attempts: bool = True
    unknown: tuple[str, ...] = ()


def explain(facts: Facts) -> list[Line]:
    """Return why the instance stands where it stands, the decisive sentence early."""
    lines = list(_of_no_instance(facts) if facts.state is None else _of_instance(facts, facts.state))
    lines += [Line(f"{what} could not be looked up") for what in facts.unknown]
    return lines


# --- No instance ------------------------------------------------------------------------------------------------------


def _of_no_instance(facts: Facts) -> Iterator[Line]:
    yield Line(f"{facts.saga} has no instance {facts.which}")
    if facts.refused is not None:
        yield Line(f"its start was refused: {facts.refused}", f"towpath saga history {facts.saga} {facts.which}")
        return
    if facts.start is None:
        yield Line(
            "no start event for it was found in an outbox, a topic or among the dead letters: nothing asked for it, "
            "the transaction that did was rolled back, or it is long over and forgotten",
            f"towpath saga list {facts.saga}",
        )
        return
    yield from _on_its_way(facts.start, facts, to=f"saga {facts.saga}")


# --- An instance ------------------------------------------------------------------------------------------------------


def _of_instance(facts: Facts, state: SagaState) -> Iterator[Line]:
    about = f"{state.saga} {state.saga_id} (key {state.key}, version {state.version})"
    cause = f", because of {state.cause}" if state.cause is not None else ""
    yield Line(f"{about} is {state.status.value}{cause}")
    if state.ended:
        yield Line("it has ended: nothing moves it any more", f"towpath saga history {state.saga} {state.saga_id}")
        return
    if not facts.version_known:
        yield Line(
            f"no worker's code has version {state.version} of {state.saga}: its partition waits for one that does",
            f"deploy version {state.version} beside the newer one, and see who waits: towpath saga list {state.saga}",
        )
    for asked in facts.asked:
        yield from _of_asked(facts, asked)
    for step in state.steps:
        for cell in step.items or (step,):  # a list stands as its items do
            name = step.key if cell is step else f"{step.key} item {cell.key}"
            option = f"--step {step.key}" + ("" if cell is step else f" --item {cell.key}")
            yield from _of_cell(facts, state, name, option, cell.status, cell.due_milliseconds)
    overdue = [
        cell
        for cell in (*state.steps, *(item for step in state.steps for item in step.items))
        if _overdue(cell.due_milliseconds, facts)
    ]
    if overdue and facts.capture_behind:
        names = ", ".join(facts.capture_behind)
        yield Line(
            f"deadlines are held: the capture of {names} is behind, so replies may lie unread in its outbox",
            "towpath capture status",
        )
    if state.deadline_milliseconds and state.status is Status.RUNNING:
        yield Line(f"if nothing else happens it compensates at its deadline, {_moment(state.deadline_milliseconds)}")


def _of_cell(
    facts: Facts, state: SagaState, name: str, option: str, status: StepStatus, due_milliseconds: int
) -> Iterator[Line]:
    which = f"{state.saga} {state.saga_id}"
    match status:
        case StepStatus.STUCK if state.cause is not None and state.cause.kind is CauseKind.TOO_LARGE:
            yield Line(
                f"{name} is stuck: once its topic takes more (schemas/topics, then towpath provision), retry; the "
                "recorded reply comes again",
                f"towpath saga retry {which} {option} --reason '...' (or skip, with a smaller reply)",
            )
        case StepStatus.STUCK if facts.waits.get(name):
            kinds = facts.waits[name]
            yield Line(
                f"{name} is stuck: no {' or '.join(kinds)} came in time, and a person must decide",
                f"towpath saga signal {state.saga} {state.key} {kinds[0]} --value '{{...}}' (or cancel; or resume, "
                "which waits once more)",
            )
        case StepStatus.STUCK:
            because = facts.stuck.get(name, "its attempts are used up past the pivot")
            yield Line(
                f"{name} is stuck: {because}, and a person must decide",
                f"towpath saga retry {which} {option} --reason '...' (or skip, with the reply that you know of)",
            )
        case StepStatus.UNDO_STUCK:
            yield Line(
                f"the undo of {name} is stuck: it was not answered in all its attempts",
                f"towpath saga retry {which} {option} --reason '...' (or skip, if you know that it is undone)",
            )
        case StepStatus.UNDO_FAILED:
            yield Line(
                f"the undo of {name} was refused by its participant: it cannot be undone there as things are",
                f"towpath saga retry {which} {option} --reason '...' once that is fixed, or skip once undone by hand",
            )
        case StepStatus.BACKOFF | StepStatus.UNDO_BACKOFF:
            undo = "the undo of " if status is StepStatus.UNDO_BACKOFF else ""
            yield Line(
                f"{undo}{name} was not answered in time; the next attempt goes out at {_moment(due_milliseconds)}",
                f"towpath saga retry {which} {option} --reason '...' sends it now",
            )
            for asked in facts.rests:
                if name == (f"{asked.step} item {asked.item}" if asked.item else asked.step):
                    yield from _before_the_next(facts, asked)
        case StepStatus.WAITING:
            until = f", until {_moment(due_milliseconds)}" if due_milliseconds else ""
            kinds = facts.waits.get(name, ())
            if kinds:
                yield Line(
                    f"{name} waits for {' or '.join(kinds)}{until}",
                    f"towpath saga signal {state.saga} {state.key} {kinds[0]} --value '{{...}}'",
                )
            else:
                yield Line(f"{name} is a delay{until}")


def _of_asked(facts: Facts, asked: Asked) -> Iterator[Line]:
    name = f"{asked.step} item {asked.item}" if asked.item else asked.step
    of = f"the undo of {name}" if asked.undo else name
    until = f"; the attempt ends at {_moment(asked.due_milliseconds)}" if asked.due_milliseconds else ""
    if facts.dead_hold_attempts and (asked.command.letter or asked.command.parked_behind):
        until = f"; its clock stands still while {asked.command.what} is in quarantine"
    yield Line(f"{of} waits for {asked.participant} to answer (attempt {asked.attempt}{until})")
    yield from _where(facts, asked)


def _before_the_next(facts: Facts, asked: Asked) -> Iterator[Line]:
    """Say what holds the last attempt, and would hold the next one, too."""
    yield from _where(facts, asked)
    command, reader = asked.command, asked.command.reader
    if reader is None or command.offset is None or not reader.has_read(command.offset):
        return
    why = reader.still or ("" if reader.members else "it has no worker in its group")
    if why:
        yield Line(f"{reader.worker} stands still, and will not answer the next attempt either: {why}", reader.way_back)


def _where(facts: Facts, asked: Asked) -> Iterator[Line]:
    """Say where a command, or its reply, got to."""
    if asked.child is not None:
        yield Line(f"{asked.participant} is a saga of its own", f"towpath saga why {asked.participant} {asked.child}")
        return
    if asked.recorded:
        yield Line(f"{asked.participant} has carried it out and recorded its reply")
        if asked.reply is not None:
            yield from _on_its_way(asked.reply, facts, to=f"saga {facts.saga}")
        return
    before = len(lines := list(_on_its_way(asked.command, facts, to=asked.participant)))
    yield from lines
    if asked.recorded is False and not before:
        yield Line(
            f"{asked.participant} has read it and recorded no outcome: it is at work on it, or its handler "
            "fails and is tried again",
            f"towpath logs service:{asked.participant}",
        )


def _on_its_way(message: Message, facts: Facts, *, to: str) -> Iterator[Line]:
    """Say where a message got to, and what holds it there; nothing where its reader has it behind."""
    if message.letter is not None:
        yield Line(
            f"{message.what} is a dead letter of {to}, {message.letter}: {message.cause}",
            _of_letter(message.topic, message.letter),
        )
    elif message.parked_behind is not None and message.release is not None:
        yield Line(
            f"{message.what} is parked: its key waits behind {message.parked_behind}, whose dead letter retention has "
            "taken: nothing of this key is carried out until it is released",
            message.release,
        )
    elif message.parked_behind is not None:
        yield Line(
            f"{message.what} is parked: its key waits behind the dead letter {message.parked_behind}",
            _of_letter(message.parked_topic or message.topic, message.parked_behind),
        )
    elif message.offset is None and message.service is not None:
        yield from _not_captured(message, facts.capture.get(message.service))
    elif message.offset is None:
        yield Line(f"{message.what} is not in {message.topic}: its retention is over, or it was not sent yet")
    elif message.reader is not None:
        yield from _not_read(message, message.reader, message.offset)


def _of_letter(topic: str, place: str) -> str:
    """Return what a person can run about a dead letter, which moves what is parked behind it as well."""
    return (
        f"towpath dead show {topic} {place}; after the fix: towpath dead redrive {topic} {place}; or give it up: "
        f"towpath dead drop {topic} {place} --reason '...'"
    )


def _not_captured(message: Message, capture: Capture | None) -> Iterator[Line]:
    if message.written is False:
        yield Line(f"the outbox of {message.service} has no {message.what}: its transaction has not committed")
        return
    yield Line(f"{message.what} lies in the outbox of {message.service}, committed, and is not in {message.topic} yet")
    if capture is None:
        return
    yield Line(_of_capture(message.service, capture), capture.next_step or "towpath capture status")


def _of_capture(service: str | None, capture: Capture) -> str:
    by_slot = {
        "lost": f"the replication slot of {service} is lost: PostgreSQL has let go of what it had not carried",
        "missing": f"the replication slot of {service} does not exist",
    }
    rests = f"the connector of {service} is {str(capture.connector).lower()}"
    by_connector = {
        "FAILED": f"the connector of {service} has failed{f': {capture.trace}' if capture.trace else ''}",
        "PAUSED": rests,
        "STOPPED": rests,
        "missing": f"there is no connector for {service}",
        None: "Kafka Connect does not answer",
    }
    runs = f"capture is running, {capture.lag_bytes} bytes of the write-ahead log behind"
    return by_slot.get(capture.slot) or by_connector.get(capture.connector, runs)


def _not_read(message: Message, reader: Reader, offset: int) -> Iterator[Line]:
    if reader.has_read(offset):
        return
    where = f"{message.topic}[{message.partition}]@{offset}"
    if reader.still:
        yield Line(f"{message.what} lies at {where}, and {reader.worker} stands still: {reader.still}", reader.way_back)
        return
    if not reader.members:
        yield Line(
            f"{message.what} lies at {where}, and {reader.worker} has no worker in its group",
            f"{reader.way_back}; towpath status shows how its process stands",
        )
        return
    at = "nothing yet" if reader.position is None else f"up to {reader.position}"
    behind = reader.end - (reader.position or 0)
    yield Line(
        f"{message.what} lies at {where}; {reader.worker} has read {at} there, {behind} records behind",
        f"towpath status, and towpath logs {reader.worker}: it holds the partition, waits for a dependency, or is busy",
    )


def _overdue(due_milliseconds: int, facts: Facts) -> bool:
    return bool(due_milliseconds) and due_milliseconds < facts.now_milliseconds


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
