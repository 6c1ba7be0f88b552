"""A killed broker is told from one that stopped; its controller comes first, and only then."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.stack.test_metadata_log import batch
from towpath.stack.kafka_start import Plan, was_killed
from towpath.stack.metadata_log import BROKER_REGISTRATION_CHANGE, METADATA_LOG


def folder(path: Path, *names: str) -> Path:
    """Make a data folder with these things in it."""
    for name in names:
        if name == METADATA_LOG:
            (path / name).mkdir()
        else:
            (path / name).touch()
    return path


@pytest.mark.parametrize(
    ("names", "killed"),
    [
        ((), False),
        (("meta.properties",), False),
        (("meta.properties", METADATA_LOG), True),
        (("meta.properties", METADATA_LOG, ".kafka_cleanshutdown"), False),
    ],
    ids=["empty", "never started", "killed", "stopped"],
)
def test_a_killed_broker_left_no_mark(tmp_path: Path, names: tuple[str, ...], killed: bool) -> None:
    """Kafka writes its mark at the end of a clean stop, and takes it away when it starts."""
    assert was_killed(folder(tmp_path, *names)) is killed


def started(path: Path, controller: str) -> str:
    """Return what is printed by the start of a broker whose controller runs this shell script."""
    plan = Plan(str(path), ("/bin/sh", "-c", "echo broker"), ("/bin/sh", "-c", controller))
    command = [sys.executable, "-m", "towpath.stack.kafka_start", plan.to_json()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_broker_waits_until_its_ghost_is_fenced(tmp_path: Path) -> None:
    """The controller is ended once its log says so, and the broker takes the place of the process."""
    log = folder(tmp_path, METADATA_LOG) / METADATA_LOG / "00000000000000000000.log"
    # Fenced once before: that counts no more.
    log.write_bytes(batch(BROKER_REGISTRATION_CHANGE))
    fencing = tmp_path / "fencing"
    fencing.write_bytes(batch(5, BROKER_REGISTRATION_CHANGE))
    script = f"echo Performing controller activation; sleep 0.2; touch {tmp_path}/ran; cat {fencing} >> {log}; sleep 60"
    began = time.monotonic()
    assert started(tmp_path, script) == "broker\n"
    assert (tmp_path / "ran").exists()
    assert time.monotonic() - began < 30


def test_a_controller_that_ends_keeps_no_broker_from_starting(tmp_path: Path) -> None:
    """What keeps the controller from running will show again in the broker, whose log people read."""
    assert started(folder(tmp_path, METADATA_LOG), "echo no such file >&2; exit 1") == "broker\n"


def test_after_a_clean_stop_the_broker_starts_at_once(tmp_path: Path) -> None:
    """No controller runs."""
    folder(tmp_path, METADATA_LOG, ".kafka_cleanshutdown")
    started(tmp_path, f"touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()
