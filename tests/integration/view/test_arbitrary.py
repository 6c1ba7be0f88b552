"""Arbitrary events to a view on a real database: each is folded or quarantined, and the worker never stops."""

import asyncio
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from schemas.records.order import OrderConfirmed
from tests.arbitrary_records import ArbitraryRecords
from tests.integration.participant.test_worker import STREAM
from tests.integration.view.test_folding import NOW, VIEW
from tests.unit.orchestrator.desktop import CODEC
from towpath.orchestrator.envelope import headers_of
from towpath.settings import load_settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.view.agent import create_view

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("seed", range(2))
def test_a_view_folds_or_quarantines_whatever_comes(
    connection: psycopg.Connection[Any], database_url: str, seed: int
) -> None:
    """Keys and ids that no text column, or no index, takes; values that are no record."""
    settings = load_settings(environment=False)
    postgres = settings.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    settings = settings.model_copy(update={"postgres": postgres, "stream": STREAM})
    broker = MemoryBroker(STREAM)
    for topic in ("order.events", "order.events.dead"):
        broker.create_topic(topic, 2)
    good = [OrderConfirmed(order_id=f"o-{number}", confirmed_at=NOW) for number in range(5)]
    arbitrary = ArbitraryRecords(
        seed,
        values=[CODEC.encode(record) for record in good],
        headers=[headers_of(id=f"e-{number}", type=OrderConfirmed.SCHEMA_NAME) for number in range(40)],
        sizes=(900_001, 1_048_400),
    )
    for key, value, headers in arbitrary.take(80):
        broker.append("order.events", value, key=key, headers=headers)
    print(f"seed {seed}")  # noqa: T201 - to run it again

    def read() -> int:
        ((total,),) = connection.execute(
            "SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets WHERE topic = 'order.events'"
        ).fetchall()
        connection.rollback()
        return int(total)

    async def main() -> None:
        app = create_view(settings, VIEW, CODEC, slot="a", broker=broker)
        await app.start()
        try:
            async with asyncio.timeout(240):
                while not await asyncio.to_thread(_has_offsets, connection) or await asyncio.to_thread(read) < 80:
                    if app.crash_reason is not None:
                        raise app.crash_reason
                    await asyncio.sleep(0.05)
        finally:
            await app.stop()

    asyncio.run(main())
    ((dead,),) = connection.execute("SELECT count(*) FROM outbox WHERE topic = 'order.events.dead'").fetchall()
    assert dead > 5


def _has_offsets(connection: psycopg.Connection[Any]) -> bool:
    found = connection.execute("SELECT to_regclass('towpath_offsets') IS NOT NULL").fetchall()[0][0]
    connection.rollback()
    return bool(found)
