"""`towpath capture` on the real stack."""

import json
import re
import shlex
import subprocess
import sys
import time
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from schemas.records.identity import CustomerRegistered
from tests import next_steps as follow
from tests.next_steps import step_in
from tests.stack_fixture import ROOT, RunningStack
from towpath.capture.connect import ConnectClient
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.outbox.message import from_record
from towpath.outbox.names import connector_name, slot_name
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


@pytest.mark.parametrize("hours", ["1", "1000000"])
def test_all_that_was_written_arrived(stack: RunningStack, hours: str) -> None:
    """By the ids in the outbox and in the topic, also since a time before Kafka's first."""
    register_somebody(stack)
    code, rows, _ = towpath("audit", "identity", "--hours", hours, "--json")
    (row,) = [row for row in rows if row["topic"] == "identity.events"]
    assert code == 0
    assert row["written"] == row["arrived"] >= 1


def test_an_outbox_that_is_not_read_is_an_exit_code(stack: RunningStack) -> None:
    """And nothing is re-emitted while it may still be on its way; a restart fixes it."""
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
            looked = follow.run(ROOT, *step_in(said, "capture status x")).leads_on()
            assert looked.code == 1, looked.text
            assert ("capture", "recover", "identity") in looked.next_steps(), looked.text
        finally:
            connect.resume(name)
    assert towpath("restart", "identity")[0] == 0
    code, rows, _ = towpath("audit", "identity", "--hours", "1", "--json")
    assert code == 0, rows
    code, done, _ = towpath("re-emit", "identity", "--hours", "1", "--reason", "test", "--dry-run", "--json")
    assert (code, done["messages"]) == (0, 0)


def test_what_an_audit_misses_is_written_anew_by_what_it_prints(stack: RunningStack) -> None:
    """A message that the publication did not carry, as one before a lost slot."""
    with psycopg.connect(stack.settings.postgres.database_url("identity"), autocommit=True) as database:
        database.execute("ALTER PUBLICATION towpath_outbox SET (publish = 'delete')")
        try:
            register_somebody(stack)
        finally:
            database.execute("ALTER PUBLICATION towpath_outbox SET (publish = 'insert')")
    register_somebody(stack)
    audited = follow.run(ROOT, "capture", "audit", "identity", "--hours", "1").leads_on()
    assert audited.code == 1, audited.text
    done = follow.run(ROOT, *step_in(audited.text, "capture re-emit x --reason ..."), "--yes").leads_on()
    assert done.code == 0, done.text
    code, rows, _ = towpath("audit", "identity", "--hours", "1", "--json")
    assert code == 0, rows


def test_a_task_that_failed_is_restarted_by_what_is_printed(stack: RunningStack) -> None:
    """Once its cause is removed: here a publication that somebody dropped."""
    name = connector_name(stack.settings.project.name, "identity")
    with (
        psycopg.connect(stack.settings.postgres.database_url("identity"), autocommit=True) as database,
        ConnectClient(stack.settings.connect) as connect,
    ):
        database.execute("ALTER PUBLICATION towpath_outbox RENAME TO elsewhere")
        try:
            connect.restart(name, only_failed=False)
            deadline = time.monotonic() + 60
            while connect.status(name).failure is None:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            database.execute("ALTER PUBLICATION elsewhere RENAME TO towpath_outbox")
    looked = follow.run(ROOT, "capture", "status", "identity").leads_on()
    assert looked.code == 1, looked.text
    assert follow.run(ROOT, *step_in(looked.text, "capture restart x")).leads_on().code == 0
    assert towpath("status", "identity", "--json")[0] == 0


def test_a_service_that_is_not_there_is_a_mistake_in_usage(stack: RunningStack) -> None:
    """With the names of those that are."""
    del stack
    code, _, said = towpath("status", "shipping")
    assert code == 2
    assert "identity" in said


