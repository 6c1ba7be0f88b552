"""What the stream relies on a broker for, in sentences that hold on the real one and on the one in memory."""

import time
from collections.abc import Callable, Iterable

import pytest
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as RdTopicPartition

from tests.conformance.conftest import SETTINGS, Cluster
from towpath.errors import TowpathError
from towpath.stream.broker.partitioner import partition_of
from towpath.stream.broker.port import (
    Assigned,
    BrokerAway,
    GroupMetadata,
    Member,
    MemberFenced,
    OutputRefused,
    PartitionReader,
    Polled,
    Producer,
    ProducerFenced,
    Revoked,
    StaleMember,
)
from towpath.stream.broker.producer.kafka import KafkaProducer
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.broker.record_limits import FRAMING_BYTES, TOPIC_BYTES_MAX


def poll_until(member: Member, ready: Callable[[Polled], bool], seconds: float = 15.0) -> Polled:
    """Poll until `ready` says so of everything polled so far, and return that."""
    everything = Polled()
    deadline = time.monotonic() + seconds
    while not ready(everything):
        assert time.monotonic() < deadline, f"not in time: {everything}"
        polled = member.poll(500, 0.1)
        for partition, records in polled.groups.items():
            everything.groups.setdefault(partition, []).extend(records)
        everything.ends.update(polled.ends)
        everything.changes.extend(polled.changes)
        everything.unpositioned |= polled.unpositioned
        everything.truncated |= polled.truncated
        everything.epochs |= polled.epochs
        everything.metadata = polled.metadata
        everything.records += polled.records
    return everything


def joined(cluster: Cluster, group: str, topics: Iterable[str]) -> Member:
    """Return a member that owns everything of `topics` and reads."""
    member = cluster.broker.member(group, client_id="test")
    member.subscribe(topics)
    polled = poll_until(member, lambda polled: any(isinstance(change, Assigned) for change in polled.changes))
    partitions = polled.changes[-1].partitions
    stored, begins = member.committed(partitions), cluster.broker.begin_offsets(partitions)
    member.seek({place: begins[place] if stored[place] is None else stored[place] or 0 for place in partitions})
    member.resume(partitions)
    return member


def started(cluster: Cluster, transactional_id: str) -> Producer:
    producer = cluster.broker.producer(transactional_id)
    producer.start()
    return producer


def write(cluster: Cluster, topic: str, *texts: str, partition: int | None = 0, key: bytes | None = None) -> None:
    """Commit records in one transaction."""
    producer = started(cluster, f"writer-{topic}")
    producer.begin()
    for text in texts:
        producer.produce(topic, text.encode(), key=key, partition=partition)
    producer.commit({}, None)
    producer.close()


