"""A project of a user's own, as in tests/acceptance/test_own_project.py, whose `towpath dev` goes on for a minute."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own_project import OwnProject, begin, dev, install
from tests.tutorial import follow

MINUTE_SECONDS = 60
MINUTES_MAX = 10
READY_SECONDS_MAX = 600


@pytest.fixture
def project() -> Iterator[OwnProject]:
    """Build the wheel, install it into an empty venv, and begin a project there."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-minute-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    try:
        yield begin(folder, install(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_orders_flow_while_files_change_for_a_minute(project: OwnProject) -> None:
    """The tutorial, then saves of every kind of file, each with whole orders behind it; contracts and proof hold."""
    start = time.monotonic()
    workers = len(project.towpath("run").split())
    with dev(project) as running:
        running.wait_for(lambda said: said.count("  runs") >= workers, "that all run", seconds=READY_SECONDS_MAX)
        follow(project, running)
        began, rounds = time.monotonic(), 0
        files = ("sagas/place_order.py", "pipelines/services/order/service.py", "pipelines/views/order_status.py")
        restarted = ("saga:place_order", "service:order", "view:order_status")
        while time.monotonic() - began < MINUTE_SECONDS or rounds < len(files):
            file, name = files[rounds % len(files)], restarted[rounds % len(files)]
            rounds, since = rounds + 1, len(running.text)
            with (project.root / file).open("a", encoding="utf-8") as written:
                written.write(f"\n# round {rounds}\n")
            runs = re.compile(rf"^{name} +runs after", re.MULTILINE)
            running.wait_for(
                lambda said, runs=runs: runs.search(said) and "every property holds" in said,  # type: ignore[misc]
                f"that {name} runs again",
                since=since,
                seconds=READY_SECONDS_MAX,
            )
            assert project.python("place_orders.py", "2").count("completed") == 1
        project.towpath("contracts", "test")
        project.towpath("saga", "check")
        assert "5 passed" in project.python("-m", "pytest", "-q", seconds=READY_SECONDS_MAX)
        running.interrupt()
    # A machine that does nothing else needs about three of them.
    assert time.monotonic() - start < MINUTES_MAX * 60
