"""What a definition is written with, besides `Saga` itself: handles, undos, and the options that steps share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, Required, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from towpath.saga.definition import OnTimeout, Participant
from towpath.saga.errors import DefinitionError
from towpath.saga.options import judge_builder, judge_words
from towpath.saga.parts import Backoff, ProlongParts, RemindParts, UndoParts
from towpath.saga.rules import Draft
from towpath.saga.spelling import spelt
from towpath.saga.state import Cause

StartT = TypeVar("StartT")
ResultT = TypeVar("ResultT")
OtherT = TypeVar("OtherT")
ThirdT = TypeVar("ThirdT")
ItemT = TypeVar("ItemT")
ResultTs = TypeVarTuple("ResultTs")

COMPENSATE: Final = OnTimeout.COMPENSATE
PROCEED: Final = OnTimeout.PROCEED
HALT: Final = OnTimeout.HALT

Classes = type[Any] | tuple[type[Any], ...]


class Needs(Generic[StartT, *ResultTs]):
    """Handles joined by `&`, in order; a single handle is one too."""

    def __init__(self, draft: Draft, positions: tuple[int, ...]) -> None:
        self.draft = draft
        self.positions = positions

    def __and__(self, other: "Step[StartT, OtherT]") -> "Needs[StartT, *ResultTs, OtherT]":
        """Need `other` as well: its result comes after those named so far."""
        if not isinstance(other, Step) or other.draft is not self.draft:
            raise DefinitionError(
                f"saga {self.draft.name}: & joins a handle of this saga to {other!r}",
                next_step="join handles that methods of this saga returned",
            )
        return Needs(self.draft, self.positions + other.positions)


class Step(Needs[StartT, ResultT]):
    """The handle of a step whose result is a ResultT; None is part of it where the step may be skipped."""

    @property
    def key(self) -> str:
        """Return the step's stable key."""
        return self.draft.steps[self.positions[0]].key

    def __repr__(self) -> str:
        return f"<step {self.key} of saga {self.draft.name}>"


