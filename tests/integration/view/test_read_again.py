"""A view whose offset was lost, with the horizon that it really has: what is too old to tell holds nothing up."""

import asyncio
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from schemas.records.order import OrderConfirmed
from tests.integration.participant.test_worker import STREAM
from tests.integration.view.test_folding import VIEW, Count
from tests.reference_records import CODEC, SETTINGS
from towpath.orchestrator.envelope import headers_of
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.memory import MemoryBroker
from towpath.view import View
from towpath.view.agent import create_view
from towpath.view.postgres import ViewTable

pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]
DAY_MILLISECONDS = 86_400_000
HORIZON_DAYS = SETTINGS.stream.dedup_horizon_days
KEYS = ("a", "b", "c")


class Ledger:
    """A worker of the view, the topic that it reads, and its database."""

    def __init__(self, connection: Connection, url: str) -> None:
        self.connection = connection
        postgres = SETTINGS.postgres.model_copy(update={"urls": {"views": SecretStr(url)}})
        self.settings = SETTINGS.model_copy(update={"postgres": postgres, "stream": STREAM})
        assert self.settings.stream.dedup_horizon_days == HORIZON_DAYS
        self.broker = MemoryBroker(STREAM)
        for topic in ("order.events", "order.events.dead"):
            self.broker.create_topic(topic, 1)
        self.began = datetime(2026, 1, 1, tzinfo=UTC)
        self.sent = 0

    def confirm(self, day: float, *keys: str) -> None:
        """Write a confirmation for each key, as of a day after the first."""
        for key in keys:
            at = int(self.began.timestamp() * 1000 + day * DAY_MILLISECONDS)
            record = OrderConfirmed(order_id=key, confirmed_at=self.began)
            headers = headers_of(id=f"event-{self.sent}", type=record.SCHEMA_NAME)
            self.broker.append(
                "order.events", CODEC.encode(record), key=key.encode(), headers=headers, timestamp_milliseconds=at
            )
            self.sent += 1

    def read_all(self, view: View[Count] = VIEW) -> dict[str, int]:
        """Run a worker until it has read everything; return the confirmations of each row."""

        def read() -> int:
            rows = self.connection.execute("SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets").fetchall()
            self.connection.rollback()
            return int(rows[0][0])

        async def main() -> None:
            app = create_view(self.settings, view, CODEC, slot="a", broker=self.broker)
            await app.start()
            try:
                async with asyncio.timeout(120):
                    while await asyncio.to_thread(read) < self.sent:
                        if app.crash_reason is not None:
                            raise app.crash_reason
                        await asyncio.sleep(0.02)
            finally:
                await app.stop()

        asyncio.run(main())
        return self.rows()

    def rows(self) -> dict[str, int]:
        """Return the confirmations of each row."""
        rows: list[Count] = list(ViewTable(VIEW).all_rows(self.connection))
        self.connection.rollback()
        return {row.order_id: row.confirmations for row in rows}

    def lose_offset(self) -> None:
        """Have the worker begin at the first record again."""
        self.connection.execute("UPDATE towpath_offsets SET next_offset = 0")
        self.connection.commit()

    def letters(self) -> list[Any]:
        """Return what each letter says."""
        rows = self.connection.execute("SELECT dead FROM outbox WHERE dead IS NOT NULL ORDER BY sequence").fetchall()
        self.connection.rollback()
        return [read_dead_letter(dead) for (dead,) in rows]


@pytest.fixture
def ledger(connection: Connection, database_url: str) -> Ledger:
    """Return a view that has read nothing."""
    connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
    connection.commit()
    return Ledger(connection, database_url)


def test_a_lost_offset_within_the_horizon_changes_nothing(ledger: Ledger) -> None:
    """Every id is known: nothing is folded twice, and no letter is written."""
    for day in (0, 5, HORIZON_DAYS - 1):
        ledger.confirm(day, *KEYS)
    assert ledger.read_all() == dict.fromkeys(KEYS, 3)
    ledger.lose_offset()
    ledger.confirm(HORIZON_DAYS - 0.5, "a")
    assert ledger.read_all() == {"a": 4, "b": 3, "c": 3}
    assert ledger.letters() == []


def test_what_is_beyond_the_horizon_is_a_letter_and_parks_no_key(ledger: Ledger) -> None:
    """Of those records nobody knows any more whether they were applied; all others go on, of the same keys too."""
    ledger.confirm(0, *KEYS)
    ledger.confirm(1, *KEYS)
    assert ledger.read_all() == dict.fromkeys(KEYS, 2)
    ledger.confirm(HORIZON_DAYS + 3, *KEYS)  # forgets what is older than a horizon
    assert ledger.read_all() == dict.fromkeys(KEYS, 3)
    ledger.lose_offset()
    ledger.confirm(HORIZON_DAYS + 3.5, *KEYS)
    assert ledger.read_all() == dict.fromkeys(KEYS, 4)
    letters = ledger.letters()
    assert [letter.position for letter in letters] == [f"order.events[0]@{offset}" for offset in range(6)]
    assert {(letter.parked, letter.behind) for letter in letters} == {(False, None)}
    assert all("applied ids are forgotten" in letter.cause for letter in letters)
    ledger.lose_offset()  # and once more: each is the same letter
    assert ledger.read_all() == dict.fromkeys(KEYS, 4)
    assert {letter.identity for letter in ledger.letters()} == {letter.identity for letter in letters}
    assert ledger.connection.execute("SELECT count(*) FROM towpath_parked").fetchall() == [(0,)]
