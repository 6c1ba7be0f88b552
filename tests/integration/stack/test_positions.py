"""A held position on real parts: seen by every command that looks, and let go by the command that they print."""

import contextlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib import resources
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import TopicPartition as RdTopicPartition
from confluent_kafka.admin import AdminClient

from schemas.records.payment import PaymentCaptured
from tests.integration.stack.test_running import COMMAND, problems, towpath
from tests.integration.stack.test_supervisor import eventually
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, RunningStack
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.outbox.message import from_record
from towpath.outbox.names import VIEWS_DATABASE
from towpath.outbox.postgres import write
from towpath.replay.reading import read_ranges
from towpath.stack.workers import worker_process
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.view.versions.log import bounds_of

SAGA, VIEW = "craftygoods-saga-place_order", "craftygoods-view-order_status-v1"
PLACE = TopicPartition("order.events", 0)


@pytest.fixture
def broker(stack: RunningStack) -> KafkaBroker:
    """Return the stack's broker."""
    return KafkaBroker(stack.settings.kafka, stack.settings.stream)


@contextlib.contextmanager
def views_database(stack: RunningStack) -> Iterator[psycopg.Connection[Any]]:
    postgres = stack.settings.postgres
    url = postgres.database_url(VIEWS_DATABASE)
    with psycopg.connect(url, autocommit=True, **dict[str, Any](postgres.connection_options())) as connection:
        yield connection


def move_group(broker: KafkaBroker, offset: int) -> None:
    """Have the saga's group stand at an offset."""
    producer = broker.producer("test-positions")
    producer.start()
    producer.begin()
    producer.commit_for_group(SAGA, {PLACE: offset})
    producer.close()


def decided(stack: RunningStack, next_step: str, *, offset: int | None = None) -> dict[str, Any]:
    """Run a next step as it is printed, its reason and offset filled in; return what it answered."""
    text = re.split("[;,]", next_step)[0].replace("REASON", "'found by a test'")
    assert ("OFFSET" in text) == (offset is not None)
    command = [*shlex.split(text.replace("OFFSET", str(offset))), "--yes", "--json"]
    assert command[:2] == ["towpath", "positions"]
    looked = towpath(stack, *command[1:], "--dry-run")
    assert (looked.returncode, json.loads(looked.stdout)["done"]) == (0, False), looked.stderr
    answer = towpath(stack, *command[1:])
    assert answer.returncode == 0, answer.stderr
    done: dict[str, Any] = json.loads(answer.stdout)
    return done


def held(stack: RunningStack) -> dict[str, dict[str, Any]]:
    answer = towpath(stack, "positions", "list", "--held", "--json")
    assert answer.returncode == 0, answer.stderr
    return {one["application"]: one for one in json.loads(answer.stdout)}


def test_a_groups_position_beyond_the_log_is_seen_and_accepted(stack: RunningStack, broker: KafkaBroker) -> None:
    """List, status and doctor name it with the same next step; run as printed, all of them are content."""
    end = broker.end_offsets([PLACE])[PLACE]
    move_group(broker, end + 3)
    found = held(stack)[SAGA]
    assert (found["held"], found["stored"], found["end"]) == ("beyond_end", end + 3, end)
    subject = f"position of {SAGA} in {PLACE}"
    assert problems(stack)[subject][1] == found["next"]
    status = towpath(stack, "status", "--json")
    assert status.returncode == 1
    assert subject in {one["subject"] for one in json.loads(status.stdout)["problems"]}
    # No worker has noted where the log was cut, so a person says it.
    done = decided(stack, found["next"], offset=end)
    assert (done["offset_before"], done["offset_after"]) == (end + 3, end)
    assert SAGA not in held(stack)
    refused = towpath(stack, "positions", "accept", SAGA, *map(str, PLACE), "--reason", "again", "--yes")
    assert refused.returncode == 6
    audit = TopicPartition("order.events.dead", 0)
    reader = broker.reader(audit, broker.begin_offsets([audit])[audit])
    written: list[str] = []

    def found_decision() -> bool:
        written.extend(text for record in reader.poll(0.2)[0] if (text := record.header("position")))
        return bool(written)

    assert eventually(found_decision, 20)
    reader.close()
    assert json.loads(written[-1])["reason"] == "found by a test"


@pytest.mark.parametrize("kind", ["recreated", "beyond_end"])
def test_a_databases_position_that_is_not_in_the_log_is_seen_and_accepted(
    stack: RunningStack, broker: KafkaBroker, kind: str
) -> None:
    """Of another topic of the name, or of a Kafka that was restored behind the database: by the step that is printed.

    The row moves to the topic of now, and a row beside it says who moved it and why.
    """
    begin, end = broker.begin_offsets([PLACE])[PLACE], broker.end_offsets([PLACE])[PLACE]
    topic_id = "an earlier one" if kind == "recreated" else broker.topic_ids([PLACE.topic])[PLACE.topic]
    stored, after = (42, begin) if kind == "recreated" else (end + 3, end)
    with views_database(stack) as connection:
        connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
        connection.execute(
            "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (application, topic, partition) "
            "DO UPDATE SET topic_id = excluded.topic_id, next_offset = excluded.next_offset",
            (VIEW, *PLACE, topic_id, stored),
        )
        found = held(stack)[VIEW]
        assert (found["held"], found["stored"]) == (kind, stored)
        done = decided(stack, found["next"], offset=end if kind == "beyond_end" else None)
        assert (done["offset_before"], done["offset_after"]) == (stored, after)
        assert VIEW not in held(stack)
        rows = connection.execute(
            "SELECT offset_before, offset_after, reason FROM towpath_position_decisions WHERE application = %s"
            " ORDER BY decided_at DESC LIMIT 1",
            (VIEW,),
        ).fetchall()
        assert rows == [(stored, after, "found by a test")]


