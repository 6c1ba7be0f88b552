"""A network that fails between a worker and its broker: cut, delayed, healed; nothing lost or doubled.

One worker runs in a network namespace of its own, joined to the broker's by a virtual cable. The broker advertises
127.0.0.1, so each side has a forwarder on that address; the cable lies between the two, and the forwarders can be
slow. Needs root; where the kernel gives no namespaces, the test is skipped and says so.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import STOPPED_SECONDS, Run, seed_of_the_run
from tests.stack_fixture import RunningStack

pytestmark = pytest.mark.root

NAMESPACE = f"tp{os.getpid() % 100_000}"
HERE, THERE = f"{NAMESPACE}h", f"{NAMESPACE}w"
HERE_ADDRESS, THERE_ADDRESS = "10.213.77.1", "10.213.77.2"
RECORDS = 6_000


def shell(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Cable:
    """The virtual cable."""

    def __init__(self, delay_file: Path) -> None:
        self.delay_file = delay_file
        self.delay(0)

    def cut(self) -> None:
        """Pull it."""
        shell("ip", "link", "set", HERE, "down")

    def heal(self) -> None:
        """Plug it in, without any delay."""
        shell("ip", "link", "set", HERE, "up")
        self.delay(0)

    def delay(self, milliseconds: int) -> None:
        """Have the forwarders hold bytes back, each by so long."""
        self.delay_file.write_text(str(milliseconds))


@pytest.fixture
def cable(stack: RunningStack, tmp_path: Path) -> Iterator[Cable]:
    """Yield the cable between this namespace and the worker's, with a forwarder at each end."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    servers = stack.settings.kafka.bootstrap_servers
    try:
        shell("ip", "netns", "add", NAMESPACE)
        shell("ip", "link", "add", HERE, "type", "veth", "peer", "name", THERE, "netns", NAMESPACE)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine gives no network namespaces: {error}")
    inside = ("ip", "netns", "exec", NAMESPACE)
    forwarders: list[subprocess.Popen[bytes]] = []
    try:
        shell("ip", "addr", "add", f"{HERE_ADDRESS}/30", "dev", HERE)
        shell("ip", "link", "set", HERE, "up")
        for command in (
            ("ip", "addr", "add", f"{THERE_ADDRESS}/30", "dev", THERE),
            ("ip", "link", "set", THERE, "up"),
            ("ip", "link", "set", "lo", "up"),
        ):
            shell(*inside, *command)
        port = servers.rpartition(":")[2]
        found = Cable(tmp_path / "delay")
        module, delay = (sys.executable, "-m", "tests.crash.forward"), str(found.delay_file)
        forwarders.append(subprocess.Popen([*module, f"{HERE_ADDRESS}:{port}", servers, delay]))
        forwarders.append(subprocess.Popen([*inside, *module, servers, f"{HERE_ADDRESS}:{port}", delay]))
        yield found
    finally:
        for forwarder in forwarders:
            forwarder.kill()
            forwarder.wait()
        subprocess.run(["ip", "link", "del", HERE], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)


def test_a_network_that_fails_loses_and_doubles_nothing(stack: RunningStack, cable: Cable, tmp_path: Path) -> None:
    """Cut for less and for more than a session, then slow, and healed each time: outputs equal the inputs."""
    run = Run(
        stack.settings.kafka.bootstrap_servers,
        tmp_path,
        seed_of_the_run(),
        prefixes={"a": ("ip", "netns", "exec", NAMESPACE)},
    )
    try:
        for seconds in (2.0, STOPPED_SECONDS):
            run.write(RECORDS // 4)
            time.sleep(0.3)
            cable.cut()
            run.write(RECORDS // 4)
            run.watch(seconds)
            cable.heal()
        cable.delay(150)
        run.write(RECORDS // 4)
        run.watch(6)
        cable.heal()
        run.write(RECORDS // 4)
        run.flush()
        run.wait_until_done(run.outputs_committed)
    finally:
        cable.heal()
        codes = run.stop()
    assert codes == [0, 0], f"a worker did not stop in good order; logs in {tmp_path}"
    assert run.verdict() == []
