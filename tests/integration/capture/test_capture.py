"""The real Debezium between a real PostgreSQL and a real Kafka."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Consumer, Producer

from tests.integration.capture.conftest import SERVICE, Captured
from towpath.capture.audit import audit
from towpath.capture.connector import Connector, outbox_connector
from towpath.capture.kafka import carried_ids
from towpath.capture.postgres import re_emit, slot_state
from towpath.errors import ConfigurationError, NotFoundError, RefusedError, WorldError
from towpath.outbox.handover import HANDED_OVER
from towpath.outbox.kafka import KafkaHandover
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import maintain, write

pytestmark = pytest.mark.stack


def message(key: str = "o-1", **fields: Any) -> OutboxMessage:
    """Return a message with an id of its own."""
    content = {
        "id": uuid4(),
        "topic": "",
        "key": key,
        "type": "craftygoods.catalog.StockReserved",
        "payload": b"\0\1",
    }
    return OutboxMessage(**{**content, **fields})


def emit(captured: Captured, *messages: OutboxMessage) -> None:
    """Commit messages."""
    write(captured.connection, [replace(one, topic=captured.topic) for one in messages])
    captured.connection.commit()


def receive(tail: Consumer, count: int, timeout_seconds: float = 30.0) -> list[Any]:
    """Return the next `count` records, or fewer if they do not come in time."""
    records: list[Any] = []
    deadline = time.monotonic() + timeout_seconds
    while len(records) < count and time.monotonic() < deadline:
        records.extend(tail.consume(count - len(records), 0.2))
    assert not any(record.error() for record in records)
    return records


def text_headers(record: Any) -> dict[str, str]:
    """Return the headers that have a value, as text."""
    return {name: value.decode() for name, value in record.headers() if value is not None}


def test_a_row_becomes_a_record_with_its_key_payload_headers_and_time(captured: Captured, tail: Consumer) -> None:
    """Nothing is added to it and nothing is lost on the way."""
    captured.start()
    sent = message(
        "ö-1", payload=bytes(range(256)), saga_id=uuid4(), saga="place_order", step="stock", direction="do", attempt=2,
        round=1, item="3", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tenant="t",
        dead='{"a": 1}',
    )  # fmt: skip
    before = datetime.now(UTC)
    emit(captured, sent)
    (record,) = receive(tail, 1)
    assert (record.topic(), record.key(), record.value()) == (captured.topic, "ö-1".encode(), bytes(range(256)))
    assert text_headers(record) == {
        "id": str(sent.id), "type": sent.type, "saga_id": str(sent.saga_id), "saga": "place_order", "step": "stock",
        "direction": "do", "attempt": "2", "round": "1", "item": "3", "traceparent": sent.traceparent, "tenant": "t",
        "dead": '{"a": 1}',
    }  # fmt: skip
    written = datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC)
    assert abs(written - before) < timedelta(seconds=5)


def test_replies_lie_in_the_partition_that_the_orchestrators_client_gives_their_keys(
    captured: Captured, tail: Consumer
) -> None:
    """1,000 keys: what Java's partitioner did with a reply is what murmur2_random does with the saga's own records."""
    captured.start()
    keys = [f"order-{n}-{uuid4().hex[: n % 24]}" for n in range(1000)]
    emit(captured, *(message(key) for key in keys))
    by_debezium = {record.key(): record.partition() for record in receive(tail, 1000)}
    by_librdkafka: dict[bytes, int] = {}

    def took(error: Any, record: Any) -> None:
        assert error is None
        by_librdkafka[record.key()] = record.partition()

    producer = Producer({**captured.settings.kafka.client_config(), "partitioner": "murmur2_random", "log_level": 2})
    for key in keys:
        producer.produce(f"{captured.settings.project.name}.signals", key=key.encode(), value=b"", on_delivery=took)
    assert producer.flush(30) == 0
    assert len(set(by_debezium.values())) == 4
    assert by_debezium == by_librdkafka


def test_messages_of_one_key_arrive_in_the_order_in_which_they_were_written(captured: Captured, tail: Consumer) -> None:
    """Within a transaction and across transactions."""
    captured.start()
    sent = [message("o-1") for _ in range(40)]
    for start in range(0, 40, 8):
        emit(captured, *sent[start : start + 8])
    assert [text_headers(record)["id"] for record in receive(tail, 40)] == [str(one.id) for one in sent]


def test_a_rolled_back_message_never_arrives(captured: Captured, tail: Consumer) -> None:
    """Only what committed is true."""
    captured.start()
    write(captured.connection, [message("undone", topic=captured.topic)])
    captured.connection.rollback()
    emit(captured, message("done"))
    assert [record.key() for record in receive(tail, 1)] == [b"done"]


def test_messages_from_before_the_connector_arrive(captured: Captured, tail: Consumer) -> None:
    """The slot is made with the table, so nothing is written before the place from which Debezium reads."""
    emit(captured, message("early"))
    captured.start()
    assert [record.key() for record in receive(tail, 1)] == [b"early"]


def test_messages_written_while_debezium_was_away_arrive(captured: Captured, tail: Consumer) -> None:
    """The slot keeps them."""
    name = captured.start()
    emit(captured, message("first"))
    receive(tail, 1)
    captured.connect.delete(name)
    emit(captured, *(message(f"away-{n}") for n in range(20)))
    captured.start()
    keys = {record.key() for record in receive(tail, 20)}
    assert {f"away-{n}".encode() for n in range(20)} <= keys


def test_cleaning_the_outbox_is_no_event(captured: Captured, tail: Consumer) -> None:
    """Dropped partitions and deleted rows send nothing."""
    captured.start()
    emit(captured, message("kept"))
    receive(tail, 1)
    with captured.connection.transaction():
        captured.connection.execute("DELETE FROM outbox")
        captured.connection.execute("DROP TABLE outbox_default")
    emit(captured, message("next"))
    assert [record.key() for record in receive(tail, 1)] == [b"next"]


def test_the_slot_of_an_idle_database_moves_on(captured: Captured) -> None:
    """Heartbeats let the server forget what other databases wrote."""
    captured.start()
    first = slot_state(captured.connection, captured.slot)
    assert first is not None
    end = captured.connection.execute("SELECT pg_current_wal_lsn()").fetchall()[0][0]
    captured.connection.commit()
    deadline = time.monotonic() + 30
    moved = False
    while not moved and time.monotonic() < deadline:
        time.sleep(0.2)
        moved = captured.connection.execute(
            "SELECT confirmed_flush_lsn > %s FROM pg_replication_slots WHERE slot_name = %s", (end, captured.slot)
        ).fetchall()[0][0]
        captured.connection.commit()
    assert moved
    state = slot_state(captured.connection, captured.slot)
    assert state is not None
    assert state.active
    assert not state.lost


def test_the_audit_finds_all_that_arrived_and_counts_repeats(captured: Captured, tail: Consumer) -> None:
    """A re-emitted message is a repeat, with its first time, and no loss."""
    captured.start()
    since = datetime.now(UTC) - timedelta(minutes=1)
    sent = [message(f"o-{n}") for n in range(50)]
    emit(captured, *sent)
    verdict = audit(captured.connection, captured.settings, SERVICE, since)
    assert verdict.complete
    assert [(topic.topic, topic.written, topic.repeated) for topic in verdict.topics] == [(captured.topic, 50, 0)]
    first = {record.key(): record.timestamp() for record in receive(tail, 50)}
    assert re_emit(captured.connection, [(captured.topic, one.id) for one in sent[:2]], since) == 2
    again = {record.key(): record.timestamp() for record in receive(tail, 2)}
    assert again == {b"o-0": first[b"o-0"], b"o-1": first[b"o-1"]}
    (topic,) = audit(captured.connection, captured.settings, SERVICE, since).topics
    assert (topic.written, topic.repeated, topic.complete) == (50, 2, True)


def test_a_copy_that_was_handed_over_is_debeziums_record_and_no_evidence_of_capture(
    captured: Captured, tail: Consumer
) -> None:
    """Same key, value, partition and headers but for the mark; the audit counts what Debezium carried alone."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    sent = message(
        "ö-1",
        topic=captured.topic,
        saga_id=uuid4(),
        saga="place_order",
        step="stock",
        direction="do",
        attempt=1,
        round=1,
    )
    write(captured.connection, [sent])
    captured.connection.commit()
    handover = KafkaHandover(captured.settings.kafka, per_second=50, name="test")
    assert handover.hand_over((sent,)) == 1
    (direct,) = receive(tail, 1)
    handover.close()
    counted = carried_ids(captured.settings, [captured.topic], since)
    assert counted[captured.topic] == {}
    captured.start()
    (debeziums,) = receive(tail, 1)
    assert (direct.key(), direct.value(), direct.partition()) == (
        debeziums.key(),
        debeziums.value(),
        debeziums.partition(),
    )
    headers = text_headers(direct)
    assert headers.pop(HANDED_OVER) == "1"
    assert headers == text_headers(debeziums)
    counted = carried_ids(captured.settings, [captured.topic], since)
    assert counted[captured.topic] == {sent.id: 1}


