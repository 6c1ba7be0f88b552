"""Arbitrary records in every topic of a saga: each is applied or quarantined, and the worker never stops."""

from pathlib import Path

import pytest

from tests.arbitrary_records import ArbitraryRecords
from tests.unit.orchestrator.desktop import CODEC, order_placed
from tests.unit.orchestrator.village import Village
from towpath.orchestrator import records as wire
from towpath.orchestrator.envelope import headers_of
from towpath.stream.broker.record import TopicPartition

TOPICS = ("order.events", "buy.replies", "buy.signals", "buy.operator", "buy.timers")


@pytest.mark.parametrize("seed", range(3))
def test_an_orchestrator_applies_or_quarantines_whatever_comes(tmp_path: Path, seed: int) -> None:
    """Bytes that are no record, headers that lie, keys that are no text, sizes at the limit."""
    village = Village(tmp_path, {})
    asked = wire.OperatorAsked(saga_id="x", action=wire.OperatorAction.CANCEL, actor="grace", reason="late")
    order = order_placed()
    arbitrary = ArbitraryRecords(
        seed,
        values=[CODEC.encode(record) for record in (order, asked)],
        headers=[
            headers_of(id="e-1", type=order.SCHEMA_NAME),
            headers_of(id="r", saga_id="x", step="goods", direction="do", attempt=1, round=1),
        ],
        sizes=(999_900, 1_040_000, 1_048_400),
    )
    settings = village.settings.stream.model_copy(update={"dead_letter_share_max": 1.0, "handler_attempts_max": 2})
    village.settings = village.settings.model_copy(update={"stream": settings})
    topics = [topic for topic in TOPICS if topic in village.catalogue.topics]
    for topic in topics:
        for key, value, headers in arbitrary.take(40):
            village.broker.append(topic, value, key=key, headers=headers)
    places = [
        TopicPartition(topic, number)
        for topic in topics
        for number in range(village.broker.partition_counts([topic])[topic])
    ]

    def read() -> bool:
        offsets = village.broker.committed_offsets("village-saga-buy")
        ends = village.broker.end_offsets(places)
        return all(end == 0 or offsets.get(place, 0) >= end for place, end in ends.items())

    print(f"seed {seed}")  # noqa: T201 - to run it again
    village.run(read, seconds=120, workers=("buy",))
    dead = sum(len(village.broker.records(f"{topic}.dead")) for topic in topics)
    assert 0 < dead < 40 * len(topics)
