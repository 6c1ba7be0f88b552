"""The verbs of `towpath contracts`, run as a person runs them, in a project of its own outside this repository."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from towpath.cli.contracts import contracts_app
from towpath.errors import TowpathError

RECORDS = "shop_records"
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
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a small project that was never part of this repository, and go there."""
    # A module that is written twice within a second looks unchanged to Python's cache of compiled files.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOWPATH_PROJECT", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(
        tmp_path / "towpath.toml",
        f'[project]\nname = "shop"\nrecords = "{RECORDS}"\nschemas = "promises"\noutsiders = ["billing"]\n',
    )
    write(tmp_path / "promises/topics/order.events.yaml", TOPIC)
    write(tmp_path / "promises/avro/order/OrderPlaced.avsc", order_placed())
    write(tmp_path / "promises/examples/order/OrderPlaced/good/one.json", {"order_id": "o-1"})
    yield tmp_path
    forget_records()


def forget_records() -> None:
    """Let the next run import the generated classes as they are then."""
    importlib.invalidate_caches()
    for module in [name for name in sys.modules if name.startswith(RECORDS)]:
        del sys.modules[module]


def contracts(*arguments: str) -> tuple[int, str]:
    """Run a verb in this process; return its exit code, and what it wrote."""
    forget_records()
    done = CliRunner().invoke(contracts_app, arguments)
    if isinstance(done.exception, TowpathError):
        return int(done.exception.exit_code), done.stdout
    return done.exit_code, done.stdout


def test_a_project_is_generated_tested_and_released(project: Path) -> None:
    """From two files by hand to a typed record whose promises are proved; a second run has nothing to do."""
    assert contracts("generate", "--check")[0] == 3
    assert not (project / "shop_records/order.py").exists()
    assert contracts("generate")[0] == 0
    assert contracts("generate", "--check") == (0, "")
    code, text = contracts("test")
    assert (code, "every promise holds" in text) == (0, True), text
    assert "OrderPlaced.v1.avsc" in contracts("release", "--dry-run")[1]
    assert not (project / "promises/avro/order/versions").exists()
    assert contracts("release")[0] == 0
    assert (project / "promises/avro/order/versions/OrderPlaced.v1.avsc").exists()
    assert contracts("release") == (0, "")


def test_a_broken_promise_ends_with_exit_code_3_and_names_who_breaks(project: Path) -> None:
    """The report says which field, who reads the topic, and how to fix it; nothing is released or registered."""
    contracts("generate")
    contracts("release")
    write(project / "promises/avro/order/OrderPlaced.avsc", order_placed({"name": "total", "type": "long"}))
    write(project / "promises/examples/order/OrderPlaced/good/one.json", {"order_id": "o-1", "total": 1})
    contracts("generate")
    code, text = contracts("test")
    assert code == 3
    assert "OrderPlaced.total: the reader needs it" in text
    assert "breaks billing (reading order.events, which keeps such records for 3 days)" in text
    assert "fix give total a default" in text
    report = json.loads(contracts("test", "--json")[1])
    assert (report["ok"], report["findings"][0]["rule"]) == (False, "compatibility")
    assert contracts("release")[0] == 3
    assert not (project / "promises/avro/order/versions/OrderPlaced.v2.avsc").exists()
    assert contracts("register")[0] == 3


def test_a_mistake_in_a_file_ends_in_words_and_not_in_a_traceback(project: Path) -> None:
    """The whole command, as a person runs it: what is wrong, where, what was probably meant, and exit code 3."""
    write(project / "promises/topics/order.events.yaml", TOPIC.replace("partitions", "partition"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}
    command = [sys.executable, "-c", "from towpath.cli import main; main()", "contracts", "test"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 3
    assert "unknown key 'partition' (did you mean 'partitions'?)" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
