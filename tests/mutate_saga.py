"""Mutation testing of the saga machine: `python -m tests.mutate_saga [--jobs N] [--only TEXT]`. Long; not in CI.

Every transition is changed on purpose, one change at a time (a comparison turned, a part of a condition left out, a
statement left out, a refusal dropped, a status or direction taken for another, an element missing from a group), and
the tests of the machine run against each. A mutant that they do not notice survives; a survivor must stand in EXPLAINED
with the reason why it decides exactly as the machine does, or the run fails. Exit code 1 also if less than 95 % are
killed.

The tests are collected once. Each mutant is a fork of that process in which the code of the changed function is put in
the place of the function's own, so that most are killed within milliseconds.
"""

import argparse
import ast
import inspect
import itertools
import operator
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "towpath.saga.advance": ROOT / "towpath/saga/advance.py",
    "towpath.saga.beginning": ROOT / "towpath/saga/beginning.py",
    "towpath.saga.contest": ROOT / "towpath/saga/contest.py",
    "towpath.saga.gathering": ROOT / "towpath/saga/gathering.py",
    "towpath.saga.decision_builder": ROOT / "towpath/saga/decision_builder.py",
    "towpath.saga.requests": ROOT / "towpath/saga/requests.py",
    "towpath.saga.turning": ROOT / "towpath/saga/turning.py",
}
TESTS = [
    *(
        f"tests/unit/saga/test_{name}.py"
        for name in (
            *("forward", "backward", "attempts", "waits", "people", "subsagas", "subsagas_each", "course"),
            *("chains", "contest", "gathering", "unfit", "options"),
        )
    ),
    "tests/scenarios",
    "tests/histories/test_histories.py",
]
# Nothing that the tests do not need.
QUICKLY = ["-x", "-q", "--assert=plain", "--capture=no", "--noconftest", "-p", "no:cacheprovider"]
KILLED_SHARE_MIN = 0.95
# A mutant that loops for ever is killed: the tests take 2 seconds of processor time, however busy the machine is.
CPU_SECONDS_MAX = 30

TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
STATUSES = [
    *(
        "_PENDING",
        "_SENT",
        "_BACKOFF",
        "_WAITING",
        "_SUCCEEDED",
        "_SKIPPED",
        "_DECLINED",
        "_FAILED",
        "_UNKNOWN",
        "_ABANDONED",
    ),
    *("_STUCK", "_UNDOING", "_UNDO_BACKOFF", "_UNDONE", "_UNDO_STUCK", "_UNDO_FAILED"),
]
# A name, and what it is taken for.
NEIGHBOURS = {"_DO": "_UNDO", "_UNDO": "_DO"} | dict(zip(STATUSES, STATUSES[1:] + STATUSES[:1], strict=True))
ENUMS = {"StepStatus", "Direction", "TimerKind", "Status", "Kind", "OnTimeout", "Action"}
ATTRIBUTES = {
    "DO": "UNDO",
    "UNDO": "DO",
    "SENT": "UNDOING",
    "UNDOING": "SENT",
    "ATTEMPT": "BACKOFF",
    "BACKOFF": "WAIT",
    "WAIT": "ATTEMPT",
    "COMPLETED": "COMPENSATED",
    "COMPENSATED": "COMPLETED",
    "RUNNING": "COMPENSATING",
    "COMPENSATING": "RUNNING",
    "PROCEED": "HALT",
    "HALT": "PROCEED",
    "COMPENSATABLE": "RETRIABLE",
    "RETRIABLE": "COMPENSATABLE",
    "CANCEL": "RETRY",
}

