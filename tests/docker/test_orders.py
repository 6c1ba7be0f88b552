"""Orders flow through the containers, and a container that dies or is restarted in the middle loses none of them.

What is said of stand-ins in `test_deployment` holds here too: where the official images cannot be pulled, this proves
the compose file, the project's own image and the engine in it, on the same versions of the same parts, but not the
official images.
"""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.docker.conftest import ROOT, Deployment
from towpath.demo.demo import Demo
from towpath.errors import WorldError
from towpath.project import load_object

pytestmark = pytest.mark.docker
ORDERS = 200
# Kills what `towpath run` started, from inside: the container's first process, which only passes signals on, then
# ends, and the Engine's restart policy does the rest. Killed through the Engine it would stay down.
KILL = """
import os, signal
for process in filter(str.isdigit, os.listdir("/proc")):
    words = open(f"/proc/{process}/cmdline", "rb").read().split(b"\\0")
    if process != "1" and b"run" in words:
        os.kill(int(process), signal.SIGKILL)
"""


def demo_of(deployment: Deployment, *options: str) -> subprocess.Popen[str]:
    """Start the demo's container, which places orders and judges what became of them."""
    command = ["docker", "compose", "-p", deployment.project, "--profile", "demo", "run", "--rm", "-T", "demo"]
    return subprocess.Popen(
        [*command, *options, "--json"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def verdict_of(demo: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the demo's end and return its verdict; a failure shows what it said."""
    said, notes = demo.communicate(timeout=400)
    assert demo.returncode == 0, f"{said}\n{notes[-4000:]}"
    verdict: dict[str, Any] = json.loads(said)
    return verdict


def wait_until(what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return once `holds()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


def placed(deployment: Deployment) -> int:
    """Return how many orders were ever accepted, as the service that owns them says."""
    settings = deployment.settings
    assert settings.project.demo is not None
    project = load_object(settings, settings.project.demo, Demo)  # type: ignore[type-abstract]
    return len(project.placed_keys(settings))


def assert_all_is_well(verdict: dict[str, Any], orders: int) -> None:
    """Every order came to an end, once, and the books are right, by databases and topics alone."""
    assert verdict["orders"] == orders
    assert verdict["completed"] + verdict["compensated"] == orders
    assert verdict["completed"] > 0
    assert verdict["compensated"] > 0
    assert (verdict["stuck"], verdict["lost"], verdict["executed_twice"]) == (0, 0, 0)
    assert verdict["money_conserved"]
    assert verdict["stock_conserved"]
    assert verdict["view_exact"]


def test_orders_complete_though_containers_die(deployment: Deployment) -> None:
    """The orchestrator and a participant are killed, Connect is restarted, all while orders are under way."""
    before = placed(deployment)
    demo = demo_of(deployment, "--orders", str(ORDERS), "--seed", "7")
    wait_until(
        "a quarter of the orders placed", lambda: placed(deployment) >= before + ORDERS // 4 or bool(demo.poll())
    )
    for victim in ("saga-place-order", "service-payment"):
        subprocess.run(
            ["docker", "compose", "-p", deployment.project, "exec", "-T", victim, "python", "-c", KILL],
            check=False,
            cwd=ROOT,
            capture_output=True,
            timeout=60,
        )
    deployment.compose("restart", "connect")
    assert_all_is_well(verdict_of(demo), ORDERS)
    restarts = {name: one["RestartCount"] for name, one in deployment.containers().items()}
    assert restarts["saga-place-order"] >= 1
    assert restarts["service-payment"] >= 1


def test_orders_outlive_their_containers(deployment: Deployment) -> None:
    """All containers are removed and made anew; what was ordered before is there, and new orders complete."""
    before = placed(deployment)
    assert before > 0
    deployment.compose("rm", "--stop", "--force", "--volumes")  # the anonymous ones: those with a name stay
    with pytest.raises(WorldError):
        placed(deployment)
    deployment.start()
    assert placed(deployment) == before
    assert_all_is_well(verdict_of(demo_of(deployment, "--orders", "20", "--seed", "8")), 20)
    assert placed(deployment) == before + 20