def texts(records: Iterable[ConsumedRecord]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


def read_to(reader: PartitionReader, end: int, seconds: float = 10.0) -> list[ConsumedRecord]:
    """Read until the reader has reached `end`."""
    records: list[ConsumedRecord] = []
    deadline = time.monotonic() + seconds
    reached = -1
    while reached < end:
        assert time.monotonic() < deadline, f"reached {reached} of {end}"
        further, reached = reader.poll(0.1)
        records += further
    return records


def test_records_come_as_they_were_sent(cluster: Cluster, group: str) -> None:
    """Key, value, headers and timestamp are unchanged, null where they were null, in the order of the partition."""
    topic = cluster.topic(1)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(topic, b"one", key=b"k", headers=(("a", b"1"), ("a", b"2"), ("n", None)), timestamp_milliseconds=5)
    producer.produce(topic, None, key=None)
    producer.commit({}, None)
    polled = poll_until(joined(cluster, group, [topic]), lambda polled: polled.records == 2)
    (first, second) = polled.groups[TopicPartition(topic, 0)]
    assert first == ConsumedRecord(topic, 0, 0, 5, b"k", b"one", (("a", b"1"), ("a", b"2"), ("n", None)))
    assert (second.offset, second.key, second.value, second.headers) == (1, None, None, ())


def test_a_key_lies_where_javas_clients_put_it(cluster: Cluster) -> None:
    """1,000 keys go to the partitions that kafka-clients' murmur2 gives them, as Debezium's records do."""
    topic = cluster.topic(7)
    keys = [f"order-{number}".encode() for number in range(1000)]
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    for key in keys:
        producer.produce(topic, b"", key=key)
    producer.commit({}, None)
    places = [TopicPartition(topic, number) for number in range(7)]
    for place, end in cluster.broker.end_offsets(places).items():
        for record in read_to(cluster.broker.reader(place, 0), end):
            assert record.key is not None
            assert partition_of(record.key, 7) == place.partition


def test_what_is_not_committed_is_not_read(cluster: Cluster, group: str) -> None:
    """Nor what was aborted; records after an open transaction wait behind it; markers take an offset each."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    member = joined(cluster, group, [topic])
    pending = started(cluster, f"p-{topic}")
    pending.begin()
    pending.produce(topic, b"open")
    aborted = started(cluster, f"q-{topic}")
    aborted.begin()
    aborted.produce(topic, b"aborted")
    deadline = time.monotonic() + 5
    while cluster.broker.end_offsets([place])[place] < 2:
        assert time.monotonic() < deadline
    aborted.abort()
    write(cluster, topic, "committed")
    assert member.poll(10, 0.5).records == 0
    pending.commit({}, None)
    polled = poll_until(member, lambda polled: polled.records == 2 and polled.ends.get(place, 0) > 3)
    assert sorted(texts(polled.groups[place])) == ["committed", "open"]
    assert polled.ends[place] == 6, "three records, three markers"


def test_the_end_is_told_again_when_only_a_marker_moved_it(cluster: Cluster, group: str) -> None:
    """A timer's gate waits for such ends: an aborted transaction leaves nothing to read, and yet moves the end."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a")
    member = joined(cluster, group, [topic])
    poll_until(member, lambda polled: polled.ends.get(place) == 2)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(topic, b"b")
    end = 2
    deadline = time.monotonic() + 5
    while end == 2:
        assert time.monotonic() < deadline
        end = cluster.broker.end_offsets([place])[place]
    producer.abort()
    poll_until(member, lambda polled: polled.ends.get(place) == 4)


def test_offsets_are_committed_with_the_transaction(cluster: Cluster, group: str) -> None:
    """With what is noted beside them. The next member begins behind them; an aborted transaction moves nothing."""
    topic, out = cluster.topic(1), cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a", "b", "c")
    member = joined(cluster, group, [topic])
    polled = poll_until(member, lambda polled: polled.records == 3)
    producer = started(cluster, f"p-{topic}")
    for offset, commit in ((2, True), (3, False)):
        producer.begin()
        producer.produce(out, b"x")
        if commit:
            producer.commit({place: offset}, polled.metadata, notes={place: "changelogs a b"})
        else:
            producer.abort()
    assert member.committed([place]) == {place: 2}
    assert dict(member.notes) == {place: "changelogs a b"}
    member.close()
    polled = poll_until(joined(cluster, group, [topic]), lambda polled: polled.records == 1)
    assert texts(polled.groups[place]) == ["c"]


def test_a_stale_generation_commits_nothing(cluster: Cluster, group: str) -> None:
    """Metadata of before a rebalance is refused, and the transaction can only be aborted."""
    topic, out = cluster.topic(2), cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a")
    member = joined(cluster, group, [topic])
    old = poll_until(member, lambda polled: polled.records == 1).metadata
    other = cluster.broker.member(group, client_id="other")
    other.subscribe([topic])
    settle([member, other])
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(out, b"x")
    with pytest.raises(StaleMember):
        producer.commit({place: 1}, old)
    producer.abort()
    write(cluster, out, "after")
    end = cluster.broker.end_offsets([TopicPartition(out, 0)])[TopicPartition(out, 0)]
    assert texts(read_to(cluster.broker.reader(TopicPartition(out, 0), 0), end)) == ["after"]
    assert member.committed([place]) == {place: None}


def settle(members: list[Member], seconds: float = 20.0) -> list[frozenset[TopicPartition]]:
    """Poll members in turn until each has been assigned once more, and return what each owns."""
    owned: dict[int, frozenset[TopicPartition]] = {}
    deadline = time.monotonic() + seconds
    while len(owned) < len(members):
        assert time.monotonic() < deadline, "the group did not settle"
        for index, member in enumerate(members):
            for change in member.poll(1, 0.05).changes:
                if isinstance(change, Assigned):
                    owned[index] = change.partitions
                elif isinstance(change, Revoked):
                    owned.pop(index, None)
    return [owned[index] for index in range(len(members))]


@pytest.mark.parametrize("metadata", [None, GroupMetadata("g", "", -1), GroupMetadata("g", "", 3)])
def test_offsets_of_no_member_are_refused(cluster: Cluster, metadata: GroupMetadata | None) -> None:
    """A broker takes them without checking; so they are not sent."""
    topic = cluster.topic(1)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    with pytest.raises(StaleMember):
        producer.commit({TopicPartition(topic, 0): 1}, metadata)
    producer.abort()


def test_a_newer_producer_of_the_same_id_fences_the_older_one(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its open transaction ends at once, nothing that it does counts any more, and only the error says so."""
    topic = cluster.topic(1)
    ghost = started(cluster, f"p-{topic}")
    ghost.begin()
    ghost.produce(topic, b"ghost")
    heir = started(cluster, f"p-{topic}")
    heir.begin()
    heir.produce(topic, b"heir")
    heir.commit({}, None)
    with pytest.raises(ProducerFenced):
        ghost.commit({}, None)
    assert "fenced" not in capfd.readouterr().err
    end = cluster.broker.end_offsets([TopicPartition(topic, 0)])[TopicPartition(topic, 0)]
    assert texts(read_to(cluster.broker.reader(TopicPartition(topic, 0), 0), end)) == ["heir"]


def test_a_transaction_that_outlives_its_time_out_is_aborted(cluster: Cluster) -> None:
    """Readers are held up for no longer; the producer is told that it is fenced."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(topic, b"late")
    deadline = time.monotonic() + 5
    while cluster.broker.end_offsets([place])[place] == 0:
        assert time.monotonic() < deadline
    write(cluster, topic, "behind")
    reader = cluster.broker.reader(place, 0)
    assert reader.poll(0.3)[0] == []
    assert texts(read_to(reader, 3, seconds=SETTINGS.transaction_timeout_seconds + 4)) == ["behind"]
    with pytest.raises(ProducerFenced):
        producer.commit({}, None)


def test_members_get_the_same_numbers_of_every_topic(cluster: Cluster, group: str) -> None:
    """Range assignment co-locates topics of equal counts, with one member, with two, and with one again."""
    topics = [cluster.topic(4), cluster.topic(4)]
    first = joined(cluster, group, topics)
    second = cluster.broker.member(group, client_id="second")
    second.subscribe(topics)
    owned = settle([first, second])
    for partitions in owned:
        numbers = {topic: {p.partition for p in partitions if p.topic == topic} for topic in topics}
        assert numbers[topics[0]] == numbers[topics[1]]
        assert len(numbers[topics[0]]) == 2
    second.close()
    assert len(settle([first])[0]) == 8


def test_a_slot_that_comes_back_has_its_partitions_at_once(cluster: Cluster, group: str) -> None:
    """Nobody else has to give up anything, and the one before it is fenced, in its reading and in its offsets."""
    topic = cluster.topic(2)
    first, other = (cluster.broker.member(group, client_id=slot, slot=slot) for slot in "ab")
    first.subscribe([topic])
    owned = of_last(poll_until(first, lambda polled: bool(polled.changes)))
    other.subscribe([topic])
    # Both poll in turn until the two of them have settled.
    shares: dict[str, frozenset[TopicPartition]] = {}
    deadline = time.monotonic() + 20
    while len(shares) < 2 or shares["first"] == owned:
        assert time.monotonic() < deadline, shares
        for name, member in (("first", first), ("other", other)):
            for change in member.poll(10, 0.1).changes:
                if isinstance(change, Assigned):
                    shares[name] = change.partitions
    stale = first.poll(10, 0.1).metadata
    again = cluster.broker.member(group, client_id="again", slot="a")
    began = time.monotonic()
    again.subscribe([topic])
    assert of_last(poll_until(again, lambda polled: bool(polled.changes))) == shares["first"]
    assert time.monotonic() - began < SETTINGS.session_timeout_seconds
    assert other.poll(10, 0.2).changes == []
    with pytest.raises(MemberFenced):
        poll_until(first, lambda polled: False)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    with pytest.raises(StaleMember):
        producer.commit({TopicPartition(topic, 0): 1}, stale)


def of_last(polled: Polled) -> frozenset[TopicPartition]:
    """Return the partitions of the last change."""
    return polled.changes[-1].partitions


def test_paused_partitions_wait_and_lose_nothing(cluster: Cluster, group: str) -> None:
    """Partitions are assigned paused; what is resumed goes on where it was, paused in the middle or not."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, *map(str, range(20)))
    member = cluster.broker.member(group, client_id="test")
    member.subscribe([topic])
    poll_until(member, lambda polled: bool(polled.changes))
    assert member.poll(10, 0.5).records == 0
    member.resume([place])
    taken = poll_until(member, lambda polled: polled.records > 0).groups[place]
    member.pause([place])
    assert member.poll(10, 0.3).records == 0
    member.resume([place])
    if len(taken) < 20:
        taken += poll_until(member, lambda polled: polled.records >= 20 - len(taken)).groups[place]
    assert texts(taken) == list(map(str, range(20)))


def test_at_most_so_many_records_come_at_once(cluster: Cluster, group: str) -> None:
    """A unit of work is never larger than its limit."""
    topic = cluster.topic(1)
    write(cluster, topic, *map(str, range(50)))
    member = joined(cluster, group, [topic])
    sizes: list[int] = []
    deadline = time.monotonic() + 10
    while sum(sizes) < 50:
        assert time.monotonic() < deadline
        sizes.append(member.poll(7, 0.1).records)
    assert max(sizes) <= 7


def test_a_member_reads_on_from_where_it_is_told(cluster: Cluster, group: str) -> None:
    """Seeking works right after the assignment, while the partition is paused."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a", "b", "c")
    member = cluster.broker.member(group, client_id="test")
    member.subscribe([topic])
    poll_until(member, lambda polled: bool(polled.changes))
    member.seek({place: 1})
    member.resume([place])
    assert texts(poll_until(member, lambda polled: polled.records == 2).groups[place]) == ["b", "c"]
    member.seek({place: 0})
    assert texts(poll_until(member, lambda polled: polled.records == 3).groups[place]) == ["a", "b", "c"]


def test_offsets_are_told_only_once_they_are_stable(cluster: Cluster, group: str) -> None:
    """While a transaction is open over them they are not; then they are what it committed."""
    topic, out = cluster.topic(1), cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a")
    member = joined(cluster, group, [topic])
    metadata = poll_until(member, lambda polled: polled.records == 1).metadata
    assert member.committed([place]) == {place: None}
    member.commit({place: 0})
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(out, b"x")
    producer.commit({place: 1}, metadata)
    assert member.committed([place]) == {place: 1}


def test_a_reader_reaches_the_end_over_markers(cluster: Cluster) -> None:
    """The offset that it has reached counts markers and aborted records, so that catch-up can end."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a")
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(topic, b"b")
    deadline = time.monotonic() + 5
    while cluster.broker.end_offsets([place])[place] < 3:
        assert time.monotonic() < deadline
    producer.abort()
    end = 4
    assert texts(read_to(cluster.broker.reader(place, 0), end)) == ["a"]
    assert texts(read_to(cluster.broker.reader(place, 1), end)) == []


def test_a_record_is_told_its_offset_by_the_time_of_the_commit(cluster: Cluster) -> None:
    """A store's checkpoint comes from that."""
    topic = cluster.topic(1)
    told: list[int] = []
    producer = started(cluster, f"p-{topic}")
    for _ in range(2):
        producer.begin()
        producer.produce(topic, b"a")
        producer.produce(topic, b"b", delivered=told.append)
        producer.commit({}, None)
    assert told == [1, 4]


def patiently(ask: Callable[[], str], seconds: float = 10.0) -> str:
    """Ask until there is an answer: a real cluster takes a moment to forget a topic, and to know one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (BrokerAway, KafkaException):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_topic_made_anew_has_another_id(cluster: Cluster) -> None:
    """Offsets of the old one mean nothing for it."""
    topic = cluster.topic(1)
    before = cluster.broker.topic_ids([topic])[topic]
    cluster.delete(topic)
    assert patiently(lambda: cluster.topic(1, name=topic)) == topic
    assert patiently(lambda: cluster.broker.topic_ids([topic])[topic]) != before


def test_a_missing_topic_is_left_out_of_the_counts(cluster: Cluster) -> None:
    """Nothing is created by asking."""
    topic = cluster.topic(3)
    assert cluster.broker.partition_counts([topic, "no-such-topic"]) == {topic: 3}
    assert cluster.broker.partition_counts(["no-such-topic"]) == {}


def test_sending_to_a_missing_topic_is_an_error(cluster: Cluster) -> None:
    """At the latest at the commit, which then has not happened."""
    topic = cluster.topic(1)
    producer = started(cluster, f"p-{topic}")
    producer.begin()

    def send() -> None:
        producer.produce("no-such-topic", b"x")
        producer.commit({}, None)

    with pytest.raises(TowpathError):
        send()


def test_a_topics_configuration_can_be_read(cluster: Cluster) -> None:
    """Catch-up asks for how long tombstones are kept."""
    topic = cluster.topic(1, {"delete.retention.ms": "1234"})
    assert cluster.broker.topic_config(topic)["delete.retention.ms"] == "1234"


def test_the_end_counts_open_transactions(cluster: Cluster) -> None:
    """Catch-up must reach what a predecessor has sent and not yet marked."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(topic, b"x")
    deadline = time.monotonic() + 5
    while cluster.broker.end_offsets([place])[place] != 1:
        assert time.monotonic() < deadline
    assert cluster.broker.begin_offsets([place]) == {place: 0}
    producer.abort()


def test_an_offset_is_found_by_the_time_of_its_record(cluster: Cluster) -> None:
    """The first of that time or later; the end where every record is older."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    now = int(time.time() * 1000)
    for milliseconds in (0, 1_000, 2_000):
        producer.produce(topic, b"x", timestamp_milliseconds=now + milliseconds)
    producer.commit({}, None)
    at = {ahead: cluster.broker.offsets_at([place], now + ahead)[place] for ahead in (-5, 1, 1_000, 2_001)}
    assert at == {-5: 0, 1: 1, 1_000: 1, 2_001: cluster.broker.end_offsets([place])[place]}


def test_offsets_under_an_open_transaction_are_not_guessed(
    cluster: Cluster, group: str, request: pytest.FixtureRequest
) -> None:
    """Asking does not return the old offset while a transaction may still change it (KIP-447)."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a")
    member = joined(cluster, group, [topic])
    metadata = poll_until(member, lambda polled: polled.records == 1).metadata
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(topic, b"x")
    if isinstance(producer, KafkaProducer):
        assert metadata is not None
        places = [RdTopicPartition(topic, 0, 1)]
        producer._producer.send_offsets_to_transaction(places, metadata.token, 10)
        began = time.monotonic()
        assert member.committed([place]) == {place: None}
        # Nobody commits: the coordinator ends it by its time-out, and only then is there an answer.
        assert time.monotonic() - began > SETTINGS.transaction_timeout_seconds / 2
        return
    reason = "its calls wait for nobody: it says at once that the offset is not stable, and its caller asks again"
    request.applymarker(pytest.mark.xfail(strict=True, raises=BrokerAway, reason=reason))
    cluster.broker.faults.call("commit", lambda: member.committed([place]))  # type: ignore[attr-defined]
    producer.commit({place: 1}, metadata)


