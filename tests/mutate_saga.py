"""Mutation testing of the saga machine: `python -m tests.mutate_saga [--jobs N] [--only TEXT]`. Long; not in CI.

Every transition is changed on purpose, one change at a time (a comparison turned, a part of a condition left out, a
statement left out, a refusal dropped, a status or direction taken for another, an element missing from a group), and
the tests of the machine run against each. A mutant that they do not notice survives; a survivor must stand in EXPLAINED
with the reason why it decides exactly as the machine does, or the run fails. Exit code 1 also if less than 95 % are
killed.
"""

import argparse
import ast
import copy
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "towpath.saga.advance": ROOT / "towpath/saga/advance.py",
    "towpath.saga.beginning": ROOT / "towpath/saga/beginning.py",
    "towpath.saga.contest": ROOT / "towpath/saga/contest.py",
    "towpath.saga.gathering": ROOT / "towpath/saga/gathering.py",
    "towpath.saga.decision_builder": ROOT / "towpath/saga/decision_builder.py",
    "towpath.saga.turning": ROOT / "towpath/saga/turning.py",
}
TESTS = [
    *(
        f"tests/unit/saga/test_{name}.py"
        for name in (
            *("forward", "backward", "attempts", "waits", "people", "subsagas", "subsagas_each", "course"),
            *("chains", "contest", "gathering"),
        )
    ),
    "tests/scenarios",
    "tests/histories/test_histories.py",
]
# Nothing that the tests do not need: a mutant costs a second so.
QUICKLY = ["-x", "-q", "--assert=plain", "--noconftest", "-p", "no:cacheprovider"]
KILLED_SHARE_MIN = 0.95
# A mutant that loops for ever is killed by its alarm: the tests take 2 seconds on an idle core.
SECONDS_MAX = 60

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
    "advance._begin_each: `_SENT` is taken for `_BACKOFF`": "a place for the item, which sending it fills at once",
    "advance._started: `Status.RUNNING` is taken for COMPENSATING": "every decision ends in saying how the saga stands",
}


@dataclass(frozen=True)
class Mutant:
    """One change: where, in words, and the whole module with it."""

    module: str
    line: int
    words: str
    code: CodeType


def mutants() -> Iterator[Mutant]:
    """Yield every mutant of every module."""
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for place, node in enumerate(ast.walk(tree)):
            if not hasattr(node, "lineno") or _is_aside(tree, node):
                continue
            for words, change in changes(node):
                changed = copy.deepcopy(tree)
                apply(changed, place, change)
                code = compile(ast.fix_missing_locations(changed), str(path), "exec")
                yield Mutant(module, node.lineno, f"{module.rsplit('.', 1)[1]}.{_within(tree, node)}: {words}", code)


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
        for field, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, field, change)
                return
            if isinstance(value, list) and any(each is target for each in value):
                value[next(at for at, each in enumerate(value) if each is target)] = change
                return


def _parents(tree: ast.AST, node: ast.AST) -> Iterator[ast.AST]:
    for parent in ast.walk(tree):
        if any(child is node for child in ast.iter_child_nodes(parent)):
            yield parent
            yield from _parents(tree, parent)
            return


def _is_aside(tree: ast.AST, node: ast.AST) -> bool:
    """Say whether a node decides nothing: an assertion, a type, a docstring, the names bound once at the top."""
    for parent in (node, *_parents(tree, node)):
        if isinstance(parent, ast.Assert | ast.AnnAssign | ast.arguments | ast.ImportFrom):
            return True
        if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Tuple) and parent.col_offset == 0:
            return True
        if isinstance(parent, ast.FunctionDef) and parent.returns is node:
            return True
    return False


def _within(tree: ast.AST, node: ast.AST) -> str:
    return next((each.name for each in _parents(tree, node) if isinstance(each, ast.FunctionDef)), "top")


def survives(mutant: Mutant) -> bool:
    """Run the tests against a mutant in a process of its own; say whether they notice nothing."""
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(SECONDS_MAX)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        original = SourceFileLoader.get_code

        def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
            return mutant.code if name == mutant.module else original(loader, name)

        SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]
        status = 3
        try:
            status = int(pytest.main([*QUICKLY, *TESTS]))
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status == 0


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
    for service in ("catalog", "identity", "order", "payment"):
        importlib.import_module(f"schemas.records.{service}")
    assert "towpath.saga" not in sys.modules, "the machine must be imported by each mutant's own process"
    chosen = [mutant for mutant in mutants() if arguments.only in mutant.words][arguments.first :]
    shares = [chosen[job :: arguments.jobs] for job in range(arguments.jobs)]
    found = run_jobs(shares)
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


def run_jobs(shares: list[list[Mutant]]) -> list[Mutant]:
    """Run each share in a process; return the survivors of all."""
    readers = []
    for share in shares:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                for number, mutant in enumerate(share):
                    if survives(mutant):
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
