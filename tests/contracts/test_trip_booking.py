"""The trip-booking project: a project of its own, with its own tests, written with the public face alone."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack_fixture import ROOT

TRIPS = ROOT / "examples" / "trip_booking"
TOWPATH = ("-c", "from towpath.cli import main; main()")
FACES = (
    "towpath",
    "towpath.client",
    "towpath.participant",
    "towpath.saga",
    "towpath.saga.testing",
    "towpath.service",
    "towpath.view",
)
DOORS = frozenset({"towpath.errors.RefusedError"})
"""What has no face of a room: an error that a door raises."""


@pytest.mark.parametrize(
    "command",
    [
        [*TOWPATH, "contracts", "generate", "--check"],
        [*TOWPATH, "contracts", "test"],
        [*TOWPATH, "saga", "check", "--dry-run"],
        ["-m", "pytest", "-q", "-m", "not stack"],
    ],
    ids=lambda command: " ".join(command[2:4]),
)
def test_the_trip_booking_project_keeps_its_promises(command: list[str]) -> None:
    """Its generated files are fresh, its contracts hold, its sagas are proved, and its conversations pass."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}
    run = [sys.executable, *command]
    done = subprocess.run(run, cwd=TRIPS, env=plain, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_contracts_are_fewer_than_forty_files() -> None:
    """Two sagas, four services, two views: what a person writes of schemas, examples and topics."""
    written = [
        path
        for path in (TRIPS / "schemas").rglob("*")
        if path.suffix in {".avsc", ".json", ".yaml"} and path.name != "_derived.yaml"
    ]
    assert len(written) < 40, len(written)


def test_it_is_written_with_the_public_face() -> None:
    """What a project imports of the engine are the faces of its rooms, and an error."""
    found = set()
    for path in TRIPS.rglob("*.py"):
        if "records" not in path.relative_to(TRIPS).parts:
            found |= {name for name in _imports(path) if name.startswith("towpath")}
    beyond = {name for name in found if name.rpartition(".")[0] not in FACES} - DOORS
    assert not beyond, sorted(beyond)


def _imports(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