def run(*arguments: str) -> tuple[int, str, str]:
    """Run a verb as a person does; return its exit code and what it said."""
    command = [sys.executable, "-c", "from towpath.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    return done.returncode, done.stdout, done.stderr


def advice(said: str) -> list[list[str]]:
    """Return the arguments of each command that a text tells one to run, as a shell would split them."""
    return [shlex.split(found)[1:] for found in re.findall(r"next: .*?(towpath [^\n]*)", said)]


def test_a_lost_slot_is_told_by_status_and_doctor_and_recovered_by_what_they_say(stack: RunningStack) -> None:
    """With the stored offset of a connector that has carried; each command is run as it was printed."""
    register_somebody(stack)
    assert towpath("audit", "identity", "--hours", "1", "--json")[0] == 0
    name = connector_name(stack.settings.project.name, "identity")
    slot = slot_name(stack.settings.project.name, "identity")
    with (
        ConnectClient(stack.settings.connect) as connect,
        psycopg.connect(stack.settings.postgres.database_url("identity"), autocommit=True) as server,
    ):
        connect.stop(name, 30)
        server.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        register_somebody(stack)
        server.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        connect.resume(name)
        while not connect.status(name).position_gone:
            time.sleep(0.1)
    code, rows, _ = towpath("status", "identity", "--json")
    assert code == 1
    assert rows[0]["next"] == "towpath capture recover identity"
    code, _, said = run("status")
    assert code == 1
    assert ["capture", "recover", "identity"] in advice(said), said
    code, said, _ = run("doctor", "--json")
    assert code == 1
    fixes = {one["subject"]: one["fix"] for one in json.loads(said) if one["severity"] == "problem"}
    assert fixes[f"connector {name}"] == "towpath capture recover identity"
    code, outcome, _ = towpath("recover", "identity", "--dry-run", "--json")
    assert (code, outcome["done"], outcome["waiting"], outcome["refused"]) == (0, False, 1, [])
    code, _, said = run("capture", "recover", "identity")
    assert code == 6
    assert "--yes" in said
    code, outcome, _ = towpath("recover", "identity", "--yes", "--json")
    assert (code, outcome["done"], outcome["written"]) == (0, True, 1)
    assert towpath("audit", "identity", "--hours", "1", "--json")[0] == 0
    assert towpath("status", "identity", "--json")[0] == 0
    code, outcome, _ = towpath("recover", "identity", "--json")
    assert (code, outcome["done"], outcome["trouble"]) == (0, False, None)


def test_a_row_that_kafka_refuses_is_stepped_over_by_what_is_said(stack: RunningStack) -> None:
    """`recover` names it and the command that steps over it; `skipped` keeps it, `resend` sends it."""
    url = stack.settings.postgres.database_url("identity")
    bad = uuid4()
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("ALTER TABLE outbox DISABLE TRIGGER outbox_refuse")
        try:
            database.execute(
                "INSERT INTO outbox (id, topic, key, type, payload) VALUES (%s, 'identity events', 'c-1', 'T', '')",
                (bad,),
            )
        finally:
            database.execute("ALTER TABLE outbox ENABLE TRIGGER outbox_refuse")
    deadline = time.monotonic() + 60
    while towpath("status", "identity", "--json")[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (row,) = towpath("status", "identity", "--json")[1]
    assert row["next"] == "towpath capture recover identity --dry-run"
    code, _, said = run(*shlex.split(row["next"])[1:])
    assert code == 0
    ((_, *skip),) = [found for found in advice(said) if "skip" in found]
    assert skip[:3] == ["skip", "identity", str(bad)]
    code, outcome, said = towpath(*skip, "--yes", "--json")
    assert (code, outcome["skipped"]) == (0, 1), said
    assert towpath("status", "identity", "--json")[:2][0] == 0
    examined = follow.run(ROOT, "doctor").leads_on()
    code, kept, _ = towpath(*step_in(examined.text, "capture skipped x")[1:], "--json")
    assert [one["id"] for one in kept] == [str(bad)]
    code, _, said = towpath("resend", "identity", str(bad))
    assert code == 6
    assert "identity events" in said
    code, outcome, _ = towpath("skip", "identity", str(bad), "--reason", "again", "--yes", "--json")
    assert (code, outcome["done"]) == (0, False)
    assert run("capture", "resend", "identity", str(bad), "--topic", "identity.events")[0] == 0
    assert towpath("skipped", "identity", "--json")[1] == []
    assert towpath("audit", "identity", "--hours", "1", "--json")[0] == 0
