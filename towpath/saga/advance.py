"""The saga machine: all transitions in this file (beginning and ending at once: beginning.py; stopping: turning.py).

`advance(definition, state, input) -> Decision(state, effects)` is total and pure. It reads no clock, draws no lots, and
never changes what it is given: the same three values give the same decision on every machine, for ever.

The rules that it follows stand on top of this room, in __init__.py, with their numbers.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from towpath.saga.beginning import is_skipped, settle_at_once
from towpath.saga.contest import enough_can_succeed, give_up_item, others_are_being_undone
from towpath.saga.decision_builder import SAGA_TIMER, DecisionBuilder, becoming, outcomes_of, policy_of, timer_of
from towpath.saga.definition import Activity, Definition, Kind, OnTimeout, StepDefinition
from towpath.saga.effects import Effect, Finish, Record, SetTimer
from towpath.saga.gathering import begin_gathering, keep_early, take_in
from towpath.saga.history import facts_of, refusal_of
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
    Undecidable,
    Unfit,
    Unrecognised,
    UpgradeAsked,
)
from towpath.saga.keys import jitter_milliseconds
from towpath.saga.requests import not_new, outdated, remembered, with_refused
from towpath.saga.state import (
    BEING_UNDONE,
    NEED_A_PERSON,
    Cause,
    CauseKind,
    Direction,
    SagaState,
    Status,
    StepState,
    need_a_person,
)
from towpath.saga.state import StepStatus as S
from towpath.saga.turning import close, committed, find, halt, turn_round
from towpath.saga.value import value

# Bound once: looking a member up in its enum costs as much as the rest of a comparison.
_DO, _UNDO = Direction.DO, Direction.UNDO
_RUNNING, _COMPENSATING = Status.RUNNING, Status.COMPENSATING
_COMPLETED, _COMPENSATED = Status.COMPLETED, Status.COMPENSATED
_PENDING, _SENT, _BACKOFF, _WAITING = S.PENDING, S.SENT, S.BACKOFF, S.WAITING
_SUCCEEDED, _SKIPPED, _DECLINED, _FAILED = S.SUCCEEDED, S.SKIPPED, S.DECLINED, S.FAILED
_UNKNOWN, _ABANDONED, _STUCK, _UNDONE = S.UNKNOWN, S.ABANDONED, S.STUCK, S.UNDONE
_UNDOING, _UNDO_BACKOFF, _UNDO_STUCK, _UNDO_FAILED = S.UNDOING, S.UNDO_BACKOFF, S.UNDO_STUCK, S.UNDO_FAILED

# Tuples, not sets: `in` then compares identities and hashes nothing.
_TAKE_REPLY = (_SENT, _BACKOFF, _STUCK)
_TAKE_UNDO_REPLY = (_UNDOING, _UNDO_BACKOFF, _UNDO_STUCK)


@value
class Decision:
    """The state after an input, and what the world must do; the first effect is the entry for the history.

    `state` is None only where there was none and the input began none.
    """

    state: SagaState | None
    effects: tuple[Effect, ...]


def advance(definition: Definition, state: SagaState | None, input_: Input) -> Decision:
    """Decide what follows from `input_`, by the rules on top of this room.

    `state` is None until the saga has started. Raises BuilderError, and nothing else, where a function of the
    definition raises on the instance's data.
    """
    builder = DecisionBuilder(definition, input_.at_milliseconds)
    handle = _HANDLERS[type(input_)]
    if state is not None and handle is _started:
        handle = _started_again
    elif state is None and handle is _unfit:
        handle = _unfit_start
    refusal = _stranger(definition, state, handle)
    if refusal is None:
        if state is not None:
            builder.read(state)
        refusal = handle(builder, input_)
    if refusal is not None:
        saga_id, status = ("", None) if state is None else (state.saga_id, state.status)
        if state is not None:
            state = with_refused(state, input_, definition)
        return Decision(state, (refusal_of(input_, saga_id, status, refusal), *builder.effects))
    _settle(builder)
    entry = Record(builder.saga_id, input_.id, builder.at, *facts_of(input_), builder.status)
    return Decision(builder.written(), (entry, *builder.effects))


def _stranger(definition: Definition, state: SagaState | None, handle: object) -> str | None:
    """Say why an input does not concern this instance as it stands, whatever its content."""
    if state is None:
        begins = handle is _started or handle is _unfit_start
        return None if begins else "no such saga has started"
    if state.saga != definition.name or state.version != definition.version:
        return f"the instance is of {state.saga} version {state.version}"
    if state.ended and handle is not _parent_asked and handle is not _started_again:
        return "the saga has ended"
    return None


# --- The graph ------------------------------------------------------------------------------------------------------


def _settle(builder: DecisionBuilder) -> None:
    """Begin, or undo, whatever may begin or be undone now, and say how the saga stands after that."""
    if builder.status is _COMPENSATED or (builder.status is _COMPLETED and builder.direction is _DO):
        return  # a sub-saga that had ended answered its parent once more
    unsettled = builder.direction is _UNDO or _begin_what_is_ready(builder)
    # Asked again: what began may have turned the saga round.
    if builder.direction is _UNDO:
        unsettled = _undo_what_is_free(builder)
    if not (unsettled or others_are_being_undone(builder)):
        _finish(builder)
    elif need_a_person(builder.steps):
        builder.status = Status.STUCK
    elif builder.direction is _UNDO:
        builder.status = _COMPENSATING
    else:
        builder.status = _RUNNING
        builder.cause = None  # nothing is too large any more


def _begin_what_is_ready(builder: DecisionBuilder) -> bool:
    """Begin each step whose requirements are settled; return whether any step is still unsettled.

    One pass is enough: a step stands after all that it requires.
    """
    steps = builder.steps
    unsettled = False
    for position, step in enumerate(builder.definition.steps):
        status = steps[position].status
        if status is _PENDING:
            for required in step.requires:
                status = steps[required].status
                if status is not _SUCCEEDED and status is not _SKIPPED and status is not _DECLINED:
                    break
            else:
                _begin(builder, position, step)
                if builder.direction is _UNDO:
                    break
            status = steps[position].status
        if status is not _SUCCEEDED and status is not _SKIPPED and status is not _DECLINED:
            unsettled = True
    return unsettled


def _undo_what_is_free(builder: DecisionBuilder) -> bool:
    """Undo each step that owes it and whose undo waits for no other; return whether any undo is outstanding."""
    definition = builder.definition
    outstanding = 0
    for position in range(len(builder.steps) - 1, -1, -1):
        status = builder.steps[position].status
        if status in BEING_UNDONE:
            outstanding |= 1 << position
        elif (status is _SUCCEEDED or status is _UNKNOWN) and _owes(
            definition.steps[position], builder.steps[position]
        ):
            if not definition.undone_before[position] & outstanding:
                _undo(builder, position)
            outstanding |= 1 << position
    return outstanding != 0


def _owes(step: StepDefinition, state: StepState) -> bool:
    """Say whether a step that succeeded, or may have, must be undone; an `each` over nothing need not be."""
    return step.undo is not None and (step.over is None or bool(state.items))


def _finish(builder: DecisionBuilder) -> None:
    if builder.direction is _DO:
        builder.status, builder.cause = _COMPLETED, None
    else:
        builder.status = _COMPENSATED
    builder.cancel_deadline()
    builder.answer_parent()
    builder.effects.append(Finish(builder.saga_id, builder.status))


# --- Steps ----------------------------------------------------------------------------------------------------------


def _begin(builder: DecisionBuilder, position: int, step: StepDefinition) -> None:
    state = builder.steps[position]
    if builder.definition.conditional >> position & 1 and is_skipped(builder, step):
        builder.put(position, "", StepState(step.key, _SKIPPED))
    elif step.over is not None:
        _begin_each(builder, position, step)
    elif step.policy is not None:
        builder.send_anew(position, "", state, _DO)
    elif step.activity is Activity.WAIT:
        early = state.result if step.gather is None else begin_gathering(builder, position, step)
        if early is not None:
            _take(builder, position, "", state, early)
        elif step.gather is None:
            builder.wait(position, state)
    elif step.activity is Activity.DELAY:
        _begin_delay(builder, position, step, state)
    else:
        settle_at_once(builder, position, step)


def _begin_delay(builder: DecisionBuilder, position: int, step: StepDefinition, state: StepState) -> None:
    due = builder.at + step.wait_milliseconds
    until = due if step.until is None else builder.until(step)
    if until <= due:
        builder.wait(position, state, max(builder.at, until))
    elif step.kind is Kind.RETRIABLE:
        builder.put(position, "", StepState(step.key, _STUCK, state.attempt))
    else:
        builder.put(position, "", StepState(step.key, _FAILED))
        turn_round(builder, Cause(CauseKind.TOO_LATE, step.key))


def _begin_each(builder: DecisionBuilder, position: int, step: StepDefinition) -> None:
    count = len(builder.items_of(step))
    if count < step.enough:
        builder.put(position, "", StepState(step.key, _FAILED))
        turn_round(builder, Cause(CauseKind.TOO_FEW_ITEMS, step.key))
    elif count == 0:
        builder.put(position, "", StepState(step.key, _SUCCEEDED))
    elif count <= step.items_max:
        items = tuple(StepState(str(number), _SENT) for number in range(count))
        builder.put(position, "", StepState(step.key, _SENT, items=items))
        for item in items:
            builder.send_anew(position, item.key, item, _DO)
    elif step.kind is Kind.RETRIABLE:
        builder.put(position, "", StepState(step.key, _STUCK))
    else:
        builder.put(position, "", StepState(step.key, _FAILED))
        turn_round(builder, Cause(CauseKind.TOO_MANY_ITEMS, step.key))


def _take(builder: DecisionBuilder, position: int, item: str, cell: StepState, answer: object) -> None:
    """Settle a step by the reply or signal that it was waiting for, whose class it declares."""
    step = builder.definition.steps[position]
    succeeds = step.outcomes[type(answer)]
    if step.gather is not None and succeeds:
        answer = builder.fold(step, cell, answer)
    if type(answer) in step.tolerated:
        builder.put(position, item, becoming(cell, _DECLINED, answer))
        return
    failed = _DECLINED if step.enough else _FAILED
    builder.put(position, item, becoming(cell, _SUCCEEDED if succeeds else failed, answer))
    if step.enough:
        succeeds = enough_can_succeed(builder, position)
    if not succeeds:
        turn_round(builder, Cause(CauseKind.STEP_FAILED, step.key, item, answer))


def _undo(builder: DecisionBuilder, position: int) -> None:
    state = builder.steps[position]
    if not state.items:
        builder.send_anew(position, "", state, _UNDO)
    for item in state.items:
        if item.status is _SUCCEEDED or item.status is _UNKNOWN:
            builder.send_anew(position, item.key, item, _UNDO)


# --- Timers ---------------------------------------------------------------------------------------------------------


def _timer_fired(builder: DecisionBuilder, input_: TimerFired) -> str | None:
    timer = input_.timer
    if timer.kind is TimerKind.SAGA and timer == SAGA_TIMER:
        refusal = _refused_timer(builder, timer, builder.deadline)
        if refusal is None:
            _deadline_passed(builder)
        return refusal
    found = find(builder, timer.step, timer.item)
    if isinstance(found, str):
        return found
    position, cell = found
    due = cell.due_milliseconds if timer == timer_of(timer.step, timer.item, cell) else 0
    refusal = _refused_timer(builder, timer, due)
    if refusal is not None:
        return refusal
    if timer.kind is TimerKind.ATTEMPT:
        _attempt_unanswered(builder, position, timer, cell)
    elif timer.kind is TimerKind.BACKOFF:
        builder.send_next(position, timer.item, cell)
    else:
        _wait_over(builder, position, cell)
    return None


def _refused_timer(builder: DecisionBuilder, timer: Timer, due: int) -> str | None:
    """Say why a timer that runs until `due` (0: does not run) may not fire now; if it is early, set it again."""
    if not due:
        return "no such timer runs"
    if builder.at < due:
        builder.effects.append(SetTimer(builder.saga_id, timer, due))
        return "the timer is not due yet; it was set again"
    return None


def _deadline_passed(builder: DecisionBuilder) -> None:
    builder.deadline = 0
    if committed(builder):
        close(builder, _STUCK, _STUCK)
    else:
        turn_round(builder, Cause(CauseKind.DEADLINE))


def _attempt_unanswered(builder: DecisionBuilder, position: int, timer: Timer, cell: StepState) -> None:
    ceiling = policy_of(builder.definition.steps[position], timer.direction).ceiling_milliseconds(cell.attempt)
    next_at = builder.at + jitter_milliseconds(f"{builder.saga_id}:{timer.key}", ceiling)
    if cell.attempt < cell.attempt_last and next_at <= cell.give_up_milliseconds:
        builder.rest(position, timer.item, cell, _BACKOFF if timer.direction is _DO else _UNDO_BACKOFF, next_at)
    else:
        _give_up(builder, position, timer, cell)


def _give_up(builder: DecisionBuilder, position: int, timer: Timer, cell: StepState) -> None:
    step = builder.definition.steps[position]
    if timer.direction is _UNDO:
        builder.put(position, timer.item, becoming(cell, _UNDO_STUCK))
    elif step.kind is Kind.COMPENSATABLE:
        builder.put(position, timer.item, becoming(cell, _UNKNOWN))
        if step.enough and enough_can_succeed(builder, position):
            give_up_item(builder, position, becoming(cell, _UNKNOWN))
            return
        turn_round(builder, Cause(CauseKind.STEP_EXHAUSTED, step.key, timer.item))
    else:
        builder.put(position, timer.item, becoming(cell, _STUCK))


def _wait_over(builder: DecisionBuilder, position: int, cell: StepState) -> None:
    step = builder.definition.steps[position]
    if step.remind is not None and builder.at < cell.give_up_milliseconds:
        builder.remind(position, cell)
    elif step.activity is Activity.DELAY:
        builder.put(position, "", becoming(cell, _SUCCEEDED))
    elif step.on_timeout is OnTimeout.PROCEED:
        builder.put(position, "", becoming(cell, _SKIPPED))
    elif step.on_timeout is OnTimeout.HALT:
        builder.put(position, "", becoming(cell, _STUCK))
    else:
        builder.put(position, "", becoming(cell, _FAILED))
        turn_round(builder, Cause(CauseKind.WAIT_TIMED_OUT, step.key))


# --- Messages -------------------------------------------------------------------------------------------------------


def _started(builder: DecisionBuilder, input_: Started) -> str | None:
    definition = builder.definition
    if type(input_.event) not in definition.starts:
        return f"{type(input_.event).__name__} does not start this saga"
    undo = definition.steps[0].undo
    untold = input_.refused and undo is not None and not undo.when_refused
    builder.begin(input_, _FAILED if untold else _SUCCEEDED)
    if input_.refused:
        turn_round(builder, Cause(CauseKind.REFUSED, reason=input_.refused))
    else:
        builder.effects.append(SetTimer(builder.saga_id, SAGA_TIMER, builder.deadline))
    return None


def _started_again(builder: DecisionBuilder, input_: Started) -> str | None:
    parent, asks = builder.parent, input_.parent
    ended = builder.status is _COMPLETED or builder.status is _COMPENSATED
    if parent is None or asks is None or parent.saga_id != asks.saga_id or not ended or parent.direction is _UNDO:
        return "the saga has already started"
    if (asks.round, asks.attempt) <= (parent.round, parent.attempt):
        return "the saga has already started, and this attempt was answered"
    builder.parent = asks
    builder.answer_parent()
    return None


def _replied(builder: DecisionBuilder, input_: Replied) -> str | None:
    found = find(builder, input_.step, input_.item)
    if isinstance(found, str):
        return found
    position, cell = found
    step = builder.definition.steps[position]
    forward = input_.direction is _DO
    if step.activity is Activity.WAIT or cell.status not in (_TAKE_REPLY if forward else _TAKE_UNDO_REPLY):
        return f"the step is {cell.status.value} and takes no reply to its {input_.direction.value}"
    if input_.round != cell.round or not 1 <= input_.attempt <= cell.attempt:
        return f"the step stands at attempt {cell.attempt} of round {cell.round}"
    undone = outcomes_of(step, input_.direction).get(type(input_.reply))
    if undone is None:
        return f"the step does not declare {type(input_.reply).__name__}"
    builder.cancel(position, input_.item, cell)
    if forward:
        _take(builder, position, input_.item, cell, input_.reply)
    else:
        builder.put(position, input_.item, becoming(cell, _UNDONE if undone else _UNDO_FAILED))
    return None


def _signalled(builder: DecisionBuilder, input_: Signalled) -> str | None:  # noqa: PLR0911 - a case each
    if type(input_.signal) in builder.definition.cancels:
        return _give_up_for(builder, Cause(CauseKind.CANCELLED, reply=input_.signal))
    if type(input_.signal) in builder.definition.prolongs:
        return _decided_once(builder, input_, _prolong)
    if type(input_.signal) in builder.definition.gathers:
        return _decided_once(builder, input_, take_in)
    position = builder.definition.waits.get(type(input_.signal))
    if position is None:
        return f"no wait of this saga takes {type(input_.signal).__name__}"
    if builder.direction is _UNDO:
        return "the saga compensates"
    cell = builder.steps[position]
    if cell.status is _PENDING and builder.definition.steps[position].gather is not None:
        return keep_early(builder, position, input_.signal)
    if cell.status is _PENDING and cell.result is None:
        builder.put(position, "", becoming(cell, _PENDING, input_.signal))
    elif cell.status is _WAITING or cell.status is _STUCK:
        builder.cancel(position, "", cell)
        _take(builder, position, "", cell, input_.signal)
    else:
        return "the wait has its answer, or no longer waits for one"
    return None


def _prolong(builder: DecisionBuilder, input_: Signalled) -> str | None:
    position = builder.definition.prolongs[type(input_.signal)]
    cell, prolong = builder.steps[position], builder.definition.steps[position].prolong
    assert prolong is not None  # that is how the step was found
    if cell.status is not _WAITING:
        return f"the wait is {cell.status.value}: there is nothing to prolong"
    if cell.round > prolong.times_max:
        return f"the wait was prolonged {prolong.times_max} times already"
    builder.prolong(position, cell)
    return None


def _parent_asked(builder: DecisionBuilder, input_: ParentAsked) -> str | None:
    if builder.parent is None or builder.parent.saga_id != input_.parent.saga_id:
        return "the saga that asks is not the parent of this one"
    if builder.direction is _DO and committed(builder):
        return "the saga is past its point of no return: what was done stays done"
    builder.parent = input_.parent
    if builder.status is _COMPENSATED:
        builder.answer_parent()
    elif builder.direction is _DO:
        turn_round(builder, Cause(CauseKind.PARENT))
    return None


# --- What does not fit ----------------------------------------------------------------------------------------------


def _unfit_start(builder: DecisionBuilder, unfit: Unfit) -> str | None:
    """Begin backward: only the start is undone, and says why."""
    start = unfit.input
    if not isinstance(start, Started):
        return "no such saga has started"
    if type(start.event) not in builder.definition.starts:
        return f"{type(start.event).__name__} does not start this saga"
    builder.begin(replace(start, refused=unfit.reason), _SUCCEEDED)
    turn_round(builder, Cause(CauseKind.REFUSED, reason=unfit.reason))
    return None


def _unfit(builder: DecisionBuilder, unfit: Unfit) -> str | None:
    """Halt what an input would have moved on; what would be refused anyway is refused for that."""
    trial = DecisionBuilder(builder.definition, builder.at)
    trial.read(builder.written())
    if (handle := _HANDLERS[type(unfit.input)]) is _started:
        handle = _started_again
    return handle(trial, unfit.input) or halt(builder, unfit)


# --- People ---------------------------------------------------------------------------------------------------------


def _operator_asked(builder: DecisionBuilder, input_: OperatorAsked) -> str | None:
    return _decided_once(builder, input_, _ACTIONS[input_.action])


def _decided_once(
    builder: DecisionBuilder, input_: Any, decide: Callable[[DecisionBuilder, Any], str | None]
) -> str | None:
    """Decide about what nothing but its own id tells from its repetition; say why it is refused."""
    refusal = not_new(builder.recent, builder.forgotten, input_) or decide(builder, input_)
    if refusal is None:
        most = builder.definition.recent_max
        builder.recent, builder.forgotten = remembered(builder.recent, builder.forgotten, input_, most)
    return refusal


def _asked_about(builder: DecisionBuilder, input_: OperatorAsked) -> tuple[int, StepState] | str:
    """Return where the step (or item) of a request stands, and its state; or why the request is not about it."""
    found = find(builder, input_.step, input_.item)
    return found if isinstance(found, str) else outdated(input_, found[1]) or found


def _give_up_for(builder: DecisionBuilder, cause: Cause) -> str | None:
    """Turn the saga round because somebody wishes it, or say why that is no longer possible."""
    if builder.direction is _UNDO:
        return "the saga compensates already"
    if committed(builder):
        return "the saga is past its point of no return: what was done stays done"
    turn_round(builder, cause)
    return None


def _turn_round_for(builder: DecisionBuilder, input_: OperatorAsked) -> str | None:
    kind = CauseKind.CANCELLED if input_.action is Action.CANCEL else CauseKind.OPERATOR
    return _give_up_for(builder, Cause(kind, actor=input_.actor, reason=input_.reason))


def _retry(builder: DecisionBuilder, input_: OperatorAsked) -> str | None:
    found = _asked_about(builder, input_)
    if isinstance(found, str):
        return found
    position, cell = found
    if cell.status not in (*NEED_A_PERSON, _BACKOFF, _UNDO_BACKOFF):
        return f"the step is {cell.status.value}: there is nothing to retry"
    builder.cancel(position, input_.item, cell)
    _try_again(builder, position, input_.item, cell)
    return None


def _try_again(builder: DecisionBuilder, position: int, item: str, cell: StepState) -> None:
    step = builder.definition.steps[position]
    if cell.status is _UNDO_FAILED:
        builder.send_anew(position, item, cell, _UNDO, round_=cell.round + 1)
    elif cell.status is _UNDO_STUCK or cell.status is _UNDO_BACKOFF:
        builder.send_anew(position, item, cell, _UNDO, attempt=cell.attempt + 1, round_=cell.round)
    elif step.activity is Activity.DELAY:
        _begin_delay(builder, position, step, cell)
    elif step.policy is None:
        builder.wait(position, cell)
    elif step.over is not None and not item:
        _begin_each(builder, position, step)
    else:
        builder.send_anew(position, item, cell, _DO, attempt=cell.attempt + 1, round_=cell.round)


def _resume(builder: DecisionBuilder, _: OperatorAsked) -> str | None:
    stuck = [found for found in builder.cells() if found[2].status in NEED_A_PERSON]
    for position, item, cell in stuck:
        _try_again(builder, position, item, cell)
    return None if stuck else "no step of this saga is stuck"


def _skip(builder: DecisionBuilder, input_: OperatorAsked) -> str | None:
    found = _asked_about(builder, input_)
    if isinstance(found, str):
        return found
    position, cell = found
    step = builder.definition.steps[position]
    reply = input_.reply
    if cell.status is _UNDO_STUCK or cell.status is _UNDO_FAILED:
        if reply is not None and not outcomes_of(step, _UNDO).get(type(reply)):
            return f"{type(reply).__name__} does not say that the step is undone"
        builder.put(position, input_.item, becoming(cell, _UNDONE))
    elif cell.status is not _STUCK:
        return f"the step is {cell.status.value}: only a step that is stuck can be skipped"
    elif step.over is not None and not input_.item:
        return "its list has too many items; retry it under a definition that allows them"
    elif type(reply) not in (step.outcomes or (type(None),)):
        return f"the step does not declare {type(reply).__name__}"
    elif reply is None:
        builder.put(position, "", becoming(cell, _SUCCEEDED))
    else:
        _take(builder, position, input_.item, cell, reply)
    return None


_ACTIONS: dict[Action, Callable[[DecisionBuilder, OperatorAsked], str | None]] = {
    Action.RETRY: _retry,
    Action.SKIP: _skip,
    Action.COMPENSATE: _turn_round_for,
    Action.CANCEL: _turn_round_for,
    Action.RESUME: _resume,
}

_HANDLERS: dict[type, Callable[[DecisionBuilder, Any], str | None]] = {
    Started: _started,
    Replied: _replied,
    TimerFired: _timer_fired,
    Signalled: _signalled,
    OperatorAsked: _operator_asked,
    ParentAsked: _parent_asked,
    UpgradeAsked: lambda b, asked: None if asked.version == b.definition.version else "it is another version",
    Unfit: _unfit,
    Undecidable: lambda _, undecidable: undecidable.reason,
    Unrecognised: lambda _, __: "nothing in this saga takes such a message",
}
