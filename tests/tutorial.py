"""docs/first-project.md as one who types it: its commands, its edits, its files, and what it says is shown."""

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.own_project import Dev, OwnProject
from tests.stack_fixture import ROOT

PAGE = (ROOT / "docs" / "first-project.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>[a-z]*)(?: (?P<file>\S+))?\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
BEGINNING = ("pip", "towpath new", "cd", "towpath dev")
"""What the caller of `follow` has done."""
WAIT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Step:
    """One block of the page: a command, an edit, a new file, or what is shown."""

    kind: str
    file: str
    text: str


def steps() -> Iterator[Step]:
    """Yield the steps in the order of the page, each command by itself."""
    for found in BLOCK.finditer(PAGE):
        if found["kind"] == "console":
            yield from (Step("command", "", line[2:]) for line in found["text"].splitlines() if line.startswith("$ "))
        else:
            kind = {"": "shown", "python": "file"}.get(found["kind"], found["kind"])
            yield Step(kind, found["file"] or "", found["text"])


def typed() -> list[str]:
    """Return the commands of the page."""
    return [step.text for step in steps() if step.kind == "command"]


def edit(path: Path, diff: str) -> None:
    """Change a file as a diff says: its lines with - and those without a mark become those with +."""
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has not once:\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


class _Following:
    """Where one is in the page: what runs in the second terminal, and what it has still to show."""

    def __init__(self, project: OwnProject, running: Dev) -> None:
        self.project = project
        self.running = running
        self.second: subprocess.Popen[str] | None = None
        self.output = project.root.parent / "second-terminal.log"
        self.shown = ""
        self.edited = 0
        """How much `towpath dev` had shown before the last edit."""

    def run(self, line: str) -> None:
        program, *arguments = shlex.split(line)
        if program == "towpath":
            self.shown = self.project.towpath(*arguments)
        elif program == "pytest":
            self.shown = self.project.python("-m", "pytest", "-q", *arguments)
            assert "5 passed" in self.shown
        elif arguments == ["book_trips.py"]:
            self._settled()
            self._begin(arguments)
        else:
            self.shown = self.project.python(*arguments)

    def _begin(self, arguments: list[str]) -> None:
        """Leave a program running, as in a terminal of its own."""
        self.shown = ""
        with self.output.open("w", encoding="utf-8") as out:
            self.second = subprocess.Popen(
                [str(self.project.programs / "python"), *arguments],
                cwd=self.project.root,
                env=self.project.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def _settled(self) -> None:
        """Wait until all that was added runs, and the saga that was edited last is proved and runs."""
        for worker in ("service:flight", "saga:book_trip", "view:seats"):
            self.running.wait_for(
                lambda said, worker=worker: re.search(rf"^{worker} +runs", said, re.MULTILINE) is not None,  # type: ignore[misc]
                f"that {worker} runs",
            )
        last = re.compile(
            # Whichever comes first: a proof waits for no worker.
            r"saved [^\n]*book_trip\.py(?=.*^saga:book_trip +runs after)(?=.*saga book_trip: every property holds)",
            re.MULTILINE | re.DOTALL,
        )
        self.running.wait_for(
            lambda said: last.search(said) is not None, "that the new definition runs and is proved", since=self.edited
        )

    def expect(self, text: str) -> None:
        """See that what is shown has come, its ids aside."""
        pattern = re.compile(re.sub(r"order\\-[0-9a-f]{8}", r"order-[0-9a-f]{8}", re.escape(text)))
        end = time.monotonic() + WAIT_SECONDS
        while not pattern.search(self.shown if self.second is None else self.output.read_text(encoding="utf-8")):
            assert self.second is not None, f"shown was\n{self.shown}\nand not\n{text}"
            assert self.second.poll() in (None, 0), self.output.read_text(encoding="utf-8")
            assert time.monotonic() < end, f"not shown:\n{text}\nbut:\n{self.output.read_text(encoding='utf-8')}"
            time.sleep(0.1)


def follow(project: OwnProject, running: Dev) -> None:
    """Do what the page says behind its beginning, while `running` is the `towpath dev` of its first terminal."""
    following = _Following(project, running)
    for step in list(steps())[len(BEGINNING) :]:
        if step.kind == "command":
            following.run(step.text)
        elif step.kind == "shown":
            following.expect(step.text)
        elif step.kind == "diff":
            following.edited = len(running.text)
            edit(project.root / step.file, step.text)
        else:
            (project.root / step.file).write_text(step.text, encoding="utf-8")
    if following.second is not None:
        assert following.second.wait(WAIT_SECONDS) == 0
