"""What may happen to an instance as it stands, and what must be refused there.

Replies are taken from the ledger, not from the machine: whatever was sent and is unanswered may be answered, in every
declared way, for the attempt last sent or an earlier one, now or never. Times are chosen, not simulated: a timer fires
when it is due ("in time"), so long after that its round is over ("too late"), or before it is due; each in any order
with all else. That covers every order that real time allows, and more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from towpath.saga.check.abstract import blank
from towpath.saga.check.invariants import NEED_A_PERSON
from towpath.saga.check.ledger import Account, Ledger, account_of
from towpath.saga.decision_builder import SAGA_TIMER, timer_of
from towpath.saga.definition import (
    AT_ONCE,
    Activity,
    Definition,
    GatherDefinition,
    Kind,
    OnTimeout,
    ProlongDefinition,
    SecondStart,
    StepDefinition,
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
    TimerKind,
    Unrecognised,
)
from towpath.saga.state import Direction, ParentReference, SagaState, Status, StepState, StepStatus

_DO, _UNDO = Direction.DO, Direction.UNDO
_RESTING = (StepStatus.BACKOFF, StepStatus.UNDO_BACKOFF)
_OPEN = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.WAITING, StepStatus.STUCK)

# Later than any timer that a walk of fewer than 100 late ones can set (see RETRY_FOR_EVER_MILLISECONDS).
LONG_AFTER_MILLISECONDS = 10**17

# Signals that waits not yet begun hold at once: two, since the second may be taken in the same decision as the first.
EARLY_MAX = 2

ACTOR, REASON = "ada", "checked"
HAS_ONE = "the key has an instance already"
PARENT = ParentReference("parent", "parent-1", "key", "child", _DO, 1, 1)
PARENT_ASKS = ParentReference("parent", "parent-1", "key", "child", _UNDO, 1, 1)


class Stranger:
    """A message that no saga declares."""


@dataclass(frozen=True, slots=True)
class AdversaryMove:
    """One thing that may happen next, and must then be taken."""

    input: Input
    by_person: bool = False


class Cell(NamedTuple):
    """A step, or one item of it."""

    position: int
    item: str
    state: StepState
    account: Account


def cells_of(state: SagaState, ledger: Ledger, beside: SagaState | None = None) -> Iterator[Cell]:
    """Yield every step, and every item in place of its step; with `beside`, only of the steps that differ."""
    for position, step in enumerate(state.steps):
        if beside is not None and beside.steps[position] is step:
            continue
        entry = ledger[position]
        if not step.items:
            yield Cell(position, "", step, entry if isinstance(entry, Account) else account_of(entry, ""))
        for item in step.items:
            yield Cell(position, item.key, item, account_of(entry, item.key))


class Moves:
    """The moves of one definition, and the inputs that are none."""

    def __init__(self, definition: Definition, *, as_child: bool) -> None:
        self.definition = definition
        self.as_child = as_child
        self._asked = 0

    def starts(self) -> list[Started]:
        """Return the ways in which an instance begins: whole, or refused because its key has one already.

        A sub-saga whose start is refused is none: the orchestrator answers its parent in its place.
        """
        parent = PARENT if self.as_child else None
        whole = [Started("start", 0, blank(kind), "key", parent) for kind in self.definition.starts]
        if self.as_child or self.definition.second_start is SecondStart.INDEPENDENT:
            return whole
        return [*whole, *(replace(start, refused=HAS_ONE) for start in whole)]

    # --- one step or item -------------------------------------------------------------------------------------------

    def of_cell(self, direction: Direction, cell: Cell, now: int) -> list[AdversaryMove]:
        """Return what may happen to a step or item; not the signals that come before their wait."""
        step, state = self.definition.steps[cell.position], cell.state
        moves = [AdversaryMove(reply) for reply in self._replies(direction, step, cell, now)]
        if state.due_milliseconds:
            timer, due = timer_of(step.key, cell.item, state), state.due_milliseconds
            moves.append(AdversaryMove(TimerFired("timer", due, timer)))
            if timer.kind is TimerKind.ATTEMPT and state.attempt < state.attempt_last:
                moves.append(AdversaryMove(TimerFired("timer", state.give_up_milliseconds + 1, timer)))
            if timer.kind is TimerKind.WAIT and due < state.give_up_milliseconds:
                moves.append(AdversaryMove(TimerFired("timer", state.give_up_milliseconds + 1, timer)))
        if step.activity is Activity.WAIT and state.status in (StepStatus.WAITING, StepStatus.STUCK):
            moves += [AdversaryMove(Signalled("signal", now, blank(signal))) for signal in step.outcomes]
        if step.prolong is not None and _may_prolong(step.prolong, state):
            moves.append(AdversaryMove(self.counted(step.prolong.signal, now)))
        if step.gather is not None and state.status is not StepStatus.PENDING and _may_gather(step.gather, state):
            moves += [AdversaryMove(self.counted(signal, now)) for signal in step.gather.signals]
        if state.status in _RESTING or state.status in NEED_A_PERSON:
            moves.append(AdversaryMove(self.ask(Action.RETRY, now, step.key, cell.item), by_person=True))
        if state.status in NEED_A_PERSON:
            moves += [AdversaryMove(ask, by_person=True) for ask in self._skips(step, cell, now)]
        return moves

    def _replies(self, direction: Direction, step: StepDefinition, cell: Cell, now: int) -> Iterator[Replied]:
        """Yield the declared answers to what is out, for the attempt last sent and for the first."""
        if step.enough and cell.state.status is StepStatus.UNKNOWN and direction is _DO:
            return  # it was not needed, and is not waited for
        if cell.account is Account.SENT and direction is _DO:
            way, outcomes = _DO, step.outcomes
        elif cell.account is Account.UNDO_SENT and step.undo is not None:
            way, outcomes = _UNDO, step.undo.outcomes
        else:
            return
        attempt, round_ = cell.state.attempt, cell.state.round
        for reply in outcomes:
            yield Replied("reply", now, step.key, way, attempt, round_, blank(reply), cell.item)
            if attempt > 1:
                yield Replied("reply", now, step.key, way, 1, round_, blank(reply), cell.item)

    def _skips(self, step: StepDefinition, cell: Cell, now: int) -> Iterator[OperatorAsked]:
        """Yield a person's replies in place of a stuck step's own."""
        if cell.state.status is not StepStatus.STUCK:
            undone = [reply for reply, ok in step.undo.outcomes.items() if ok] if step.undo is not None else []
            for reply in (None, *(blank(kind) for kind in undone)):
                yield self.ask(Action.SKIP, now, step.key, cell.item, reply)
        elif step.activity is Activity.DELAY:
            yield self.ask(Action.SKIP, now, step.key)
        elif step.over is None or cell.item:
            for kind in step.outcomes:
                yield self.ask(Action.SKIP, now, step.key, cell.item, blank(kind))

    def ask(self, action: Action, now: int, step: str = "", item: str = "", reply: object = None) -> OperatorAsked:
        """Return a person's request, with an id of its own and later than all before it."""
        self._asked += 1
        return OperatorAsked(f"ask-{self._asked}", now + 1, action, ACTOR, REASON, step, item, reply)

    def counted(self, signal: type, now: int) -> Signalled:
        """Return what prolongs a wait or is gathered, with an id of its own and later than all before it."""
        self._asked += 1
        return Signalled(f"more-{self._asked}", now + 1, blank(signal))

    def of_person(self, state: SagaState, ledger: Ledger, step: str, now: int) -> Iterator[OperatorAsked]:
        """Yield all that a person may ask about one step that is stuck, whether it is taken or not."""
        for cell in cells_of(state, ledger):
            defined = self.definition.steps[cell.position]
            if defined.key == step and cell.state.status in NEED_A_PERSON:
                yield self.ask(Action.RETRY, now, step, cell.item)
                yield from self._skips(defined, cell, now)
                break
        for action in (Action.RESUME, Action.CANCEL, Action.COMPENSATE):
            yield self.ask(action, now)

    def turns(self, cell: Cell, move: AdversaryMove) -> bool:
        """Say whether what happens to a step on its way forward may turn the saga round."""
        step, input_ = self.definition.steps[cell.position], move.input
        if isinstance(input_, Replied):
            fails = input_.direction is _DO and not step.outcomes[type(input_.reply)]
            return fails and type(input_.reply) not in step.tolerated
        if isinstance(input_, Signalled):  # what prolongs a wait is none of its outcomes
            return step.outcomes.get(type(input_.signal)) is False and type(input_.signal) not in step.tolerated
        not_needed = cell.account in (Account.UNDO_SENT, Account.UNDO_REFUSED)  # it is undone while the saga goes on
        if not isinstance(input_, TimerFired) or not_needed:
            return False
        stands, late = cell.state, input_.at_milliseconds > cell.state.give_up_milliseconds
        if input_.timer.kind is TimerKind.ATTEMPT:
            return step.kind is Kind.COMPENSATABLE and (late or stands.attempt >= stands.attempt_last)
        reminds = not late and stands.due_milliseconds < stands.give_up_milliseconds
        return step.on_timeout is OnTimeout.COMPENSATE and not reminds

    # --- signals before their time ----------------------------------------------------------------------------------

    def early_signals(self, state: SagaState, now: int, *, all_: bool) -> list[AdversaryMove]:
        """Return the signals that waits not yet begun may receive.

        A signal that comes before its wait changes nothing until the wait begins. So unless `all_` are wanted, it is
        left out where the next input cannot begin the wait: it commutes with everything until then.
        """
        if state.direction is _UNDO or state.ended:
            return []
        held = sum(step.status is StepStatus.PENDING and step.result is not None for step in state.steps)
        if not all_ and held >= EARLY_MAX:
            return []
        found: list[AdversaryMove] = []
        for position, step in enumerate(self.definition.steps):
            stands = state.steps[position]
            if step.activity is not Activity.WAIT or stands.status is not StepStatus.PENDING:
                continue
            if _answered(step, stands) or not (all_ or self._may_begin_next(state, position)):
                continue
            found += [AdversaryMove(Signalled("signal", now, blank(signal))) for signal in step.outcomes]
            if step.gather is not None and _may_gather(step.gather, stands):
                found += [AdversaryMove(self.counted(signal, now)) for signal in step.gather.signals]
        return found

    def _may_begin_next(self, state: SagaState, position: int) -> bool:
        """Say whether one input may settle all that a wait requires."""
        open_cells = 0
        ancestors = self.definition.ancestors[position]
        for other, step in enumerate(state.steps):
            if not ancestors >> other & 1:
                continue
            open_cells += sum(cell.status in _OPEN for cell in step.items or (step,))
            defined = self.definition.steps[other]
            passes_at_once = (
                defined.when is not None
                or defined.over is not None
                or step.result is not None
                or defined.instead_of is not None
                or bool(defined.only_in)
                or defined.activity in AT_ONCE
            )
            if open_cells > 1 or (step.status is StepStatus.PENDING and not passes_at_once):
                return False
        return True

    # --- the saga as a whole ----------------------------------------------------------------------------------------

    def of_saga(self, state: SagaState, ledger: Ledger, now: int) -> list[AdversaryMove]:
        """Return what may turn the whole saga round."""
        moves = []
        if state.deadline_milliseconds:
            moves.append(AdversaryMove(TimerFired("timer", state.deadline_milliseconds, SAGA_TIMER)))
        if state.ended and state.parent is not None and state.parent.direction is _DO:
            again = replace(PARENT, attempt=state.parent.attempt + 1)
            moves.append(AdversaryMove(Started("again", now, blank(self.definition.starts_on), "key", again)))
        if self.may_turn(state, ledger):
            if not state.ended:
                moves += [
                    AdversaryMove(self.ask(action, now), by_person=True)
                    for action in (Action.CANCEL, Action.COMPENSATE)
                ]
                moves += [AdversaryMove(Signalled("signal", now, blank(kind))) for kind in self.definition.cancels]
            if self.as_child:
                moves.append(AdversaryMove(ParentAsked("parent", now, PARENT_ASKS)))
        return moves

    def may_turn(self, state: SagaState, ledger: Ledger) -> bool:
        """Say whether the saga goes forward and has not passed its point of no return."""
        if state.direction is _UNDO or self.definition.committed_from_start:
            return False
        pivot = self.definition.pivot
        return pivot is None or account_of(ledger[pivot], "") is Account.NEVER

    # --- what must be refused ---------------------------------------------------------------------------------------

    def strange_to_cell(self, state: SagaState, cell: Cell, now: int) -> Iterator[Input]:
        """Yield inputs about a step or item that must be refused as it stands: stale, repeated, early, undeclared."""
        step, stands = self.definition.steps[cell.position], cell.state
        yield from self._strange_replies(state.direction, step, cell, now)
        yield from _strange_timers(step, cell)
        key, item = step.key, cell.item
        needs_person = stands.status in NEED_A_PERSON
        if not needs_person:
            if stands.status not in _RESTING:
                yield self.ask(Action.RETRY, now, key, item)
            for kind in (*step.outcomes, None):
                yield self.ask(Action.SKIP, now, key, item, None if kind is None else blank(kind))
        yield self.ask(Action.SKIP, now, key, item, Stranger())
        nobody = self.ask(Action.RETRY, now, key, item)
        yield OperatorAsked(nobody.id, nobody.at_milliseconds, Action.RETRY, "", REASON, key, item)
        yield OperatorAsked(nobody.id, nobody.at_milliseconds, Action.RETRY, ACTOR, "", key, item)
        if step.prolong is not None and (state.ended or not _may_prolong(step.prolong, stands)):
            yield self.counted(step.prolong.signal, now)
        over = state.direction is _UNDO or state.ended
        if step.gather is not None and (over or not _may_gather(step.gather, stands)):
            yield from (self.counted(signal, now) for signal in step.gather.signals)
        if step.activity is Activity.WAIT:
            takes = stands.status in (StepStatus.WAITING, StepStatus.STUCK)
            takes = takes or (stands.status is StepStatus.PENDING and not _answered(step, stands))
            if state.direction is _UNDO or state.ended or not takes:
                yield from (Signalled("signal", now, blank(signal)) for signal in step.outcomes)

    def _strange_replies(self, direction: Direction, step: StepDefinition, cell: Cell, now: int) -> Iterator[Replied]:
        stands = cell.state
        waits_for = {Account.SENT: _DO if direction is _DO else None, Account.UNDO_SENT: _UNDO}.get(cell.account)
        if step.enough and stands.status is StepStatus.UNKNOWN:
            waits_for = None
        undo = step.undo.outcomes if step.undo is not None else {}
        attempt, round_ = stands.attempt, stands.round
        numbers = {(1, round_), (attempt, round_), (0, round_), (attempt + 1, round_)}
        numbers |= {(attempt, round_ - 1), (1, round_ + 1), (attempt, round_ + 1)}
        for way, outcomes in ((_DO, step.outcomes), (_UNDO, undo)):
            yield Replied("stray", now, step.key, way, attempt, round_, Stranger(), cell.item)
            for kind in outcomes:
                for tried, in_round in sorted(numbers):
                    fits = in_round == round_ and 1 <= tried <= attempt
                    if not (fits and way is waits_for):
                        yield Replied("stray", now, step.key, way, tried, in_round, blank(kind), cell.item)

    def strange_to_saga(self, state: SagaState, ledger: Ledger, now: int) -> Iterator[Input]:
        """Yield inputs that must be refused whatever the steps: foreign, repeated, too late."""
        yield Unrecognised("stray", now, "Stranger")
        yield from (Started("stray", now, blank(kind), "key") for kind in self.definition.starts)
        yield Started("stray", now, Stranger(), "key")
        yield Replied("stray", now, "no_such_step", _DO, 1, 1, Stranger())
        yield Signalled("stray", now, Stranger())
        yield TimerFired("stray", now, Timer(TimerKind.ATTEMPT, "no_such_step", "", _DO, 1, 1))
        yield ParentAsked("stray", now, ParentReference("other", "other-1", "key", "child", _UNDO, 1, 1))
        yield self.ask(Action.RETRY, now, "no_such_step")
        yield self.ask(Action.SKIP, now, "no_such_step")
        for step in self.definition.steps[1:]:
            yield Replied("stray", now, step.key, _DO, 1, 1, Stranger(), "no_such_item")
        if state.deadline_milliseconds:
            yield TimerFired("early", state.deadline_milliseconds - 1, SAGA_TIMER)
        else:
            yield TimerFired("stray", now, SAGA_TIMER)
        if state.ended or not self.may_turn(state, ledger):
            yield self.ask(Action.CANCEL, now)
            yield self.ask(Action.COMPENSATE, now)
            yield from (Signalled("signal", now, blank(kind)) for kind in self.definition.cancels)
        if state.status is not Status.STUCK:
            yield self.ask(Action.RESUME, now)
        for applied, _ in state.recent[:1]:
            yield OperatorAsked(applied, now + 1, Action.CANCEL, ACTOR, REASON)