def refused_and_goes_on(cluster: Cluster, producer: Producer, topic: str, write: Callable[[], None]) -> None:
    """Have what is written refused, and see that the producer's next transaction is the only one that readers find."""
    with pytest.raises(OutputRefused):
        write()
    producer.abort()
    producer.begin()
    producer.produce(topic, b"small", partition=0)
    producer.commit({}, None)
    assert read_all(cluster.broker.reader(TopicPartition(topic, 0), 0), 1) == [b"small"]


@pytest.mark.parametrize(
    ("config", "bytes_"),
    [({}, 1_048_589), ({}, 3_000_000), ({"max.message.bytes": "50000"}, 60_000)],
    ids=["past Kafka's default", "far past it", "past its topic's own limit"],
)
def test_a_record_too_large_for_its_topic_is_refused_and_the_producer_goes_on(
    cluster: Cluster, config: dict[str, str], bytes_: int
) -> None:
    """By the client or by the broker, at once or at the commit: the record's fault, and never an endless retry."""
    topic = cluster.topic(1, config)
    producer = started(cluster, f"tx-{topic}")

    def write() -> None:
        producer.produce(topic, bytes(bytes_), partition=0)
        producer.commit({}, None)

    producer.begin()
    refused_and_goes_on(cluster, producer, topic, write)