# Survivors, by the words in which they are reported (without the line number), and why they change no decision.
EXPLAINED: dict[str, str] = {
    "advance._begin: `builder.definition.conditional >> position & 1 and is_skipped(builder, step)` becomes "
    "`is_skipped(builder, step)`": "the mask only spares the question: what has no condition is never skipped",
    "advance._begin_each: `_SENT` is taken for `_BACKOFF`": "a place for the item, which sending it fills at once",
    "contest.others_are_being_undone: `bool(contests) and any((item.status in BEING_UNDONE for position in contests "
    "for item i...` becomes `any((item.status in BEING_UNDONE for position in contests for item in "
    "builder.steps[position].items))`": "without contests there is nothing to look at: that only spares the loop",
    "decision_builder.begin: `Status.RUNNING` is taken for COMPENSATING": "every decision ends in saying how the saga "
    "stands",
    "decision_builder._value: `defined.instead_of is not None and state.status is StepStatus.SKIPPED` becomes "
    "`state.status is StepStatus.SKIPPED`": "a list or a merge that is skipped lies in a branch, as does what needs it",
    "decision_builder._await: `remind is not None and waiting.attempt < waiting.attempt_last and (due == "
    "waiting.give_...` becomes `waiting.attempt < waiting.attempt_last and due == waiting.give_up_milliseconds`": "a "
    "wait that does not remind is at its last timer",
    "decision_builder._await: `remind is not None and waiting.attempt < waiting.attempt_last and (due == "
    "waiting.give_...` becomes `remind is not None and waiting.attempt < waiting.attempt_last`": "a reminder that is "
    "set is due before one that would be set now",
    "decision_builder.start_key_of: 0 becomes 1": "a key does not depend on the time",
    "decision_builder.child_keys_of: 0 becomes 1": "a key does not depend on the time",
    "decision_builder.wrong_list: `return ''` refuses nothing": "None and an empty text both say that nothing is wrong",
    "gathering.begin_gathering: `cell.attempt_last and step.outcomes.get(type(cell.result)) is False` becomes "
    "`step.outcomes.get(type(cell.result)) is False`": "what is gathered is of no class that fails the wait, so that "
    "only what has ended it is",
}


@dataclass(frozen=True)
class Mutant:
    """One change: where, in words, and what stands in a place of the module's tree (in the order of `ast.walk`)."""

    module: str
    line: int
    words: str
    place: int
    change: ast.AST

    def code(self) -> CodeType:
        """Return the code of the whole module with the change."""
        tree = ast.parse(MODULES[self.module].read_text(encoding="utf-8"))
        apply(tree, self.place, self.change)
        return compile(ast.fix_missing_locations(tree), str(MODULES[self.module]), "exec")


def mutants() -> Iterator[Mutant]:
    """Yield every mutant of every module."""
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        above = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
        for place, node in enumerate(ast.walk(tree)):
            around = list(_around(above, node))
            if not hasattr(node, "lineno") or _is_aside(node, around):
                continue
            where = f"{module.rsplit('.', 1)[1]}.{_within(around)}"
            for words, change in changes(node):
                yield Mutant(module, node.lineno, f"{where}: {words}", place, change)


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what may be changed about a node: in words, and the node that takes its place."""
    text = ast.unparse(node)
    short = f"`{text if len(text) <= 90 else text[:87] + '...'}`"
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            for turned in _conditions(node):
                yield f"{short} becomes `{ast.unparse(turned)}`", turned
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield f"{short} subtracts", ast.BinOp(left, ast.Sub(), right)
        case ast.Return(value=ast.Constant(value=str()) | ast.JoinedStr()):
            yield f"{short} refuses nothing", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Assign(targets=[ast.Attribute()]):
            yield f"{short} is left out", ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Tuple(elts=elements)) if len(elements) > 1:
            for element in elements:
                kept = ast.Tuple([each for each in elements if each is not element], ast.Load())
                yield f"{name} loses `{ast.unparse(element)}`", ast.Assign([ast.Name(name, ast.Store())], kept)
        case _:
            yield from _values(node, short)


def _conditions(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left=left, ops=operators, comparators=compared):
            for at, operator in enumerate(operators):
                turned = [*operators[:at], TURNED[type(operator)](), *operators[at + 1 :]]
                yield ast.Compare(left, turned, compared)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values)
            for value in values:
                kept = [each for each in values if each is not value]
                yield kept[0] if len(kept) == 1 else ast.BoolOp(operator, kept)
        case ast.UnaryOp(operand=operand):
            yield operand


def _values(node: ast.AST, short: str) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in NEIGHBOURS:
            yield f"{short} is taken for `{NEIGHBOURS[name]}`", ast.Name(NEIGHBOURS[name], ast.Load())
        case ast.Attribute(value=ast.Name(id=kind), attr=name) if kind in ENUMS and name in ATTRIBUTES:
            yield f"{short} is taken for {ATTRIBUTES[name]}", ast.Attribute(node.value, ATTRIBUTES[name], ast.Load())
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            yield f"{value} becomes {value + 1}", ast.Constant(value + 1)


def apply(tree: ast.AST, place: int, change: ast.AST) -> None:
    """Put a changed node in the place that another has in the order of `ast.walk`."""
    target = next(node for number, node in enumerate(ast.walk(tree)) if number == place)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, change)
                return
            if isinstance(value, list) and any(each is target for each in value):
                value[next(at for at, each in enumerate(value) if each is target)] = change
                return


def _around(above: Mapping[ast.AST, ast.AST], node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node lies in, the innermost first."""
    while node in above:
        node = above[node]
        yield node


