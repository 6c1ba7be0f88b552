"""Positions that a consumer group keeps: looked at, and moved with a record of who moved them and why.

The one rule: a position and the record of its being moved are one transaction. The record goes to the partition's
dead-letter topic, where all that was not applied is accounted for, with the header `position`.
"""

from collections.abc import Iterable

from towpath.clock import Clock, epoch_milliseconds
from towpath.errors import NotFoundError
from towpath.positions.decision import PositionDecision, Standing
from towpath.stream.broker.dead_letter import POSITION_HEADER, dead_topic
from towpath.stream.broker.port import Broker
from towpath.stream.broker.position import judge, lost_tail, read_held, read_lost_tail, without_lost_tail
from towpath.stream.broker.record import TopicPartition


def group_standings(broker: Broker, application: str, partitions: Iterable[TopicPartition]) -> list[Standing]:
    """Return where a group stands in `partitions`. Raises BrokerAway, also while a transaction is open over them."""
    wanted = sorted(partitions)
    if not wanted:
        return []
    member = broker.member(application, client_id=f"{application}-positions")
    try:
        stored, notes = member.committed(wanted), dict(member.notes)
    finally:
        member.close()
    ids = broker.topic_ids({place.topic for place in wanted})
    begins, ends = broker.begin_offsets(wanted), broker.end_offsets(wanted)
    found = []
    for place in wanted:
        offset, noted = stored[place], read_lost_tail(notes.get(place, ""))
        held = None
        if offset is not None and noted is not None:
            held = lost_tail(application, place, offset, noted)
        elif offset is not None:
            held = judge(application, place, offset, begins[place], ends[place]) or read_held(notes.get(place, ""))
        found.append(Standing(application, place, offset, begins[place], ends[place], ids[place.topic], held))
    return found


def accept_in_group(broker: Broker, decision: PositionDecision, clock: Clock) -> None:
    """Move a group's position, its workers running or not. Raises NotFoundError without a dead-letter topic."""
    audit = dead_topic(decision.topic)
    if audit not in broker.partition_counts([audit]):
        raise NotFoundError(
            f"{decision.topic} has no dead-letter topic to write the decision into",
            kept="the position",
            next_step=f"declare {audit} in schemas/topics, then towpath provision",
        )
    place = TopicPartition(decision.topic, decision.partition)
    member = broker.member(decision.application, client_id=f"{decision.application}-positions")
    try:
        member.committed([place])
        note = without_lost_tail(member.notes.get(place, ""))  # into which changelogs its state went, say
    finally:
        member.close()
    producer = broker.producer(f"{decision.application}-positions")
    producer.start()
    try:
        producer.begin()
        producer.produce(
            audit,
            None,
            headers=((POSITION_HEADER, decision.header),),
            partition=decision.partition,
            timestamp_milliseconds=epoch_milliseconds(clock),
        )
        producer.commit_for_group(decision.application, {place: decision.offset_after}, notes={place: note})
    finally:
        producer.close()
