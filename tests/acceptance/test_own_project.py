"""A project of a user's own, from the wheel alone: begun, added to, checked, run, changed while it runs."""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own_project import OwnProject, begin, dev, install
from tests.stack_fixture import ROOT

PAGE = (ROOT / "docs" / "first-project.md").read_text(encoding="utf-8")


def steps() -> Iterator[tuple[str, str]]:
    """Yield the steps of the page behind its beginning: `("", command)`, or a file and its diff."""
    for found in re.finditer(
        r"^```diff (?P<file>\S+)\n(?P<diff>.*?)^```|^\$ (?P<command>[^\n]+)$", PAGE, re.MULTILINE | re.DOTALL
    ):
        yield (found["file"], found["diff"]) if found["file"] else ("", found["command"])


def edit(path: Path, diff: str) -> None:
    """Change a file as a diff says: its lines with - and those without a mark become those with +."""
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has not once:\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> Iterator[OwnProject]:
    """Build the wheel, install it into an empty venv, and begin a project there."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-own-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    try:
        yield begin(folder, install(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_page_of_the_first_project_holds(project: OwnProject) -> None:
    """Each command of docs/first-project.md ends well, each edit fits, and what is added is whole: fewer than 15 typed.

    A part that is added again writes nothing.
    """
    assert "0.1.0" in project.towpath("--version")
    assert len([path for path in project.files() if path.parts[0] == "schemas"]) < 25
    typed = 0
    for file, text in list(steps())[4:]:  # installed, made, entered and run: by the fixture and the other test
        typed += not file
        if file:
            edit(project.root / file, text)
            continue
        program, *arguments = shlex.split(text)
        if program == "towpath":
            project.towpath(*arguments)
        elif program == "pytest":
            assert "3 passed" in project.python("-m", "pytest", "-q", *arguments)
        else:
            assert arguments == ["place_orders.py", "3"]  # the other test runs it
    assert typed < 15
    assert project.towpath("add", "service", "shipping") == ""
    project.towpath("contracts", "generate", "--check")
    project.towpath("compose", "--check")


def test_what_is_saved_runs_while_orders_flow(project: OwnProject) -> None:
    """`towpath dev` brings stack and workers up, whole orders end, a changed file runs, and nothing is left behind."""
    workers = len(project.towpath("run").split())
    with dev(project) as running:
        running.wait_for(lambda said: said.count("  runs") >= workers, "that all workers run")
        # The last one is too dear for its card: nothing is blocked, and nobody is asked.
        assert project.python("place_orders.py", "2").split().count("compensated:") == 1
        since = len(running.text)
        service = project.root / "pipelines/services/payment/service.py"
        text = service.read_text(encoding="utf-8")
        service.write_text(text.replace("LIMIT_CENTS = 500_00", "LIMIT_CENTS = 10_00"), encoding="utf-8")
        said = running.wait_for(
            lambda said: "runs after" in said and "every property holds" in said, "a restart", since=since
        )
        restarted = re.findall(r"^(\S+) +runs after", said, re.MULTILINE)
        assert restarted == ["service:payment"]
        assert project.python("place_orders.py", "2").count("compensated") == 2
        since = len(running.text)
        saga = project.root / "sagas/place_order.py"
        good = saga.read_text(encoding="utf-8")
        saga.write_text(good.replace("undo=Undo(", "undo=Undoo("), encoding="utf-8")
        running.wait_for(lambda said: "what ran before goes on" in said, "what is wrong", since=since)
        saga.write_text(good, encoding="utf-8")
        assert project.python("place_orders.py", "1")
        running.type("restart payment")
        by_hand = re.compile(r"^service:payment +runs after", re.MULTILINE)
        running.wait_for(lambda said: by_hand.search(said) is not None, "a restart by hand", since=since)
    assert "not running" in status_of(project)


def status_of(project: OwnProject) -> str:
    """Return what `towpath status` says; it fails where nothing runs."""
    command = [str(project.programs / "towpath"), "status"]
    done = subprocess.run(
        command, cwd=project.root, env=project.environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr
