"""A replay on the real stack, by command: planned, killed, run to its end; nothing sent twice, nothing done twice."""

import json
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from tests.integration.stack.test_running import COMMAND
from tests.integration.stack.test_supervisor import eventually
from tests.integration.stack.test_views import Customers, dead_letter_topic, worker
from tests.stack_fixture import ROOT, RunningStack
from towpath import cli
from towpath.replay.reading import read_ranges
from towpath.stream.broker.kafka import KafkaBroker
from towpath.view.versions.log import bounds_of
from towpath.view.versions.postgres import vector_of

TOPIC = "identity.events"
CUSTOMERS = 300


def replay(*arguments: str) -> Any:
    """Run a verb of `replay` in this process; return its JSON."""
    if not cli.app.registered_groups:
        cli._register()
    answer = CliRunner().invoke(cli.app, ["replay", *arguments, "--json"])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return json.loads(answer.stdout)


def test_a_replay_into_live_consumers_is_sent_once_and_changes_nothing(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed on the way and run again: each record went once, and every row is what it was."""
    views = json.dumps(["tests.integration.stack.customers:first"])
    environment = {**stack.environment, "TOWPATH_PROJECT__VIEWS": views}
    monkeypatch.setenv("TOWPATH_PROJECT__VIEWS", views)
    monkeypatch.chdir(ROOT)
    broker = KafkaBroker(stack.settings.kafka, stack.settings.stream)
    customers = Customers(stack)
    with ExitStack() as running:
        running.callback(customers.close)
        running.enter_context(dead_letter_topic(stack))
        running.enter_context(worker(stack, "view:customers", environment))
        customers.register(CUSTOMERS)
        connection = running.enter_context(
            psycopg.connect(stack.settings.postgres.database_url("views"), autocommit=True)
        )

        def has_folded_all() -> bool:
            vector = vector_of(connection, "craftygoods-view-customers-v1")
            ends = bounds_of(broker, [TOPIC]).ends
            left = {place: (vector.get(place, 0), end) for place, end in ends.items()}
            return not any(True for _ in read_ranges(broker, left))

        assert eventually(has_folded_all, 120)
        rows = connection.execute("SELECT * FROM customers ORDER BY customer_id").fetchall()
        ids = tmp_path / "ids"
        ids.write_text("\n".join(f"event-of-{id_}" for id_ in customers.ids), encoding="utf-8")
        file = tmp_path / "plan.json"
        made = replay("plan", "--topic", TOPIC, "--ids", str(ids), "--rate", "100", "--output", str(file))
        assert made["counted"]["records"] == CUSTOMERS
        assert [(one["consumer"], one["records"], one["beyond"]) for one in made["consumers"]] == [
            ("view customers", CUSTOMERS, 0)
        ]
        command = [*COMMAND, "replay", "run", str(file), "--reason", "a test", "--yes"]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as killed:
            assert killed.stderr is not None
            assert any("records," in line for line in killed.stderr)
            killed.send_signal(signal.SIGKILL)
        assert replay("show", made["replay_id"])["offsets_left"] > 0
        done = replay("run", str(file), "--reason", "a test", "--yes")
        assert (done["done"], done["offsets_left"]) == (True, 0)
        again = replay("run", str(file), "--reason", "a test", "--yes")
        assert (again["done"], again["sent"]) == (True, 0)
        bounds = bounds_of(broker, [TOPIC])
        whole = {place: (bounds.begins[place], bounds.ends[place]) for place in bounds.ends}
        sent = Counter(
            record.header("id")
            for record in read_ranges(broker, whole)
            if record.header("replay_id") == made["replay_id"]
        )
        assert sent == Counter(f"event-of-{id_}" for id_ in customers.ids)
        assert eventually(has_folded_all, 120)
        assert connection.execute("SELECT * FROM customers ORDER BY customer_id").fetchall() == rows
