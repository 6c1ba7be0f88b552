"""Walks through every state that an instance of a saga can reach, by the machine itself.

Two states are one if the machine cannot tell them apart by anything but data and times: see `Encoder`. Each keeps one
concrete `SagaState` that stands for it, and the shortest path to it.

REDUCTIONS (none if `reduced` is false; tests hold the two against each other)
 1. Once nothing can turn the saga round any more (it compensates, or its deadline is over past the pivot), what happens
    to one step cannot be undone, hindered or hastened by what happens to another: only the moves of one step are made
    in each state, those of the others after it (an ample set). Where the saga ends, no step has a move left; so, as
    long as an ending is reached from everywhere, which is proved, no move is put off for ever.
 2. Before that, steps that run side by side go on one at a time, in a few orders in which every two of them are seen
    either way (see orders.py). In each state, what turns the saga round is explored for all of them.
 3. Items of an `each` that are not needed are undone before and after whatever else happens.
 4. A signal that comes before its wait is explored where the next input may begin the wait, and where no more than one
    other such signal is held: a third changes nothing that the second did not.
 5. Where many steps have conditions, those ways are walked in which most come out alike (see conditions.py).
 6. Items of an `each` are alike: their order does not tell states apart.
 7. On the way back, steps that owe nothing (any more) do not tell states apart: they refuse whatever comes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from towpath.saga.advance import Decision, advance
from towpath.saga.check.abstract import Abstraction, Call, Choice
from towpath.saga.check.conditions import Conditions
from towpath.saga.check.encode import Encoder, Key
from towpath.saga.check.invariants import NEED_A_PERSON, Judge
from towpath.saga.check.ledger import Account, Ledger, opening
from towpath.saga.check.moves import AdversaryMove, Cell, Moves, Stranger, cells_of
from towpath.saga.check.orders import orders_of
from towpath.saga.check.properties import Breach, Property
from towpath.saga.definition import Definition
from towpath.saga.effects import Happened, Record
from towpath.saga.inputs import Action, Input, OperatorAsked, ParentAsked, Started, TimerFired, TimerKind, Unrecognised
from towpath.saga.state import CauseKind, Direction, SagaState, Status, StepState, StepStatus

# A state takes about 2 kB with its edges: 2 GB at the limit.
STATES_MAX = 1_000_000
PROGRESS_EACH = 1_000  # states: a second or less between two words of progress
Progress: TypeAlias = Callable[[int, int], None]

_UNUSUAL = (StepStatus.BACKOFF, StepStatus.STUCK)


@dataclass(frozen=True, slots=True)
class Happening:
    """An input, and what the oracle said while it was decided."""

    input: Input
    choices: tuple[Choice, ...] = ()


@dataclass(slots=True)
class Node:
    """A reachable state: one concrete instance that stands for all alike, and how it is reached."""

    state: SagaState
    ledger: Ledger
    facts: tuple[Choice, ...]
    now: int
    parent: int
    via: Happening
    key: Key
    edges: list[tuple[int, bool]] = field(default_factory=list)  # to which node, and whether a person must act
    ways: dict[Any, list[int]] = field(default_factory=dict)  # the moves that were made here, and where they lead
    probed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A breach, and where: at a node (-1: before the start), or at what happens there next."""

    breach: Breach
    node: int
    then: tuple[Happening, ...] = ()


@dataclass(frozen=True, slots=True)
class Halt:
    """A way in which a step comes to need a person; `node` is the first state where it does."""

    step: str
    status: StepStatus
    by: str
    node: int


