"""Whether a log is still the one that was read is asked of the cluster, by the leader's epoch (KIP-101, KIP-320)."""

from tests.conformance.conftest import Cluster
from tests.conformance.test_broker import joined, poll_until, started, write
from towpath.stream.broker.port import UNKNOWN_END
from towpath.stream.broker.record import TopicPartition


def test_an_offset_keeps_the_epoch_under_which_it_was_reached(cluster: Cluster, group: str) -> None:
    """It is committed with the offset, in the transaction, and a plain commit takes it away."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a", "b")
    member = joined(cluster, group, [topic])
    polled = poll_until(member, lambda polled: polled.records == 2)
    assert polled.epochs[place] >= 0
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.commit({place: 2}, polled.metadata, polled.epochs)
    assert member.committed([place]) == {place: 2}
    assert member.epochs == polled.epochs
    producer.begin()
    producer.commit({place: 1}, polled.metadata)
    assert member.committed([place]) == {place: 1}
    assert member.epochs == {}
    producer.close()
    member.close()


def test_a_log_that_never_had_the_leader_is_not_read(cluster: Cluster, group: str) -> None:
    """It says so instead of giving records; under a leader that it had, it is read as ever."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a", "b")
    member = joined(cluster, group, [topic])
    polled = poll_until(member, lambda polled: polled.records == 2)
    member.seek({place: 1}, polled.epochs)
    assert poll_until(member, lambda polled: polled.records == 1).truncated == {}
    member.seek({place: 1}, {place: polled.epochs[place] + 7})
    strange = poll_until(member, lambda polled: bool(polled.truncated))
    assert (strange.truncated, strange.records) == ({place: UNKNOWN_END}, 0)
    member.close()
