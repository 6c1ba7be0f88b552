"""The scratch pad of one decision: what `advance` was given, and what it has decided so far.

No rule lives here. advance.py decides; this file writes down: it replaces cells, builds commands, adds effects.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from towpath.saga.definition import Activity, Definition, Policy, StepDefinition
from towpath.saga.effects import (
    AnswerParent,
    CancelTimer,
    CompensateSaga,
    Effect,
    PublishEvent,
    SendCommand,
    SetTimer,
    StartNext,
    StartSaga,
    SubsagaCompensated,
    SubsagaCompleted,
)
from towpath.saga.errors import BuilderError
from towpath.saga.inputs import Started, Timer, TimerKind
from towpath.saga.keys import saga_id_of
from towpath.saga.state import (
    NEED_A_PERSON,
    Cause,
    Direction,
    ParentReference,
    SagaState,
    Status,
    StepState,
    StepStatus,
)

SAGA_TIMER = Timer(TimerKind.SAGA)

# Bound once: looking a member up in its enum costs as much as the rest of a comparison.
_DO, _UNDO = Direction.DO, Direction.UNDO
_SENT, _WAITING, _UNDOING = StepStatus.SENT, StepStatus.WAITING, StepStatus.UNDOING
_BACKOFF, _UNDO_BACKOFF = StepStatus.BACKOFF, StepStatus.UNDO_BACKOFF
_ATTEMPT, _WAIT, _PAUSE = TimerKind.ATTEMPT, TimerKind.WAIT, TimerKind.BACKOFF

# How an `each` stands: as the first of these that any of its items has.
_PRECEDENCE = (
    StepStatus.UNDO_FAILED,
    StepStatus.UNDO_STUCK,
    StepStatus.UNDO_BACKOFF,
    StepStatus.UNDOING,
    StepStatus.STUCK,
    StepStatus.BACKOFF,
    StepStatus.SENT,
    StepStatus.UNKNOWN,
    StepStatus.SUCCEEDED,
    StepStatus.UNDONE,
    StepStatus.DECLINED,
    StepStatus.FAILED,
)


class DecisionBuilder:
    """One decision in the making. The state that it began from is never changed."""

    __slots__ = (
        "at",
        "cause",
        "deadline",
        "definition",
        "direction",
        "effects",
        "event",
        "forgotten",
        "headers",
        "key",
        "parent",
        "recent",
        "saga_id",
        "start_id",
        "started",
        "status",
        "steps",
    )

    at: int
    cause: Cause | None
    deadline: int
    definition: Definition
    direction: Direction
    effects: list[Effect]
    event: object
    forgotten: int
    headers: tuple[tuple[str, str], ...]
    key: str
    parent: ParentReference | None
    recent: tuple[tuple[str, int], ...]
    saga_id: str
    start_id: str
    started: int
    status: Status
    steps: list[StepState]

    def __init__(self, definition: Definition, at: int) -> None:
        self.definition = definition
        self.at = at
        self.effects = []

    def read(self, state: SagaState) -> None:
        """Take over what is there."""
        self.saga_id = state.saga_id
        self.key = state.key
        self.start_id = state.start_id
        self.started = state.started_milliseconds
        self.event = state.event
        self.status = state.status
        self.direction = state.direction
        self.deadline = state.deadline_milliseconds
        self.steps = list(state.steps)
        self.cause = state.cause
        self.recent = state.recent
        self.forgotten = state.forgotten_milliseconds
        self.parent = state.parent
        self.headers = state.headers

    def begin(self, input_: Started, start: StepStatus) -> None:
        """Take over what a start event brings; `start` is how the start itself stands."""
        definition = self.definition
        steps = [StepState(step.key) for step in definition.steps]
        steps[0] = StepState(steps[0].key, start)
        self.read(
            SagaState(
                definition.name,
                definition.version,
                saga_id_of(definition.name, input_.id),
                input_.key,
                input_.id,
                self.at,
                input_.event,
                Status.RUNNING,
                _DO,
                0 if input_.refused else self.at + definition.deadline_milliseconds,
                tuple(steps),
                parent=input_.parent,
                headers=input_.headers,
            )
        )

    def written(self) -> SagaState:
        """Return the state that this turn leads to."""
        return SagaState(
            self.definition.name,
            self.definition.version,
            self.saga_id,
            self.key,
            self.start_id,
            self.started,
            self.event,
            self.status,
            self.direction,
            self.deadline,
            tuple(self.steps),
            self.cause,
            self.recent,
            self.forgotten,
            self.parent,
            self.headers,
        )

    def put(self, position: int, item: str, cell: StepState) -> None:
        """Replace a step, or one item of it."""
        if not item:
            self.steps[position] = cell
            return
        step = self.steps[position]
        items = tuple(cell if old.key == item else old for old in step.items)
        statuses = [new.status for new in items]
        standing = next(status for status in _PRECEDENCE if status in statuses)
        if standing not in NEED_A_PERSON:
            enough = self.definition.steps[position].enough
            if enough and statuses.count(StepStatus.SUCCEEDED) >= enough:
                standing = StepStatus.SUCCEEDED  # though some of the others are still being undone
        self.steps[position] = StepState(step.key, standing, items=items)

    def cells(self) -> Iterator[tuple[int, str, StepState]]:
        """Yield position, item and state of every step, and of every item in place of its step."""
        for position, step in enumerate(tuple(self.steps)):
            if not step.items:
                yield position, "", step
            for item in step.items:
                yield position, item.key, item

    # --- what functions of the definition say -----------------------------------------------------------------------

    def arguments(self, needs: tuple[int, ...]) -> list[Any]:
        """Return what a function receives: the start event, then the results needed, in order."""
        steps, composed = self.steps, self.definition.composed
        if not composed:
            return [self.event, *[steps[need].result for need in needs]]
        return [self.event, *[self._value(need) if composed >> need & 1 else steps[need].result for need in needs]]

    def _value(self, position: int) -> Any:
        """Return the result of a step: its own, all of a list, or that of the step whose place it takes."""
        defined, state = self.definition.steps[position], self.steps[position]
        if defined.activity is Activity.MERGE:
            taken = (need for need in defined.needs if self._taken(need))
            return next((self._value(need) for need in taken), None)
        if defined.instead_of is not None and state.status is StepStatus.SKIPPED:
            return self._value(defined.instead_of)
        if defined.enough:  # of the others some were declined, and some never answered
            won = (item.result for item in state.items if type(item.result) in defined.outcomes)
            return tuple(result for result in won if defined.outcomes[type(result)])
        if defined.over is not None:
            return tuple(item.result for item in state.items)
        return state.result

    def _taken(self, position: int) -> bool:
        """Say whether the branch in which a step lies, or which it is, was taken."""
        step = self.definition.steps[position]
        branches = (position,) if step.activity is Activity.BRANCH else step.only_in
        return all(self.steps[branch].status is StepStatus.SUCCEEDED for branch in branches)

    def call(self, step: StepDefinition, function: Callable[..., Any] | None, arguments: list[Any]) -> Any:
        """Call a function of the definition. Raises BuilderError where it raises."""
        assert function is not None  # the language gives every activity the functions that it needs
        try:
            return function(*arguments)
        except Exception as error:
            raise BuilderError(self.definition.name, step.key, _name(function)) from error

    def option(self, step: StepDefinition) -> int:
        """Return which of its options a choice takes. Raises BuilderError where its function names none of them."""
        chosen = self.call(step, step.build, self.arguments(step.needs))
        try:
            return step.options.index(chosen)
        except ValueError as error:
            raise BuilderError(self.definition.name, step.key, _name(step.build)) from error

    def until(self, step: StepDefinition) -> int:
        """Return when a delay is over, in milliseconds since 1970. Raises BuilderError where that is no such time."""
        moment = self.call(step, step.until, self.arguments(step.needs))
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise BuilderError(self.definition.name, step.key, _name(step.until))
        return int(moment.timestamp() * 1000)

    def items_of(self, step: StepDefinition) -> Sequence[Any]:
        """Return the list of an `each`. Raises BuilderError where its function raises, or returns something else."""
        found = self.call(step, step.over, self.arguments(step.needs))
        wrong = wrong_list(found)
        if wrong:
            name = getattr(step.over, "__name__", "its function")
            raise BuilderError(self.definition.name, step.key, name, f"returned {wrong}")
        items: Sequence[Any] = found
        return items

    def child_key(self, step: StepDefinition, item: str) -> str:
        """Return the business key of a sub-saga; empty where it is this saga's own. Raises BuilderError."""
        if step.keyed_by is None:
            return f"{self.key}/{item}" if item else ""
        return self.key_by(step, step.keyed_by, [*self.arguments(step.needs), *self._item(step, item)])

    def key_by(self, step: StepDefinition, keyed_by: Callable[..., str], arguments: list[Any]) -> str:
        """Return the business key that a function of the definition gives. Raises BuilderError."""
        found = self.call(step, keyed_by, arguments)
        if not isinstance(found, str) or not found:
            raise BuilderError(self.definition.name, step.key, _name(keyed_by), f"returned {found!r}, not a key")
        return found

    def _item(self, step: StepDefinition, item: str) -> tuple[Any, ...]:
        """Return what a function receives of the item of an `each`, after all else; nothing of any other step."""
        return (self.items_of(step)[int(item)],) if item else ()

    def _command(self, step: StepDefinition, item: str, direction: Direction) -> tuple[str, object]:
        if direction is _DO:
            participant, build, arguments = step.participant, step.build, self.arguments(step.needs)
        else:
            undo = step.undo
            assert undo is not None  # only what has an undo is undone
            participant, build, arguments = undo.participant, undo.build, self.arguments(undo.needs)
            if undo.takes_cause:
                arguments.append(self.cause)
        if item:
            arguments.extend(self._item(step, item))
        return participant, self.call(step, build, arguments)

    # --- sending ----------------------------------------------------------------------------------------------------

    def send_anew(
        self, position: int, item: str, cell: StepState, direction: Direction, *, attempt: int = 1, round_: int = 1
    ) -> None:
        """Send an attempt that has the whole of its policy before it."""
        policy = policy_of(self.definition.steps[position], direction)
        due = self.at + policy.within_milliseconds
        last, give_up = attempt + policy.attempts - 1, self.at + policy.retry_for_milliseconds
        status = _SENT if direction is _DO else _UNDOING
        sent = StepState(cell.key, status, attempt, round_, due, last, give_up, cell.result)
        self._send(position, item, sent, direction)

    def send_next(self, position: int, item: str, cell: StepState) -> None:
        """Send the attempt that follows the pause in which the step is."""
        direction = _DO if cell.status is _BACKOFF else _UNDO
        status = _SENT if direction is _DO else _UNDOING
        due = self.at + policy_of(self.definition.steps[position], direction).within_milliseconds
        last, give_up = cell.attempt_last, cell.give_up_milliseconds
        sent = StepState(cell.key, status, cell.attempt + 1, cell.round, due, last, give_up, cell.result)
        self._send(position, item, sent, direction)

    def _send(self, position: int, item: str, sent: StepState, direction: Direction) -> None:
        """Send one attempt of a step's command, or of its undo, and set the timer of its deadline."""
        step = self.definition.steps[position]
        name, due, attempt, round_ = self.definition.name, sent.due_milliseconds, sent.attempt, sent.round
        effect: Effect
        child = step.child
        if child is None:
            to, command = self._command(step, item, direction)
            effect = SendCommand(
                name, self.saga_id, self.key, to, step.key, item, direction, attempt, round_, command, due
            )
        else:
            asked = (name, self.saga_id, self.key, step.key, attempt, round_)
            if direction is _DO:
                _, event = self._command(step, item, direction)
                effect = StartSaga(*asked, child.name, child.version, event, item, self.child_key(step, item))
            else:
                effect = CompensateSaga(*asked, child.name, item, self.child_key(step, item))
        self.put(position, item, sent)
        timer = Timer(_ATTEMPT, step.key, item, direction, attempt, round_)
        self.effects += (effect, SetTimer(self.saga_id, timer, due))

    def publish(self, step: StepDefinition, event: object, number: int = 0) -> None:
        """Publish an event; `number` is that of a reminder."""
        self.effects.append(PublishEvent(self.definition.name, self.saga_id, self.key, step.key, event, number))

    def start_next(self, step: StepDefinition, event: object) -> None:
        """Start the next instance. Raises BuilderError for what does not start this saga, or has no key."""
        definition = self.definition
        if type(event) not in definition.starts:
            problem = f"returned a {type(event).__name__}, which does not start this saga"
            raise BuilderError(definition.name, step.key, _name(step.build), problem)
        key = self.key if definition.keyed_by is None else start_key_of(definition, event)
        self.effects.append(StartNext(definition.name, self.saga_id, step.key, event, key))

    def answer_parent(self) -> None:
        """Tell the parent, if there is one, how this sub-saga has ended."""
        if self.parent is None:
            return
        name, result = self.definition.name, self.definition.result
        ending: SubsagaCompleted[object] | SubsagaCompensated = SubsagaCompensated(name, self.saga_id)
        if self.status is Status.COMPLETED:
            came_to = None if result is None else self.steps[result].result
            ending = SubsagaCompleted(name, self.saga_id, came_to)
        self.effects.append(AnswerParent(self.saga_id, self.parent, ending))

    def wait(self, position: int, cell: StepState, due: int | None = None) -> None:
        """Begin a wait or a delay (again: its timer then has the next attempt's number)."""
        step = self.definition.steps[position]
        over = self.at + step.wait_milliseconds if due is None else due
        last, give_up, attempt = 0, 0, cell.attempt + 1
        if step.remind is not None or step.prolong is not None or step.gather is not None:
            give_up = over
            last = attempt + (step.remind.reminders_max if step.remind is not None else 0)
        round_ = 1 if step.gather is None else max(1, cell.round)
        waiting = StepState(step.key, _WAITING, attempt, round_, over, last, give_up, cell.result)
        self._await(position, waiting)

    def remind(self, position: int, cell: StepState) -> None:
        """Publish the reminder that is due, and go on waiting."""
        step = self.definition.steps[position]
        remind = step.remind
        assert remind is not None  # only a wait that reminds has timers before it is over
        number = remind.reminders_max - (cell.attempt_last - cell.attempt) + 1
        event = self.call(step, remind.build, [*self.arguments(step.needs), number])
        self.publish(step, event, cell.attempt)
        self._await(position, replace(cell, attempt=cell.attempt + 1, due_milliseconds=cell.give_up_milliseconds))

    def prolong(self, position: int, cell: StepState) -> None:
        """Move the end of a wait that is under way; a reminder that is due before it stays where it is."""
        prolong = self.definition.steps[position].prolong
        assert prolong is not None  # only such a wait is prolonged
        self.cancel(position, "", cell)
        give_up = cell.give_up_milliseconds + prolong.by_milliseconds
        due = cell.due_milliseconds if cell.due_milliseconds < cell.give_up_milliseconds else give_up
        prolonged = replace(cell, round=cell.round + 1, due_milliseconds=due, give_up_milliseconds=give_up)
        self._await(position, prolonged)

    def fold(self, step: StepDefinition, cell: StepState, signal: object) -> Any:
        """Return what a wait has gathered once a signal is among it. Raises BuilderError."""
        gather = step.gather
        assert gather is not None  # only such a wait gathers
        gathered = self.call(step, gather.fold, [self.event, cell.result, signal])
        if type(gathered) is not gather.into:
            problem = f"returned a {type(gathered).__name__}, not the {gather.into.__name__} that it gathers into"
            raise BuilderError(self.definition.name, step.key, _name(gather.fold), problem)
        return gathered

    def enough(self, step: StepDefinition, gathered: object) -> bool:
        """Say whether a wait has gathered enough to be over. Raises BuilderError."""
        gather = step.gather
        assert gather is not None  # only such a wait gathers
        return gather.enough is not None and bool(self.call(step, gather.enough, [self.event, gathered]))

    def go_on_gathering(self, position: int, cell: StepState, gathered: object) -> None:
        """Go on with a wait that has gathered one signal more: its timer has the new round."""
        self.cancel(position, "", cell)
        self._await(position, replace(cell, round=cell.round + 1, result=gathered))

    def _await(self, position: int, waiting: StepState) -> None:
        """Wait until it is due, or until the next reminder if there is one before that."""
        remind, due = self.definition.steps[position].remind, waiting.due_milliseconds
        if remind is not None and waiting.attempt < waiting.attempt_last and due == waiting.give_up_milliseconds:
            due = min(due, self.at + remind.every_milliseconds)
            waiting = replace(waiting, due_milliseconds=due)
        self.put(position, "", waiting)
        self.effects.append(SetTimer(self.saga_id, timer_of(waiting.key, "", waiting), due))

    # --- timers -----------------------------------------------------------------------------------------------------

    def rest(self, position: int, item: str, cell: StepState, status: StepStatus, due: int) -> None:
        """Pause between two attempts, until `due`."""
        resting = StepState(
            cell.key, status, cell.attempt, cell.round, due, cell.attempt_last, cell.give_up_milliseconds, cell.result
        )
        self.put(position, item, resting)
        step = self.definition.steps[position].key
        self.effects.append(SetTimer(self.saga_id, timer_of(step, item, resting), due))

    def cancel(self, position: int, item: str, cell: StepState) -> None:
        """Cancel the timer that runs for a step or item, if any does."""
        if cell.due_milliseconds:
            step = self.definition.steps[position].key
            self.effects.append(CancelTimer(self.saga_id, timer_of(step, item, cell)))

    def cancel_deadline(self) -> None:
        """Cancel the timer of the whole saga, if it still runs."""
        if self.deadline:
            self.deadline = 0
            self.effects.append(CancelTimer(self.saga_id, SAGA_TIMER))


