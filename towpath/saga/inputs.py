"""All that can happen to a saga. Each carries `id` (the message's) and `at_milliseconds` (the record's own time)."""

from enum import StrEnum

from towpath.saga.state import Direction, ParentReference
from towpath.saga.value import value


class TimerKind(StrEnum):
    """What a timer is for."""

    ATTEMPT = "attempt"  # one attempt of a command was not answered in time
    BACKOFF = "backoff"  # the pause before the next attempt is over
    WAIT = "wait"  # a wait was not answered in time, or a delay is over
    SAGA = "saga"  # the deadline of the whole saga


@value
class Timer:
    """The identity of a timer; `key` is unique within its saga for ever, since attempts and rounds only grow."""

    kind: TimerKind
    step: str = ""
    item: str = ""
    direction: Direction = Direction.DO
    attempt: int = 0
    round: int = 0

    @property
    def key(self) -> str:
        """Return the identity as text; no part may hold a colon."""
        # `_value_`: `value` is looked up in the enum at each call.
        return f"{self.kind._value_}:{self.step}:{self.item}:{self.direction._value_}:{self.attempt}:{self.round}"


@value
class Started:
    """The start event arrived. `id` is the event's, and the saga's id is derived from it.

    `refused` says why the saga is not to begin (its key has an instance already): it then only undoes the start.
    """

    id: str
    at_milliseconds: int
    event: object
    key: str
    parent: ParentReference | None = None
    headers: tuple[tuple[str, str], ...] = ()
    refused: str = ""


@value
class Replied:
    """A participant answered; step, item, direction, attempt and round are those of the command it answers."""

    id: str
    at_milliseconds: int
    step: str
    direction: Direction
    attempt: int
    round: int
    reply: object
    item: str = ""


@value
class TimerFired:
    """A timer that the machine set fell due, and every input known at that time was applied before."""

    id: str
    at_milliseconds: int
    timer: Timer


@value
class Signalled:
    """An event or a person's decision that a wait may be waiting for; its class says which."""

    id: str
    at_milliseconds: int
    signal: object


class Action(StrEnum):
    """What a person may ask of a saga."""

    RETRY = "retry"  # try a step again
    SKIP = "skip"  # take this reply as the step's
    COMPENSATE = "compensate"  # give up and undo
    CANCEL = "cancel"  # the business no longer wants it: undo
    RESUME = "resume"  # the cause is fixed: retry every step that is stuck


@value
class OperatorAsked:
    """A person asked for something; who and why are part of it, and of the history.

    About a step, `direction`, `attempt` and `round` say what the person saw of it; attempt 0 leaves that unsaid.
    """

    id: str
    at_milliseconds: int
    action: Action
    actor: str
    reason: str
    step: str = ""
    item: str = ""
    reply: object | None = None
    direction: Direction = Direction.DO
    attempt: int = 0
    round: int = 0


@value
class ParentAsked:
    """The parent of this sub-saga compensates: undo what was done, and answer `parent`."""

    id: str
    at_milliseconds: int
    parent: ParentReference


@value
class UpgradeAsked:
    """A person asked that the instance goes on under another version of its definition (`towpath.saga.migrate`)."""

    id: str
    at_milliseconds: int
    version: int
    actor: str
    reason: str


@value
class Unrecognised:
    """Something else arrived for this saga; `what` names it (its class, not its content)."""

    id: str
    at_milliseconds: int
    what: str


PlainInput = Started | Replied | TimerFired | Signalled | OperatorAsked | ParentAsked | UpgradeAsked | Unrecognised


@value
class Unfit:
    """What `input` leads to cannot be written: the state, or a message, would be larger than its topic takes.

    `reason` says which, and how large; the history carries it.
    """

    input: PlainInput
    reason: str

    @property
    def id(self) -> str:
        """Return the id of the input."""
        return self.input.id

    @property
    def at_milliseconds(self) -> int:
        """Return the time of the input."""
        return self.input.at_milliseconds


@value
class Undecidable:
    """A function of the definition raises on `input`, or builds what breaks its contract, and whoever gave it is told.

    `reason` says which; the history carries it. A function that is fixed later may decide; that it did not stays so.
    """

    input: PlainInput
    reason: str

    @property
    def id(self) -> str:
        """Return the id of the input."""
        return self.input.id

    @property
    def at_milliseconds(self) -> int:
        """Return the time of the input."""
        return self.input.at_milliseconds


Hindered = Unfit | Undecidable
"""An input that cannot be carried out, for a reason that lies outside the machine."""
HINDERED: dict[str, type[Hindered]] = {kind.__name__: kind for kind in (Unfit, Undecidable)}

Input = PlainInput | Hindered
