"""What is checked at start, and the small pure parts."""

from typing import Any

import pytest

from tests.unit.stream.support import SETTINGS, memory_broker, options_for
from towpath.errors import ConfigurationError
from towpath.settings import StreamSettings
from towpath.stream.broker.kafka import consumer_config, read_group_metadata
from towpath.stream.broker.memory.groups import range_assignment
from towpath.stream.broker.partitioner import murmur2
from towpath.stream.broker.port import GroupMetadata
from towpath.stream.broker.producer.kafka import producer_config
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.options import DatabaseOptions, check_options, check_timeouts, check_topics

DATABASE = DatabaseOptions(url="postgresql://localhost", connection_options={})


def test_the_default_settings_follow_from_each_other() -> None:
    """batch < transaction <= session < poll interval."""
    check_timeouts(StreamSettings())


@pytest.mark.parametrize(
    "change",
    [
        {"batch_seconds_max": 8.0},
        {"transaction_timeout_seconds": 10.5},
        {"session_timeout_seconds": 60.0},
    ],
)
def test_time_limits_that_contradict_each_other_are_refused(change: dict[str, float]) -> None:
    """Each link of the chain by itself."""
    with pytest.raises(ConfigurationError, match="must hold"):
        check_timeouts(StreamSettings().model_copy(update=change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slot": " "}, "needs a slot"),
        ({"unit_of_work": "database"}, "go together"),
        ({"database": DATABASE}, "go together"),
        ({"unit_of_work": "database", "database": DATABASE, "states": ("s",)}, "belong to"),
        ({"timers_topic": "timers"}, "need a changelog"),
    ],
)
def test_options_that_contradict_each_other_are_refused(change: dict[str, Any], words: str) -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigurationError, match=words):
        check_options(options_for(memory_broker(), **change))


def topics(**counts: int) -> dict[str, int]:
    return {name.replace("_", "."): count for name, count in counts.items()}


def test_missing_topics_are_named() -> None:
    """Dead-letter topics too: nothing is created by itself."""
    with pytest.raises(ConfigurationError, match=r"in\.dead, s"):
        check_topics(topics(a_in=1), inputs=["a.in"], states=("s",), timers_topic=None, dead=["in.dead"])


def test_co_located_topics_must_have_equal_counts() -> None:
    """Inputs among themselves, state and timers; an application without state may mix."""
    counts = topics(a=4, b=2, a_dead=4, b_dead=2, s=4)
    dead = ["a.dead", "b.dead"]
    check_topics(counts, inputs=["a", "b"], states=(), timers_topic=None, dead=dead)
    with pytest.raises(ConfigurationError, match="a has 4 partitions and b has 2"):
        check_topics(counts, inputs=["a", "b"], states=("s",), timers_topic=None, dead=dead)
    with pytest.raises(ConfigurationError, match="a has 4 partitions and b has 2"):
        check_topics(counts, inputs=["a"], states=("s",), timers_topic="b", dead=["a.dead"])


def test_a_dead_letter_topic_has_room_for_every_partition() -> None:
    """A dead record keeps its partition number."""
    with pytest.raises(ConfigurationError, match="dead-letter topic"):
        check_topics(topics(a=4, a_dead=1), inputs=["a"], states=(), timers_topic=None, dead=["a.dead"])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_javas(key: bytes, expected: int) -> None:
    """The vectors of kafka-clients' own test (UtilsTest.testMurmur2)."""
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_group_metadata_is_read_or_refused() -> None:
    """librdkafka's form, and no other: metadata that cannot be read would not be checked."""
    token = b"CGMDv2:\x05\x00\x00\x00group\x00member\x00\x01"
    assert read_group_metadata(token) == GroupMetadata("group", "member", 5, token)
    assert not read_group_metadata(b"CGMDv2:\xff\xff\xff\xffgroup\x00\x00\x01").is_member
    with pytest.raises(ValueError, match="does not know"):
        read_group_metadata(b"CGMDv3:\x05\x00\x00\x00group\x00member\x00\x01")


def test_the_clients_are_configured_as_the_rules_say() -> None:
    """Read committed, range, no commits of its own; Java's partitioner, the transaction's limit on delivery."""
    consumer = consumer_config({}, SETTINGS)
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["partition.assignment.strategy"] == "range"
    assert consumer["enable.auto.commit"] is False
    assert consumer["session.timeout.ms"] == 4000
    assert consumer["topic.metadata.refresh.interval.ms"] == 10_000, "new partitions lie unread for so long"
    new = consumer_config({}, SETTINGS.model_copy(update={"group_protocol": "consumer"}))
    assert new["group.remote.assignor"] == "range"
    assert "session.timeout.ms" not in new
    producer = producer_config({}, SETTINGS, "app-a", RecordLimits({"small": 50_000, "large": 5_000_000}))
    assert (producer["message.max.bytes"], producer["batch.size"]) == (5_000_000, 50_000)
    assert producer["partitioner"] == "murmur2_random"
    assert producer["transaction.timeout.ms"] == producer["message.timeout.ms"] == 3000


def test_range_assignment_co_locates() -> None:
    """Equal counts: equal numbers, whatever the number of members."""
    for members in range(1, 6):
        who = {f"m{index}": frozenset({"a", "b"}) for index in range(members)}
        assignment = range_assignment(who, {"a": 4, "b": 4})
        assert sorted(p for owned in assignment.values() for p in owned) == [
            TopicPartition(topic, number) for topic in "ab" for number in range(4)
        ]
        for owned in assignment.values():
            assert {p.partition for p in owned if p.topic == "a"} == {p.partition for p in owned if p.topic == "b"}


def test_a_records_header_is_text_or_nothing() -> None:
    """The last of a name; null, missing and undecodable ones are None."""
    record = ConsumedRecord("t", 0, 1, 2, None, None, (("a", b"1"), ("a", b"2"), ("n", None), ("x", b"\xff")))
    assert (record.header("a"), record.header("n"), record.header("x"), record.header("y")) == ("2", None, None, None)
    assert (record.position, str(record.topic_partition)) == ("t[0]@1", "t[0]")
