"""What is committed was acknowledged by the broker itself, and not inferred by its client."""

import pytest

from tests.conformance.conftest import SETTINGS, KafkaCluster
from tests.conformance.test_broker import joined, poll_until
from tests.kafka_proxy import kafka_proxy
from towpath.clock import SystemClock, wait_until
from towpath.settings import KafkaSettings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import TransactionAborted
from towpath.stream.broker.record import TopicPartition


@pytest.mark.stack
def test_a_batch_that_was_refused_while_the_next_was_taken_is_not_committed(kafka_servers: str, group: str) -> None:
    """The transaction is aborted, and whole at the next attempt: it committed `two` alone, and said nothing."""
    cluster = KafkaCluster(kafka_servers)
    topic = cluster.topic(1)
    with kafka_proxy(kafka_servers) as proxy:
        proxy.lose_first_write(topic)
        producer = KafkaBroker(KafkaSettings(bootstrap_servers=proxy.address), SETTINGS).producer(f"p-{topic}")
        producer.start()
        producer.begin()
        producer.produce(topic, b"one", partition=0)
        wait_until(SystemClock(), lambda: proxy.lost_write is not None, seconds=10, every_seconds=0.01)
        producer.produce(topic, b"two", partition=0)
        with pytest.raises(TransactionAborted, match="did not say that it has all"):
            producer.commit({}, None)
        producer.abort()
        producer.begin()
        for value in (b"one", b"two"):
            producer.produce(topic, value, partition=0)
        producer.commit({}, None)
        producer.close()
    member = joined(cluster, group, [topic])
    polled = poll_until(member, lambda polled: polled.records == 2)
    assert [record.value for record in polled.groups[TopicPartition(topic, 0)]] == [b"one", b"two"]
    member.close()
