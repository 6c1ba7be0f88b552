"""Every command that the code tells a person to run exists, with the arguments and options that it is told with.

The commands are collected from the code itself, so a new one is checked as soon as it is written.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from towpath import cli

ROOT = Path(__file__).resolve().parents[2]
VALUE = "x"
"""Stands for what is filled in when the text is printed."""
_GOES_ON = (
    r"(a|and|as|does|else|for|from|gives|if|in|it|its|lists|makes|names|once|or|says|sends|shows|starts|takes|that|then|"
    r"to|until|where|whose|with|writes)"
)
"""Words by which a sentence goes on behind a command that it names."""
_LOCKS = ("outbox", "inbox", "replay", "service", "stream", "view")
NO_COMMANDS = tuple(f"towpath {name}'" for name in _LOCKS)
"""Names of advisory locks."""
TOOL = "towpath contracts"
"""Who reports, in a report for other tools."""


BUILT_UP = frozenset({("positions", "accept"), ("positions", "rewrite")})
"""Told in parts: tests/unit/stream/test_held_partitions.py has them whole."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A command that a text of the code names: its words, up to where the sentence goes on."""

    where: str
    words: tuple[str, ...]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string that is no docstring; what is filled in stands as a value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            filled = (part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
            yield node.lineno, "".join(map(str, filled))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | statements:
            yield node.lineno, node.value


def commands_in(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command in a text."""
    for found in re.finditer(r"(?:^|(?<=[ `(\"']))towpath ([a-z](?:[^\n,;:)`]|:(?=\S))*)", text):
        if text[found.start() :].startswith(NO_COMMANDS) or text == TOOL:
            continue
        said = re.split(r"\.(?:\s|$)|\[/\]| \(", found[1])[0]
        try:
            words = shlex.split(said)
        except ValueError:  # a quote that opens before the command and closes behind it
            words = said.replace("'", " ").replace('"', " ").split()
        ends = (number for number, word in enumerate(words) if re.fullmatch(_GOES_ON, word))
        yield tuple(words[: next(ends, len(words))])


@cache
def advices() -> tuple[Advice, ...]:
    """Return every command that the code names."""
    found = []
    for path in sorted((ROOT / "towpath").rglob("*.py")):
        for line, text in texts(path):
            name = f"{path.relative_to(ROOT)}:{line}"
            found += [Advice(name, words) for words in commands_in(text) if words and words[:2] not in BUILT_UP]
    return tuple(found)


@cache
def root() -> Any:
    """Return the command line, as a tree of commands."""
    cli._register()
    return typer.main.get_command(cli.app)


def problem_of(words: tuple[str, ...]) -> str | None:  # noqa: PLR0911 - one for each way to be wrong
    """Return why a command cannot be run as it is told, None where it can."""
    command = root()
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest:
            return None  # a group shows its own help
        if rest[0] not in command.commands:
            return f"there is no verb {' '.join(words[: len(words) - len(rest) + 1])!r}"
        command = command.commands[rest.pop(0)]
    options = {name: one for one in command.params if one.param_type_name == "option" for name in one.opts}
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    given: set[str] = set()
    values = 0
    while rest:
        word = rest.pop(0)
        if word == "--help":
            return None
        if not word.startswith("-"):
            values += 1
        elif word not in options:
            return f"it has no option {word}"
        else:
            given.add(options[word].name or "")
            if not options[word].is_flag:
                if not rest:
                    return f"option {word} has no value"
                rest.pop(0)
    most = float("inf") if any(one.nargs == -1 for one in arguments) else len(arguments)
    least = sum(one.required for one in arguments)
    missing = [one.opts[0] for one in options.values() if one.required and (one.name or "") not in given]
    if missing:
        return f"it needs {missing[0]}"
    return None if least <= values <= most else f"it takes {least} to {most} arguments, not {values}"


def test_the_code_names_commands() -> None:
    """Else the other test would show nothing."""
    assert len(advices()) > 100
    assert any(advice.words[:2] == ("capture", "recover") for advice in advices())


@pytest.mark.parametrize("advice", advices(), ids=lambda advice: f"{advice.where} {' '.join(advice.words)}")
def test_a_command_that_is_told_can_be_run(advice: Advice) -> None:
    """Its verb exists, it takes what it is told with, and nothing that it needs is missing."""
    assert problem_of(advice.words) is None, f"{advice.where}: towpath {' '.join(advice.words)}"


@pytest.mark.parametrize(
    "words",
    [
        ("topics", "create"),
        ("capture", "restrat", VALUE),
        ("capture", "recover"),
        ("capture", "recover", VALUE, "--force"),
        ("capture", "skip", VALUE, VALUE),
        ("status", VALUE),
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_run_is_caught(words: tuple[str, ...]) -> None:
    """A verb that is not there, an argument too few or too many, an option that is unknown or missing."""
    assert problem_of(words) is not None
