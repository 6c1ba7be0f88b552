"""What projects import is written down: a name that comes, goes or takes other arguments is a decision, no accident.

`python -m tests.tidy.test_public_face` writes `public_face.txt` anew; its difference belongs into the changelog.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

FACES = (
    "towpath",
    "towpath.saga",
    "towpath.saga.testing",
    "towpath.service",
    "towpath.participant",
    "towpath.outbox",
    "towpath.view",
    "towpath.client",
    "towpath.testing",
)
ROOT = Path(__file__).resolve().parents[2]
WRITTEN = Path(__file__).with_name("public_face.txt")


def lines() -> Iterator[str]:
    """Yield each public name with its arguments, and those of its public methods."""
    for face in FACES:
        module = importlib.import_module(face)
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{face}.{name}{_arguments(value)}"
            if inspect.isclass(value) and value.__module__.startswith("towpath") and not issubclass(value, Enum):
                for inner, member in sorted(vars(value).items()):
                    called = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                    if not inner.startswith("_") and inspect.isfunction(called):
                        yield f"{face}.{name}.{inner}{_arguments(called)}"


def _arguments(value: Any) -> str:
    """Return the names of what is passed, with `=` for what may be left out; annotations differ between Pythons."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Enum)):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return "()"
    texts, starred = [], False
    for one in parameters:
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            texts.append("*")
        starred = starred or one.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL)
        mark = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        texts.append(f"{mark}{one.name}{'' if one.default is one.empty else '='}")
    return f"({', '.join(texts)})"


def test_the_public_face_is_as_written() -> None:
    """Else say so in the changelog, and write it anew."""
    assert WRITTEN.read_text(encoding="utf-8").splitlines() == list(lines())


def test_every_public_name_says_what_it_is() -> None:
    """Classes and functions have a docstring of their own."""
    silent = [
        f"{face}.{name}"
        for face in FACES
        for name in importlib.import_module(face).__all__
        if (inspect.isclass(value := getattr(importlib.import_module(face), name)) or inspect.isfunction(value))
        and not (value.__doc__ or "").strip()
    ]
    assert not silent


# Namesakes of public classes: forms on the wire of the same thing, and two words of the machine's own.
NAMESAKES = {
    "towpath/orchestrator/records.py": {"Cause", "SagaState"},
    "towpath/saga/effects.py": {"Record"},
    "towpath/saga/inputs.py": {"Started"},
}


def test_each_public_name_is_given_once() -> None:
    """Who reads `Decision` or `Project` anywhere in the engine need not ask which."""
    public = {name: getattr(importlib.import_module(face), name) for face in FACES for name in _names(face)}
    for face in FACES:
        for name in _names(face):
            assert getattr(importlib.import_module(face), name) is public[name], f"two faces have a {name} each"
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "towpath").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name in public and public[node.name].__module__ != module:
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(node.name)
    assert found == NAMESAKES


def _names(face: str) -> list[str]:
    return list(importlib.import_module(face).__all__)


if __name__ == "__main__":
    WRITTEN.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