def test_what_a_lost_slot_never_carried_is_found_and_re_emitted(captured: Captured, tail: Consumer) -> None:
    """The slot is dropped with messages in it, which is what `max_slot_wal_keep_size` does to one that is too slow."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    lost = [message(f"lost-{n}") for n in range(5)]
    emit(captured, *lost)
    captured.connection.execute("SELECT pg_drop_replication_slot(%s)", (captured.slot,))
    captured.connection.commit()
    held_back = maintain(captured.connection, captured.settings.outbox, slot=captured.slot).held_back
    assert held_back is not None
    with pytest.raises(NotFoundError, match=captured.slot):
        audit(captured.connection, captured.settings, SERVICE, since)
    captured.connection.rollback()
    captured.connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (captured.slot,))
    captured.connection.commit()
    captured.start()
    emit(captured, message("later"))
    receive(tail, 1)
    begun = time.monotonic()
    verdict = audit(captured.connection, captured.settings, SERVICE, since, timeout_seconds=60)
    assert verdict.certain
    assert time.monotonic() - begun < 50, "certain, it has nothing more to wait for"
    assert verdict.topics[0].missing == tuple(sorted(one.id for one in lost))
    re_emit(captured.connection, [(captured.topic, id_) for id_ in verdict.topics[0].missing], since)
    assert {record.key() for record in receive(tail, 5)} == {f"lost-{n}".encode() for n in range(5)}
    assert audit(captured.connection, captured.settings, SERVICE, since).complete


def test_nothing_is_re_emitted_where_the_outbox_no_longer_has_all_of_it(captured: Captured) -> None:
    """Half of what is asked for is not what is asked for."""
    kept = message()
    emit(captured, kept)
    since = datetime.now(UTC) - timedelta(minutes=1)
    with pytest.raises(RefusedError, match="1 of 2"):
        re_emit(captured.connection, [(captured.topic, id_) for id_ in (kept.id, UUID(int=1))], since)
    assert captured.connection.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


def test_applying_the_same_configuration_again_restarts_nothing(captured: Captured) -> None:
    """Every `towpath up` applies it."""
    captured.start()
    assert captured.connect.apply(outbox_connector(captured.settings, captured.catalogue, SERVICE)) is False


def test_a_task_that_fails_says_why(captured: Captured) -> None:
    """The innermost cause, not Java's outermost."""
    captured.connection.execute("DROP PUBLICATION towpath_outbox")
    captured.connection.commit()
    with pytest.raises(WorldError, match="Publication autocreation is disabled"):
        captured.start()


def test_a_configuration_that_connect_refuses_is_a_mistake_in_the_settings(captured: Captured) -> None:
    """With Connect's own words."""
    good = outbox_connector(captured.settings, captured.catalogue, SERVICE)
    with pytest.raises(ConfigurationError, match=r"topic\.prefix"):
        captured.connect.apply(Connector(good.name, {**good.config, "topic.prefix": ""}))


def test_a_connector_that_is_not_there_is_not_found(captured: Captured) -> None:
    """For every verb."""
    for verb in (captured.connect.status, captured.connect.restart, captured.connect.delete, captured.connect.config):
        with pytest.raises(NotFoundError, match="no-such"):
            verb("no-such")
