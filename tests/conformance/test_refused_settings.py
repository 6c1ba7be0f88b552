"""What a real broker refuses of a worker's settings ends the worker with the setting's name, instead of going round."""

import asyncio
import time

import pytest

from tests.conformance.conftest import SETTINGS, KafkaCluster
from tests.unit.stream.support import copy, options_for, working
from towpath.errors import ConfigurationError
from towpath.settings import StreamSettings
from towpath.stream.broker.refused_settings import refused_setting

pytestmark = pytest.mark.stack

# Kafka takes sessions from 6 s to 30 min, and transactions of up to 15 min.
SHORT = SETTINGS.model_copy(update={"session_timeout_seconds": 4.5})
PATIENT = SETTINGS.model_copy(update={"poll_interval_seconds_max": 3_600.0})
LONG = PATIENT.model_copy(update={"transaction_timeout_seconds": 901.0, "session_timeout_seconds": 902.0})
LONGEST = PATIENT.model_copy(update={"session_timeout_seconds": 1_801.0})


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (SHORT, r"stream\.session_timeout_seconds"),
        (LONGEST, r"stream\.session_timeout_seconds"),
        (LONG, r"stream\.transaction_timeout_seconds"),
    ],
    ids=["session too short", "session too long", "transaction too long"],
)
def test_a_worker_ends_and_names_the_setting(
    kafka_servers: str, group: str, settings: StreamSettings, names: str
) -> None:
    """At its first join, or its first transaction; no member is replaced meanwhile."""
    cluster = KafkaCluster(kafka_servers, settings)
    topic = cluster.topic(1)
    cluster.topic(1, name=f"{topic}.dead")
    options = options_for(cluster.broker, application=group, settings=settings, parks_keys=False)

    async def main() -> None:
        async with working(copy, options, [topic]) as worker:
            await worker.until(lambda: False, seconds=20)

    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=names) as refused:
        asyncio.run(main())
    assert time.monotonic() - began < 20
    assert refused.value.next_step is not None
    assert "stream." in refused.value.next_step


def test_what_is_no_setting_is_left_to_others() -> None:
    """A rebalance, a broker that moves: those pass, and are waited for."""
    assert refused_setting("group g", "REBALANCE_IN_PROGRESS", "") is None
    assert refused_setting("group g", "NOT_COORDINATOR", "") is None
