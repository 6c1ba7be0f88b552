"""Which rows Kafka refuses, by the settings of their topics."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]

from towpath.capture.refusal import UncarriedRow, refusal
from towpath.outbox.message import HEADER_COLUMNS, TEXT_COLUMNS, OutboxMessage

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_MAX = str(2**63 - 1)
DAY = str(24 * 3600 * 1000)


def row(**ahead: float) -> UncarriedRow:
    """Return a row whose time is ahead of now by so much."""
    return UncarriedRow(UUID(int=1), "t", "k", 100, NOW + timedelta(**ahead))


def in_kafka(message: OutboxMessage) -> int:
    """Return the bytes of the batch in which the outbox's connector sends a message alone: all headers, also empty."""
    texts = {name: getattr(message, name) for name in ("id", *HEADER_COLUMNS)}
    headers = [(name, None if text is None else str(text).encode()) for name, text in texts.items()]
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=1, producer_epoch=0, base_sequence=0,
        batch_size=10**7,
    )  # fmt: skip
    builder.append(0, 1, message.key.encode(), message.payload, headers)
    return len(builder.build())


SMALL = OutboxMessage(id=UUID(int=1), topic="t", key="order-000117", type="order.OrderPlaced", payload=b"x" * 20)
FULL = OutboxMessage(
    id=UUID(int=1),
    topic="t",
    payload=b"x" * 70_000,
    saga_id=UUID(int=2),
    attempt=3,
    round=12,
    **{name: name * 5 for name in TEXT_COLUMNS if name not in {"topic", "dead"}},
    dead="why" * 200,
)


@pytest.mark.parametrize("message", [SMALL, FULL], ids=["small", "full"])
def test_a_rows_size_is_held_against_the_limit_as_kafka_counts_it(message: OutboxMessage) -> None:
    """What fits is never called refused, however small its topic's limit; what is refused is at most some bytes off."""
    size = in_kafka(message)
    texts = (getattr(message, name) for name in ("id", "key", *HEADER_COLUMNS))
    bytes_ = len(message.payload) + sum(len(str(text).encode()) for text in texts if text is not None)
    sized = replace(row(), record_bytes=bytes_)
    assert refusal(sized, {"t": {"max.message.bytes": str(size)}}, NOW) is None
    assert refusal(sized, {"t": {"max.message.bytes": "1000000"}}, NOW) is None
    refused = refusal(sized, {"t": {"max.message.bytes": str(size - 13)}}, NOW)
    assert refused is not None
    assert refused.cause.endswith(f"bytes or more, and topic t takes {size - 13:,}")


def test_connects_producer_sends_no_more_whatever_a_topic_takes() -> None:
    """Its own limit (`max.request.size`) is that of one record, too."""
    config = {"t": {"max.message.bytes": "5000000"}}
    assert refusal(replace(row(), record_bytes=1_047_900), config, NOW) is None
    assert refusal(replace(row(), record_bytes=1_048_576), config, NOW) is not None


@pytest.mark.parametrize(
    ("config", "ahead", "cause"),
    [
        ({}, {"days": -9_000}, None),
        ({}, {"minutes": 59}, None),
        ({}, {"hours": 2}, "ahead of Kafka's clock"),
        ({}, {"days": -30_000}, "before Kafka's first"),
        ({"message.timestamp.after.max.ms": LONG_MAX}, {"days": 900}, None),
        ({"message.timestamp.before.max.ms": LONG_MAX}, {"days": -900}, None),
        ({"message.timestamp.before.max.ms": DAY}, {"hours": -23}, None),
        ({"message.timestamp.before.max.ms": DAY}, {"hours": -25}, "older than topic t takes"),
        ({"message.timestamp.before.max.ms": DAY, "message.timestamp.type": "LogAppendTime"}, {"days": -3}, None),
        ({"message.timestamp.type": "LogAppendTime"}, {"hours": 9}, None),
        # The producer's own library takes no negative time, whoever stamps the record.
        ({"message.timestamp.type": "LogAppendTime"}, {"days": -30_000}, "before Kafka's first"),
    ],
)
def test_a_rows_time_is_held_against_what_its_topic_takes(
    config: dict[str, str], ahead: dict[str, float], cause: str | None
) -> None:
    """As the broker does: how far ahead, how old, and not at all where the broker stamps records itself."""
    found = refusal(row(**ahead), {"t": config}, NOW)
    assert (found is None) == (cause is None), found
    assert cause is None or cause in (found.cause if found else "")
