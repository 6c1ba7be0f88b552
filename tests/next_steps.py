"""Runs what a command tells a person to run next, as it was printed, in the state in which it was printed.

A `Case` is one line of the table of states: what is run there, how it ends, which next steps it prints. What a step
leaves to a person (`REASON`, `...`) is filled in, nothing else. `tests/tidy/test_followed_advice.py` holds the tables
to what the code can print.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from tests.tidy.test_advice import VALUE, commands_in
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


def apart(folder: Path, *words: str, seconds: float = 300) -> Said:
    """Run a command in a process of its own: a project whose modules are called as this one's."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from towpath.cli import main; main()", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "400"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )
    return Said(words, done.returncode, done.stdout)


Runner = Callable[..., Said]


@dataclass(frozen=True, slots=True)
class Step:
    """A next step that is printed, and how it ends when it is run as printed; `says` is among what it says then."""

    printed: str
    code: int = 0
    says: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A command in some state: how it ends, and the next steps that it prints (each of `steps`, maybe others)."""

    words: str
    code: int
    steps: tuple[Step, ...]

    def at(self, here: Path) -> "Case":
        """Return it with a folder in the place of HERE."""
        steps = tuple(replace(step, printed=step.printed.replace("HERE", str(here))) for step in self.steps)
        return replace(self, words=self.words.replace("HERE", str(here)), steps=steps)


LEFT_TO_A_PERSON = {
    "REASON": "found by a test",
    "...": "found by a test",
    "NAME": "place_order",
    "SLOT": "of-a-test",
    "TOPIC": "order.events",
    "payment@VERSION": "payment@1",
    "payment.NAME": "payment.Refunded",
}


def filled(printed: str, here: Path) -> list[str]:
    """Return the words of a step, with what it leaves to a person; files are written into `here`."""
    given = {**LEFT_TO_A_PERSON, "FILE": str(here / "file.json")}
    return [_put(word, given) for word in shlex.split(printed)]


def _put(word: str, given: Mapping[str, str]) -> str:
    """Return a word with what a person puts in the place of its capitals, a name beside them kept."""
    whole = given.get(word)
    return whole or re.sub("NAME|SLOT|FILE", lambda part: given[part[0]], word)


_BETWEEN = "\x1f"
_WORD = f"[^{_BETWEEN}]+"


def is_one_of(printed: str, shape: str) -> bool:
    """Say whether a printed step is what the code has, with its gaps filled.

    A gap is one word that is no option; before an option it may be several (`saga retry place_order o-1 --step pay`).
    """
    wanted = shlex.split(shape)
    pattern = _BETWEEN.join(map(_pattern, wanted, [*wanted[1:], ""]))
    return re.fullmatch(pattern, _BETWEEN.join(shlex.split(printed))) is not None


def _pattern(word: str, following: str) -> str:
    if word == VALUE and following.startswith("--"):
        return f"{_WORD}(?:{_BETWEEN}{_WORD})*"
    if word == VALUE:
        return f"(?!--){_WORD}"
    if word.isupper() or word in ("...", "{...}"):
        return _WORD
    return _WORD.join(map(re.escape, re.split(rf"(?<![a-z-]){VALUE}(?![a-z-])", word)))


def step_in(text: object, shape: str, **given: str) -> list[str]:
    """Return the words of the one next step of this shape that a text or an error has, ready to be run.

    `shape` is the step as the code has it (`capture recover x`): `tests/tidy/test_followed_advice.py` takes each call
    for a step that is followed. `given` is what a person puts in the place of words in capitals.
    """
    printed = dict.fromkeys(words for line in str(text).splitlines() for words in commands_in(line))
    found = [words for words in printed if is_one_of(shlex.join(words), shape)]
    assert len(found) == 1, f"{len(found)} steps are like {shape!r}, in: {text}"
    put = {"FILE": "FILE", **LEFT_TO_A_PERSON, **given}
    return [_put(word, put) for word in found[0]]


def check(case: Case, runner: Runner, folder: Path, here: Path) -> None:
    """Run a command and then each next step of the table; fail where one is not printed, or ends otherwise."""
    first = runner(folder, *shlex.split(case.words)).leads_on()
    assert first.code == case.code, first.text
    printed = [shlex.join(step) for step in first.next_steps()]
    for step in case.steps:
        assert shlex.join(shlex.split(step.printed)) in printed, f"it printed {printed}, in: {first.text}"
        done = runner(folder, *filled(step.printed, here)).leads_on()
        assert done.code == step.code, f"{step.printed} ended with {done.code}: {done.text}"
        assert step.says in done.text, done.text


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
