"""Arbitrary commands to a service on a real database: each is answered or quarantined, and the worker never stops."""

from dataclasses import replace

import pytest

from schemas.records.catalog import ReserveStock, StockLine
from tests.arbitrary_records import ArbitraryRecords
from tests.commands import CODEC, Asking
from tests.integration.participant.test_worker import World, reserve
from tests.integration.service_fixture import NewService

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("seed", range(2))
def test_a_service_answers_or_quarantines_whatever_comes(new_service: NewService, seed: int) -> None:
    """A zero byte in a key, an attempt past 32 bits, values at a topic's limit, ids that are none."""
    from pipelines.services.catalog import service

    world = World(new_service(service))
    good = [reserve(f"o-{number}") for number in range(5)]
    lines = (StockLine(sku="va\0se", quantity=1),)
    zero = Asking(ReserveStock(order_id="o-\0", lines=lines), key="o-9", step="stock")
    arbitrary = ArbitraryRecords(
        seed,
        values=[CODEC.encode(asking.command) for asking in (*good, zero)],
        headers=[asking.record().headers for asking in (*good, zero, replace(zero, step="st\0ep"))],
        sizes=(899_990, 900_001, 1_048_400),
    )
    for key, value, headers in arbitrary.take(80):
        world.broker.append("catalog.commands", value, key=key, headers=headers)
    print(f"seed {seed}")  # noqa: T201 - to run it again

    def read() -> int:
        ((total,),) = world.asked.rows("SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets")
        return int(total)

    def done() -> bool:
        known = world.asked.rows("SELECT to_regclass('towpath_offsets') IS NOT NULL")[0][0]
        return bool(known) and read() == 80

    world.run(done, seconds=240)
    answered, dead = world.count("place_order.replies"), world.count("catalog.commands.dead")
    assert dead > 10
    assert answered + dead <= 80
