"""A saga tested as a conversation: given an event, when something is said, expect what the saga says.

    (
        given(saga, ORDER)
        .expect(VerifyCustomer(...), to=identity)
        .when(CustomerVerified(...))
        ...
        .expect_completed()
    )

The conversation is strict: everything that the saga sends must be expected before the next thing happens and, where
pytest runs the test (towpath.testing.plugin), before the test ends; a repetition (a further attempt of the same
command) may be. Time is virtual, and stands still until it is told to pass.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import Any

from towpath.saga.advance import Decision, advance
from towpath.saga.decision_builder import SAGA_TIMER
from towpath.saga.definition import Definition, Participant
from towpath.saga.durations import to_milliseconds
from towpath.saga.effects import (
    AnswerParent,
    CancelTimer,
    CompensateSaga,
    Happened,
    PublishEvent,
    Record,
    SendCommand,
    Sending,
    SetTimer,
    StartNext,
    StartSaga,
)
from towpath.saga.inputs import (
    Action,
    Hindered,
    Input,
    OperatorAsked,
    ParentAsked,
    PlainInput,
    Replied,
    Signalled,
    Started,
    Timer,
    TimerFired,
    TimerKind,
)
from towpath.saga.language import Saga
from towpath.saga.state import NEED_A_PERSON, Direction, ParentReference, SagaState, Status, StepState, StepStatus
from towpath.saga.testing.differences import message_of, not_found, shown

# An arbitrary, fixed beginning: golden histories hold times, and must not change with the day of the test.
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

begun: ContextVar[list["Conversation"] | None] = ContextVar("towpath_conversations_begun", default=None)
"""Where `given` notes each conversation, for whoever sees to it that none ends with something left over."""

__tracebackhide__ = methodcaller("errisinstance", AssertionError)
"""What failed is a line of the test: pytest leaves these frames out of an assertion, and of nothing else."""

_DOING = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.STUCK, StepStatus.UNKNOWN)
_UNDOING = (StepStatus.UNDOING, StepStatus.UNDO_BACKOFF, StepStatus.UNDO_STUCK)


def given(
    saga: Saga[Any] | Definition,
    event: object,
    *,
    id: str = "start",  # noqa: A002 - the field's name
    key: str = "key",
    parent: ParentReference | None = None,
    at: datetime = BEGINNING,
) -> "Conversation":
    """Begin a conversation by the start event, `at` a time with its zone.

    Raises AssertionError if the saga refuses it.
    """
    definition = saga.definition if isinstance(saga, Saga) else saga
    if not isinstance(definition, Definition):
        raise TypeError(f"{saga!r} is no saga: give the Saga itself, as in given(place_order.saga, event)")
    now = (at - _EPOCH) // timedelta(milliseconds=1)
    made = Conversation(definition, Started(id, now, event, key, parent))
    noted = begun.get()
    if noted is not None:
        noted.append(made)
    return made


class Conversation:
    """One saga, talked to. `inputs` and `decisions` hold what was said so far."""

    def __init__(self, definition: Definition, start: Started) -> None:
        self.definition = definition
        self.now_milliseconds = start.at_milliseconds
        self.inputs: list[Input] = []
        self.decisions: list[Decision] = []
        self._unexpected: list[Sending] = []
        self._repeated: list[Sending] = []
        self._timers: dict[str, tuple[int, Timer]] = {}
        self._failed = False
        self._hear(start)
        started = self.decisions[-1].state is not None
        self._require(started, f"{type(start.event).__name__} does not start {definition.name}")

    @property
    def state(self) -> SagaState:
        """Return the state of the saga now."""
        state = self.decisions[-1].state
        assert state is not None
        return state

    # --- when -------------------------------------------------------------------------------------------------------

    def when(
        self, message: object, *, step: str | None = None, item: str = "", attempt: int | None = None
    ) -> "Conversation":
        """Say a reply, or a signal that a wait declares.

        A reply goes to the command that is out and declares its class; name the `step` (and the `item`) if several
        are. `attempt` is by default that of the command last sent.
        """
        if step is None and type(message) in self.definition.signals:
            return self._say(lambda id_, at: Signalled(id_, at, message))
        key, cell, direction = self._addressee(message, step, item)
        tried = cell.attempt if attempt is None else attempt
        return self._say(lambda id_, at: Replied(id_, at, key, direction, tried, cell.round, message, item))

    def when_time_passes(self, duration: timedelta) -> "Conversation":
        """Let time pass; timers that fall due on the way fire, each at its own time, in order."""
        self._nothing_unexpected()
        if not isinstance(duration, timedelta) or duration < timedelta(0):
            raise TypeError(f"{duration!r} is no time that passes: give it one, as in hours(2)")
        until = self.now_milliseconds + to_milliseconds(duration)
        while self._timers and min(due for due, _ in self._timers.values()) <= until:
            self._fire_next()
        self.now_milliseconds = until
        return self

    def when_next_timer_fires(self) -> "Conversation":
        """Let time pass until the next timer falls due."""
        self._nothing_unexpected()
        self._require(bool(self._timers), "no timer runs")
        return self._fire_next()

    def when_timer_fires(self, step: str, kind: TimerKind | None = None) -> "Conversation":
        """Let time pass until a timer of `step` fires: any, or one of that `kind`.

        What falls due before it fires before it, each at its own time, as it would. Raises AssertionError where it
        never falls due before the saga stands otherwise than now.
        """
        self._nothing_unexpected()
        self._require_step(step)
        status = self.state.status
        while self._timers and self.state.status is status:
            timer = self._next_timer()
            self._fire_next()
            if timer.step == step and kind in (None, timer.kind):
                return self
        self._require(False, f"no such timer of {step} fires; there are: {self._timer_words()}\n{self._step_words()}")
        return self

    def when_its_deadline_passes(self) -> "Conversation":
        """Let the saga's own deadline fire, before any other timer (after a long outage all are due at once)."""
        self._nothing_unexpected()
        self.now_milliseconds = max(self.now_milliseconds, self.state.deadline_milliseconds)
        self._timers.pop(SAGA_TIMER.key, None)
        return self._hear(TimerFired(self._next_id(), self.now_milliseconds, SAGA_TIMER))

    def when_nobody_answers(self) -> "Conversation":
        """Let time pass until the saga says something, or stands otherwise than before."""
        self._nothing_unexpected()
        status = self.state.status
        while self._timers and self.state.status is status and not self._unexpected and not self._repeated:
            self._fire_next()
        return self

    def when_nobody_answers_until(self, status: Status) -> "Conversation":
        """Let time pass until the saga stands so, whatever it repeats meanwhile."""
        self._nothing_unexpected()
        while self.state.status is not status:
            self._require(bool(self._timers), f"no timer runs, and the saga is {self.state.status.value}")
            self._fire_next()
        return self

    def when_asked(
        self,
        action: Action,
        *,
        by: str = "ada",
        because: str = "test",
        step: str = "",
        item: str = "",
        reply: object = None,
        direction: Direction = Direction.DO,
        attempt: int = 0,
        round: int = 0,  # noqa: A002 - the field's name
    ) -> "Conversation":
        """Let a person ask for something; of a step, `direction`, `attempt` and `round` say what they saw of it."""
        seen = (direction, attempt, round)
        return self._say(lambda id_, at: OperatorAsked(id_, at, action, by, because, step, item, reply, *seen))

    def when_parent_asks(self, parent: ParentReference) -> "Conversation":
        """Let the parent of this sub-saga ask it to compensate."""
        return self._say(lambda id_, at: ParentAsked(id_, at, parent))

    def when_repeated(self, back: int = 1) -> "Conversation":
        """Deliver an earlier input once more: the last one, or the one `back` inputs ago."""
        self._nothing_unexpected()
        return self._hear(self.inputs[-back])

    def when_given(self, input_: Input) -> "Conversation":
        """Deliver any input at all; its time is taken to be now."""
        self._nothing_unexpected()
        plain: PlainInput = input_.input if isinstance(input_, Hindered) else input_
        plain = replace(plain, at_milliseconds=self.now_milliseconds)
        return self._hear(replace(input_, input=plain) if isinstance(input_, Hindered) else plain)

    # --- expect -----------------------------------------------------------------------------------------------------

    def expect(
        self,
        command: object,
        *,
        to: Participant | str | None = None,
        where: Callable[[Any], bool] | None = None,
    ) -> "Conversation":
        """Expect that the saga has sent this command (or started a sub-saga with this event), in any order.

        `command` is the record itself, or its class, or a function that says of a record whether it is the one;
        `where` is a further condition, as in `.expect(ReserveStock, where=lambda asked: asked.order_id == "o-1")`.
        """
        named = to.name if isinstance(to, Participant) else to
        fits = _fitting(command, where)

        def is_it(said: Sending) -> bool:
            return isinstance(said, SendCommand | StartSaga) and fits(message_of(said))

        def is_there(said: Sending) -> bool:
            receiver = said.participant if isinstance(said, SendCommand) else getattr(said, "child", "")
            return is_it(said) and named in (None, receiver)

        return self._take(is_there, command, named, is_it)

    def expect_compensates(self, child: str) -> "Conversation":
        """Expect that the saga has asked its sub-saga `child` to compensate."""

        def is_it(said: Sending) -> bool:
            return isinstance(said, CompensateSaga) and said.child == child

        return self._take(is_it, f"{child} to be asked to compensate")

    def expect_answer(self, reply: object) -> "Conversation":
        """Expect that this sub-saga has told its parent how it ended."""

        def is_it(said: Sending) -> bool:
            return isinstance(said, AnswerParent) and said.reply == reply

        return self._take(is_it, reply, "the parent")

    def expect_event(self, event: object, *, where: Callable[[Any], bool] | None = None) -> "Conversation":
        """Expect that the saga has published this event: the record, its class or a function, as in `expect`."""
        fits = _fitting(event, where)

        def is_it(said: Sending) -> bool:
            return isinstance(said, PublishEvent) and fits(said.event)

        return self._take(is_it, event, "its own events")

    def expect_next(
        self, event: object, *, key: str | None = None, where: Callable[[Any], bool] | None = None
    ) -> "Conversation":
        """Expect that the saga has started its next instance with this event, as in `expect` (under this key)."""
        fits = _fitting(event, where)

        def is_it(said: Sending) -> bool:
            return isinstance(said, StartNext) and fits(said.event) and key in (None, said.next_key)

        return self._take(is_it, event, "this saga, as its next instance")

    def expect_nothing(self) -> "Conversation":
        """Expect that nothing is sent but what was expected."""
        self._nothing_unexpected()
        return self

    def expect_anything(self) -> "Conversation":
        """Take note of nothing that has been sent."""
        self._unexpected.clear()
        return self

    def expect_refused(self, *words: str) -> "Conversation":
        """Expect that the last input was refused, for a reason that holds these words."""
        entry = self._entry()
        taken = f"{entry.happened.value} {entry.detail}{f' of step {entry.step}' if entry.step else ''}"
        self._require(entry.happened is Happened.REFUSED, f"expected a refusal, but it was taken: {taken}")
        missing = [word for word in words if word not in entry.reason]
        self._require(not missing, f"refused, but {missing} not in {entry.reason!r}")
        return self

    def expect_status(self, status: Status) -> "Conversation":
        """Expect that the saga now stands so."""
        self._require(
            self.state.status is status,
            f"expected {status.value}, the saga is {self.state.status.value}\n{self._step_words()}",
        )
        return self

    def expect_step(self, key: str, status: StepStatus) -> "Conversation":
        """Expect that a step now stands so."""
        found = self.state.step(key).status
        self._require(
            found is status, f"expected {key} to be {status.value}, it is {found.value}\n{self._step_words()}"
        )
        return self

    def expect_stuck(self, *steps: str) -> "Conversation":
        """Expect that the saga is stuck, at exactly these steps if any are named."""
        self.expect_status(Status.STUCK)
        stuck = [step.key for step in self.state.steps if step.status in NEED_A_PERSON]
        self._require(not steps or sorted(steps) == sorted(stuck), f"stuck at {stuck}")
        return self

    def expect_completed(self) -> "Conversation":
        """Expect that the saga has completed, with nothing left to say and no timer running."""
        return self._expect_ended(Status.COMPLETED)

    def expect_compensated(self) -> "Conversation":
        """Expect that all is undone, with nothing left to say and no timer running."""
        return self._expect_ended(Status.COMPENSATED)

    # --- how --------------------------------------------------------------------------------------------------------

    def _expect_ended(self, status: Status) -> "Conversation":
        self._nothing_unexpected()
        self.expect_status(status)
        self._require(not self._timers, f"the saga has ended, and timers still run: {self._timer_words()}")
        return self

    @property
    def left_over(self) -> str:
        """Return what was sent and never expected, in words; empty where there is nothing, or something failed."""
        return "" if self._failed or not self._unexpected else shown(self._unexpected)

    def _require(self, holds: bool, words: str) -> None:
        """Raise AssertionError unless `holds`; a conversation that has failed once is not held to its end."""
        if not holds:
            self._failed = True
            raise AssertionError(words)

    def _require_step(self, step: str | None) -> None:
        """Raise AssertionError for the name of no step; none at all is right."""
        if step and step not in self.definition.index:
            self._require(False, f"there is no step {step}; there are:\n{self._step_words()}")

    def _take(
        self,
        is_wanted: Callable[[Sending], bool],
        wanted: object,
        to: str | None = None,
        matches: Callable[[Sending], bool] | None = None,
    ) -> "Conversation":
        """Take note of the first message that is wanted. Raises AssertionError that says what came instead."""
        for waiting in (self._unexpected, self._repeated):
            for place, said in enumerate(waiting):
                if is_wanted(said):
                    del waiting[place]
                    return self
        sent = [*self._unexpected, *self._repeated]
        self._failed = True
        raise AssertionError(not_found(wanted, to, sent, matches or is_wanted))

    def _entry(self) -> Record:
        entry = self.decisions[-1].effects[0]
        assert isinstance(entry, Record)
        return entry

    def _next_id(self) -> str:
        return f"input-{len(self.inputs)}"

    def _say(self, make: Callable[[str, int], Input]) -> "Conversation":
        self._nothing_unexpected()
        return self._hear(make(self._next_id(), self.now_milliseconds))

    def _hear(self, input_: Input) -> "Conversation":
        before = self.decisions[-1].state if self.decisions else None
        decision = advance(self.definition, before, input_)
        self.inputs.append(input_)
        self.decisions.append(decision)
        for effect in decision.effects:
            match effect:
                case SendCommand() | StartSaga() | CompensateSaga() if effect.attempt > 1:
                    self._repeated.append(effect)
                case SendCommand() | StartSaga() | CompensateSaga() | AnswerParent() | PublishEvent() | StartNext():
                    self._unexpected.append(effect)
                case SetTimer():
                    self._timers[effect.timer.key] = (effect.due_milliseconds, effect.timer)
                case CancelTimer():
                    del self._timers[effect.timer.key]
                case _:
                    pass
        return self

    def _next_timer(self) -> Timer:
        return min(self._timers.values(), key=lambda entry: (entry[0], entry[1].key))[1]

    def _fire_next(self) -> "Conversation":
        timer = self._next_timer()
        due, _ = self._timers.pop(timer.key)
        self.now_milliseconds = max(self.now_milliseconds, due)
        return self._hear(TimerFired(self._next_id(), self.now_milliseconds, timer))

    def _addressee(self, message: object, step: str | None, item: str) -> tuple[str, StepState, Direction]:
        """Return step, cell and direction of the command that a reply answers."""
        self._require_step(step)
        found: list[tuple[str, StepState, Direction]] = []
        for defined, state in zip(self.definition.steps, self.state.steps, strict=True):
            cell = next((cell for cell in state.items if cell.key == item), state) if item else state
            undo = defined.undo.outcomes if defined.undo is not None else {}
            if step is not None and step != defined.key:
                continue
            if cell.status in _DOING and type(message) in defined.outcomes:
                found.append((defined.key, cell, Direction.DO))
            elif cell.status in _UNDOING and type(message) in undo:
                found.append((defined.key, cell, Direction.UNDO))
        if len(found) != 1:
            self._require(False, f"{self._not_one(message, [key for key, _, _ in found])}\n{self._step_words()}")
        self._judge_item(*found[0][:2], item)
        return found[0]

    def _not_one(self, message: object, steps: Sequence[str]) -> str:
        """Say why a reply answers no command, or several."""
        name = message.__name__ if isinstance(message, type) else type(message).__name__
        if steps:
            return f"{name} answers one command that is out; there are: {', '.join(steps)}. Name the step"
        if isinstance(message, type):
            return f"{name} is a class: say a record of it, as in .when({name}(...))"
        return f"{name} answers one command that is out; there are: none"

    def _judge_item(self, key: str, cell: StepState, item: str) -> None:
        """A reply about an item names one that there is: another would be refused, and the test go on as if it came."""
        items = [each.key for each in cell.items]
        if items or (item and cell.key != item):
            there = f"say item= one of {', '.join(map(repr, items))}" if items else "it is no list: leave item= out"
            self._require(False, f"step {key} has no item {item!r}; {there}")

    def _step_words(self) -> str:
        """Return how each step stands, in lines."""
        return "\n".join(f"  {step.key}: {step.status.value}" for step in self.state.steps)

    def _timer_words(self) -> str:
        running = sorted(self._timers.values(), key=lambda entry: (entry[0], entry[1].key))
        return ", ".join(f"{timer.kind.value} of {timer.step or 'the saga'}" for _, timer in running) or "none"

    def _nothing_unexpected(self) -> None:
        self._require(not self._unexpected, f"the saga also sent what was not expected:\n{shown(self._unexpected)}")
        self._repeated.clear()


def _fitting(wanted: object, where: Callable[[Any], bool] | None) -> Callable[[object], bool]:
    """Return whether a message is the wanted one: equal to it, of its class, or one for which it holds."""

    def fits(message: object) -> bool:
        if isinstance(wanted, type):
            is_it = isinstance(message, wanted)
        else:
            is_it = bool(wanted(message)) if callable(wanted) else message == wanted
        return is_it and (where is None or where(message))

    return fits
