"""Positions that a log does not have, of every kind and in both forms: list, status and doctor tell each alike."""

import contextlib
import json
import shlex
from collections.abc import Iterator
from importlib import resources
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition as RdTopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg.sql import SQL, Identifier

from tests.integration.stack.customers import held
from tests.integration.stack.test_positions import SAGA, VIEW, views_database
from tests.integration.stack.test_supervisor import eventually
from tests.next_steps import run
from tests.stack_fixture import ROOT, RunningStack, free_ports, variables
from towpath.outbox.names import slot_name
from towpath.stack.config import captured_databases
from towpath.stack.home import Home
from towpath.stack.workers import told_status, worker_process
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import UNKNOWN_END
from towpath.stream.broker.position import HoldKind, PartitionHeld, write_held, write_lost_tail
from towpath.stream.broker.record import TopicPartition
from towpath.view.postgres import create_table

RECORDS, EXPIRED = 10, 4
"""Written to each partition, and how many of them are gone."""


@pytest.fixture
def broker(stack: RunningStack) -> KafkaBroker:
    """Return the stack's broker."""
    return KafkaBroker(stack.settings.kafka, stack.settings.stream)


@pytest.fixture
def topic(stack: RunningStack, broker: KafkaBroker) -> Iterator[str]:
    """Return a topic of four partitions whose first records have expired; what a group keeps of it goes with it."""
    name = f"held-{uuid4().hex[:8]}.events"
    admin = AdminClient({"bootstrap.servers": stack.settings.kafka.bootstrap_servers})
    for made in admin.create_topics([NewTopic(name, 4), NewTopic(f"{name}.dead", 4)]).values():
        made.result(30)
    try:
        producer = broker.producer("test-held")
        producer.start()
        producer.begin()
        for number in range(4):
            for _ in range(RECORDS):
                producer.produce(name, b"", partition=number)
        producer.commit({}, None)
        producer.close()
        for gone in admin.delete_records([RdTopicPartition(name, number, EXPIRED) for number in range(4)]).values():
            gone.result(30)
        yield name
    finally:
        for gone in admin.delete_topics([name, f"{name}.dead"]).values():
            gone.result(30)
        # The group's offsets of a topic that is no more are dropped by its coordinator, a moment later.
        assert eventually(lambda: not any(place.topic == name for place in broker.group_offsets(SAGA)), 30)


@contextlib.contextmanager
def kept_by_the_group(broker: KafkaBroker, topic: str, stored: dict[int, tuple[int, str]]) -> Iterator[str]:
    """Have the saga's group stand there, with these notes: the Kafka form."""
    member = broker.member(SAGA, client_id="test-held")
    for number, (offset, note) in stored.items():
        member.note(TopicPartition(topic, number), offset, note)
    member.close()
    yield SAGA


@contextlib.contextmanager
def kept_by_a_database(
    stack: RunningStack, broker: KafkaBroker, topic: str, stored: dict[int, tuple[int, str]]
) -> Iterator[str]:
    """Have a view's rows stand there; of the last partition, in an earlier topic of the name: the database form."""
    known = broker.topic_ids([topic])[topic]
    with views_database(stack) as connection:
        connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
        for number, (offset, note) in stored.items():
            connection.execute(
                "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset, note)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (VIEW, topic, number, "an earlier one" if number == 3 else known, offset, note),
            )
        try:
            yield VIEW
        finally:
            for table in ("towpath_offsets", "towpath_position_decisions"):
                connection.execute(SQL("DELETE FROM {} WHERE topic = %s").format(Identifier(table)), (topic,))


def told(application: str, topic: str) -> tuple[dict[str, dict[str, Any]], ...]:
    """Return what `positions list`, `status` and `doctor` tell of a topic, by subject, each as a person asks it."""
    listed = json.loads(run(ROOT, "positions", "list", application, "--held", "--json").leads_on().text)
    of_topic = [one for one in listed if one["topic"] == topic]
    said = run(ROOT, "status", "--json").leads_on().text  # a note of what is away stands before it
    status = json.loads(said[said.index("{") :])["problems"]
    doctor = json.loads(run(ROOT, "doctor", "--json").leads_on().text)
    return (
        {f"position of {application} in {topic}[{one['partition']}]": one for one in of_topic},
        *({one["subject"]: one for one in found if topic in one["subject"]} for found in (status, doctor)),
    )


