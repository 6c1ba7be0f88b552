"""A project of a user's own, from the wheel alone: the tutorial from its first line to its last, as one types it."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own_project import Dev, OwnProject, begin, dev, install
from tests.tutorial import follow, typed


@pytest.fixture(scope="module")
def project() -> Iterator[OwnProject]:
    """Build the wheel, install it into an empty venv, and begin a project there."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-own-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    try:
        yield begin(folder, install(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.crash
def test_the_page_of_the_first_project_holds(project: OwnProject) -> None:
    """Each command of docs/first-project.md ends as it says, and each edit fits, while `towpath dev` runs.

    The page ends with a trip that was compensated and one that a person approved, in fewer than 15 commands and forty
    files. Then the promises around it: what is saved runs, what is wrong does not, and Ctrl-C leaves nothing behind.
    """
    assert len(typed()) < 15
    assert "0.1.0" in project.towpath("--version")
    assert len([path for path in project.files() if path.parts[0] == "schemas"]) < 25
    workers = len(project.towpath("run").split())
    with dev(project) as running:
        running.wait_for(lambda said: said.count("  runs") >= workers, "that all workers run")
        follow(project, running)
        schemas = [path for path in project.files() if path.parts[0] == "schemas" and path.name != "_derived.yaml"]
        assert len([path for path in schemas if path.suffix in {".avsc", ".json", ".yaml"}]) < 40
        saves_are_checked_and_run(project, running)
        running.interrupt()
    assert "not running" in status_of(project)
    with dev(project) as running:
        running.wait_for(lambda said: said.count("  runs") >= workers, "that all workers run again")
        project.towpath("down")
        running.wait_for(lambda said: "the stack was stopped elsewhere" in said, "that the stack is gone")
        assert running.process.wait(60) == 0
    assert project.towpath("add", "service", "flight") == "", "it is all there already"
    for check in (
        ("contracts", "generate", "--check"),
        ("contracts", "test"),
        ("saga", "check"),
        ("compose", "--check"),
    ):
        project.towpath(*check)


def saves_are_checked_and_run(project: OwnProject, running: Dev) -> None:
    """A save restarts whom it concerns, and no other; one that is wrong restarts nobody."""
    since = len(running.text)
    service = project.root / "pipelines/services/payment/service.py"
    text = service.read_text(encoding="utf-8")
    service.write_text(text.replace("LIMIT_CENTS = 500_00", "LIMIT_CENTS = 10_00"), encoding="utf-8")
    said = running.wait_for(
        lambda said: "runs after" in said and "every property holds" in said, "a restart", since=since
    )
    assert re.findall(r"^(\S+) +runs after", said, re.MULTILINE) == ["service:payment"]
    assert project.python("place_orders.py", "2").count("compensated") == 2
    since = len(running.text)
    saga = project.root / "sagas/place_order.py"
    good = saga.read_text(encoding="utf-8")
    saga.write_text(good.replace("undo=Undo(", "undo=Undoo("), encoding="utf-8")
    running.wait_for(lambda said: "what ran before goes on" in said, "what is wrong", since=since)
    saga.write_text(good, encoding="utf-8")
    running.type("restart payment")
    by_hand = re.compile(r"^service:payment +runs after", re.MULTILINE)
    running.wait_for(lambda said: by_hand.search(said) is not None, "a restart by hand", since=since)


def status_of(project: OwnProject) -> str:
    """Return what `towpath status` says; it fails where nothing runs."""
    command = [str(project.programs / "towpath"), "status"]
    done = subprocess.run(
        command, cwd=project.root, env=project.environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr
