"""What is emitted again comes in the order in which it was committed, key by key."""

import random
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from towpath.capture.postgres import re_emit
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import write

pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]
SINCE = datetime.now(UTC) - timedelta(hours=1)
TOPIC = "order.events"
WRITERS, TRANSACTIONS, KEYS = 8, 25, 5


def message(key: str) -> OutboxMessage:
    """Return a message of `key` with a random id."""
    return OutboxMessage(id=uuid4(), topic=TOPIC, key=key, type="T", payload=b"\0")


def emitted_again(connection: Connection, ids: list[UUID]) -> list[UUID]:
    """Emit messages again, in no order of ours; return their ids in the order in which they were written anew.

    One statement writes the rows one after the other and numbers them as it does; where they lie on disk says nothing,
    since pages that writers had left half empty are filled first.
    """
    (last,) = connection.execute("SELECT max(sequence) FROM outbox").fetchall()[0]
    random.shuffle(ids)
    assert re_emit(connection, [(TOPIC, id_) for id_ in ids], SINCE) == len(ids)
    rows = connection.execute("SELECT id FROM outbox WHERE sequence > %s ORDER BY sequence", (last,)).fetchall()
    connection.commit()
    return [id_ for (id_,) in rows]


def test_messages_of_one_transaction_keep_their_order(connection: Connection) -> None:
    """They share one time, and their ids are random."""
    sent = [message("o-1") for _ in range(40)]
    write(connection, sent[:30])
    for one in sent[30:]:
        write(connection, [one])
    connection.commit()
    assert emitted_again(connection, [one.id for one in sent]) == [one.id for one in sent]


def test_a_transaction_that_began_first_and_committed_last_comes_last(
    connection: Connection, database_url: str
) -> None:
    """By when it wrote, it would come first."""
    slow, quick = message("o-1"), message("o-1")
    write(connection, [slow])
    with psycopg.connect(database_url) as other:
        write(other, [quick])
    connection.commit()
    assert emitted_again(connection, [slow.id, quick.id]) == [quick.id, slow.id]


def test_what_is_emitted_a_second_time_keeps_its_first_place(connection: Connection) -> None:
    """A slot may be lost again before what was written anew was carried."""
    first, second = message("o-1"), message("o-1")
    for one in (first, second):
        write(connection, [one])
        connection.commit()
    re_emit(connection, [(TOPIC, first.id)], SINCE)
    (last,) = connection.execute("SELECT max(sequence) FROM outbox").fetchall()[0]
    re_emit(connection, [(TOPIC, second.id), (TOPIC, first.id)], SINCE)
    rows = connection.execute("SELECT id FROM outbox WHERE sequence > %s ORDER BY sequence", (last,)).fetchall()
    assert rows == [(first.id,), (second.id,)]


def test_the_order_of_commit_holds_under_concurrent_writers(connection: Connection, database_url: str) -> None:
    """Each writes first and takes its key's lock late, so writing and committing are in different orders."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    connection.execute("CREATE TABLE turns (key text PRIMARY KEY, taken int NOT NULL DEFAULT 0)")
    connection.execute("INSERT INTO turns SELECT 'k-' || n FROM generate_series(0, %s) AS n", (KEYS - 1,))
    connection.commit()
    committed: dict[str, list[tuple[int, list[UUID]]]] = defaultdict(list)
    guard = threading.Lock()

    def write_some(writer: int) -> None:
        chance = random.Random(f"{seed} {writer}")
        with psycopg.connect(database_url) as own:
            for _ in range(TRANSACTIONS):
                key = f"k-{chance.randrange(KEYS)}"
                sent = [message(key) for _ in range(chance.randint(1, 4))]
                write(own, sent)
                time.sleep(chance.random() * 0.01)
                with own.transaction():  # a savepoint, as participants take one for each command
                    turn = own.execute("UPDATE turns SET taken = taken + 1 WHERE key = %s RETURNING taken", (key,))
                    last = message(key)
                    write(own, [last])
                number = turn.fetchall()[0][0]
                own.commit()
                with guard:
                    committed[key].append((number, [one.id for one in (*sent, last)]))

    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(write_some, writer) for writer in range(WRITERS)]:
            done.result(120)
    wanted = {key: [id_ for _, ids in sorted(turns) for id_ in ids] for key, turns in committed.items()}
    key_of = {id_: key for key, ids in wanted.items() for id_ in ids}
    found: dict[str, list[UUID]] = defaultdict(list)
    for id_ in emitted_again(connection, list(key_of)):
        found[key_of[id_]].append(id_)
    assert found == wanted
    overtaken = connection.execute(
        "SELECT count(*) FROM (SELECT sequence < lag(sequence) OVER (PARTITION BY key"
        " ORDER BY pg_xact_commit_timestamp(xmin), sequence) AS overtaken FROM outbox) AS rows WHERE overtaken"
    ).fetchall()[0][0]
    assert overtaken > 0, "nobody overtook anybody: the test has shown nothing"
