"""What projects import is written down: a name that comes, goes or takes other arguments is a decision, no accident.

`python -m tests.tidy.test_public_face` writes `public_face.txt` anew; its difference belongs into the changelog.
"""

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


if __name__ == "__main__":
    WRITTEN.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