@pytest.mark.parametrize("form", ["group", "database"])
def test_each_position_that_its_log_does_not_have_is_told_alike_and_no_more_once_it_is_accepted(
    stack: RunningStack, broker: KafkaBroker, topic: str, form: str
) -> None:
    """Expired, beyond the end, restored, and of an earlier topic: the same cause and next step, which ends each."""
    begin, end = EXPIRED, broker.end_offsets([TopicPartition(topic, 0)])[TopicPartition(topic, 0)]
    stored = {0: (EXPIRED - 1, ""), 1: (end + 2, ""), 2: (end, write_lost_tail(UNKNOWN_END))}
    kinds = {0: "expired", 1: "beyond_end", 2: "restored"}
    if form == "database":  # of a group, the broker itself drops the offsets of a topic that is deleted
        stored, kinds = {**stored, 3: (end, "")}, {**kinds, 3: "recreated"}
    goes_on = {0: begin, 1: end, 2: begin + 1, 3: begin}
    with (
        kept_by_the_group(broker, topic, stored)
        if form == "group"
        else kept_by_a_database(stack, broker, topic, stored) as application
    ):
        listed, status, doctor = told(application, topic)
        subjects = {number: f"position of {application} in {topic}[{number}]" for number in kinds}
        assert {subject: one["held"] for subject, one in listed.items()} == {
            subjects[number]: kind for number, kind in kinds.items()
        }
        wanted = {
            subject: {"severity": "problem", "subject": subject, **finding_of(one)} for subject, one in listed.items()
        }
        assert (status, doctor) == (wanted, wanted)
        for number, subject in subjects.items():
            printed = listed[subject]["next"].partition(";")[0].partition(",")[0].replace("REASON", "t")
            words = shlex.split(printed.replace("OFFSET", str(goes_on[number])))
            done = run(ROOT, *words[1:], "--yes", "--json").leads_on()
            assert done.code == 0, done.text
            assert json.loads(done.text[: done.text.rindex("}") + 1])["offset_after"] == goes_on[number]
        assert told(application, topic) == ({}, {}, {})


def test_what_only_a_worker_can_tell_is_told_wherever_it_runs(
    stack: RunningStack, broker: KafkaBroker, topic: str
) -> None:
    """A worker of a machine of its own has noted it beside its group's offset; no offset of a person's helps there."""
    held = PartitionHeld(HoldKind.CHANGELOG, f"{topic}[0]: it was made anew; all of it", next_step="towpath doctor")
    with kept_by_the_group(broker, topic, {0: (EXPIRED, write_held(held))}):
        listed, status, doctor = told(SAGA, topic)
        subject = f"position of {SAGA} in {topic}[0]"
        wanted = {subject: {"severity": "problem", "subject": subject, "finding": held.cause, "fix": "towpath doctor"}}
        assert (status, doctor) == (wanted, wanted)
        assert listed[subject]["held"] == "changelog"
        refused = run(ROOT, "positions", "accept", SAGA, topic, "0", "--reason", "t", "--yes").leads_on()
        assert refused.code == 6
        assert held.cause in refused.text
    with kept_by_the_group(broker, topic, {0: (EXPIRED, "")}):
        assert told(SAGA, topic) == ({}, {}, {})


def test_a_database_that_is_away_hides_no_position_of_another(
    stack: RunningStack, broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service's database is on another server, which is down: what a view holds is told, and that it is down."""
    nowhere = {"identity": f"postgresql://towpath@127.0.0.1:{free_ports(1)[0]}/identity"}
    with kept_by_a_database(stack, broker, topic, {0: (EXPIRED - 1, "")}) as application:
        monkeypatch.setenv("TOWPATH_POSTGRES__URLS", json.dumps(nowhere))
        listed, status, doctor = told(application, topic)
        (fix,) = {one["next"] for one in listed.values()}
        assert [one["fix"] for one in (*status.values(), *doctor.values())] == [fix, fix]
        found = json.loads(run(ROOT, "doctor", "--json").leads_on().text)
        away = [one["finding"] for one in found if one["subject"] == "doctor"]
        assert away, found
        assert all("identity" in one for one in away), away
        slots = {one["subject"] for one in found if one["subject"].startswith("slot ")}
        others = set(captured_databases(stack.settings)) - {"identity"}
        assert slots == {f"slot {slot_name('craftygoods', name)}" for name in others}


def test_a_worker_whose_group_nobody_looks_at_tells_what_it_holds_itself(
    stack: RunningStack, broker: KafkaBroker
) -> None:
    """Whoever asks has another project, without this view: its worker names the position, and the same next step."""
    views = {"TOWPATH_PROJECT__VIEWS": json.dumps(["tests.integration.stack.customers:held"])}
    application, place = "craftygoods-view-held_orders-v1", TopicPartition("order.events", 0)
    end = broker.end_offsets([place])[place]
    spec = worker_process(stack.settings, "view:held_orders", environment={**stack.environment, **views})
    with views_database(stack) as connection:
        connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
        create_table(stack.settings, held)  # of a version without one, nothing that is noted counts
        connection.execute(
            "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, %s, %s, %s)",
            (application, *place, broker.topic_ids([place.topic])[place.topic], end + 5),
        )
        stack.client.start(spec)
        try:
            with variables(views):
                (listed,) = json.loads(run(ROOT, "positions", "list", application, "--held", "--json").text)

            def is_held() -> bool:
                told = told_status(Home(stack.settings.stack_home), spec.name, stack.client.status()[spec.name].pid)
                return told is not None and bool(told["held"])

            assert eventually(is_held, 60)
            for words in (("status", "--json"), ("doctor", "--json")):
                said = json.loads(run(ROOT, *words).leads_on().text)
                found = [
                    one for one in (said["problems"] if words[0] == "status" else said) if spec.name in one["subject"]
                ]
                assert {"severity": "problem", "subject": f"{spec.name}: {place}", **finding_of(listed)} in found, found
        finally:
            stack.client.stop(spec.name)
            connection.execute("DELETE FROM towpath_offsets WHERE application = %s", (application,))
            connection.execute("DROP TABLE IF EXISTS held_orders_v1 CASCADE")


def finding_of(listed: dict[str, Any]) -> dict[str, Any]:
    """Return what a finding says of a position that `positions list` has."""
    return {"finding": listed["reason"], "fix": listed["next"]}