def _is_aside(node: ast.AST, around: Sequence[ast.AST]) -> bool:
    """Say whether a node decides nothing: an assertion, a type, a docstring, slots, the names bound once at the top."""
    for parent in (node, *around):
        if isinstance(parent, ast.Assert | ast.AnnAssign | ast.arguments | ast.ImportFrom):
            return True
        if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Tuple) and parent.col_offset == 0:
            return True
        if isinstance(parent, ast.Assign) and ast.unparse(parent.targets[0]) == "__slots__":
            return True
        if isinstance(parent, ast.FunctionDef) and parent.returns is node:
            return True
    return False


def _within(around: Sequence[ast.AST]) -> str:
    return next((each.name for each in around if isinstance(each, ast.FunctionDef)), "top")


def functions_in(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of every function and method of a module."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & inspect.CO_NEWLOCALS:
                yield inner
            else:
                yield from functions_in(inner)  # the body of a class


def install(mutant: Mutant) -> None:
    """Let the machine of this process be the mutant, whoever has imported it."""
    module = sys.modules[mutant.module]
    path, changed = MODULES[mutant.module], mutant.code()
    as_it_is = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    before = {code.co_qualname: code for code in functions_in(as_it_is)}
    for code in functions_in(changed):
        if code != before[code.co_qualname]:
            function = operator.attrgetter(code.co_qualname)(module)
            assert isinstance(function, FunctionType)
            function.__code__ = code
    _install_names(module, changed)


def _install_names(module: ModuleType, code: CodeType) -> None:
    """Bind the groups at the top of a module as the mutant has them."""
    names: dict[str, object] = {"__name__": module.__name__}
    exec(code, names)
    for name, value in names.items():
        if isinstance(value, tuple) and value != getattr(module, name):
            setattr(module, name, value)


def survives(mutant: Mutant | None, session: pytest.Session) -> bool:
    """Run the collected tests against a mutant in a process of its own; say whether they notice nothing."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            if mutant is not None:
                install(mutant)
            for item, following in itertools.zip_longest(session.items, session.items[1:]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    break
            status = 1 if session.testsfailed else 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status == 0


@dataclass
class Loop:
    """A plugin that runs the collected tests against each mutant, in place of once."""

    shares: list[list[Mutant]]
    found: list[Mutant] = field(default_factory=list)
    sound: bool = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run; nothing is left to be done after that."""
        self.sound = survives(None, session)
        if self.sound:
            self.found = run_jobs(self.shares, session)
        return True


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--only", default="", help="only mutants whose words hold this text")
    parser.add_argument(
        "--first", type=int, default=0, help="leave out so many mutants: to go on after an interruption"
    )
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    chosen = [mutant for mutant in mutants() if arguments.only in mutant.words][arguments.first :]
    shares = [chosen[job :: arguments.jobs] for job in range(arguments.jobs)]
    loop = Loop(shares)
    pytest.main([*QUICKLY, *TESTS], plugins=[loop])
    if not loop.sound:
        sys.stdout.write("the tests fail without any mutant\n")
        return 1
    found = loop.found
    killed = len(chosen) - len(found)
    unexplained = [mutant for mutant in found if mutant.words not in EXPLAINED]
    for mutant in found:
        reason = EXPLAINED.get(mutant.words, "NOT EXPLAINED")
        sys.stdout.write(f"survived  line {mutant.line}  {mutant.words}\n          {reason}\n")
    share = killed / max(1, len(chosen))
    sys.stdout.write(
        f"{len(chosen)} mutants, {killed} killed ({share:.1%}), {len(found)} survived, "
        f"{len(unexplained)} of them not explained\n"
    )
    return 1 if unexplained or share < KILLED_SHARE_MIN else 0


def run_jobs(shares: list[list[Mutant]], session: pytest.Session) -> list[Mutant]:
    """Run each share in a process; return the survivors of all."""
    readers = []
    for share in shares:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                for number, mutant in enumerate(share):
                    if survives(mutant, session):
                        out.write(f"{number}\n")
                        out.flush()
                        sys.stderr.write(f"survived: line {mutant.line} {mutant.words}\n")
                    if number % 20 == 19:
                        sys.stderr.write(f"{number + 1} of {len(share)}\n")
            os._exit(0)
        os.close(writer)
        readers.append((reader, share))
    found = []
    for reader, share in readers:
        with os.fdopen(reader) as lines:
            found += [share[int(line)] for line in lines]
        os.wait()
    return found


if __name__ == "__main__":
    sys.exit(main())
