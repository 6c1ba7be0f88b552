"""`towpath capture` on the real stack."""

import json
import subprocess
import sys
import time
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from schemas.records.identity import CustomerRegistered
from tests.stack_fixture import ROOT, RunningStack
from towpath.capture.connect import ConnectClient
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.outbox.message import from_record
from towpath.outbox.names import connector_name
from towpath.outbox.postgres import write

pytestmark = pytest.mark.stack


def towpath(*arguments: str) -> tuple[int, Any, str]:
    """Run a verb; return its exit code, its JSON, and what it said on stderr."""
    command = [sys.executable, "-c", "from towpath.cli import main; main()", "capture", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


def register_somebody(stack: RunningStack) -> None:
    """Commit an event of identity."""
    codec = load_codec(stack.settings, Catalogue.load(stack.settings), ["identity.events"])
    event = CustomerRegistered(customer_id=uuid4().hex, name="Ann", verified=True)
    with psycopg.connect(stack.settings.postgres.database_url("identity")) as connection:
        write(connection, [from_record(codec, "identity.events", event.customer_id, event, id=uuid4())])


def test_every_outbox_is_read(stack: RunningStack) -> None:
    """Connector, slot and lag of each."""
    code, rows, _ = towpath("status", "--json")
    assert code == 0
    assert {"identity", "catalog", "order", "payment"} <= {row["service"] for row in rows}
    assert all(row["connector"] == "running" and row["read"] for row in rows)


def test_all_that_was_written_arrived(stack: RunningStack) -> None:
    """By the ids in the outbox and in the topic."""
    register_somebody(stack)
    code, rows, _ = towpath("audit", "identity", "--hours", "1", "--json")
    (row,) = [row for row in rows if row["topic"] == "identity.events"]
    assert code == 0
    assert row["written"] == row["arrived"] >= 1


def test_an_outbox_that_is_not_read_is_an_exit_code(stack: RunningStack) -> None:
    """And nothing is re-emitted while it may still be on its way; a restart mends it."""
    name = connector_name(stack.settings.project.name, "identity")
    with ConnectClient(stack.settings.connect) as connect:
        connect.pause(name)
        try:
            while connect.status(name).tasks[0].state != "PAUSED":
                time.sleep(0.1)
            register_somebody(stack)
            code, _, said = towpath("re-emit", "identity", "--hours", "1", "--reason", "test", "--yes")
            assert code == 6
            assert "on their way" in said
        finally:
            connect.resume(name)
    assert towpath("restart", "identity")[0] == 0
    code, rows, _ = towpath("audit", "identity", "--hours", "1", "--json")
    assert code == 0, rows
    code, done, _ = towpath("re-emit", "identity", "--hours", "1", "--reason", "test", "--dry-run", "--json")
    assert (code, done["messages"]) == (0, 0)


def test_a_service_that_is_not_there_is_a_mistake_in_usage(stack: RunningStack) -> None:
    """With the names of those that are."""
    del stack
    code, _, said = towpath("status", "shipping")
    assert code == 2
    assert "identity" in said
