"""A lone broker that is killed in the middle of transactions leaves none of them open (see `kafka_start`)."""

import subprocess
import sys
import time
import uuid

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.crash.test_crash import restart_part
from tests.stack_fixture import RunningStack
from towpath.settings import KafkaSettings, StreamSettings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.record import TopicPartition

TRANSACTIONS = 8
TIMEOUT_MILLISECONDS = 2_000
SETTLED_SECONDS_MAX = 60.0


def test_a_killed_broker_settles_every_transaction(stack: RunningStack) -> None:
    """Each is aborted once its time is up, and what follows it can be read; who asks meanwhile survives the answers.

    librdkafka's admin client did not: a process that asked for a group's offsets ended with a segmentation fault.
    """
    servers = stack.settings.kafka.bootstrap_servers
    topic = f"lone-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, TRANSACTIONS)])[topic].result()
    producers = [open_transaction(servers, topic, number) for number in range(TRANSACTIONS)]
    asking = subprocess.Popen([sys.executable, "-m", "tests.crash.asking", servers, topic])
    try:
        restart_part(stack, "kafka")
        time.sleep(2)
    finally:
        asking.terminate()
    assert asking.wait(60) == 0
    broker = KafkaBroker(KafkaSettings(bootstrap_servers=servers), StreamSettings())
    for number in range(TRANSACTIONS):
        place = TopicPartition(topic, number)
        reader, reached, deadline = broker.reader(place, 0), 0, time.monotonic() + SETTLED_SECONDS_MAX
        # The record and the marker of its transaction's end.
        while reached < 2:
            assert time.monotonic() < deadline, f"{place}: a transaction is open at {reached}"
            records, reached = reader.poll(0.2)
            assert records == []
        reader.close()
    del producers


def open_transaction(servers: str, topic: str, number: int) -> Producer:
    """Return a producer with an open transaction whose only record the broker has."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "transactional.id": f"{topic}-{number}",
            "transaction.timeout.ms": TIMEOUT_MILLISECONDS,
            "message.timeout.ms": TIMEOUT_MILLISECONDS,
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"x", partition=number)
    assert producer.flush(10) == 0
    return producer
