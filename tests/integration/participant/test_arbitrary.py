"""Arbitrary commands to every service on a real database: each is answered or quarantined, and no worker stops."""

import asyncio
import os
from collections import Counter
from contextlib import suppress
from random import Random
from uuid import UUID, uuid5

import pytest
from structlog.testing import capture_logs

from pipelines.services.catalog import service as catalog
from pipelines.services.identity import service as identity
from pipelines.services.order import service as order
from pipelines.services.payment import service as payment
from tests.arbitrary_records import ArbitraryRecords
from tests.integration.participant.test_worker import STREAM
from tests.integration.service_fixture import Asked, NewService
from tests.reference_records import CATALOGUE, CODEC, good_values, letters_by_position
from towpath.orchestrator.envelope import headers_of
from towpath.participant.agent import create_participant
from towpath.participant.service import Service
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord, Headers

pytestmark = pytest.mark.stack
RECORDS = 80


def headers(type_: str, chance: Random, **changes: object) -> Headers:
    """Return the headers of a command; few ids, so that commands are repeated and undone as well."""
    keys = [str(uuid5(UUID(int=number), "key")) for number in range(12)]
    values: dict[str, object] = {
        "id": f"c-{chance.randrange(100)}",
        "type": type_,
        "saga": "place_order",
        "saga_id": str(uuid5(UUID(int=1), "saga")),
        "step": "step",
        "direction": chance.choice(("do", "undo")),
        "attempt": chance.randrange(1, 4),
        "round": 1,
        "idempotency_key": chance.choice(keys),
        "undoes": chance.choice(keys),
        "reply_to": "place_order.replies",
    }
    return headers_of(**{**values, **changes})


def reply_ids(records: list[ConsumedRecord]) -> Counter[UUID]:
    """Return the id of the reply that each command asks for, and how often."""
    found = Counter[UUID]()
    for record in records:
        said = {name: value for name, value in record.headers if value is not None}
        key, attempt = UUID(said["idempotency_key"].decode()), int(said["attempt"])
        found[uuid5(key, f"reply:{attempt}")] += 1
    return found


def passed_over(asked: Asked, records: list[ConsumedRecord]) -> Counter[UUID]:
    """Return the replies to those commands that were undone: they may have been passed over."""
    undone = {key for (key,) in asked.rows("SELECT idempotency_key FROM inbox WHERE undone")}
    mine = []
    for record in records:
        said = {name: value for name, value in record.headers if value is not None}
        with suppress(ValueError):
            if UUID(said["idempotency_key"].decode()) in undone:
                mine.append(record)
    return reply_ids(mine)


def work(asked: Asked, broker: MemoryBroker, topic: str) -> None:
    """Run the worker of a service until it has read all that was sent."""

    def done() -> bool:
        if not asked.rows("SELECT to_regclass('towpath_offsets') IS NOT NULL")[0][0]:
            return False
        ((total,),) = asked.rows("SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets")
        return bool(total == RECORDS)

    async def main() -> None:
        settings = asked.settings.model_copy(update={"stream": STREAM})
        app = create_participant(settings, asked.service, CODEC, CATALOGUE, slot="a", broker=broker)
        await app.start()
        try:
            async with asyncio.timeout(240):
                while not await asyncio.to_thread(done):
                    if app.crash_reason is not None:
                        raise app.crash_reason
                    await asyncio.sleep(0.05)
        finally:
            await app.stop()

    with capture_logs():  # hundreds of tracebacks, with all that the frames held, take minutes to print
        asyncio.run(main())


@pytest.mark.parametrize("service", [identity, catalog, order, payment], ids=lambda service: service.name)
def test_a_service_answers_or_quarantines_whatever_comes(new_service: NewService, service: Service) -> None:
    """Each command has one reply, or one letter, or was undone before it came; nothing else came of any."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or Random().randrange(10**6))
    print(f"seed {seed}")  # noqa: T201 - to run it again
    chance = Random(seed)
    topic = f"{service.name}.commands"
    asked, broker = new_service(service), MemoryBroker(STREAM)
    for name in (topic, f"{topic}.dead"):
        broker.create_topic(name, 4)
    good = good_values(topic, chance)
    arbitrary = ArbitraryRecords(
        seed,
        values=[value for _, value in good],
        headers=[
            *(headers(type_, chance) for type_, _ in good for _ in range(6)),
            headers(good[0][0], chance, step="st\0ep"),
        ],
        sizes=(899_990, 900_001, 1_048_400),
    )
    for key, value, said in arbitrary.take(RECORDS):
        broker.append(topic, value, key=key, headers=said)
    sent = broker.records(topic)
    work(asked, broker, topic)
    letters = letters_by_position(text for (text,) in asked.rows("SELECT dead FROM outbox WHERE dead IS NOT NULL"))
    assert max(letters.values()) == 1
    assert letters.keys() <= {record.position for record in sent}
    alive = [record for record in sent if record.position not in letters]
    replies = Counter(id_ for (id_,) in asked.rows("SELECT id FROM outbox WHERE step IS NOT NULL AND dead IS NULL"))
    wanted = reply_ids(alive)
    assert replies <= wanted
    assert wanted - replies <= passed_over(asked, alive)
    assert letters.total() > 10
