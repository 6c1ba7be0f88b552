"""A shadow run: a changed definition decides over what really happened, and nothing is sent. Pure.

The world of an instance is taken from its recorded inputs: its start, what each participant answered to which command
and after how long, signals and people's requests at their times. Both definitions are run in that world, each with the
timers that it sets itself. Where the new one asks what nobody was ever asked, the record ends; from there each declared
answer is tried, within a bound, and the report says "possibly".

The one rule: a difference is certain only if it follows from recorded answers alone.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from towpath.saga.advance import advance
from towpath.saga.definition import Activity, Definition, StepDefinition
from towpath.saga.effects import (
    AnswerParent,
    CancelTimer,
    CompensateSaga,
    Effect,
    Finish,
    SendCommand,
    SetTimer,
    StartSaga,
)
from towpath.saga.errors import BuilderError
from towpath.saga.inputs import (
    Hindered,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    TimerFired,
    TimerKind,
    Undecidable,
)
from towpath.saga.state import Direction, SagaState, StepStatus

BRANCHES_MAX = 64
"""Continuations tried past the end of the record: four steps with three answers each are 81."""
DECISIONS_MAX = 10_000
"""Decisions of one run: attempts over days are some thousands; more is a definition that does not end."""

Sampler = Callable[[type], Any]


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """What a participant (or sub-saga) is asked once: attempts of a round ask for the same answer."""

    step: str
    item: str
    direction: str
    round: int


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What was answered to `asked`, `after_milliseconds` from the first attempt of its round."""

    asked: object
    reply: object
    after_milliseconds: int


@dataclass(frozen=True, slots=True)
class ShadowWorld:
    """What really happened around an instance. `silent` are calls that were asked, with what, and not answered up to
    `until_milliseconds`, the time of the last recorded input. `ended` says whether the instance had ended by then: if
    not, what came later is not known.
    """

    started: Started
    answers: dict[Call, ShadowAnswer]
    silent: dict[Call, object]
    others: tuple[Input, ...]
    until_milliseconds: int
    ended: bool


@dataclass(frozen=True, slots=True)
class ShadowMove:
    """Something that others can see: a message sent, or the ending."""

    what: str
    step: str = ""
    item: str = ""
    direction: str = ""
    content: object = None

    def __str__(self) -> str:
        undo = "undo of " if self.direction == Direction.UNDO.value else ""
        place = f" ({undo}{self.step}{f' {self.item}' if self.item else ''})" if self.step else ""
        return f"{self.what}{place}"


@dataclass(frozen=True, slots=True)
class Run:
    """What one definition does in a world: its moves, a tuple for each decision that made any, each with its time.

    `open` names what it waits for past the end of the record, with the answers that are declared; empty where the run
    ended. `failure` says why a builder could not build.
    """

    moves: tuple[tuple[int, tuple[ShadowMove, ...]], ...]
    status: str
    open: tuple[tuple[Call, tuple[type, ...]], ...]
    failure: str | None = None


