"""The trip-booking project from the wheel alone: `towpath dev` for a minute, whole trips, a file that changes."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own_project import OwnProject, dev, environment_of, install
from tests.stack_fixture import ROOT

MINUTE_SECONDS = 60
# The first start of a stack in an empty folder, and nine workers, on a machine that others use.
READY_SECONDS_MAX = 600


@pytest.fixture
def project() -> Iterator[OwnProject]:
    """Return the project as it lies in examples, in a folder of its own, with a venv that has the wheel."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-trips-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    try:
        root = folder / "trip_booking"
        left_out = shutil.ignore_patterns("__pycache__", ".towpath")
        shutil.copytree(ROOT / "examples" / "trip_booking", root, ignore=left_out)
        yield OwnProject(root, install(folder), environment_of(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_trips_are_booked_cancelled_and_taken_back_while_files_change(project: OwnProject) -> None:
    """Its own tests pass on the stack, before a save and after it; a save restarts whom it concerns, and no other."""
    project.towpath("contracts", "test")
    project.towpath("saga", "check", "--dry-run")
    workers = len(project.towpath("run").split())
    with dev(project) as running:
        running.wait_for(
            lambda said: said.count("  runs") >= workers, "that all workers run", seconds=READY_SECONDS_MAX
        )
        began = time.monotonic()
        rounds = 0
        while time.monotonic() - began < MINUTE_SECONDS:
            assert "10 passed" in project.python("-m", "pytest", "-q", seconds=READY_SECONDS_MAX)
            rounds += 1
            since = len(running.text)
            view = project.root / "pipelines/views/trip_status.py"
            view.write_text(view.read_text(encoding="utf-8") + f"# round {rounds}\n", encoding="utf-8")
            said = running.wait_for(
                lambda said: "runs after" in said and said.count("every property holds") == 2,
                "a restart",
                since=since,
                seconds=READY_SECONDS_MAX,
            )
            assert re.findall(r"^(\S+) +runs after", said, re.MULTILINE) == ["view:trip_status"]
        assert "10 passed" in project.python("-m", "pytest", "-q", seconds=READY_SECONDS_MAX)
