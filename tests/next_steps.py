"""Runs what a command tells a person to run next, as it was printed, in the state in which it was printed."""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from tests.tidy.test_advice import commands_in
from towpath.cli import main


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it printed."""

    words: tuple[str, ...]
    code: int
    text: str

    def next_steps(self) -> list[tuple[str, ...]]:
        """Return the commands that it tells to run, as a shell would split them."""
        return list(dict.fromkeys(words for line in self.text.splitlines() for words in commands_in(line) if words))

    def leads_on(self) -> "Said":
        """Fail where a person would be lost: a traceback, or a command that is not understood."""
        shown = f"towpath {shlex.join(self.words)} ended with {self.code}:\n{self.text}"
        for words in ("Traceback", "No such command", "No such option", "Missing argument", "Missing option"):
            assert words not in self.text, shown
        return self


def run(folder: Path, *words: str) -> Said:
    """Run a command in a project's folder, as a person does, with nobody at the terminal."""
    printed = io.StringIO()
    with (
        contextlib.chdir(folder),
        patch.object(sys, "argv", ["towpath", *words]),
        patch.object(sys, "stdin", io.StringIO()),
        patch.dict(os.environ, {"COLUMNS": "400"}),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return Said(words, int(code) if isinstance(code, int) else int(code is not None), printed.getvalue())


Runner = Callable[..., Said]


def follow(
    runner: Runner, folder: Path, *words: str, elsewhere: Mapping[str, str] | None = None
) -> tuple[Said, list[Said]]:
    """Run a command, then each command that it prints; fail where one of them leads nowhere.

    `elsewhere` are commands that are too dear to be run here, with the test that runs them. One that leads nowhere ends
    in a traceback, is not understood, or fails and has nothing to say but that it should be run itself.
    """
    first = runner(folder, *words).leads_on()
    further = []
    for step in first.next_steps():
        if " ".join(step) in (elsewhere or {}):
            continue
        said = runner(folder, *step).leads_on()
        assert said.code == 0 or said.next_steps() != [step], f"towpath {shlex.join(step)} leads to itself: {said.text}"
        further.append(said)
    return first, further
