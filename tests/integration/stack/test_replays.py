"""A replay on the real stack, by command: planned, killed, run to its end; nothing sent twice, nothing done twice."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import TopicPartition as RdTopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from schemas.records.payment import PaymentCaptured
from tests.integration.stack.test_running import COMMAND
from tests.integration.stack.test_supervisor import eventually
from tests.integration.stack.test_views import Customers, dead_letter_topic, worker
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, RunningStack
from towpath import cli
from towpath.cli.replay_planning import outbox_records
from towpath.cli.replay_plans import _Watch
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import wire_prefix
from towpath.contract.registry import load_codec
from towpath.orchestrator.envelope import headers_of
from towpath.outbox.message import from_record
from towpath.outbox.postgres import write
from towpath.replay.captured import line_of
from towpath.replay.progress import Progress
from towpath.replay.reading import read_file, read_ranges
from towpath.replay.sending import group_of
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


def go_on_with_files(copy: Path, plan: Path, options: Sequence[str]) -> None:
    """Read a file that a killed run left, and write one that is there already: refused, and done as printed."""
    copy.write_bytes(copy.read_bytes()[:-20])
    half = run(ROOT, "replay", "plan", "--from", str(copy)).leads_on()
    going_on = step_in(half.text, "replay run PLAN --reason REASON", PLAN=str(plan))
    assert (half.code, run(ROOT, *going_on, "--yes").leads_on().code) == (2, 0), half.text
    again_there = run(ROOT, "replay", "plan", *options, "--to-file", str(copy)).leads_on()
    elsewhere = step_in(again_there.text, "replay plan --to-file FILE", FILE=str(copy.with_name("another.avro")))
    planned = run(ROOT, *elsewhere, *options).leads_on()
    assert (again_there.code, planned.code) == (6, 0), again_there.text + planned.text


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
    go_on_with_files(copy, file, options)
    assert [as_told(record) for record in read_file(copy)] == [as_told(record) for record in again]
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


def captured(stack: RunningStack, folder: Path, values: Sequence[tuple[str, bytes]]) -> tuple[str, ...]:
    """Write records of these types and values as captured ones; return the options that send them to a new topic."""
    file, topic = folder / "some.jsonl", f"elsewhere-{uuid4().hex[:8]}"
    with file.open("w", encoding="utf-8") as lines:
        for number, (type_, value) in enumerate(values):
            headers = headers_of(id=str(uuid4()), type=type_)
            lines.write(line_of(ConsumedRecord(OUTBOX_TOPIC, 0, number, 1_000, b"o-1", value, headers)))
    admin = AdminClient({"bootstrap.servers": stack.settings.kafka.bootstrap_servers})
    for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result()
    return "--from", str(file), "--to-topic", topic


def payment(stack: RunningStack) -> tuple[str, bytes]:
    """Return type and value of an event."""
    event = PaymentCaptured(order_id="o-1", capture_id="1", amount_cents=1)
    codec = load_codec(stack.settings, Catalogue.load(stack.settings), [OUTBOX_TOPIC])
    return event.SCHEMA_NAME, codec.encode(event)


def test_a_record_of_an_unknown_schema_does_not_leave_for_another_registry(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run ends there and says how such records are left out; planned so, the others go."""
    monkeypatch.chdir(ROOT)
    there, plan = tmp_path / "there.toml", tmp_path / "plan.json"
    # The cluster itself, as another one that has a registry of its own.
    there.write_text(
        f'[kafka]\nbootstrap_servers = "{stack.settings.kafka.bootstrap_servers}"\n'
        f'[registry]\nurl = "{stack.settings.registry.url}"\n',
        encoding="utf-8",
    )
    known = payment(stack)
    options = captured(stack, tmp_path, [known, ("elsewhere.Unknown", wire_prefix(424_242) + b"x")])
    options = (*options, "--to-cluster", str(there), "--output", str(plan), "--force")
    assert replay("plan", *options)["counted"]["records"] == 2
    command = ("replay", "run", str(plan), "--reason", "t", "--yes", "--force")
    refused = run(ROOT, *command).leads_on()
    assert (refused.code, "--type TYPE beside what was asked for" in refused.text) == (3, True), refused.text
    replay("plan", *options, "--type", known[0])
    assert replay(*command[1:])["sent"] == 1


def test_a_run_that_another_one_has_ended_says_where_it_is_told(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The replay is shown, and its plan goes on behind what was sent."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("towpath.replay.sending.RECORDS_AT_ONCE", 1)
    plan = tmp_path / "plan.json"
    made = replay("plan", *captured(stack, tmp_path, [payment(stack)] * 3), "--output", str(plan))
    keep_on = _Watch.keep_on

    def ended_by_another(watch: _Watch, progress: Progress) -> bool:
        group = group_of(stack.settings.project.name, made["replay_id"])
        rival = KafkaBroker(stack.settings.kafka, stack.settings.stream).producer(group)
        rival.start()
        rival.close()
        return keep_on(watch, progress)

    command = ("replay", "run", str(plan), "--reason", "t", "--yes")
    with monkeypatch.context() as beside:
        beside.setattr(_Watch, "keep_on", ended_by_another)
        ended = run(ROOT, *command).leads_on()
    shown = run(ROOT, *step_in(ended.text, "replay show x")).leads_on()
    assert (ended.code, shown.code) == (6, 0), ended.text + shown.text
    assert "2 offsets are left" in shown.text, shown.text
    assert replay(*command[1:])["sent"] == 2