def test_what_is_written_after_a_refused_record_does_not_hide_the_refusal(cluster: Cluster) -> None:
    """A long unit is sent while it is worked on: the client knows of the refusal before the unit's next record."""
    topic = cluster.topic(1, {"max.message.bytes": "50000"})
    producer = started(cluster, f"tx-{topic}")
    producer.begin()

    def write() -> None:
        producer.produce(topic, bytes(60_000), partition=0)
        for _ in range(40):
            time.sleep(0.05)
            producer.produce(topic, b"small", partition=0)

    refused_and_goes_on(cluster, producer, topic, write)


def test_the_largest_record_that_a_topic_takes_can_be_written(cluster: Cluster) -> None:
    """What was read from a topic can be written to one like it: librdkafka's own limit would be lower."""
    topic = cluster.topic(1)
    producer = started(cluster, f"tx-{topic}")
    producer.begin()
    producer.produce(topic, bytes(TOPIC_BYTES_MAX - FRAMING_BYTES), partition=0)
    producer.commit({}, None)
    assert len(read_all(cluster.broker.reader(TopicPartition(topic, 0), 0), 1)[0]) == TOPIC_BYTES_MAX - FRAMING_BYTES


def read_all(reader: PartitionReader, count: int, seconds: float = 30.0) -> list[bytes]:
    """Return the values of the first `count` committed records."""
    found: list[bytes] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, found
        records, _ = reader.poll(0.2)
        found.extend(record.value or b"" for record in records)
    reader.close()
    return found