@dataclass(slots=True)
class Exploration:
    """All that was found by walking through a definition."""

    definition: Definition
    abstraction: Abstraction
    nodes: list[Node]
    reduced: bool = True
    transitions: int = 0
    refusals: int = 0
    whole: bool = True
    inputs_covered: int = 0  # where the walk was cut short: it covers every run of so many inputs
    found: dict[tuple[Property, str], Found] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    undone: set[int] = field(default_factory=set)
    halts: dict[tuple[str, StepStatus, str], Halt] = field(default_factory=dict)
    causes: set[tuple[CauseKind, str, type | None]] = field(default_factory=set)

    @property
    def calls(self) -> set[Call]:
        """Return how functions of the definition were called."""
        return self.abstraction.oracle.calls

    def states(self) -> Iterator[SagaState]:
        """Yield a concrete state for each reachable one."""
        return (node.state for node in self.nodes)

    def path(self, node: int, then: tuple[Happening, ...] = ()) -> list[Happening]:
        """Return what happened on the shortest way to a node, and what happened there next."""
        way = list(then[::-1])
        while node >= 0:
            way.append(self.nodes[node].via)
            node = self.nodes[node].parent
        return way[::-1]


class Explorer:
    """Explores one definition; as a sub-saga, its parent may ask it to compensate at any time.

    `progress` is told now and then how many states were found, and how many of them wait to be looked at.
    """

    def __init__(
        self,
        definition: Definition,
        *,
        as_child: bool = False,
        reduced: bool = True,
        states_max: int = STATES_MAX,
        progress: Progress | None = None,
    ) -> None:
        abstraction = Abstraction(definition)
        self.definition = abstraction.definition
        self.oracle = abstraction.oracle
        self.as_child = as_child
        self.reduced = reduced
        self.states_max = states_max
        self.progress = progress
        self.moves = Moves(self.definition, as_child=as_child)
        self.judge = Judge(self.definition)
        self.encoder = Encoder(self.definition, reduced=reduced)
        self.result = Exploration(definition, abstraction, [], reduced)
        self.raised: Exception | None = None  # what the machine raised at the last decision, if it did
        self._places: dict[Key, int] = {}
        self._orders = orders_of(self.definition)
        self._conditions = Conditions(self.definition)
        self._open: deque[tuple[int, int]] = deque()  # states to take up, each in an order
        self._visited: set[tuple[int, int]] = set()
        self._probed: set[Any] = set()

    def run(self) -> Exploration:
        """Walk through everything."""
        self._begin()
        taken = 0
        while self._open:
            if len(self.result.nodes) > self.states_max:
                self.result.whole = False
                self.result.inputs_covered = min(self._inputs_before(number) for number, _ in self._open)
                break
            self._expand(*self._open.popleft())
            taken += 1
            if self.progress is not None and taken % PROGRESS_EACH == 0:
                self.progress(len(self.result.nodes), len(self._open))
        return self.result

    def _inputs_before(self, number: int) -> int:
        """Return how many inputs led to a state, on the shortest way that was found."""
        return len(self.result.path(number))

    def _begin(self) -> None:
        self._probe_nothing()
        for start in self.moves.starts():
            for happening, facts, decision in self.decide(None, (), start):
                if decision is not None and self._usual(decision):
                    ledger = opening(self.definition, refused=bool(start.refused))
                    place = self._arrive(-1, None, ledger, happening, facts, decision)
                    for order in range(len(self._orders) if place is not None else 0):
                        self._visit(cast("int", place), order)

    def decide(
        self, state: SagaState | None, facts: tuple[Choice, ...], input_: Input
    ) -> Iterator[tuple[Happening, tuple[Choice, ...], Decision | None]]:
        """Let the machine decide, once for each way in which conditions and lists may come out.

        The decision is None where the machine raised; what it raised is then in `raised`.
        """
        oracle, script = self.oracle, list[int]()
        while True:
            oracle.begin(script, facts)
            decision: Decision | None
            try:
                decision = advance(self.definition, state, input_)
            except Exception as error:  # whatever it is, it is what is looked for
                self.raised = error
                decision = None
            asked = list(oracle.asked)
            yield Happening(input_, tuple(oracle.taken)), oracle.lasting_facts(facts), decision
            while asked and asked[-1][1] + 1 == len(oracle.options[asked[-1][0]]):
                asked.pop()
            if not asked:
                return
            script = [index for _, index in asked[:-1]] + [asked[-1][1] + 1]

    # --- one state --------------------------------------------------------------------------------------------------

    def _expand(self, number: int, order: int) -> None:
        node = self.result.nodes[number]
        groups = self.groups_at(node, order)
        for name, moves in groups.items():
            if name not in node.ways:
                node.ways[name] = self._make(number, node, moves)
            for reached in node.ways[name]:
                self._visit(reached, order)
        if node.probed:
            return
        node.probed = True
        if not node.state.ended and not any(self._of_cells(node)):
            words = "no step is under way, and the saga has not ended"
            self._note([Breach(Property.DEADLOCK, _pending(node.state), words)], number)
        self._probe(number, node)

    def _usual(self, decision: Decision) -> bool:
        """Say whether the walk goes on after a decision, by how its conditions came out."""
        return not self.reduced or decision.state is None or self._conditions.usual(decision.state)

    def _make(self, number: int, node: Node, moves: Sequence[AdversaryMove]) -> list[int]:
        """Make moves in a state; return the states that they lead to."""
        found: dict[int, None] = {}
        for move in moves:
            for happening, facts, decision in self.decide(node.state, node.facts, move.input):
                self.result.transitions += 1
                if decision is None:
                    breach = Breach(Property.TOTAL, "", f"{type(self.raised).__name__}: {self.raised}")
                    self._note([breach], number, (happening,))
                    continue
                if not self._usual(decision):
                    continue
                reached = self._arrive(number, node, node.ledger, happening, facts, decision)
                if reached is not None:
                    node.edges.append((reached, move.by_person))
                    found[reached] = None
        return list(found)

    def _visit(self, number: int, order: int) -> None:
        """Take up a state, once in each order that leads there; on the way back all are one."""
        if not self._ordered(self.result.nodes[number].state):
            order = 0
        if (number, order) not in self._visited:
            self._visited.add((number, order))
            self._open.append((number, order))

    def _ordered(self, state: SagaState) -> bool:
        """Say whether the saga can still start compensating, so that it matters which step is ahead."""
        return self.reduced and state.direction is Direction.DO and bool(state.deadline_milliseconds)

    def groups_at(self, node: Node, order: int = 0) -> dict[Any, list[AdversaryMove]]:
        """Return the moves that are made in a state (see the reductions on top): of one step, and of the whole."""
        state, now = node.state, node.now
        turning = self.moves.of_saga(state, node.ledger, now)
        if state.ended:
            return {None: turning}
        cells = [(cell, self.moves.of_cell(state.direction, cell, now)) for cell in cells_of(state, node.ledger)]
        if not self.reduced:
            everything = [move for _, moves in cells for move in moves]
            return {None: everything + self.moves.early_signals(state, now, all_=True) + turning}
        rank, last = self._orders[order], len(state.steps)
        places = [last if _not_needed(state, cell) else rank[cell.position] for cell, _ in cells]
        ready = sorted((places[number], number) for number, (_, moves) in enumerate(cells) if moves)
        if not ready:
            return {None: turning}
        chosen, moves = cells[ready[0][1]]
        name = (chosen.position, chosen.item)
        if not self._ordered(state):
            return {name: moves}
        turning = turning + [move for cell, others in cells if _not_needed(state, cell) for move in others]
        if self._off_course(chosen):
            return {name: moves, None: turning}
        for cell, others in cells:
            if cell is not chosen:
                turning = turning + [move for move in others if self.moves.turns(cell, move)]
        return {name: moves, ("beside", name): turning, "early": self.moves.early_signals(state, now, all_=False)}

    def moves_at(self, node: Node) -> list[AdversaryMove]:
        """Return all the moves that are made in a state, in the definition's order."""
        return [move for moves in self.groups_at(node).values() for move in moves]

    def _of_cells(self, node: Node) -> Iterator[list[AdversaryMove]]:
        """Yield what may happen to each step or item; nothing for those to which nothing can."""
        cells = cells_of(node.state, node.ledger)
        return (self.moves.of_cell(node.state.direction, cell, node.now) for cell in cells)

    def _off_course(self, cell: Cell) -> bool:
        """Say whether a step or item is at another attempt than its first, or stuck where an answer can help."""
        step, stands = self.definition.steps[cell.position], cell.state
        if stands.status in _UNUSUAL:
            return step.over is None or bool(cell.item)
        if stands.status is not StepStatus.SENT or step.policy is None:
            return False
        return stands.attempt_last - stands.attempt != step.policy.attempts - 1

    def _arrive(
        self,
        number: int,
        node: Node | None,
        ledger: Ledger,
        happening: Happening,
        facts: tuple[Choice, ...],
        decision: Decision,
    ) -> int | None:
        """Judge a decision, and return the node that it leads to; None where it breaks a property."""
        before = node.state if node is not None else None
        ledger = self.judge.taken(before, ledger, happening.input, decision)
        if self.judge.breaches:
            self._note(self.judge.breaches, number, (happening,))
            return None
        state = decision.state
        assert state is not None  # the judge has seen to it
        old_key, old_ledger = (node.key, node.ledger) if node is not None else (None, ())
        key = self.encoder.key(state, ledger, facts, before, old_ledger, old_key)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self.result.nodes)
            now = max(node.now if node is not None else 0, happening.input.at_milliseconds)
            self.result.nodes.append(Node(state, ledger, facts, now, number, happening, key))
        self._observe(before, state, happening.input, place)
        reached = Node(state, ledger, facts, node.now if node is not None else 0, number, happening, key)
        self._redeliver(reached)
        if node is not None:
            self._probe_changes(node.state, reached)
        return place

    def _observe(self, before: SagaState | None, after: SagaState, input_: Input, place: int) -> None:
        """Note which steps begin and are undone, why the saga starts compensating, and what comes to need a person."""
        result = self.result
        for position, step in enumerate(after.steps):
            old = before.steps[position] if before is not None else None
            if old is step:
                continue
            forward = after.direction is Direction.DO or (before is not None and before.direction is Direction.DO)
            if forward and step.status is not StepStatus.PENDING:
                result.begun.add(position)
            if after.direction is Direction.UNDO and step.status is StepStatus.UNDOING:
                result.undone.add(position)
            if after.status is Status.STUCK:
                for halted in _halted(old, step):
                    halt = Halt(step.key, halted, _kind_of(input_), place)
                    result.halts.setdefault((halt.step, halt.status, halt.by), halt)
        if after.cause is not None and (before is None or before.cause is None):
            reply = type(after.cause.reply) if after.cause.reply is not None else None
            result.causes.add((after.cause.kind, after.cause.step, reply))

    def _note(self, breaches: Sequence[Breach], number: int, then: tuple[Happening, ...] = ()) -> None:
        for breach in breaches:
            self.result.found.setdefault((breach.rule, breach.subject), Found(breach, number, then))

    # --- what must be refused ---------------------------------------------------------------------------------------

    def _refuse(self, node: Node, input_: Input, number: int) -> None:
        """Give a state what it must refuse. It is node `number`, or (-1) what its parent leads to."""
        self.result.refusals += 1
        at, before = (number, ()) if number >= 0 else (node.parent, (node.via,))
        for happening, _, decision in self.decide(node.state, node.facts, input_):
            if decision is None:
                breaches = [Breach(Property.TOTAL, "", f"{type(self.raised).__name__}: {self.raised}")]
            else:
                self.judge.refused(node.state, input_, decision)
                breaches = self.judge.breaches
            self._note(breaches, at, (*before, happening))

    def _redeliver(self, reached: Node) -> None:
        """After a crash an input that was applied comes again, and must be refused.

        A parent's request may repeat itself: it is answered again. A person's request that was refused before the state
        in which it is taken must not be taken there either.
        """
        input_ = reached.via.input
        if isinstance(input_, OperatorAsked) and reached.parent >= 0:
            self._redeliver_refused(self.result.nodes[reached.parent], input_)
        mark = ("again", _kind_of(input_), reached.key[0], self.encoder.local(reached.key, input_))
        if mark not in self._probed and not isinstance(input_, ParentAsked):
            self._probed.add(mark)
            self._refuse(reached, input_, -1)

    def _redeliver_refused(self, node: Node, asked: OperatorAsked) -> None:
        """A request that is taken in a state, and was refused on the way there, must be refused when it comes again."""
        earlier = self.result.nodes[node.parent] if node.parent >= 0 else None
        if earlier is None:
            return
        stands = (self.encoder.local(node.key, asked), self.encoder.local(earlier.key, asked))
        mark = ("refused", asked.action, asked.step, asked.item, node.key[0], earlier.key[0], stands)
        if mark in self._probed:
            return
        self._probed.add(mark)
        early = replace(asked, at_milliseconds=earlier.now + 1)
        for first, _, refused in self.decide(earlier.state, earlier.facts, early):
            entry = refused.effects[0] if refused is not None else None
            if refused is None or not isinstance(entry, Record) or entry.happened is not Happened.REFUSED:
                continue
            for then, facts, decision in self.decide(refused.state, earlier.facts, node.via.input):
                if decision is None or decision.state is None or then.choices != node.via.choices:
                    continue
                late = replace(asked, at_milliseconds=early.at_milliseconds)
                for again, _, last in self.decide(decision.state, facts, late):
                    self.result.refusals += 1
                    if last is not None:
                        self.judge.refused(decision.state, late, last)
                        self._note(self.judge.breaches, node.parent, (first, then, again))

    def _probe_nothing(self) -> None:
        """Before it has started, a saga refuses all but its start."""
        for input_ in (Started("stray", 0, Stranger(), "key"), Unrecognised("stray", 0, "Stranger")):
            for happening, _, decision in self.decide(None, (), input_):
                self.result.refusals += 1
                if decision is None or decision.state is not None or len(decision.effects) != 1:
                    self._note([Breach(Property.STALE, "start", "something else starts the saga")], -1, (happening,))

    def _probe(self, number: int, node: Node) -> None:
        """Give a state all that it must refuse; once for each way in which a step and the saga stand."""
        around = self._around(node.key)
        for cell in cells_of(node.state, node.ledger):
            self._probe_cell(node, around, cell, number)
        if around not in self._probed:
            self._probed.add(around)
            for input_ in self.moves.strange_to_saga(node.state, node.ledger, node.now):
                self._refuse(node, input_, number)
        if node.state.status is Status.STUCK:
            self._probe_resume(number, node)

    def _probe_changes(self, before: SagaState, reached: Node) -> None:
        """Probe what has changed in a state that another one stands for: the two may differ where it does not count."""
        around = self._around(reached.key)
        for cell in cells_of(reached.state, reached.ledger, beside=before):
            self._probe_cell(reached, around, cell, -1)

    def _around(self, key: Key) -> tuple[int, int]:
        """Return how the saga and its pivot stand: all of the rest that the machine asks when it looks at one step."""
        pivot = self.definition.pivot
        return key[0], key[1 + pivot] if pivot is not None else 0

    def _probe_cell(self, node: Node, around: tuple[int, int], cell: Cell, number: int) -> None:
        """Give a step what it must refuse; an item, once for each way in which it and its step as a whole stand."""
        step = node.state.steps[cell.position]
        if cell.item:
            code = self.encoder.one(cell.position, cell.state, cell.account)
        else:
            code = self.encoder.whole(cell.position, step, node.ledger[cell.position])
        mark = (around, cell.position, bool(cell.item) and step.status, code)
        if mark not in self._probed:
            self._probed.add(mark)
            for input_ in self.moves.strange_to_cell(node.state, cell, node.now):
                self._refuse(node, input_, number)

    def _probe_resume(self, number: int, node: Node) -> None:
        """A person who resumes retries all that is stuck: the same as retrying one after the other.

        It is tried here, and where all else that is under way has been given up as well.
        """
        stuck = _stuck_in(node)
        mark = ("resume", node.key[0], tuple(node.key[1 + cell.position] for cell in stuck))
        if mark in self._probed:
            return
        self._probed.add(mark)
        breach = self.judge_resume(node)
        if breach is not None:
            self._note([breach], number, (Happening(self.moves.ask(Action.RESUME, node.now)),))
        worse, on_the_way = node, list[Happening]()
        for cell in cells_of(node.state, node.ledger):
            late = [
                move
                for move in self.moves.of_cell(node.state.direction, cell, node.now)
                if isinstance(move.input, TimerFired) and move.input.timer.kind is TimerKind.ATTEMPT
            ]
            followed = self._follow(worse, late[-1].input) if late else None
            if followed is not None:
                worse = followed
                on_the_way.append(worse.via)
        breach = self.judge_resume(worse) if len(_stuck_in(worse)) > len(stuck) else None
        if breach is not None:
            resume = Happening(self.moves.ask(Action.RESUME, worse.now))
            self._note([breach], number, (*on_the_way, resume))

    def judge_resume(self, node: Node) -> Breach | None:
        """Hold a request to resume against requests to retry what is stuck, one after the other."""
        stuck = _stuck_in(node)
        resume = self.moves.ask(Action.RESUME, node.now)
        together = self._follow(node, resume)
        one_by_one: Node | None = node
        for cell in stuck:
            retry = self.moves.ask(Action.RETRY, node.now, self.definition.steps[cell.position].key, cell.item)
            one_by_one = self._follow(one_by_one, retry) if one_by_one is not None else None
        if together is not None and one_by_one is not None and together.key == one_by_one.key:
            return None
        return Breach(Property.RESUME, self.definition.steps[stuck[-1].position].key, "is not retried by resume")

    def _follow(self, node: Node, input_: Input) -> Node | None:
        """Return what one input leads to, without taking it up; None where that breaks a property."""
        happening, facts, decision = next(iter(self.decide(node.state, node.facts, input_)))
        if decision is None:
            return None
        ledger = self.judge.taken(node.state, node.ledger, input_, decision)
        if self.judge.breaches or decision.state is None:
            return None
        key = self.encoder.key(decision.state, ledger, facts)
        return Node(decision.state, ledger, facts, max(node.now, input_.at_milliseconds), -1, happening, key)


