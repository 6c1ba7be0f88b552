"""Workers that start before the parts that they need: each waits, says for what, and serves once that is there."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.integration.stack.test_supervisor import eventually
from tests.next_steps import run
from tests.stack_fixture import ROOT, RunningStack, free_ports
from towpath.stack.home import Home
from towpath.stack.workers import told_status, worker_process

SAGA, SERVICE, VIEW = "saga:place_order", "service:payment", "view:order_status"
APPLICATIONS = {
    SAGA: "craftygoods-saga-place_order",
    SERVICE: "craftygoods-service-payment",
    VIEW: "craftygoods-view-order_status-v1",
}


class Part(NamedTuple):
    """A part of the stack: how a worker is told where it is, its port in the stack, and who needs it at the start."""

    variable: str
    at: str
    port: str
    needed_by: tuple[str, ...]


PARTS = {
    "registry": Part("TOWPATH_REGISTRY__URL", "http://{}/apis/ccompat/v7", "registry_port", (SAGA, SERVICE, VIEW)),
    # A saga needs no database: all that it keeps is in its topics.
    "database": Part("TOWPATH_POSTGRES__URL", "postgresql://towpath@{}", "postgres_port", (SERVICE, VIEW)),
    "kafka": Part("TOWPATH_KAFKA__BOOTSTRAP_SERVERS", "{}", "kafka_port", (SAGA, SERVICE, VIEW)),
}


@contextlib.contextmanager
def reachable(address: str, port: int, tmp_path: Path) -> Iterator[None]:
    """Let whoever connects to an address reach a part of the stack."""
    delay = tmp_path / "delay"
    delay.write_text("0", encoding="utf-8")
    command = (sys.executable, "-m", "tests.crash.forward", address, f"127.0.0.1:{port}", str(delay))
    with subprocess.Popen(command, cwd=ROOT) as forwarder:
        try:
            yield
        finally:
            forwarder.kill()


def waiting_of(port: int, application: str) -> float | None:
    """Return what a worker's metrics say of its waiting, None where they say nothing."""
    said = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = re.search(rf'^towpath_waiting_for_dependency{{application="{application}"}} (\S+)$', said, re.MULTILINE)
    return None if found is None else float(found[1])


@pytest.mark.parametrize("part", PARTS)
def test_workers_wait_for_a_part_that_is_away_when_they_start(stack: RunningStack, tmp_path: Path, part: str) -> None:
    """No worker dies or is ready; status, doctor, log and metric say what it waits for; it serves once that is there.

    Workers of each kind that needs the part start side by side, each with its address where nothing listens yet.
    """
    needed = PARTS[part]
    listen, metrics = free_ports(2)
    address, home = f"127.0.0.1:{listen}", Home(stack.settings.stack_home)
    environment = {
        **stack.environment,
        needed.variable: needed.at.format(address),
        "TOWPATH_METRICS_PORT": str(metrics),
    }
    specs = {
        name: worker_process(stack.settings, name, f"no-{part}", environment=environment) for name in needed.needed_by
    }
    try:
        for spec in specs.values():
            stack.client.start(spec)
        began = {name: stack.client.status()[spec.name] for name, spec in specs.items()}
        for name, spec in specs.items():

            def waits(process: str = spec.name, pid: int | None = began[name].pid) -> bool:
                told = told_status(home, process, pid)
                return told is not None and told["waiting_for"] is not None

            # librdkafka looks for its cluster for 15 s.
            assert eventually(waits, 60), f"{name}: {home.log_file(spec.name).read_text(encoding='utf-8')}"
        rows = {row["name"]: row for row in json.loads(run(ROOT, "status", "--json").text)["processes"]}
        findings = {one["subject"]: one for one in json.loads(run(ROOT, "doctor", "--json").text)}
        for name, spec in specs.items():
            row = rows[spec.name]
            assert (row["state"], row["pid"], row["starts"]) == ("starting", began[name].pid, began[name].starts)
            assert row["reason"].startswith("waits: "), row
            assert part in row["reason"].lower(), row
            assert str(listen) in row["reason"], row
            finding = findings[spec.name]
            assert (finding["severity"], finding["fix"]) == ("warning", f"towpath logs {spec.name}")
            assert finding["finding"] == row["reason"], finding
            assert row["reason"].removeprefix("waits: ") in home.log_file(spec.name).read_text(encoding="utf-8")
            assert waiting_of(row["metrics_port"], APPLICATIONS[name]) == 1.0, name
        with reachable(address, getattr(stack.settings.stack, needed.port), tmp_path):
            stack.client.wait_ready([spec.name for spec in specs.values()], 60)
            for name, spec in specs.items():
                status = stack.client.status()[spec.name]
                assert (status.pid, status.starts) == (began[name].pid, began[name].starts)
                told = told_status(home, spec.name, status.pid)
                assert told is not None
                assert (told["application"], told["is_ready"]) == (APPLICATIONS[name], True), told
                assert waiting_of(told["metrics_port"], APPLICATIONS[name]) == 0.0, name
    finally:
        for spec in specs.values():
            stack.client.stop(spec.name)
