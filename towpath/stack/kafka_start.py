"""Starts a stack's only Kafka broker; after a kill, first lets its controller declare the killed broker dead.

Run as `python -m towpath.stack.kafka_start '<json of Plan>'`; it ends as the broker itself, by exec.

Why: Kafka 4.1 to 4.3 skip the transaction markers of a partition that has no leader (KAFKA-20734, "likely deleted
already"), which leaves a transaction open for ever, even one whose commit was promised. A lone broker that comes back
from a kill passes exactly there: it loads its transactions while it still counts as the leader of all partitions,
loses them all when it registers anew, and gets them back when it is let in. A controller that runs alone for a second
first, with a short session, takes the leadership from the killed broker; the broker then boots without it, loads
nothing too early, and need not wait for its own ghost's session either. Several brokers lead for each other and do
not pass there.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from towpath.stack.metadata_log import BROKER_REGISTRATION_CHANGE, METADATA_LOG, record_types
from towpath.stack.supervisor.launch import before_exec

CLEAN_STOP = ".kafka_cleanshutdown"
ACTIVE = b"Performing controller activation"
SESSION_MILLISECONDS = 500
BOOT_SECONDS_MAX = 120.0
FENCE_SECONDS_MAX = 10.0
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: the broker's command, and the one of the controller that comes first after a kill."""

    data_folder: str
    broker: tuple[str, ...]
    controller: tuple[str, ...]

    def to_json(self) -> str:
        """Return the plan as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan."""
        told = json.loads(text)
        return cls(told["data_folder"], tuple(told["broker"]), tuple(told["controller"]))


def controller_settings(broker: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the controller alone: the broker's, without what only a broker has, a short session."""
    dropped = {"advertised.listeners", "inter.broker.listener.name"}
    name = broker["controller.listener.names"]
    listener = next(one for one in broker["listeners"].split(",") if one.startswith(f"{name}://"))
    return {
        **{key: value for key, value in broker.items() if key not in dropped},
        "process.roles": "controller",
        "listeners": listener,
        "listener.security.protocol.map": f"{name}:PLAINTEXT",
        "broker.session.timeout.ms": str(SESSION_MILLISECONDS),
        "broker.heartbeat.interval.ms": str(SESSION_MILLISECONDS // 4),
    }


def was_killed(data_folder: Path) -> bool:
    """Tell whether the folder's broker was killed: it ran, and did not write the mark of a clean stop."""
    return (data_folder / METADATA_LOG).exists() and not (data_folder / CLEAN_STOP).exists()


class MetadataLog:
    """What a node appends to its metadata log from now on."""

    def __init__(self, data_folder: Path) -> None:
        self._folder = data_folder / METADATA_LOG
        self._sizes = {path: path.stat().st_size for path in self._segments()}

    def has_fenced(self) -> bool:
        """Tell whether a broker's registration was changed, and the log has it."""
        for path in self._segments():
            with path.open("rb") as segment:
                segment.seek(self._sizes.get(path, 0))
                if BROKER_REGISTRATION_CHANGE in record_types(segment.read()):
                    return True
        return False

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.log"))


def fence_the_killed(command: tuple[str, ...], data_folder: Path) -> None:
    """Run the controller alone until its log says that the killed broker is dead, or there is nothing to say."""
    metadata = MetadataLog(data_folder)
    controller = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=before_exec(None, signal.SIGKILL),  # noqa: PLW1509 - no threads here
    )
    assert controller.stdout is not None
    output = controller.stdout.fileno()
    said, active, deadline = b"", False, time.monotonic() + BOOT_SECONDS_MAX
    try:
        # What it says of it comes before it is written: ended in between, it would have said it in vain.
        while not metadata.has_fenced() and time.monotonic() < deadline:
            if not select.select([output], [], [], LOOK_SECONDS)[0]:
                continue
            chunk = os.read(output, 65536)
            if not chunk:
                break
            said = said[-1024:] + chunk
            if ACTIVE in said and not active:
                # One that was killed before it was let in has no session that could end.
                active, deadline = True, time.monotonic() + FENCE_SECONDS_MAX
    finally:
        controller.terminate()
        controller.wait()


def main(arguments: list[str]) -> None:
    """Start the broker of the plan that is the only argument."""
    plan = Plan.from_json(arguments[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if was_killed(Path(plan.data_folder)):
        fence_the_killed(plan.controller, Path(plan.data_folder))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execv(plan.broker[0], plan.broker)  # noqa: S606 - the broker takes this place


if __name__ == "__main__":
    main(sys.argv[1:])
