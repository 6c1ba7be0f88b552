"""A replay on the real stack, by command: planned, killed, run to its end; nothing sent twice, nothing done twice."""

import json
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import TopicPartition as RdTopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from schemas.records.payment import PaymentCaptured
from tests.integration.stack.test_running import COMMAND
from tests.integration.stack.test_supervisor import eventually
from tests.integration.stack.test_views import Customers, dead_letter_topic, worker
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, RunningStack
from towpath import cli
from towpath.cli.replay_planning import outbox_records
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.outbox.message import from_record
from towpath.outbox.postgres import write
from towpath.replay.reading import read_file, read_ranges
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.record import ConsumedRecord
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
        chosen = ("--topic", TOPIC, "--ids", str(ids), "--rate", "100")
        planned = run(ROOT, "replay", "plan", *chosen, "--output", str(file)).leads_on()
        made = json.loads(file.read_text(encoding="utf-8"))
        assert made["counted"]["records"] == CUSTOMERS
        assert [(one["consumer"], one["records"], one["beyond"]) for one in made["consumers"]] == [
            ("view customers", CUSTOMERS, 0)
        ]
        command = [*COMMAND, *step_in(planned.text, "replay run x --reason REASON"), "--yes"]
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


OUTBOX_TOPIC = "payment.events"
PAYMENTS = 60


def records_of(broker: KafkaBroker, ids: set[str]) -> list[ConsumedRecord]:
    """Return the records of the payments' topic that have these ids."""
    bounds = bounds_of(broker, [OUTBOX_TOPIC])
    whole = {place: (bounds.begins[place], bounds.ends[place]) for place in bounds.ends}
    return [record for record in read_ranges(broker, whole) if record.header("id") in ids]


def as_told(record: ConsumedRecord) -> tuple[Any, ...]:
    """Return all that a record says, but where it lies and headers without a value."""
    headers = {name: value for name, value in record.headers if value is not None}
    return record.topic, record.partition, record.timestamp_milliseconds, record.key, record.value, headers


def test_an_outbox_gives_back_what_its_topic_has_let_expire(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Record for record as Debezium had made them, in each partition's order; into the topic, and into files."""
    monkeypatch.chdir(ROOT)
    broker = KafkaBroker(stack.settings.kafka, stack.settings.stream)
    codec = load_codec(stack.settings, Catalogue.load(stack.settings), [OUTBOX_TOPIC])
    ids: list[str] = []
    with psycopg.connect(stack.settings.postgres.database_url("payment")) as connection:
        for number in range(PAYMENTS):
            order = f"order-{number % 7}"
            event = PaymentCaptured(order_id=order, capture_id=str(number), amount_cents=number)
            message = from_record(codec, OUTBOX_TOPIC, order, event, id=uuid4(), tenant="shop")
            ids.append(str(message.id))
            write(connection, [message])
            if number % 5 == 4:
                connection.commit()
    assert eventually(lambda: len(records_of(broker, set(ids))) == PAYMENTS, 120)
    carried = records_of(broker, set(ids))
    again = [
        record
        for record in outbox_records(stack.settings, "payment", (OUTBOX_TOPIC,))
        if record.header("id") in set(ids)
    ]
    assert [record.header("id") for record in again] == ids, "in the order of commit"
    assert [as_told(record) for record in sorted(again, key=lambda one: one.partition)] == [
        as_told(record) for record in carried
    ]

    early = tmp_path / "early.json"
    replay("plan", "--topic", OUTBOX_TOPIC, "--output", str(early))
    expired = [RdTopicPartition(*place, end) for place, end in bounds_of(broker, [OUTBOX_TOPIC]).ends.items()]
    admin = AdminClient({"bootstrap.servers": stack.settings.kafka.bootstrap_servers})
    for deleted in admin.delete_records(expired).values():
        deleted.result()
    assert records_of(broker, set(ids)) == []
    late = run(ROOT, "replay", "run", str(early), "--reason", "t", "--yes").leads_on()
    anew = run(ROOT, *step_in(late.text, "replay plan --topic TOPIC", TOPIC=OUTBOX_TOPIC)).leads_on()
    assert (late.code, anew.code) == (6, 0), late.text + anew.text
    wanted = tmp_path / "ids"
    wanted.write_text("\n".join(ids), encoding="utf-8")
    options = ("--outbox", "payment", "--topic", OUTBOX_TOPIC, "--ids", str(wanted))
    file, copy = tmp_path / "file.json", tmp_path / "copy.avro"
    made = replay("plan", *options, "--to-file", str(copy), "--output", str(file))
    assert (made["counted"]["records"], made["order"]) == (PAYMENTS, "as they were committed, across partitions")
    assert replay("run", str(file), "--reason", "a test", "--yes")["sent"] == PAYMENTS
    assert [as_told(record) for record in read_file(copy)] == [as_told(record) for record in again]
    again_there = run(ROOT, "replay", "plan", *options, "--to-file", str(copy)).leads_on()
    elsewhere = step_in(again_there.text, "replay plan --to-file FILE", FILE=str(tmp_path / "another.avro"))
    planned = run(ROOT, *elsewhere, *options).leads_on()
    assert (again_there.code, planned.code) == (6, 0), again_there.text + planned.text
    file = tmp_path / "plan.json"
    replay("plan", *options, "--output", str(file))
    for sent in (PAYMENTS, 0):
        assert replay("run", str(file), "--reason", "a test", "--yes")["sent"] == sent
    replayed = records_of(broker, set(ids))
    assert [record._replace(headers=record.headers[:-1]) for record in replayed] == [
        record._replace(offset=replayed[number].offset)
        for number, record in enumerate(sorted(again, key=lambda one: one.partition))
    ]
    replay("plan", *options, "--output", str(file))
    with psycopg.connect(stack.settings.postgres.database_url("payment")) as connection:
        connection.execute("DELETE FROM outbox WHERE id = %s", (ids[0],))
    gone = run(ROOT, "replay", "run", str(file), "--reason", "t", "--yes").leads_on()
    anew = run(ROOT, *step_in(gone.text, "replay plan --outbox x")).leads_on()
    assert (gone.code, anew.code) == (6, 0), gone.text + anew.text
