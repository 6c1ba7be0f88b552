"""A saga tested as a conversation: given an event, when something is said, expect what the saga says.

    (
        given(saga, ORDER)
        .expect(VerifyCustomer(...), to=identity)
        .when(CustomerVerified(...))
        ...
        .expect_completed()
    )

The conversation is strict: everything that the saga sends must be expected before the next thing happens, except that
a repetition (a further attempt of the same command) may be. Time is virtual, and stands still until it is told to pass.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
    SetTimer,
    StartSaga,
)
from towpath.saga.inputs import (
    Action,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    Timer,
    TimerFired,
)
from towpath.saga.language import Saga
from towpath.saga.state import Direction, ParentReference, SagaState, Status, StepState, StepStatus

# An arbitrary, fixed beginning: golden histories hold times, and must not change with the day of the test.
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Said = SendCommand | StartSaga | CompensateSaga | AnswerParent | PublishEvent

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
    now = (at - _EPOCH) // timedelta(milliseconds=1)
    return Conversation(saga.definition if isinstance(saga, Saga) else saga, Started(id, now, event, key, parent))


class Conversation:
    """One saga, talked to. `inputs` and `decisions` hold what was said so far."""

    def __init__(self, definition: Definition, start: Started) -> None:
        self.definition = definition
        self.now_milliseconds = start.at_milliseconds
        self.inputs: list[Input] = []
        self.decisions: list[Decision] = []
        self._unexpected: list[Said] = []
        self._repeated: list[Said] = []
        self._timers: dict[str, tuple[int, Timer]] = {}
        self._hear(start)
        assert self.decisions[-1].state is not None, f"{type(start.event).__name__} does not start {definition.name}"

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
        until = self.now_milliseconds + to_milliseconds(duration)
        while self._timers and min(due for due, _ in self._timers.values()) <= until:
            self._fire_next()
        self.now_milliseconds = until
        return self

    def when_next_timer_fires(self) -> "Conversation":
        """Let time pass until the next timer falls due."""
        self._nothing_unexpected()
        assert self._timers, "no timer runs"
        return self._fire_next()

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
            assert self._timers, f"no timer runs, and the saga is {self.state.status.value}"
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
        return self._hear(replace(input_, at_milliseconds=self.now_milliseconds))

    # --- expect -----------------------------------------------------------------------------------------------------

    def expect(self, command: object, *, to: Participant | str | None = None) -> "Conversation":
        """Expect that the saga has sent this command (or started a sub-saga with this event), in any order."""
        named = to.name if isinstance(to, Participant) else to
        for sent in (*self._unexpected, *self._repeated):
            if isinstance(sent, SendCommand) and sent.command == command:
                asked = sent.participant
            elif isinstance(sent, StartSaga) and sent.event == command:
                asked = sent.child
            else:
                continue
            assert named is None or named == asked, f"{command!r} was sent to {asked}, not to {named}"
            return self._expected(sent)
        raise AssertionError(f"expected {command!r}; {self._waiting_words()}")

    def expect_compensates(self, child: str) -> "Conversation":
        """Expect that the saga has asked its sub-saga `child` to compensate."""
        for sent in (*self._unexpected, *self._repeated):
            if isinstance(sent, CompensateSaga) and sent.child == child:
                return self._expected(sent)
        raise AssertionError(f"expected {child} to be asked to compensate; {self._waiting_words()}")

    def expect_answer(self, reply: object) -> "Conversation":
        """Expect that this sub-saga has told its parent how it ended."""
        for sent in self._unexpected:
            if isinstance(sent, AnswerParent) and sent.reply == reply:
                return self._expected(sent)
        raise AssertionError(f"expected {reply!r} to the parent; {self._waiting_words()}")

    def expect_event(self, event: object) -> "Conversation":
        """Expect that the saga has published this event."""
        for sent in self._unexpected:
            if isinstance(sent, PublishEvent) and sent.event == event:
                return self._expected(sent)
        raise AssertionError(f"expected that {event!r} is published; {self._waiting_words()}")

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
        assert entry.happened is Happened.REFUSED, f"expected a refusal, but it was taken: {entry}"
        missing = [word for word in words if word not in entry.reason]
        assert not missing, f"refused, but {missing} not in {entry.reason!r}"
        return self

    def expect_status(self, status: Status) -> "Conversation":
        """Expect that the saga now stands so."""
        assert self.state.status is status, f"expected {status.value}, the saga is {self.state.status.value}"
        return self

    def expect_step(self, key: str, status: StepStatus) -> "Conversation":
        """Expect that a step now stands so."""
        found = self.state.step(key).status
        assert found is status, f"expected {key} to be {status.value}, it is {found.value}"
        return self

    def expect_stuck(self, *steps: str) -> "Conversation":
        """Expect that the saga is stuck, at exactly these steps if any are named."""
        self.expect_status(Status.STUCK)
        needing = (StepStatus.STUCK, StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED)
        stuck = [step.key for step in self.state.steps if step.status in needing]
        assert not steps or sorted(steps) == sorted(stuck), f"stuck at {stuck}"
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
        assert not self._timers, f"the saga has ended, and timers still run: {sorted(self._timers)}"
        return self

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
                case SendCommand() | StartSaga() | CompensateSaga() | AnswerParent() | PublishEvent():
                    self._unexpected.append(effect)
                case SetTimer():
                    self._timers[effect.timer.key] = (effect.due_milliseconds, effect.timer)
                case CancelTimer():
                    del self._timers[effect.timer.key]
                case _:
                    pass
        return self

    def _fire_next(self) -> "Conversation":
        due, timer = min(self._timers.values(), key=lambda entry: (entry[0], entry[1].key))
        del self._timers[timer.key]
        self.now_milliseconds = max(self.now_milliseconds, due)
        return self._hear(TimerFired(self._next_id(), self.now_milliseconds, timer))

    def _expected(self, sent: Said) -> "Conversation":
        (self._unexpected if sent in self._unexpected else self._repeated).remove(sent)
        return self

    def _addressee(self, message: object, step: str | None, item: str) -> tuple[str, StepState, Direction]:
        """Return step, cell and direction of the command that a reply answers."""
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
            name = type(message).__name__
            among = ", ".join(key for key, _, _ in found) or "none"
            raise AssertionError(f"{name} answers one command that is out; there are: {among}. Name the step.")
        return found[0]

    def _waiting_words(self) -> str:
        return f"sent and not yet expected: {self._unexpected + self._repeated or 'nothing'}"

    def _nothing_unexpected(self) -> None:
        assert not self._unexpected, f"the saga also sent what was not expected: {self._unexpected}"
        self._repeated.clear()