def _may_prolong(prolong: ProlongDefinition, stands: StepState) -> bool:
    return stands.status is StepStatus.WAITING and stands.round <= prolong.times_max


def _may_gather(gather: GatherDefinition, stands: StepState) -> bool:
    if stands.status not in (StepStatus.PENDING, StepStatus.WAITING, StepStatus.STUCK):
        return False
    ended = stands.status is StepStatus.PENDING and bool(stands.attempt_last)
    return stands.round <= gather.signals_max and not ended


def _answered(step: StepDefinition, stands: StepState) -> bool:
    """Say whether a wait that has not begun holds its answer; one that gathers may hold signals, and not its end."""
    return bool(stands.attempt_last) if step.gather is not None else stands.result is not None


def _strange_timers(step: StepDefinition, cell: Cell) -> Iterator[TimerFired]:
    stands = cell.state
    runs = timer_of(step.key, cell.item, stands) if stands.due_milliseconds else None
    attempt, round_ = stands.attempt, stands.round
    numbers = [(attempt, round_), (attempt - 1, round_), (attempt + 1, round_), (attempt, round_ - 1)]
    for kind in (TimerKind.ATTEMPT, TimerKind.BACKOFF, TimerKind.WAIT):
        for way in (_DO, _UNDO):
            for tried, in_round in numbers:
                timer = Timer(kind, step.key, cell.item, way, tried, in_round)
                if timer != runs:
                    yield TimerFired("stray", LONG_AFTER_MILLISECONDS, timer)
    if runs is not None:
        yield TimerFired("early", stands.due_milliseconds - 1, runs)