def start_key_of(definition: Definition, event: object) -> str:
    """Return the business key that the definition gives a start event. Raises BuilderError."""
    assert definition.keyed_by is not None  # asked only where the definition says so
    return DecisionBuilder(definition, 0).key_by(definition.steps[0], definition.keyed_by, [event])


def child_keys_of(definition: Definition, state: SagaState, step: StepDefinition) -> dict[str, str]:
    """Return by item the business keys of the sub-sagas that a step of an instance has started. Raises BuilderError.

    Of one that is no list, the item is the empty one.
    """
    builder = DecisionBuilder(definition, 0)
    builder.read(state)
    items = [""] if step.over is None else [cell.key for cell in state.steps[definition.index[step.key]].items]
    return {item: builder.child_key(step, item) or state.key for item in items}


def next_key_of(definition: Definition, state: SagaState) -> str | None:
    """Return the business key of the next instance, which this one has started; None where it has started none.

    Raises BuilderError. The definition is one whose last step starts the next.
    """
    if state.status is not Status.COMPLETED:
        return None
    builder, step = DecisionBuilder(definition, 0), definition.steps[-1]
    builder.read(state)
    event = builder.call(step, step.build, builder.arguments(step.needs))
    if event is None:
        return None
    return state.key if definition.keyed_by is None else start_key_of(definition, event)


