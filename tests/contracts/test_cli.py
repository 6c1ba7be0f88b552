"""The verbs of `towpath contracts`, run as a person runs them, in a project of its own outside this repository."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOML = '[project]\nname = "shop"\nrecords = "promises.records"\nschemas = "promises"\n'
TOPIC = """\
topic: order.events
kind: events
owner: order
key: order_id
partitions: 2
retention_days: 3
values: [shop.order.OrderPlaced]
producers: [order]
consumers: [billing]
"""


def write(path: Path, content: Any) -> None:
    """Write text, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def order_placed(*fields: dict[str, Any]) -> dict[str, Any]:
    """Return the Avro of an order with an id and further fields."""
    return {
        "type": "record",
        "name": "OrderPlaced",
        "namespace": "shop.order",
        "fields": [{"name": "order_id", "type": "string"}, *fields],
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of a small project that was never part of this repository."""
    write(tmp_path / "towpath.toml", TOML)
    write(tmp_path / "promises/topics/order.events.yaml", TOPIC)
    write(tmp_path / "promises/avro/order/OrderPlaced.avsc", order_placed())
    write(tmp_path / "promises/examples/order/OrderPlaced/good/one.json", {"order_id": "o-1"})
    return tmp_path


def towpath(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in the project's folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}
    command = [sys.executable, "-c", "from towpath.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)


def test_a_project_is_generated_tested_and_released(project: Path) -> None:
    """From two files by hand to a typed record whose promises are proved; a second run has nothing to do."""
    stale = towpath(project, "contracts", "generate", "--check")
    assert (stale.returncode, "stale" in stale.stderr) == (3, True)
    assert not (project / "promises/records/order.py").exists()
    assert towpath(project, "contracts", "generate").returncode == 0
    assert towpath(project, "contracts", "generate", "--check").returncode == 0
    tested = towpath(project, "contracts", "test")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "every promise holds" in tested.stdout
    dry = towpath(project, "contracts", "release", "--dry-run")
    assert "OrderPlaced.v1.avsc" in dry.stdout
    assert not (project / "promises/avro/order/versions").exists()
    assert towpath(project, "contracts", "release").returncode == 0
    assert (project / "promises/avro/order/versions/OrderPlaced.v1.avsc").exists()


def test_a_broken_promise_ends_with_exit_code_3_and_names_who_breaks(project: Path) -> None:
    """The report says which field, who reads the topic, and how to mend it; nothing is released or registered."""
    towpath(project, "contracts", "generate")
    towpath(project, "contracts", "release")
    write(project / "promises/avro/order/OrderPlaced.avsc", order_placed({"name": "total", "type": "long"}))
    write(project / "promises/examples/order/OrderPlaced/good/one.json", {"order_id": "o-1", "total": 1})
    towpath(project, "contracts", "generate")
    tested = towpath(project, "contracts", "test")
    assert tested.returncode == 3
    assert "OrderPlaced.total: the reader needs it" in tested.stdout
    assert "breaks billing (reading order.events, which keeps such records for 3 days)" in tested.stdout
    assert "mend give total a default" in tested.stdout
    report = json.loads(towpath(project, "contracts", "test", "--json").stdout)
    assert (report["ok"], report["findings"][0]["rule"]) == (False, "compatibility")
    assert towpath(project, "contracts", "release").returncode == 3
    assert not (project / "promises/avro/order/versions/OrderPlaced.v2.avsc").exists()
    assert towpath(project, "contracts", "register").returncode == 3


def test_a_mistake_in_a_file_is_an_error_without_a_traceback(project: Path) -> None:
    """What is wrong, where, and what was probably meant."""
    write(project / "promises/topics/order.events.yaml", TOPIC.replace("partitions", "partition"))
    done = towpath(project, "contracts", "test")
    assert done.returncode == 3
    assert "unknown key 'partition' (did you mean 'partitions'?)" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