AnyNeeds = Needs[StartT, *tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class OneOf(Generic[ResultT]):
    """Several classes that all let the saga go on; `one_of` makes it."""

    classes: tuple[type, ...]
    tolerated: tuple[type, ...] = ()


@dataclass(frozen=True, slots=True)
class Tolerated(Generic[ResultT]):
    """A business failure with which the saga goes on; `tolerated` makes it."""

    kind: type[ResultT]


def tolerated(failure: type[ResultT]) -> Tolerated[ResultT]:
    """Declare a business failure with which the saga goes on: it is the step's result, and nothing is left to undo."""
    return Tolerated(failure)


@overload
def one_of(
    first: type[ResultT] | Tolerated[ResultT], second: type[OtherT] | Tolerated[OtherT], /
) -> OneOf[ResultT | OtherT]: ...
@overload
def one_of(
    first: type[ResultT] | Tolerated[ResultT],
    second: type[OtherT] | Tolerated[OtherT],
    third: type[ThirdT] | Tolerated[ThirdT],
    /,
) -> OneOf[ResultT | OtherT | ThirdT]: ...
def one_of(*kinds: Any) -> OneOf[Any]:
    """Declare that any of two or three classes lets the saga go on; the result is then one of them."""
    classes = tuple(kind.kind if isinstance(kind, Tolerated) else kind for kind in kinds)
    return OneOf(classes, tuple(kind.kind for kind in kinds if isinstance(kind, Tolerated)))


Success = type[ResultT] | OneOf[ResultT]


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Says that a step changes nothing that would have to be undone."""


NO_EFFECT: Final = NoEffect()


@spelt
class Prolong:
    """An event that moves the deadline of a wait that is under way `by` so much, at most `times` times."""

    def __init__(self, on: type[Any], by: timedelta, times: int) -> None:
        judge_words("a wait", "Prolong", {"on": on, "by": by, "times": times})
        self.parts = ProlongParts(on, by, times)


@spelt
class Remind:
    """An event that a wait publishes `every` so often while nobody answers, at most `times` times.

    Its function receives the start event, what the wait needs, then the number of the reminder, from 1.
    """

    def __init__(
        self,
        reminder: Callable[..., object],
        *,
        event: type[Any],
        every: timedelta,
        times: int,
    ) -> None:
        where = f"the reminder {getattr(reminder, '__name__', reminder)}"
        judge_words(where, "Remind", {"event": event, "every": every, "times": times})
        judge_builder(where, reminder)
        self.parts = RemindParts(reminder, event, every, times)


class Timing(TypedDict, total=False):
    """How long and how often: `within` for one attempt; a round ends at `attempts`, or after `retry_for`."""

    within: Required[timedelta]
    attempts: int
    retry_for: timedelta
    backoff: Backoff


class UndoTiming(TypedDict, total=False):
    """An undo's own policy; by default the step's `within`, retried for a day."""

    within: timedelta
    attempts: int
    retry_for: timedelta
    backoff: Backoff


class Options(TypedDict, Generic[StartT], total=False):
    """What any step may say: order, a stable key, and the resources that it locks (`holds`) or merely uses."""

    after: Needs[StartT, *tuple[Any, ...]]
    key: str
    holds: str | tuple[str, ...]
    touches: str | tuple[str, ...]


class GatherOptions(TypedDict, Generic[StartT], total=False):
    """What a wait that gathers signals may say: how many at most, how long, and what turns the saga round."""

    limit: Required[int]
    within: Required[timedelta]
    fails: type[Any] | tuple[type[Any], ...]
    after: Needs[StartT, *tuple[Any, ...]]
    reminds: Remind


class RetriableOptions(Options[StartT], Timing, Generic[StartT], total=False):
    """What a step past the pivot may say: it has no business failure."""


class StepOptions(Options[StartT], Timing, Generic[StartT], total=False):
    """What a step that may fail may say."""

    fails: type[Any] | tuple[type[Any], ...]


@spelt
class Undo(Generic[StartT]):
    """How a step is undone: a command to the same participant, and the reply that says it is undone.

    Its function receives the start event and the results that its own `needs` names. These must come before the step
    in the graph; the step's own result is not among them, since its outcome may be unknown (the participant knows it:
    an undo names the command that it undoes). A reply in `fails` says that it cannot be undone, and calls a person.
    Undos run in reverse order of the graph; `in_order=False` says that this one need not wait for any other, and none
    for it.
    """

    @overload
    def __init__(
        self,
        command: Callable[[StartT], object],
        *,
        succeeds: type[Any],
        fails: Classes = (),
        in_order: bool = True,
        **timing: Unpack[UndoTiming],
    ) -> None: ...
    @overload
    def __init__(
        self,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        succeeds: type[Any],
        fails: Classes = (),
        in_order: bool = True,
        **timing: Unpack[UndoTiming],
    ) -> None: ...
    def __init__(
        self,
        command: Callable[..., object],
        *,
        needs: Any = None,
        succeeds: type[Any],
        fails: Classes = (),
        in_order: bool = True,
        **timing: Unpack[UndoTiming],
    ) -> None:
        self.parts = UndoParts(
            command, succeeds, classes_of(fails), needs, None, _judged("Undo", command, timing), in_order=in_order
        )


@spelt
class UndoEach(Generic[StartT, ItemT]):
    """How one item of an `each` is undone: as `Undo`, but the function receives the item last."""

    @overload
    def __init__(
        self,
        command: Callable[[StartT, ItemT], object],
        *,
        succeeds: type[Any],
        fails: Classes = (),
        in_order: bool = True,
        **timing: Unpack[UndoTiming],
    ) -> None: ...
    @overload
    def __init__(
        self,
        command: Callable[[StartT, *ResultTs, ItemT], object],
        *,
        needs: Needs[StartT, *ResultTs],
        succeeds: type[Any],
        fails: Classes = (),
        in_order: bool = True,
        **timing: Unpack[UndoTiming],
    ) -> None: ...
    def __init__(
        self,
        command: Callable[..., object],
        *,
        needs: Any = None,
        succeeds: type[Any],
        fails: Classes = (),
        in_order: bool = True,
        **timing: Unpack[UndoTiming],
    ) -> None:
        self.parts = UndoParts(
            command, succeeds, classes_of(fails), needs, None, _judged("Undo", command, timing), in_order=in_order
        )


@spelt
class UndoStart(Generic[StartT]):
    """How the start event is undone if the saga does not complete; the function receives the event and the cause.

    A start that is refused because its key has an instance already (`second_start`) does not complete either: it is
    undone, with a cause of the kind REFUSED. Say `when_refused=False` where that would undo what the first start stands
    for, as rejecting an order because it was announced twice.
    """

    def __init__(
        self,
        command: Callable[[StartT, Cause], object],
        *,
        by: Participant,
        succeeds: type[Any],
        fails: Classes = (),
        when_refused: bool = True,
        **timing: Unpack[Timing],
    ) -> None:
        self.parts = UndoParts(
            command, succeeds, classes_of(fails), None, by, _judged("UndoStart", command, timing), when_refused
        )


def _judged(method: str, command: Callable[..., object], timing: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the timing of an undo, whose words are known. Raises DefinitionError."""
    where = f"the undo {getattr(command, '__name__', command)}"
    judge_builder(where, command)
    judge_words(where, method, timing)
    return timing


def classes_of(declared: Any) -> tuple[Any, ...]:
    """Return the classes that `succeeds` or `fails` names."""
    if isinstance(declared, OneOf):
        return declared.classes
    return declared if isinstance(declared, tuple) else (declared,)


def tolerated_in(declared: Any) -> tuple[type, ...]:
    """Return the failures that `succeeds` names as tolerated."""
    return declared.tolerated if isinstance(declared, OneOf) else ()


def names_of(declared: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the resources that `holds` or `touches` names."""
    return (declared,) if isinstance(declared, str) else declared