def test_a_group_tells_who_its_members_are(cluster: Cluster, group: str) -> None:
    """By the ids that they have themselves, and by the names that they gave; a group that never was has none."""
    assert cluster.broker.group_members(f"{group}-nobody") == ()
    member = joined(cluster, group, [cluster.topic(1)])
    metadata = member.poll(1, 0.1).metadata
    assert metadata is not None
    (found,) = cluster.broker.group_members(group)
    assert (found.id, found.client_id) == (metadata.member, "test")
    member.close()
    assert cluster.broker.group_members(group) == ()


def test_a_person_moves_a_groups_offset_beside_its_members(cluster: Cluster, group: str) -> None:
    """A note beside an offset stays until the offset is committed anew, here by nobody's membership."""
    topic, audit = cluster.topic(1), cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a", "b")
    member = joined(cluster, group, [topic])
    member.note(place, 2, "lost tail at 1")
    assert member.committed([place]) == {place: 2}
    assert dict(member.notes) == {place: "lost tail at 1"}
    producer = started(cluster, f"p-{topic}")
    producer.begin()
    producer.produce(audit, b"decided", partition=0)
    producer.commit_for_group(group, {place: 1})
    assert member.committed([place]) == {place: 1}
    assert not any(member.notes.values())
    assert cluster.broker.group_offsets(group) == {place: 1}
    member.close()


def test_a_member_tells_that_its_position_is_not_in_the_log(cluster: Cluster, group: str) -> None:
    """It reads nothing in its stead, neither from the beginning nor from the end."""
    topic = cluster.topic(1)
    place = TopicPartition(topic, 0)
    write(cluster, topic, "a", "b")
    member = joined(cluster, group, [topic])
    poll_until(member, lambda polled: polled.records == 2)
    member.pause([place])
    member.seek({place: 1_000})
    member.resume([place])
    polled = poll_until(member, lambda polled: bool(polled.unpositioned))
    assert polled.unpositioned == {place}
    assert polled.records == 0
    member.close()