def test_what_expired_before_it_was_read_is_sent_again_by_what_is_printed(
    stack: RunningStack, broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view stands before the oldest record: what the outbox still has comes again, and the view goes on."""
    monkeypatch.setenv("TOWPATH_PROJECT__VIEWS", json.dumps(["tests.integration.stack.customers:paid"]))
    topic, application = "payment.events", "craftygoods-view-paid-v1"
    id_ = pay(stack)
    assert eventually(lambda: found_in(broker, topic, id_) is not None, 60)
    record = found_in(broker, topic, id_)
    assert record is not None
    place = record.topic_partition
    admin = AdminClient({"bootstrap.servers": stack.settings.kafka.bootstrap_servers})
    (expired,) = admin.delete_records([RdTopicPartition(*place, broker.end_offsets([place])[place])]).values()
    expired.result()
    with views_database(stack) as connection:
        connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
        connection.execute(
            "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, %s, %s, %s)",
            (application, *place, broker.topic_ids([topic])[topic], record.offset),
        )
        (told,) = json.loads(run(ROOT, "positions", "list", "--held", "--json").leads_on().text)
        assert (told["application"], told["held"]) == (application, "expired")
        subject = f"position of {application} in {place}"
        assert doctor_says(subject) == [("problem", told["reason"], told["next"])]
        anew = run(ROOT, *step_in(told["next"], "capture re-emit SERVICE --reason REASON", SERVICE="payment"), "--yes")
        assert anew.leads_on().code == 0, anew.text
        assert eventually(lambda: found_in(broker, topic, id_) is not None, 60)
        accepted = shlex.split(told["next"].partition(";")[0].replace("REASON", "t"))[1:]
        done = run(ROOT, *accepted, "--yes").leads_on()
        assert (done.code, run(ROOT, "positions", "list", "--held", "--json").text.strip()) == (0, "[]"), done.text
        assert doctor_says(subject) == []
        connection.execute("DELETE FROM towpath_offsets WHERE application = %s", (application,))


def doctor_says(subject: str) -> list[tuple[str, str, str | None]]:
    """Return what `doctor` says of a subject to a person who asks it now: how bad, what, and what to do."""
    found = json.loads(run(ROOT, "doctor", "--json").leads_on().text)
    return [(one["severity"], one["finding"], one["fix"]) for one in found if one["subject"] == subject]


def pay(stack: RunningStack) -> str:
    """Write an event into the outbox of the payment service; return its id."""
    codec = load_codec(stack.settings, Catalogue.load(stack.settings), ["payment.events"])
    event = PaymentCaptured(order_id="o-1", capture_id="1", amount_cents=1)
    message = from_record(codec, "payment.events", "o-1", event, id=uuid4())
    with psycopg.connect(stack.settings.postgres.database_url("payment")) as connection:
        write(connection, [message])
    return str(message.id)


def found_in(broker: KafkaBroker, topic: str, id_: str) -> ConsumedRecord | None:
    """Return the record with this id, None where the topic does not have it."""
    bounds = bounds_of(broker, [topic])
    whole = {place: (bounds.begins[place], bounds.ends[place]) for place in bounds.ends}
    return next((record for record in read_ranges(broker, whole) if record.header("id") == id_), None)


def members(stack: RunningStack, worker: str) -> list[Any]:
    """Return the members of a worker's group, as `status` shows them."""
    groups = {one["worker"]: one for one in json.loads(towpath(stack, "status", "--json").stdout)["groups"]}
    found: list[Any] = groups[worker]["members"]
    return found


def test_a_second_worker_in_a_slot_ends_and_names_the_first(stack: RunningStack) -> None:
    """Exit code 6, before it joins: the first one goes on, and is a member with nothing to complain of."""
    spec = worker_process(stack.settings, "view:order_status", environment=stack.environment)
    stack.client.start(spec)
    try:
        stack.client.wait_ready([spec.name], 120)
        pid = stack.client.status()[spec.name].pid
        second = towpath(stack, "run", "view:order_status")
        assert second.returncode == 6, second.stderr
        assert f"slot 1 is held by process {pid} on" in second.stderr
        assert len(members(stack, "view:order_status")) == 1
        assert stack.client.status()[spec.name].starts == 1
        beside = step_in(second.stderr, "run NAME --slot SLOT", NAME="view:order_status")
        with subprocess.Popen([*COMMAND, *beside], cwd=ROOT, env=stack.environment, stderr=subprocess.DEVNULL) as third:
            try:
                assert eventually(lambda: len(members(stack, "view:order_status")) == 2, 60)
            finally:
                third.terminate()
    finally:
        stack.client.stop(spec.name)
