"""Arbitrary records to every view on a real database: each is folded, passed over or quarantined; no worker stops."""

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipelines.views.order_status import view as order_status
from tests.arbitrary_records import ArbitraryRecords
from tests.integration.participant.test_worker import STREAM
from tests.reference_records import CODEC, SETTINGS, good_values, letters_by_position
from towpath.demo.verdict import fold_topics
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import sagas_view
from towpath.settings import Settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord
from towpath.view import Occurrence, View
from towpath.view.agent import create_view
from towpath.view.postgres import ViewTable

pytestmark = pytest.mark.stack
RECORDS = 80
"""Arbitrary ones sent to each topic of a view, and as many that are as their senders write them."""
VIEWS: list[View[Any]] = [order_status, sagas_view(["place_order", "cancel_order"])]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_folds_or_quarantines_whatever_comes(
    connection: psycopg.Connection[Any], database_url: str, view: View[Any]
) -> None:
    """Its rows are the fold of what has no letter; each letter is of one record, and what has none was applied."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or Random().randrange(10**6))
    print(f"seed {seed}")  # noqa: T201 - to run it again
    chance = Random(seed)
    postgres = SETTINGS.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    settings = SETTINGS.model_copy(update={"postgres": postgres, "stream": STREAM})
    broker = MemoryBroker(STREAM)
    for number, topic in enumerate(view.topics):
        # One partition, and no row from two topics: of records that no sender orders nobody says which came last.
        broker.create_topic(topic, 1)
        broker.create_topic(f"{topic}.dead", 1)
        good = [(type_, possible(value, number)) for type_, value in good_values(topic, chance)]
        arbitrary = ArbitraryRecords(
            seed + number,
            values=[value for _, value in good],
            headers=[headers_of(id=f"e-{chance.randrange(60)}", type=type_) for type_, _ in good for _ in range(5)],
            sizes=(900_001, 1_048_400),
        )
        for index, (key, value, said) in enumerate(arbitrary.take(RECORDS)):
            broker.append(topic, value, key=key, headers=said)
            type_, whole = chance.choice(good)
            whole_said = headers_of(id=f"whole-{index}", type=type_)
            broker.append(topic, whole, key=row_of(whole, view).encode(), headers=whole_said)
    work(settings, view, broker, connection)
    sent = [record for topic in view.topics for record in broker.records(topic)]
    letters = letters_by_position(
        text for (text,) in connection.execute("SELECT dead FROM outbox WHERE dead IS NOT NULL").fetchall()
    )
    assert max(letters.values()) == 1
    assert letters.keys() <= {record.position for record in sent}
    assert letters.total() > 10
    alive = [record for record in sent if record.position not in letters and record.value is not None]
    rows = {getattr(row, view.key): row for row in ViewTable(view).all_rows(connection)}
    assert fold_topics(view, alive, CODEC) == rows
    assert len(rows) >= len(view.topics)
    assert sum((record.header("id") or "").startswith("whole-") for record in alive) > RECORDS // 2
    seen = set(connection.execute("SELECT topic, partition, id FROM towpath_seen").fetchall())
    assert {place_of(record) for record in alive if is_folded(view, record)} == seen


def possible(value: bytes, number: int) -> bytes:
    """Return a history's entry with a time that there is (made up, it is any number), of an instance of its topic.

    Any other record is returned as it is.
    """
    record = CODEC.decode(value)
    if not isinstance(record, HistoryEntry):
        return value
    return CODEC.encode(replace(record, saga_id=f"{record.saga_id}-{number}", at_milliseconds=1_800_000_000_000))


def row_of(value: bytes, view: View[Any]) -> str:
    """Return which row a good record is about: its sender takes that for its key."""
    return str(getattr(CODEC.decode(value), view.key))


def place_of(record: ConsumedRecord) -> tuple[str, int, str]:
    """Return by what a view knows a record again."""
    return record.topic, record.partition, record.header("id") or record.position


def is_folded(view: View[Any], record: ConsumedRecord) -> bool:
    """Say whether a view has something to fold in a record that can be read."""
    type_ = record.header("type")
    if type_ is not None and type_ not in view.type_names:
        return False
    decoded = CODEC.decode(record.value or b"")
    at = Occurrence(record.topic, (record.key or b"").decode(), "", datetime.now(UTC))
    return type(decoded) in view.folds and view.row_key(decoded, at) is not None


def work(settings: Settings, view: View[Any], broker: MemoryBroker, connection: psycopg.Connection[Any]) -> None:
    """Run the worker of a view until it has read all that was sent."""

    def read() -> int:
        known = connection.execute("SELECT to_regclass('towpath_offsets') IS NOT NULL").fetchall()[0][0]
        total = 0
        if known:
            ((total,),) = connection.execute(
                "SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets WHERE topic = ANY(%s)",
                (list(view.topics),),
            ).fetchall()
        connection.rollback()
        return int(total)

    async def main() -> None:
        app = create_view(settings, view, CODEC, slot="a", broker=broker)
        await app.start()
        try:
            async with asyncio.timeout(240):
                while await asyncio.to_thread(read) < 2 * RECORDS * len(view.topics):
                    if app.crash_reason is not None:
                        raise app.crash_reason
                    await asyncio.sleep(0.05)
        finally:
            await app.stop()

    with capture_logs():  # hundreds of tracebacks, with all that the frames held, take minutes to print
        asyncio.run(main())