def explore(
    definition: Definition, *, as_child: bool = False, reduced: bool = True, states_max: int = STATES_MAX
) -> Exploration:
    """Return the reachable states of a definition, with all that was found on the way; not `whole` past `states_max`.

    Without the reductions they are all there; with them, every way in which each step stands is there, but not every
    combination (see the reductions on top of this file). Not for real data: the states hold blank records.
    """
    return Explorer(definition, as_child=as_child, reduced=reduced, states_max=states_max).run()


def _not_needed(state: SagaState, cell: Cell) -> bool:
    """Say whether an item is being undone while the saga goes on: it does so beside everything else."""
    return state.direction is Direction.DO and cell.account in (Account.UNDO_SENT, Account.UNDO_REFUSED)


def _stuck_in(node: Node) -> list[Cell]:
    return [cell for cell in cells_of(node.state, node.ledger) if cell.state.status in NEED_A_PERSON]


def _halted(old: StepState | None, new: StepState) -> Iterator[StepStatus]:
    """Yield how a step, or items of it, have come to need a person."""
    before = {cell.key: cell.status for cell in (old.items or (old,))} if old is not None else {}
    for cell in new.items or (new,):
        if cell.status in NEED_A_PERSON and before.get(cell.key) is not cell.status:
            yield cell.status


def _kind_of(input_: Input) -> str:
    """Say what an input is, as far as it matters to what follows from it."""
    if isinstance(input_, TimerFired):
        return input_.timer.kind.value
    return type(input_).__name__


def _pending(state: SagaState) -> str:
    return next((step.key for step in state.steps if step.status is StepStatus.PENDING), "")
