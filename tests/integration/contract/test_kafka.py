"""Topics on a real broker are those of the catalogue, or the difference is told."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from tests.integration.contract.shop import Shop
from towpath.contract.kafka import OpenTransaction, compare_topics, ensure_topics, open_transactions, read_to_end
from towpath.errors import WorldError
from towpath.settings import KafkaSettings

pytestmark = pytest.mark.stack


def config_of(shop: Shop, topic: str) -> dict[str, str]:
    """Return a topic's settings as the broker has them."""
    admin = AdminClient({**shop.settings.kafka.client_config()})
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result(10).items()}


def test_what_the_catalogue_declares_is_created_once(shop: Shop) -> None:
    """Partitions and settings are those of the file; a second run finds nothing to do and nothing to say."""
    shop.topic("dead: {partitions: 1, retention_days: 2}\nconfig: {max.message.bytes: '2000000'}\n")
    assert [finding.problem for finding in compare_topics(shop.catalogue(), shop.settings)] == ["it does not exist"] * 2
    first = ensure_topics(shop.catalogue(), shop.settings)
    assert first.created == (shop.topic_name, f"{shop.topic_name}.dead")
    assert config_of(shop, shop.topic_name).items() >= shop.catalogue().topic(shop.topic_name).kafka_config().items()
    assert config_of(shop, f"{shop.topic_name}.dead")["retention.ms"] == str(2 * 86_400_000)
    second = ensure_topics(shop.catalogue(), shop.settings)
    assert (second.created, second.aligned, second.findings) == ((), (), ())
    assert compare_topics(shop.catalogue(), shop.settings) == ()


def test_workers_that_start_together_do_not_disturb_each_other(shop: Shop) -> None:
    """Each may find the topic missing, and only one can create it."""
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: ensure_topics(shop.catalogue(), shop.settings), range(4)))
    assert any(shop.topic_name in item.created for item in done)
    assert compare_topics(shop.catalogue(), shop.settings) == ()


def test_settings_that_differ_are_told_and_mended_only_when_asked(shop: Shop) -> None:
    """A shorter retention throws records away, so it takes a word; other settings of the topic are left alone."""
    shop.topic("config: {max.message.bytes: '2000000'}\n")
    ensure_topics(shop.catalogue(), shop.settings)
    shop.topic(retention_days=7)
    told = ensure_topics(shop.catalogue(), shop.settings)
    assert [finding.problem for finding in told.findings] == [
        f"retention.ms is {30 * 86_400_000}, the catalogue says {7 * 86_400_000}"
    ]
    assert f"--topic {shop.topic_name} --add-config retention.ms=604800000" in told.findings[0].fix
    assert config_of(shop, shop.topic_name)["retention.ms"] == str(30 * 86_400_000)
    fixed = ensure_topics(shop.catalogue(), shop.settings, align=True)
    assert (fixed.aligned, fixed.findings) == ((shop.topic_name,), ())
    config = config_of(shop, shop.topic_name)
    assert (config["retention.ms"], config["max.message.bytes"]) == (str(7 * 86_400_000), "2000000")


def test_partition_counts_are_never_changed_in_place(shop: Shop) -> None:
    """Keys would move to other partitions: the difference is told, also when settings are fixed."""
    ensure_topics(shop.catalogue(), shop.settings)
    shop.topic(partitions=5, retention_days=7)
    done = ensure_topics(shop.catalogue(), shop.settings, align=True)
    assert done.aligned == (shop.topic_name,)
    assert [finding.problem for finding in done.findings] == ["it has 3 partitions, the catalogue says 5"]
    assert [finding.problem for finding in compare_topics(shop.catalogue(), shop.settings)] == [
        "it has 3 partitions, the catalogue says 5"
    ]


def test_a_broker_that_is_away_is_the_worlds_fault(shop: Shop) -> None:
    """The error comes within the limit, and says what to look at."""
    settings = shop.settings.model_copy(update={"kafka": KafkaSettings(bootstrap_servers="127.0.0.1:9")})
    begun = perf_counter()
    with pytest.raises(WorldError) as caught:
        ensure_topics(shop.catalogue(), settings, timeout_seconds=1)
    assert perf_counter() - begun < 10
    assert "towpath status" in str(caught.value)


def test_topics_are_read_to_the_end_of_what_was_committed(shop: Shop) -> None:
    """Every partition in its order; nothing of an aborted or open transaction, nothing before `since`."""
    shop.topic()
    ensure_topics(shop.catalogue(), shop.settings)
    producer = Producer({**shop.settings.kafka.client_config(), "transactional.id": shop.topic_name, "log_level": 2})
    producer.init_transactions(10)
    begin = datetime.now(UTC)

    def write(values: range, moment: datetime = begin) -> None:
        producer.begin_transaction()
        for value in values:
            at = int(moment.timestamp() * 1000)
            producer.produce(shop.topic_name, str(value), key=str(value % 7), timestamp=at)
        producer.flush(10)

    def read(since: datetime | None = None, partitions: tuple[int, ...] | None = None) -> list[int]:
        places: dict[int | None, list[int]] = {}
        topics = [shop.topic_name, "no.such.topic"]
        for message in read_to_end(shop.settings, topics, since, partitions=partitions):
            places.setdefault(message.partition(), []).append(int(message.value()))
        assert all(values == sorted(values) for values in places.values())
        return sorted(value for values in places.values() for value in values)

    assert read() == []
    write(range(500))
    producer.commit_transaction(10)
    write(range(500, 600))
    producer.abort_transaction(10)
    write(range(600, 700), begin + timedelta(seconds=5))
    producer.commit_transaction(10)
    write(range(700, 800))
    assert read() == [*range(500), *range(600, 700)]
    assert read(begin + timedelta(seconds=5)) == [*range(600, 700)]
    assert read(begin + timedelta(days=1)) == []
    of_each = [read(partitions=(number,)) for number in range(3)]
    assert sorted(value for values in of_each for value in values) == read()
    assert max(map(len, of_each)) < len(read()), "all of it came from one partition"
    producer.abort_transaction(10)


def test_an_open_transaction_is_seen_where_readers_wait(shop: Shop) -> None:
    """With its first record's place and time; once it has ended there is none."""
    shop.topic()
    ensure_topics(shop.catalogue(), shop.settings)
    producer = Producer({**shop.settings.kafka.client_config(), "transactional.id": shop.topic_name, "log_level": 2})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(shop.topic_name, "before", partition=1)
    producer.commit_transaction(10)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(shop.topic_name, "open", partition=1, timestamp=1_700_000_000_000)
    producer.flush(10)
    topics = [shop.topic_name, "no.such.topic"]
    # A record and a marker come before it.
    expected = OpenTransaction(shop.topic_name, 1, 2, 3, 1_700_000_000_000)
    assert open_transactions(shop.settings, topics) == (expected,)
    producer.abort_transaction(10)
    deadline = perf_counter() + 10
    while open_transactions(shop.settings, topics):
        assert perf_counter() < deadline


def test_a_cluster_that_is_away_is_told_by_who_reads(shop: Shop) -> None:
    """In words, with what to do."""
    away = shop.settings.model_copy(update={"kafka": KafkaSettings(bootstrap_servers="127.0.0.1:9")})
    with pytest.raises(WorldError, match="Kafka") as raised:
        list(read_to_end(away, [shop.topic_name], timeout_seconds=1))
    assert raised.value.next_step
