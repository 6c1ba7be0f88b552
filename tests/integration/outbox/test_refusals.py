"""What Kafka would refuse is refused at its INSERT, whatever wrote it: plain SQL stands for any language here."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql

from tests.integration.outbox.test_outbox import message, written
from towpath.outbox.postgres import apply_outbox_schema, may_write, write
from towpath.settings import OutboxSettings, PostgresSettings

pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]
TOPICS = {"order.events": 1_000_000, "order.commands.dead": 100_000}


@pytest.fixture
def provisioned(connection: Connection) -> Connection:
    """Return a connection to a database whose outbox knows its topics."""
    apply_outbox_schema(connection, PostgresSettings(), OutboxSettings(), topics=TOPICS)
    return connection


def insert(connection: Connection, **columns: Any) -> None:
    """Insert a row as a client without any library does."""
    row = {"id": uuid4(), "topic": "order.events", "key": "k", "type": "T", "payload": b"\0", **columns}
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    values = sql.SQL(", ").join(sql.Placeholder() * len(row))
    connection.execute(sql.SQL("INSERT INTO outbox ({}) VALUES ({})").format(names, values), list(row.values()))


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a misspelt topic": ("outbox_topic_known", {"topic": "order.evnets"}),
    "a topic with a space": ("outbox_topic_known", {"topic": "catalog events"}),
    "another service's topic": ("outbox_topic_known", {"topic": "catalog.events"}),
    "a record whose parts fit and whose whole does not": (
        "outbox_record_fits",
        {"key": "k" * 200_000, "payload": b"x" * 900_000},
    ),
    "a record too large for its topic": (
        "outbox_record_fits",
        {"topic": "order.commands.dead", "payload": b"x" * 50_000, "dead": "x" * 60_000},
    ),
    "Tokyo's time": ("outbox_created_at_utc", {"created_at": "now + 9 h"}),
    "a time at the end of days": ("outbox_created_at_utc", {"created_at": "infinity"}),
    "a time before Kafka's first": ("outbox_created_at_utc", {"created_at": "1969-12-31"}),
}


@pytest.mark.parametrize(("constraint", "columns"), REFUSED.values(), ids=REFUSED.keys())
def test_what_kafka_refuses_is_refused_at_its_insert(
    provisioned: Connection, constraint: str, columns: dict[str, Any]
) -> None:
    """In Kafka it would stop the connector, and with it every message behind it."""
    if columns.get("created_at") == "now + 9 h":
        (ahead,) = provisioned.execute("SELECT now() AT TIME ZONE 'Asia/Tokyo'").fetchall()[0]
        columns = {"created_at": ahead}
    with pytest.raises(errors.CheckViolation) as refusal:
        insert(provisioned, **columns)
    assert refusal.value.diag.constraint_name == constraint
    provisioned.rollback()
    assert written(provisioned) == []


def test_one_row_of_a_batch_refuses_the_batch(provisioned: Connection) -> None:
    """By COPY, and by one statement of many rows."""
    with pytest.raises(errors.CheckViolation, match=r"order\.evnets"):
        write(provisioned, [message(1), message(2), message(3, topic="order.evnets")])
    provisioned.rollback()
    with pytest.raises(errors.CheckViolation, match=r"order\.evnets"):
        provisioned.execute(
            "INSERT INTO outbox (id, topic, key, type, payload) SELECT gen_random_uuid(), topic, 'k', 'T', ''"
            " FROM unnest(ARRAY['order.events', 'order.evnets']) AS topic"
        )


def test_what_kafka_takes_is_taken(provisioned: Connection) -> None:
    """The largest record, and a time of a re-emit that is a week old."""
    insert(provisioned, key="k" * 90_000, payload=b"x" * 900_000)
    insert(provisioned, created_at="2026-01-01")
    assert len(written(provisioned)) == 2


def test_who_may_only_insert_may_insert(provisioned: Connection) -> None:
    """An application's role needs no right on the list of topics, nor on the sequence."""
    role = f"app_{uuid4().hex[:8]}"
    provisioned.execute(sql.SQL("CREATE ROLE {0}; GRANT INSERT ON outbox TO {0}").format(sql.Identifier(role)))
    try:
        provisioned.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        insert(provisioned)
        with pytest.raises(errors.CheckViolation):
            insert(provisioned, topic="order.evnets")
    finally:
        provisioned.rollback()


def test_the_known_topics_follow_the_catalogue(provisioned: Connection) -> None:
    """What is added may be written after the next provisioning, what is gone may not."""
    apply_outbox_schema(provisioned, PostgresSettings(), OutboxSettings(), topics={"order.signals": 1_000_000})
    insert(provisioned, topic="order.signals")
    with pytest.raises(errors.CheckViolation):
        insert(provisioned)


@pytest.mark.parametrize("topic", [".", ".."])
def test_a_name_that_no_kafka_takes_is_refused_while_no_topic_is_known(connection: Connection, topic: str) -> None:
    """Any other may be one of Kafka's."""
    insert(connection, topic="..any")
    with pytest.raises(errors.CheckViolation):
        insert(connection, topic=topic)


def test_an_outbox_whose_last_topic_is_gone_writes_none(provisioned: Connection) -> None:
    """Nor does one that never had any, once the catalogue was asked."""
    apply_outbox_schema(provisioned, PostgresSettings(), OutboxSettings(), topics={})
    assert not may_write(provisioned, "order.events")
    with pytest.raises(errors.CheckViolation):
        insert(provisioned)


def test_an_outbox_from_before_gets_its_sequence_and_its_checks(connection: Connection) -> None:
    """Applying the schema to a table without them adds them, and keeps its rows."""
    connection.execute("ALTER TABLE outbox DROP COLUMN sequence, DROP CONSTRAINT outbox_created_at_utc")
    connection.execute("DROP TRIGGER outbox_refuse ON outbox")
    write(connection, [message(1)])
    connection.commit()
    apply_outbox_schema(connection, PostgresSettings(), OutboxSettings(), topics=TOPICS)
    assert written(connection) == [1]
    with pytest.raises(errors.CheckViolation):
        insert(connection, topic="order.evnets")
    connection.rollback()
    write(connection, [message(2), message(3)])
    sequences = [row[0] for row in connection.execute("SELECT sequence FROM outbox ORDER BY sequence").fetchall()]
    assert len(set(sequences)) == 3
