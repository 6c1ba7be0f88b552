"""Capture goes on again: after its slot was lost, and past a row that Kafka refuses."""

import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.integration.capture.conftest import SERVICE, Captured, tail_of
from tests.integration.capture.test_capture import emit, message, receive, text_headers
from towpath.capture import postgres
from towpath.capture.audit import audit
from towpath.capture.recover import Diagnosis, Recovery, diagnose, recover
from towpath.errors import RefusedError
from towpath.outbox.names import connector_name
from towpath.outbox.postgres import write

pytestmark = pytest.mark.stack


@contextmanager
def asking(captured: Captured) -> Iterator[postgres.Connection]:
    """Return a connection as the command line has it."""
    with postgres.connect(captured.settings, SERVICE) as connection:
        yield connection


def look(captured: Captured) -> Diagnosis:
    """Look at the capture."""
    with asking(captured) as connection:
        return diagnose(connection, captured.connect, captured.settings, SERVICE)


def go_on(captured: Captured, *skip: UUID) -> Recovery:
    """Recover the capture."""
    with asking(captured) as connection:
        return recover(
            connection, captured.connect, captured.settings, captured.catalogue, SERVICE,
            skip=skip, actor="ann", reason="test",
        )  # fmt: skip


def keys(records: list[Any]) -> list[str]:
    """Return the keys of records."""
    return [record.key().decode() for record in records]


def ids(records: list[Any]) -> list[str]:
    """Return the ids of records."""
    return [text_headers(record)["id"] for record in records]


def lose_slot(captured: Captured) -> None:
    """Drop the slot of a connector that has a stored offset, as a server that ran out of room does."""
    name = connector_name(captured.settings.project.name, SERVICE)
    captured.connect.stop(name, 30)
    captured.connection.execute("SELECT pg_drop_replication_slot(%s)", (captured.slot,))
    captured.connection.commit()


@pytest.mark.parametrize("made_anew", [False, True], ids=["gone", "made anew by `up`"])
def test_a_lost_slot_is_recovered_in_one_step(captured: Captured, tail: Consumer, made_anew: bool) -> None:
    """The connector has a stored offset that the new slot does not reach; nothing is lost, and order is kept."""
    captured.start()
    emit(captured, *(message("o-1") for _ in range(3)))
    receive(tail, 3)
    time.sleep(2)  # the connector stores its offset
    lose_slot(captured)
    sent = [message("o-1") for _ in range(17)]
    emit(captured, *sent[:9])
    if made_anew:
        captured.connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (captured.slot,))
        captured.connection.commit()
        captured.connect.resume(connector_name(captured.settings.project.name, SERVICE))
        wait_for(lambda: look(captured).trouble == "its slot begins after the last message that was carried")
    emit(captured, *sent[9:])
    found = look(captured)
    assert not found.reading
    assert [row.id for row in found.uncarried] == [one.id for one in sent]
    done = go_on(captured)
    assert (done.slot_made, done.written, done.skipped) == (not made_anew, 17, 0)
    emit(captured, message("later"))
    arrived = receive(tail, 18)
    assert ids(arrived)[:17] == [str(one.id) for one in sent]
    assert keys(arrived)[17] == "later"
    assert audit(captured.connection, captured.settings, SERVICE, datetime.now(UTC) - timedelta(hours=1)).complete


@pytest.mark.crash
def test_a_slot_that_outran_its_room_is_recovered(captured_in_little_room: Captured) -> None:
    """Lost as servers lose them, by `max_slot_wal_keep_size`, while Connect was away and orders went on."""
    captured = captured_in_little_room
    name = captured.start()
    tail = tail_of(captured)
    emit(captured, *(message("o-1") for _ in range(3)))
    assert len(receive(tail, 3)) == 3
    time.sleep(2)  # the connector stores its offset
    captured.connect.stop(name, 30)
    sent = [message("o-1") for _ in range(17)]
    for one in sent:
        emit(captured, one)
    with psycopg.connect(captured.settings.postgres.database_url(SERVICE), autocommit=True) as connection:
        for _ in range(4):
            connection.execute("SELECT pg_logical_emit_message(false, 'fill', 'x'), pg_switch_wal()")
        connection.execute("CHECKPOINT")
    wait_for(lambda: look(captured).trouble == "its slot is lost (wal_removed)")
    captured.connect.resume(name)
    assert [row.id for row in look(captured).uncarried] == [one.id for one in sent]
    done = go_on(captured)
    assert (done.slot_made, done.written, done.skipped) == (True, 17, 0)
    emit(captured, message("later"))
    arrived = receive(tail, 18)
    assert ids(arrived)[:17] == [str(one.id) for one in sent]
    assert keys(arrived)[17] == "later"
    assert audit(captured.connection, captured.settings, SERVICE, datetime.now(UTC) - timedelta(hours=1)).complete
    tail.close()


