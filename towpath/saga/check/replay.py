"""What the tests that a check writes call: they fail as long as the violation is there, and pass once it is fixed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from towpath.saga.advance import Decision
from towpath.saga.check.abstract import Choice, Role
from towpath.saga.check.explore import Explorer, Happening, Node
from towpath.saga.check.ledger import opening
from towpath.saga.check.moves import Stranger, cells_of
from towpath.saga.check.properties import SENTENCES, Property
from towpath.saga.check.sampling import classes_by_name, try_function
from towpath.saga.check.words import say
from towpath.saga.definition import Definition
from towpath.saga.inputs import Action, Input, OperatorAsked, Started, Unrecognised
from towpath.saga.language import Saga
from towpath.saga.state import Cause, CauseKind, Status
from towpath.saga.testing.plain import from_plain


def assert_path_mended(saga: Saga[Any] | Definition, rule: str, path: Sequence[str]) -> None:
    """Let happen what `path` tells, sentence by sentence. Raises AssertionError where the property breaks on the way.

    A path that is no longer possible shows that the definition has changed so that it cannot break there.
    """
    definition = saga if isinstance(saga, Definition) else saga.definition
    for as_child in (False, True):
        _Replay(definition, Property(rule), as_child=as_child).walk(path)


class _Replay:
    """Walks one path, without reductions: whatever may happen is looked through for the next sentence."""

    def __init__(self, definition: Definition, rule: Property, *, as_child: bool) -> None:
        self.explorer = Explorer(definition, as_child=as_child, reduced=False)
        self.rule = rule
        self.as_child = as_child
        self.node: Node | None = None
        self.refused: list[OperatorAsked] = []  # a request that was refused comes again as it was

    def walk(self, path: Sequence[str]) -> None:
        for number, sentence in enumerate(path):
            if not self._take(sentence, path[: number + 1]):
                return

    def _take(self, sentence: str, walked: Sequence[str]) -> bool:
        """Let one thing happen; return whether there was such a thing, and it was decided well."""
        explorer = self.explorer
        state = self.node.state if self.node is not None else None
        facts = self.node.facts if self.node is not None else ()
        for input_, wanted in self._inputs():
            for happening, lasting, decision in explorer.decide(state, facts, input_):
                if say(state, happening, explorer.oracle) != sentence:
                    continue
                if decision is None:
                    self._fail(Property.TOTAL, f"{type(explorer.raised).__name__}: {explorer.raised}", walked)
                    return False
                return self._arrive(happening, lasting, decision, walked, wanted=wanted)
        return False

    def _arrive(
        self,
        happening: Happening,
        facts: tuple[Choice, ...],
        decision: Decision,
        walked: Sequence[str],
        *,
        wanted: bool,
    ) -> bool:
        """Judge a decision, and go where it leads."""
        node, explorer, input_ = self.node, self.explorer, happening.input
        refused = isinstance(input_, Started) and bool(input_.refused)
        ledger = node.ledger if node is not None else opening(explorer.definition, refused=refused)
        if wanted:
            ledger = explorer.judge.taken(node.state if node is not None else None, ledger, input_, decision)
        elif node is not None:
            explorer.judge.refused(node.state, input_, decision)
            if isinstance(input_, OperatorAsked):
                self.refused.append(input_)
        breaches = list(explorer.judge.breaches)
        if wanted and node is not None and isinstance(input_, OperatorAsked) and input_.action is Action.RESUME:
            breaches += filter(None, [explorer.judge_resume(node)])
        for breach in breaches:
            self._fail(breach.rule, f"{breach.subject} {breach.words}", walked)
        if breaches or decision.state is None:
            return False
        now = max(node.now if node is not None else 0, input_.at_milliseconds)
        key = explorer.encoder.key(decision.state, ledger, facts)
        self.node = Node(decision.state, ledger, facts, now, -1, happening, key)
        return True

    def _fail(self, rule: Property, words: str, walked: Sequence[str]) -> None:
        if rule is self.rule:
            story = "\n".join(f"  {number}. {sentence}" for number, sentence in enumerate(walked, start=1))
            raise AssertionError(f"{SENTENCES[rule]}; but {words}\n{story}")

    def _inputs(self) -> Iterator[tuple[Input, bool]]:
        """Yield all that may happen now, each with whether it must be taken."""
        moves, node = self.explorer.moves, self.node
        if node is None:
            yield from ((start, True) for start in moves.starts())
            yield Started("stray", 0, Stranger(), "key"), False
            yield Unrecognised("stray", 0, "Stranger"), False
            return
        yield from ((asked, False) for asked in self.refused)
        yield from ((move.input, True) for move in self.explorer.moves_at(node))
        if node.state.status is Status.STUCK:
            yield moves.ask(Action.RESUME, node.now), True
        yield node.via.input, False
        for cell in cells_of(node.state, node.ledger):
            yield from ((input_, False) for input_ in moves.strange_to_cell(node.state, cell, node.now))
        yield from ((input_, False) for input_ in moves.strange_to_saga(node.state, node.ledger, node.now))


def assert_call_mended(
    saga: Saga[Any] | Definition,
    rule: str,
    *,
    step: str,
    role: str,
    arguments: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]] | None],
    item: int | None = None,
    cause: Mapping[str, Any] | None = None,
) -> None:
    """Call a function of a step on recorded data. Raises AssertionError where the property still breaks."""
    definition = saga if isinstance(saga, Definition) else saga.definition
    defined = definition.step(step)
    classes = classes_by_name(definition)
    given = [_argument(argument, classes) for argument in arguments]
    function = {
        Role.BUILD: defined.build,
        Role.WHEN: defined.when,
        Role.OVER: defined.over,
        Role.UNDO: defined.undo.build if defined.undo is not None else None,
    }[Role(role)]
    if function is None:
        return
    if rule == Property.LIST_TOO_LONG:
        found: Any = function(*given)
        count = len(found)
        assert count <= defined.items_max, (
            f"{SENTENCES[Property.LIST_TOO_LONG]}; but the list has {count} items, and the limit is {defined.items_max}"
        )
    if item is not None and defined.over is not None:
        given.append(defined.over(*given[: len(defined.needs) + 1])[item])
    if cause is not None:
        reply = _argument(cause["reply"], classes)
        given.append(Cause(CauseKind(cause["kind"]), cause["step"], "", reply, cause["actor"], cause["reason"]))
    broken = [breach.words for breach in try_function(defined, Role(role), function, tuple(given))]
    assert not broken, f"{SENTENCES[Property(rule)]}; but {'; '.join(broken)}"


def _argument(plain: Any, classes: Mapping[str, type]) -> Any:
    if plain is None:
        return None
    if isinstance(plain, Mapping):
        return from_plain(classes[plain["class"]], plain["value"])
    return tuple(_argument(each, classes) for each in plain)


def assert_mended(*sagas: Saga[Any] | Definition, rule: str, step: str) -> None:
    """Check the sagas whole, side by side. Raises AssertionError where the property is still broken at the step."""
    from towpath.saga.check.report import Check

    definitions = [saga if isinstance(saga, Definition) else saga.definition for saga in sagas]
    for report in Check(definitions, clock=lambda: 0.0).run():
        for violation in report.violations:
            same = violation.rule.value == rule and violation.subject == step
            assert not same, f"{violation.sentence}; but {violation.subject} {violation.words}"