class Verdict(StrEnum):
    """How the new definition would have done, next to what happened."""

    SAME = "same"
    DIFFERENT = "different"
    POSSIBLY = "possibly different"
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One instance. `was` and `becomes` are the first moves that differ; `endings` are the statuses that the new
    definition may end with, `explored` how many continuations were tried, `whole` whether those were all.
    """

    saga_id: str
    key: str
    verdict: Verdict
    ending_was: str
    endings: tuple[str, ...]
    was: str = ""
    becomes: str = ""
    at_milliseconds: int = 0
    explored: int = 0
    whole: bool = True


# --- The world, from what was recorded --------------------------------------------------------------------------------


def world_of(old: Definition, inputs: Sequence[Input]) -> ShadowWorld:
    """Return the world in which `inputs`, the recorded inputs of one instance in their order, came about.

    `old` is the definition that decided then. Raises ValueError where the first input is no start.
    """
    # What came is what counts here: how large a topic's records may be is no matter of either definition.
    came = [input_.input if isinstance(input_, Hindered) else input_ for input_ in inputs]
    if not came or not isinstance(came[0], Started):
        raise ValueError("the history does not begin with the start: its retention has taken it")
    state: SagaState | None = None
    asked: dict[Call, tuple[object, int]] = {}
    answers: dict[Call, ShadowAnswer] = {}
    others: list[Input] = []
    for decided, input_ in zip(inputs, came, strict=True):
        if isinstance(input_, Replied):
            call = Call(input_.step, input_.item, input_.direction.value, input_.round)
            if call in asked and call not in answers:
                command, since = asked[call]
                answers[call] = ShadowAnswer(command, input_.reply, max(0, input_.at_milliseconds - since))
        elif isinstance(input_, Signalled | OperatorAsked | ParentAsked) and not isinstance(decided, Undecidable):
            others.append(input_)
        decision = advance(old, state, decided)
        state = decision.state
        for effect in decision.effects:
            found = _call(effect)
            if found is not None:
                asked.setdefault(found[0], (found[1], input_.at_milliseconds))
        for call in _waiting_in(old, state):
            asked.setdefault(call, (None, input_.at_milliseconds))
    last = max(input_.at_milliseconds for input_ in inputs)
    silent = {call: command for call, (command, _) in asked.items() if call not in answers}
    return ShadowWorld(came[0], answers, silent, tuple(others), last, state is not None and state.ended)


def _waiting_in(definition: Definition, state: SagaState | None) -> Iterator[Call]:
    """Yield the waits that are open, as calls."""
    for step, cell in zip(definition.steps, () if state is None else state.steps, strict=False):
        if step.activity is Activity.WAIT and cell.status is StepStatus.WAITING:
            yield Call(step.key, "", Direction.DO.value, 0)


def _call(effect: Effect) -> tuple[Call, object] | None:
    """Return what an effect asks, and the content with which it asks."""
    if isinstance(effect, SendCommand):
        return Call(effect.step, effect.item, effect.direction.value, effect.round), effect.command
    if isinstance(effect, StartSaga):
        return Call(effect.step, effect.item, Direction.DO.value, effect.round), effect.event
    if isinstance(effect, CompensateSaga):
        return Call(effect.step, effect.item, Direction.UNDO.value, effect.round), None
    return None


# --- One run in a world -----------------------------------------------------------------------------------------------


@dataclass
class _Runner:
    """A run in progress. `chosen` are answers that are tried, not recorded."""

    definition: Definition
    world: ShadowWorld
    chosen: dict[Call, object | None]
    state: SagaState | None = None
    moves: list[tuple[int, tuple[ShadowMove, ...]]] = field(default_factory=list)
    timers: dict[str, int] = field(default_factory=dict)
    unknown: dict[Call, int] = field(default_factory=dict)
    silent: set[Call] = field(default_factory=set)
    asked: set[Call] = field(default_factory=set)
    _events: list[tuple[int, int, Input]] = field(default_factory=list)
    _count: int = 0

    def run(self) -> Run:
        self._push(self.world.started.at_milliseconds, self.world.started)
        for input_ in self.world.others:
            self._push(input_.at_milliseconds, input_)
        decisions = 0
        try:
            while self._events and not self._over() and decisions < DECISIONS_MAX:
                at, _, input_ = heapq.heappop(self._events)
                if self._beyond(at):
                    break
                if self._stale(at, input_):
                    continue
                self._decide(at, input_)
                decisions += 1
        except BuilderError as error:
            return Run(tuple(self.moves), self._status(), (), failure=str(error))
        return Run(tuple(self.moves), self._status(), tuple(self._open()))

    def _over(self) -> bool:
        return self.state is not None and self.state.ended

    def _beyond(self, at: int) -> bool:
        """Say whether nothing is known any more at that time: an instance still under way, and nothing is tried."""
        return not self.world.ended and not self.chosen and at > self.world.until_milliseconds

    def _stale(self, at: int, input_: Input) -> bool:
        if not isinstance(input_, TimerFired):
            return False
        if self.timers.get(input_.timer.key) != at:
            return True  # cancelled, or moved
        timer = input_.timer
        if at > self.world.until_milliseconds:
            # That nobody answered is known up to the end of the record, and not beyond it.
            for call in sorted(self.silent):
                if timer.kind is TimerKind.SAGA or timer.step == call.step:
                    self.silent.discard(call)
                    self.unknown[call] = at
        # Whether an unrecorded answer would have come before this timer is not known.
        waits = {call.step for call in self.unknown}
        return bool(waits) and (timer.kind is TimerKind.SAGA or timer.step in waits)

    def _decide(self, at: int, input_: Input) -> None:
        if isinstance(input_, TimerFired):
            self.timers.pop(input_.timer.key, None)
        decision = advance(self.definition, self.state, input_)
        self.state = decision.state
        made: list[ShadowMove] = []
        for effect in decision.effects:
            self._perform(at, effect, made)
        for call in self._waits():
            self._ask(at, call, None)
        if made:
            self.moves.append((at, tuple(sorted(made, key=lambda move: (move.step, move.item, move.what)))))

    def _perform(self, at: int, effect: Effect, made: list[ShadowMove]) -> None:
        found = _call(effect)
        if found is not None:
            call, content = found
            if call not in self.asked:
                made.append(ShadowMove(_name_of(effect), call.step, call.item, call.direction, content))
                self._ask(at, call, content)
        elif isinstance(effect, SetTimer):
            self.timers[effect.timer.key] = effect.due_milliseconds
            fired = TimerFired(f"shadow:{effect.timer.key}", effect.due_milliseconds, effect.timer)
            self._push(effect.due_milliseconds, fired)
        elif isinstance(effect, CancelTimer):
            self.timers.pop(effect.timer.key, None)
        elif isinstance(effect, AnswerParent):
            made.append(ShadowMove(type(effect.reply).__name__))
        elif isinstance(effect, Finish):
            made.append(ShadowMove(f"the saga is {effect.status.value}"))

    def _ask(self, at: int, call: Call, content: object) -> None:
        self.asked.add(call)
        if call in self.chosen:
            reply = self.chosen[call]
            if reply is not None:
                self._push(at, self._reply(at, call, reply))
            return
        answer = self.world.answers.get(call)
        if answer is not None and answer.asked == content:
            due = at + answer.after_milliseconds
            self._push(due, self._reply(due, call, answer.reply))
        elif call in self.world.silent and self.world.silent[call] == content:
            self.silent.add(call)
        else:
            self.unknown[call] = at

    def _reply(self, at: int, call: Call, reply: object) -> Input:
        id_ = f"shadow:{call.step}:{call.item}:{call.direction}:{call.round}"
        step = self.definition.steps[self.definition.index[call.step]]
        if step.activity is Activity.WAIT:
            return Signalled(id_, at, reply)
        return Replied(id_, at, call.step, Direction(call.direction), 1, call.round, reply, call.item)

    def _waits(self) -> Iterator[Call]:
        """Yield waits that have begun, and that no recorded signal will answer."""
        heard = {type(input_.signal) for input_ in self.world.others if isinstance(input_, Signalled)}
        for call in _waiting_in(self.definition, self.state):
            step = self.definition.steps[self.definition.index[call.step]]
            if call not in self.asked and not heard & set(step.outcomes):
                yield call

    def _open(self) -> Iterator[tuple[Call, tuple[type, ...]]]:
        if self._over():
            return
        for call in sorted(self.unknown):
            step = self.definition.steps[self.definition.index[call.step]]
            yield call, _declared(step, call)

    def _push(self, at: int, input_: Input) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, input_))

    def _status(self) -> str:
        return "" if self.state is None else self.state.status.value


def _declared(step: StepDefinition, call: Call) -> tuple[type, ...]:
    if call.direction == Direction.UNDO.value:
        return () if step.undo is None else tuple(step.undo.outcomes)
    return tuple(step.outcomes)


def _name_of(effect: Effect) -> str:
    if isinstance(effect, SendCommand):
        return type(effect.command).__name__
    if isinstance(effect, StartSaga):
        return type(effect.event).__name__
    return "CompensateSaga"


def run_in(definition: Definition, world: ShadowWorld, chosen: dict[Call, object | None] | None = None) -> Run:
    """Return what `definition` does in `world`; `chosen` answers calls that nobody recorded (None: never answered)."""
    return _Runner(definition, world, chosen or {}).run()


# --- Comparing --------------------------------------------------------------------------------------------------------


def compare(old: Definition, new: Definition, inputs: Sequence[Input], sampler: Sampler, saga_id: str) -> Comparison:
    """Return how `new` would have done where `old` decided over `inputs`.

    `sampler` makes a record of a class, for answers that nobody recorded. Raises ValueError where the history does not
    begin with the start, or where one of the functions of `old` raises on it.
    """
    try:
        world = world_of(old, inputs)
    except BuilderError as error:
        raise ValueError(f"the old definition cannot decide over it: {error}") from error
    key = world.started.key
    before, after = run_in(old, world), run_in(new, world)
    if before.failure is not None:
        raise ValueError(f"the old definition cannot decide over it: {before.failure}")
    base = Comparison(saga_id, key, Verdict.SAME, before.status, (after.status,))
    if after.failure is not None:
        return replace(base, verdict=Verdict.FAILS, becomes=after.failure)
    difference = _first_difference(before, after)
    same_open = [call for call, _ in before.open] == [call for call, _ in after.open]
    if difference is None and same_open:
        return base
    continued = tuple(_continuations(new, world, after, sampler)) if after.open else ()
    endings = tuple(sorted({run.status for run in continued})) or (after.status,)
    base = replace(base, endings=endings, explored=len(continued), whole=len(continued) < BRANCHES_MAX)
    if difference is not None:
        at, was, becomes = difference
        return replace(base, verdict=Verdict.DIFFERENT, was=was, becomes=becomes, at_milliseconds=at)
    # Both did the same as far as the record goes, and then one of them waits for what the other does not.
    return replace(base, verdict=Verdict.POSSIBLY, was=_waiting(before), becomes=_waiting(after))


def _first_difference(before: Run, after: Run) -> tuple[int, str, str] | None:
    """Return when the runs first made different moves, and both in words; None where none is certain."""
    for one, other in zip_longest(before.moves, after.moves):
        if one is None or other is None:
            if (one is None and before.open) or (other is None and after.open):
                return None  # the run stands where the record ends: whether it would move is not known
            return (other or one or (0, ()))[0], _words(one), _words(other)
        if one[1] != other[1]:
            return other[0], _words(one), _words(other)
    return None


def _words(moves: tuple[int, tuple[ShadowMove, ...]] | None) -> str:
    return "nothing" if moves is None else ", ".join(str(move) for move in moves[1])


def _waiting(run: Run) -> str:
    if not run.open:
        return f"it is {run.status}"
    return "it waits for " + ", ".join(call.step for call, _ in run.open)


def _continuations(definition: Definition, world: ShadowWorld, first: Run, sampler: Sampler) -> Iterator[Run]:
    """Yield runs past the end of the record: each declared answer to what is asked, and none, depth first."""
    count = 0
    waiting: list[tuple[dict[Call, object | None], Run]] = [({}, first)]
    while waiting and count < BRANCHES_MAX:
        chosen, run = waiting.pop()
        if not run.open:
            count += 1
            yield run
            continue
        call, kinds = run.open[0]
        answers: Iterable[object | None] = (*(_answer(world, call, kind, sampler) for kind in kinds), None)
        for answer in answers:
            further = {**chosen, call: answer}
            waiting.append((further, run_in(definition, world, further)))


def _answer(world: ShadowWorld, call: Call, kind: type, sampler: Sampler) -> object:
    """Return an answer of that class: the one that was recorded for the step, if it is one, else a sample."""
    recorded = world.answers.get(call)
    return recorded.reply if recorded is not None and type(recorded.reply) is kind else sampler(kind)