def wait_for(true: Any, timeout_seconds: float = 60.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout_seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_recovering_under_writers_keeps_each_keys_order(captured: Captured, tail: Consumer) -> None:
    """They write before, during and after: what comes out is what committed, in its order, once or more."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    captured.start()
    emit(captured, message("first"))
    receive(tail, 1)
    lose_slot(captured)
    captured.connection.execute("CREATE TABLE turns (key text PRIMARY KEY, taken int NOT NULL DEFAULT 0)")
    captured.connection.execute("INSERT INTO turns SELECT 'k-' || n FROM generate_series(0, 3) AS n")
    captured.connection.commit()
    committed: dict[str, list[tuple[int, str]]] = defaultdict(list)
    guard, ending = threading.Lock(), threading.Event()
    url = captured.settings.postgres.database_url(SERVICE)

    def write_on(writer: int) -> None:
        chance = random.Random(f"{seed} {writer}")
        with psycopg.connect(url) as own:
            while not ending.is_set():
                key = f"k-{chance.randrange(4)}"
                sent = message(key, topic=captured.topic)
                write(own, [sent])
                time.sleep(chance.random() * 0.02)
                turn = own.execute("UPDATE turns SET taken = taken + 1 WHERE key = %s RETURNING taken", (key,))
                number = turn.fetchall()[0][0]
                own.commit()
                with guard:
                    committed[key].append((number, str(sent.id)))
                time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write_on, writer) for writer in range(4)]
        try:
            time.sleep(1)
            assert go_on(captured).slot_made
            time.sleep(1)
        finally:
            ending.set()
        for one in writing:
            one.result(60)
    emit(captured, message("last"))
    arrived: list[Any] = []
    while not arrived or "last" not in keys(arrived[-1:]) or len(arrived) < 1 + sum(map(len, committed.values())):
        more = receive(tail, 1)
        assert more, "it did not all arrive"
        arrived += more
        if sum(key.startswith("k-") for key in keys(arrived)) >= sum(map(len, committed.values())):
            break
    found: dict[str, list[str]] = defaultdict(list)
    for key, id_ in zip(keys(arrived), ids(arrived), strict=True):
        if key.startswith("k-") and id_ not in found[key]:
            found[key].append(id_)
    assert found == {key: [id_ for _, id_ in sorted(turns)] for key, turns in committed.items()}


def test_recovering_what_is_read_changes_nothing_but_is_harmless(captured: Captured, tail: Consumer) -> None:
    """A second run after the first has ended, too."""
    captured.start()
    emit(captured, message("o-1"))
    receive(tail, 1)
    assert look(captured).reading
    assert look(captured).trouble is None
    done = go_on(captured)
    assert (done.slot_made, done.written) == (False, 0)
    emit(captured, message("o-2"))
    assert keys(receive(tail, 1)) == ["o-2"]


def set_topic(captured: Captured, **settings: str) -> None:
    """Change settings of the topic on the broker."""
    admin = AdminClient({**captured.settings.kafka.client_config()})
    changes = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, captured.topic, incremental_configs=changes)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def without_checks(captured: Captured) -> None:
    """Make the outbox one from before it checked its rows."""
    captured.connection.execute("DROP TRIGGER outbox_refuse ON outbox")
    captured.connection.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_created_at_utc")
    captured.connection.commit()


POISON: dict[str, dict[str, Any]] = {
    "a topic that no Kafka takes": {"topic": "catalog events"},
    "a topic that this Kafka lacks": {"topic": "no.such.topic"},
    "a record too large": {"payload": b"x" * 300_000},
    "a time ahead of Kafka's": {"created_at": (datetime.now(UTC) + timedelta(hours=9)).replace(tzinfo=None)},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_one_row_that_kafka_refuses_is_stepped_over_and_kept(
    captured: Captured, tail: Consumer, poison: dict[str, Any]
) -> None:
    """It is named before anything is changed; all others arrive, in their order."""
    captured.start()
    without_checks(captured)
    set_topic(captured, max_message_bytes="200000")
    before, bad, after = [message("o-1") for _ in range(3)], uuid4(), [message("o-1") for _ in range(3)]
    row = {"id": bad, "topic": captured.topic, "key": "o-1", "type": "T", "payload": b"\0", **poison}
    emit(captured, *before)
    captured.connection.execute(
        f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", list(row.values())
    )
    captured.connection.commit()
    emit(captured, *after)
    if row["topic"] != "no.such.topic":  # of that one Connect says nothing for a minute
        wait_for(lambda: captured.connect.status(name_of(captured)).failure is not None)
        status = captured.connect.status(name_of(captured))
        assert status.refused_by_kafka, status.failure
    (refused,) = look(captured).refusals
    assert refused.row.id == bad
    with pytest.raises(RefusedError, match=str(bad)):
        go_on(captured)
    done = go_on(captured, bad)
    assert done.skipped == 1
    wanted = [str(one.id) for one in (*before, *after)]
    arrived = list(dict.fromkeys(ids(receive(tail, 6))))
    while len(arrived) < len(wanted):
        more = receive(tail, 1)
        assert more
        arrived = list(dict.fromkeys([*arrived, *ids(more)]))
    assert arrived == wanted
    with asking(captured) as connection:
        (kept,) = postgres.skipped_messages(connection)
        assert (kept["id"], kept["topic"], kept["actor"], kept["cause"]) == (bad, row["topic"], "ann", refused.cause)
    assert audit(captured.connection, captured.settings, SERVICE, datetime.now(UTC) - timedelta(hours=1)).complete
    assert not look(captured).refusals


def name_of(captured: Captured) -> str:
    """Return the name of the connector."""
    return connector_name(captured.settings.project.name, SERVICE)


def test_what_was_stepped_over_can_be_sent_once_the_cause_is_gone(captured: Captured, tail: Consumer) -> None:
    """Under its own id, with everything that it had."""
    captured.start()
    without_checks(captured)
    bad = message("ö-1", topic="catalog events", saga="place_order", attempt=3, tenant="t", saga_id=uuid4())
    write(captured.connection, [bad])
    captured.connection.commit()
    go_on(captured, bad.id)
    with asking(captured) as connection:
        postgres.send_skipped(connection, bad.id, captured.topic)
        assert postgres.skipped_messages(connection) == []
    (record,) = receive(tail, 1)
    headers = text_headers(record)
    assert (record.key(), record.value(), headers["id"]) == ("ö-1".encode(), bad.payload, str(bad.id))
    assert (headers["saga"], headers["attempt"], headers["saga_id"]) == ("place_order", "3", str(bad.saga_id))
