"""The catalogue of topics: strict to read, plain to ask."""

from pathlib import Path
from typing import Final

import pytest

from towpath.contract.catalogue import Catalogue, Compatibility, TopicKind, read_topics
from towpath.errors import ContractError, NotFoundError

EVENTS: Final = """\
topic: order.events
kind: events
owner: order
key: order_id
partitions: 4
retention_days: 30
values: [shop.order.OrderPlaced]
producers: [order]
consumers: [place_order]
"""
STATE: Final = """\
topic: place_order.state
kind: state
owner: place_order
key: order_id
partitions: 6
retention_days: forever
tombstone_retention_days: 0.5
values: [towpath.saga.SagaState]
producers: [place_order]
consumers: [place_order]
"""


def put(folder: Path, text: str, name: str = "order.events") -> Path:
    """Write one file of the catalogue."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("partitions: 4", "partition: 4", "unknown key 'partition' (did you mean 'partitions'?)"),
        ("partitions: 4", "partition: 4", "'partitions' is missing"),
        ("partitions: 4", "partitions: '4'", "partitions: Input should be a valid integer"),
        ("partitions: 4", "partitions: 0", "partitions: Input should be greater than or equal to 1"),
        ("kind: events", "kind: event", "kind: Input should be 'events'"),
        ("owner: order", "owner: orders", "owner and kind make it orders.events"),
        ("retention_days: 30", "retention_days: -1", "retention_days: Input should be greater than 0"),
        ("retention_days: 30", "retention_days: ever", "retention_days: Input should be 'forever'"),
        ("values: [shop.order.OrderPlaced]", "values: []", "values: List should have at least 1 item"),
        ("values: [shop.order.OrderPlaced]", "values: [a.B, a.B]", "values: a name stands there twice"),
        ("producers: [order]", "producers: [Order Service]", "producers.0: String should match"),
        ("key: order_id", "key: order_id\nkey: sku", "key 'key' stands there twice"),
        (
            "key: order_id",
            "key: order_id\ndead: {retention: 3}",
            "unknown key 'dead.retention' (did you mean 'retention_days'?)",
        ),
        (
            "key: order_id",
            "key: order_id\ncompatibility: backwards",
            "compatibility: Input should be 'none', 'backward'",
        ),
        (
            "key: order_id",
            "key: order_id\nconfig: {max.mesage.bytes: '1'}",
            "config: 'max.mesage.bytes' is not for this place (did you mean 'max.message.bytes'?)",
        ),
        ("key: order_id", "key: order_id\nconfig: {retention.ms: '1'}", "'retention.ms' is not for this place"),
        ("key: order_id", "key: order_id\ntombstone_retention_days: 3", "only a state topic has tombstones"),
        ("topic: order.events", "topic: [", "order.events.yaml: while parsing"),
        (EVENTS, "- 1", "order.events.yaml: Input should be a valid dictionary"),
    ],
    ids=lambda value: value if " " in value and len(value) < 80 else "",
)
def test_a_mistake_is_refused_by_name(tmp_path: Path, old: str, new: str, words: str) -> None:
    """A misspelt key lets nothing pass: it is an error that names it and what was probably meant."""
    assert old in EVENTS
    with pytest.raises(ContractError) as caught:
        read_topics(put(tmp_path, EVENTS.replace(old, new)))
    assert words in caught.value.cause


def test_a_topic_says_what_kafka_needs(tmp_path: Path) -> None:
    """Retention in milliseconds, the policy by kind, further settings as they are given."""
    (topic,) = read_topics(put(tmp_path, EVENTS + "config: {max.message.bytes: '2000000'}\n"))
    assert topic.kafka_config() == {
        "cleanup.policy": "delete",
        "retention.bytes": "-1",
        "retention.ms": str(30 * 86_400_000),
        "max.message.bytes": "2000000",
    }
    (state,) = read_topics(put(tmp_path, STATE, "place_order.state"))
    assert state.compacted
    assert state.kafka_config()["cleanup.policy"] == "compact"
    assert state.kafka_config()["retention.ms"] == "-1"
    assert state.kafka_config()["delete.retention.ms"] == str(12 * 3_600_000)


def test_a_state_topic_forgets_nothing_by_time(tmp_path: Path) -> None:
    """A changelog whose records expired would be a store that forgets."""
    with pytest.raises(ContractError, match="a state topic is compacted"):
        read_topics(put(tmp_path, STATE.replace("forever", "30"), "place_order.state"))


def test_a_dead_letter_topic_follows_its_topic(tmp_path: Path) -> None:
    """It has its name, its values, its partitions unless said otherwise, and the consumers as producers."""
    put(tmp_path, EVENTS + "dead: {}\n")
    catalogue = Catalogue.read(tmp_path)
    dead = catalogue.dead_letter("order.events")
    assert dead is not None
    assert (dead.name, dead.kind, dead.partitions) == ("order.events.dead", TopicKind.DEAD, 4)
    assert (dead.values, dead.producers, dead.dead_for) == (
        ("shop.order.OrderPlaced",),
        ("place_order",),
        "order.events",
    )
    assert catalogue.dead_letter("order.events.dead") is None
    assert [topic.name for topic in catalogue.live()] == ["order.events"]


def test_a_file_is_called_as_its_topic(tmp_path: Path) -> None:
    """Whoever looks for a topic finds it by its name; two files cannot declare one topic."""
    with pytest.raises(ContractError, match=r"call it order\.events\.yaml"):
        read_topics(put(tmp_path, EVENTS, "orders"))


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    """Not with a traceback."""
    (tmp_path / "order.events.yaml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ContractError, match=r"order\.events\.yaml: 'utf-8' codec"):
        Catalogue.read(tmp_path)


def test_an_empty_catalogue_is_an_error(tmp_path: Path) -> None:
    """A wrong folder is not a project without topics."""
    with pytest.raises(ContractError, match="no topic is declared"):
        Catalogue.read(tmp_path)


def test_a_topic_that_is_not_there_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    """A misspelt topic in code is found at start."""
    put(tmp_path, EVENTS)
    with pytest.raises(NotFoundError, match=r"did you mean 'order\.events'"):
        Catalogue.read(tmp_path).topic("order.event")


def test_unequal_partition_counts_name_the_two_topics(tmp_path: Path) -> None:
    """What concerns one saga must meet in one partition."""
    put(tmp_path, EVENTS)
    put(tmp_path, STATE, "place_order.state")
    catalogue = Catalogue.read(tmp_path)
    assert catalogue.require_equal_partitions(["order.events"]) == 4
    with pytest.raises(ContractError, match=r"order\.events has 4 partitions and place_order\.state has 6"):
        catalogue.require_equal_partitions(["order.events", "place_order.state"])


def test_a_record_keeps_the_promises_of_all_its_topics(tmp_path: Path) -> None:
    """Where one topic promises backward and another forward, its schema promises both."""
    put(tmp_path, EVENTS + "compatibility: backward\n")
    replies = EVENTS.replace("order.events", "order.replies").replace("kind: events", "kind: replies")
    put(tmp_path, replies + "compatibility: forward_transitive\n", "order.replies")
    catalogue = Catalogue.read(tmp_path)
    assert catalogue.compatibility("shop.order.OrderPlaced") is Compatibility.FULL_TRANSITIVE
    assert catalogue.compatibility("shop.order.Unknown") is Compatibility.NONE
