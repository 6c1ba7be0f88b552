"""The world outside a saga, simulated: participants with their inboxes, messages in flight, timers, people.

Rule of this file: the world may do whatever a real one may (answer late, twice, out of order, or not at all; repeat
commands; fire timers early; cancel at any moment) and nothing that it may not (a participant keeps its contract: one
outcome for each idempotency key, and an undo that comes first makes the late command do nothing). After every decision
it asserts what must always hold; see `_judge`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from towpath.saga.advance import Decision, advance
from towpath.saga.decision_builder import SAGA_TIMER, timer_of
from towpath.saga.definition import Definition, Kind
from towpath.saga.effects import (
    CancelTimer,
    CompensateSaga,
    Effect,
    Finish,
    Happened,
    Record,
    SendCommand,
    SetTimer,
    StartSaga,
)
from towpath.saga.inputs import Action, Input, OperatorAsked, Replied, Signalled, Started, Timer, TimerFired
from towpath.saga.state import Direction, SagaState, Status, StepStatus
from towpath.saga.testing.samples import sample

SETTLED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.DECLINED)
Sampler = Callable[[type], Any]


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command, an undo or a request to a sub-saga that has been sent."""

    step: str
    item: str
    direction: Direction
    attempt: int
    round: int


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that may happen next. `adverse`: a fault, a repetition, or a person; not the usual course."""

    name: str
    adverse: bool
    happen: Callable[[], Decision | None]


class World:
    """One saga in a world. `moves()` says what may happen next; each is made by calling it."""

    def __init__(self, definition: Definition, sampler: Sampler = sample, event: object | None = None) -> None:
        self.definition = definition
        self.sampler = sampler
        self.state: SagaState | None = None
        self.now = 0
        self.unread: list[SentCommand] = []  # commands on their way to a participant
        self.replies: list[Replied] = []  # on their way to the saga
        self.delivered: list[Input] = []
        self.timers: dict[str, tuple[Timer, int]] = {}
        self.outcomes: dict[SentCommand, type] = {}  # the inboxes: keyed by attempt 0, all attempts share it
        self.done: set[tuple[str, str]] = set()  # effects that exist at participants now
        self.by_hand: set[tuple[str, str]] = set()  # a person has undone them, whenever they come about
        self.log: list[tuple[Input, Decision]] = []
        self.finished: list[Status] = []
        self.made: list[str] = []  # names of the moves, for whoever makes them
        self._ids = 0
        self.give(Started("start", 0, sampler(definition.starts_on) if event is None else event, "key"))

    # --- what may happen --------------------------------------------------------------------------------------------

    def moves(self) -> list[Move]:
        """Return everything that may happen next."""
        return [*self._usual(), *self._adverse()]

    def _usual(self) -> list[Move]:
        moves = [
            Move(f"{sent.step} answers {reply.__name__}", False, self._executing(sent, reply))
            for sent in self.unread
            for reply in self._may_answer(sent)
        ]
        moves += [Move(f"{reply.step} is heard", False, self._delivering(reply)) for reply in self.replies]
        moves += [
            Move(f"{signal.__name__} arrives", False, self._giving(Signalled, self.sampler(signal)))
            for signal, position in self.definition.waits.items()
            if self.state is not None and self.state.steps[position].status is StepStatus.WAITING
        ]
        moves += [
            Move(f"{signal.__name__} is gathered", False, self._giving(Signalled, self.sampler(signal)))
            for signal, position in self.definition.gathers.items()
            if self.state is not None and self.state.steps[position].status is StepStatus.WAITING
        ]
        if self.timers:
            timer, due = min(self.timers.values(), key=lambda entry: (entry[1], entry[0].key))
            moves.append(Move(f"{timer.key} falls due", False, self._firing(timer, due)))
        return moves

    def _adverse(self) -> list[Move]:
        moves = [Move(f"{sent.step} is lost", True, self._losing(sent)) for sent in self.unread]
        moves += [
            Move(f"{timer.key} fires early", True, self._firing(timer, self.now)) for timer, _ in self.timers.values()
        ]
        moves += [
            Move(f"{type(old).__name__} {index} again", True, self._repeating(old))
            for index, old in enumerate(self.delivered[-8:])
        ]
        moves += [
            Move(f"{signal.__name__} out of turn", True, self._giving(Signalled, self.sampler(signal)))
            for signal in sorted(self.definition.signals, key=lambda kind: kind.__name__)
        ]
        asks = [
            OperatorAsked("", 0, action, "ada", "test") for action in (Action.CANCEL, Action.COMPENSATE, Action.RESUME)
        ]
        asks += self._asks_about_steps()
        moves += [Move(f"ada asks {ask.action.value} {ask.step}", True, self._asking(ask)) for ask in asks]
        return moves

    def _asks_about_steps(self) -> list[OperatorAsked]:
        asks: list[OperatorAsked] = []
        for step in self.state.steps if self.state is not None else ():
            defined = self.definition.step(step.key)
            for cell, item in ((item, item.key) for item in step.items) if step.items else ((step, ""),):
                if cell.status in (StepStatus.STUCK, StepStatus.BACKOFF, StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED):
                    asks.append(OperatorAsked("", 0, Action.RETRY, "ada", "test", step.key, item))
                if cell.status in (StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED):
                    asks.append(OperatorAsked("", 0, Action.SKIP, "ada", "test", step.key, item))
                if cell.status is StepStatus.STUCK:
                    known = self.outcomes.get(SentCommand(step.key, item, Direction.DO, 0, cell.round))
                    # A person who skips a command tells what is so: the outcome that the participant recorded.
                    replies = (
                        [known] if known is not None else list(defined.outcomes) if not defined.participant else []
                    )
                    asks += [
                        OperatorAsked("", 0, Action.SKIP, "ada", "test", step.key, item, self.sampler(reply))
                        for reply in replies
                    ]
        return asks

    # --- how it happens ---------------------------------------------------------------------------------------------

    def give(self, input_: Input) -> Decision:
        """Give the saga an input, perform the effects, and judge. Raises AssertionError where a promise is broken."""
        before = self.state
        decision = advance(self.definition, before, input_)
        self.state = decision.state
        self.log.append((input_, decision))
        for effect in decision.effects:
            self._perform(effect)
        self._judge(before, decision)
        return decision

    def _next_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def _giving(self, kind: Callable[..., Input], *content: Any) -> Callable[[], Decision]:
        return lambda: self._deliver(kind(self._next_id(), self.now, *content))

    def _deliver(self, input_: Input) -> Decision:
        self.delivered.append(input_)
        return self.give(input_)

    def _delivering(self, reply: Replied) -> Callable[[], Decision]:
        def happen() -> Decision:
            self.replies.remove(reply)
            return self._deliver(reply)

        return happen

    def _repeating(self, old: Input) -> Callable[[], Decision]:
        return lambda: self.give(old)

    def _firing(self, timer: Timer, at: int) -> Callable[[], Decision]:
        def happen() -> Decision:
            self.now = max(self.now, at)
            # A timer that is set again by the decision takes its place anew.
            self.timers.pop(timer.key, None)
            return self._deliver(TimerFired(self._next_id(), self.now, timer))

        return happen

    def _asking(self, ask: OperatorAsked) -> Callable[[], Decision]:
        content = (ask.action, ask.actor, ask.reason, ask.step, ask.item, ask.reply)

        def happen() -> Decision:
            if ask.action is Action.SKIP and ask.reply is None:
                # Whoever skips an undo has undone it by hand, and answers for what is still on its way.
                self.by_hand.add((ask.step, ask.item))
                self.done.discard((ask.step, ask.item))
            return self._deliver(OperatorAsked(self._next_id(), self.now, *content))

        return happen

    def _losing(self, sent: SentCommand) -> Callable[[], None]:
        return lambda: self.unread.remove(sent)

    def _executing(self, sent: SentCommand, outcome: type) -> Callable[[], None]:
        def happen() -> None:
            self.unread.remove(sent)
            self.execute(sent, outcome)

        return happen

    def _may_answer(self, sent: SentCommand) -> list[type]:
        """Return what a participant may answer: what it recorded, or else anything declared."""
        recorded = self.outcomes.get(_round_of(sent))
        if recorded is not None:
            return [recorded]
        step = self.definition.step(sent.step)
        if sent.direction is Direction.DO:
            return list(step.outcomes)
        assert step.undo is not None
        return list(step.undo.outcomes)

    def execute(self, sent: SentCommand, outcome: type) -> None:
        """Let a participant carry out a command, once for its round, and answer."""
        step = self.definition.step(sent.step)
        place = (sent.step, sent.item)
        marked = SentCommand(sent.step, sent.item, Direction.UNDO, 0, 1) in self.outcomes
        if sent.direction is Direction.DO and marked and _round_of(sent) not in self.outcomes:
            return  # undone before it was done: it does nothing, and nobody waits for its answer
        if _round_of(sent) not in self.outcomes:
            self.outcomes[_round_of(sent)] = outcome
            if sent.direction is Direction.DO and step.outcomes[outcome] and outcome not in step.tolerated:
                if place not in self.by_hand:
                    self.done.add(place)
            elif sent.direction is Direction.UNDO and step.undo is not None and step.undo.outcomes[outcome]:
                self.done.discard(place)
        self.replies.append(
            Replied(
                self._next_id(),
                self.now,
                sent.step,
                sent.direction,
                sent.attempt,
                sent.round,
                self.sampler(self.outcomes[_round_of(sent)]),
                sent.item,
            )
        )

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendCommand():
                self.unread.append(
                    SentCommand(effect.step, effect.item, effect.direction, effect.attempt, effect.round)
                )
            case StartSaga():
                self.unread.append(SentCommand(effect.step, effect.item, Direction.DO, effect.attempt, effect.round))
            case CompensateSaga():
                self.unread.append(SentCommand(effect.step, effect.item, Direction.UNDO, effect.attempt, effect.round))
            case SetTimer():
                self.timers[effect.timer.key] = (effect.timer, effect.due_milliseconds)
            case CancelTimer():
                assert effect.timer.key in self.timers, f"cancels {effect.timer.key}, which does not run"
                del self.timers[effect.timer.key]
            case Finish():
                self.finished.append(effect.status)
            case _:
                pass

    # --- what must always hold --------------------------------------------------------------------------------------

    def _judge(self, before: SagaState | None, decision: Decision) -> None:
        entry, *rest = decision.effects
        assert isinstance(entry, Record), "a decision begins with its entry for the history"
        assert not any(isinstance(effect, Record) for effect in rest), "a decision has one entry for the history"
        if entry.happened is Happened.REFUSED:
            assert decision.state is before or _forgetful(decision.state) == _forgetful(before), (
                "a refusal changes nothing"
            )
            assert all(isinstance(effect, SetTimer) for effect in rest), "a refused input sends nothing"
            return
        state = decision.state
        assert state is not None
        assert {key: due for key, (_, due) in self.timers.items()} == _timers_of(state), "timers are those of the state"
        for effect in rest:
            if isinstance(effect, SendCommand | CompensateSaga) and _direction(effect) is Direction.UNDO:
                self._judge_undo(state, effect)
        if state.ended:
            self._judge_ending(state)

    def _judge_undo(self, state: SagaState, effect: SendCommand | CompensateSaga) -> None:
        position = self.definition.index[effect.step]
        if self.definition.steps[position].enough:
            return  # an item that was not needed is undone while the saga goes on
        later = self.definition.descendants[position]
        for other, step in enumerate(self.definition.steps):
            undone_first = later >> other & 1 and step.undo is not None
            own = self.definition.steps[position].undo
            in_any_order = position and not (own and own.in_order and step.undo and step.undo.in_order)
            undone_first = undone_first and not in_any_order
            assert not (undone_first and any(key == step.key for key, _ in self.done)), (
                f"{effect.step} is undone before {step.key}, which came after it"
            )
        pivot = self.definition.pivot
        assert pivot is None or state.steps[pivot].status in (StepStatus.PENDING, StepStatus.FAILED), (
            f"{effect.step} is undone past the pivot"
        )

    def _judge_ending(self, state: SagaState) -> None:
        assert not self.timers, f"the saga has ended and {list(self.timers)} still run"
        if state.status is Status.COMPENSATED:
            left = [key for key, _ in self.done if self.definition.step(key).undo is not None]
            assert not left, f"compensated, yet {left} are still done"
            pivots = [key for key, _ in self.done if self.definition.step(key).kind is Kind.PIVOT]
            assert not pivots, "compensated, yet the pivot happened"
        else:
            for step in state.steps:
                assert step.status in SETTLED, f"completed without {step.key}"

    # --- to the end -------------------------------------------------------------------------------------------------

    def settle(self, moves_max: int = 2_000) -> Status:
        """Let the world be kind from now on: everything is answered, and well. Return how the saga then stands."""
        for _ in range(moves_max):
            assert self.state is not None
            if self.state.ended and not self.unread and not self.replies:
                return self.state.status
            if self.replies:
                self._delivering(self.replies[0])()
            elif self.unread:
                sent = self.unread.pop(0)
                self.execute(sent, self._may_answer(sent)[0])
            elif self.timers:
                timer, due = min(self.timers.values(), key=lambda entry: (entry[1], entry[0].key))
                self._firing(timer, due)()
            else:
                assert self.state.status is Status.STUCK, "nothing can happen any more, and the saga is not stuck"
                return Status.STUCK
        raise AssertionError(f"no end after {moves_max} moves")


def _forgetful(state: SagaState | None) -> SagaState | None:
    """Return the state without the requests that it remembers, those that it refused too."""
    return None if state is None else replace(state, recent=(), forgotten_milliseconds=0)


def _round_of(sent: SentCommand) -> SentCommand:
    return SentCommand(sent.step, sent.item, sent.direction, 0, sent.round)


def _direction(effect: SendCommand | CompensateSaga) -> Direction:
    return effect.direction if isinstance(effect, SendCommand) else Direction.UNDO


def _timers_of(state: SagaState) -> dict[str, int]:
    """Return key and due time of every timer that must run in a state."""
    running = {SAGA_TIMER.key: state.deadline_milliseconds} if state.deadline_milliseconds else {}
    for step in state.steps:
        for cell, item in ((item, item.key) for item in step.items) if step.items else ((step, ""),):
            if cell.due_milliseconds:
                running[timer_of(step.key, item, cell).key] = cell.due_milliseconds
    return running
