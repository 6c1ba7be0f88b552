"""Which rows Kafka refuses, by the settings of their topics."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from towpath.capture.refusal import UncarriedRow, refusal

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_MAX = str(2**63 - 1)
DAY = str(24 * 3600 * 1000)


def row(**ahead: float) -> UncarriedRow:
    """Return a row whose time is ahead of now by so much."""
    return UncarriedRow(UUID(int=1), "t", "k", 100, NOW + timedelta(**ahead))


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