def _name(function: Callable[..., Any] | None) -> str:
    return getattr(function, "__name__", repr(function))


def wrong_list(found: object) -> str:
    """Say what is wrong with what the function of an `each` returned; empty if it is a list.

    A text is a list of letters to Python, and a dictionary one of its keys: neither is meant.
    """
    if isinstance(found, str | bytes | Mapping) or not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        return f"a {type(found).__name__}, not a list or a tuple"
    return ""


def policy_of(step: StepDefinition, direction: Direction) -> Policy:
    """Return the policy of a command or of its undo."""
    if direction is _UNDO:
        assert step.undo is not None  # only what has an undo is undone
        return step.undo.policy
    assert step.policy is not None  # only what has a policy is sent
    return step.policy


def outcomes_of(step: StepDefinition, direction: Direction) -> Mapping[type, bool]:
    """Return the replies that a command, or its undo, may have, and whether each is a success."""
    if direction is _UNDO:
        assert step.undo is not None  # only what has an undo is undone
        return step.undo.outcomes
    return step.outcomes


def timer_of(step: str, item: str, cell: StepState) -> Timer:
    """Return the timer that runs while a step or item stands as it does."""
    status = cell.status
    kind = _ATTEMPT if status is _SENT or status is _UNDOING else _WAIT if status is _WAITING else _PAUSE
    undo = status is _UNDOING or status is _UNDO_BACKOFF
    return Timer(kind, step, item, _UNDO if undo else _DO, cell.attempt, cell.round)


def becoming(cell: StepState, status: StepStatus, result: object | None = None) -> StepState:
    """Return the cell in a status in which no timer runs."""
    kept = cell.result if result is None else result
    return StepState(cell.key, status, cell.attempt, cell.round, 0, cell.attempt_last, cell.give_up_milliseconds, kept)
