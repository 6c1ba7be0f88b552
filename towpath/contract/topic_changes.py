"""What a change of a topic does to those who use it: key, partitions, cleanup, retention, size, who writes. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from towpath.contract.catalogue import Catalogue, Topic, TopicKind
from towpath.contract.finding import Finding
from towpath.contract.parties import Parties, PartyKind

# Kafka's default of max.message.bytes.
_MESSAGE_BYTES_DEFAULT: Final = 1_048_588


def topic_changes(old: Catalogue, new: Catalogue, parties: Parties) -> tuple[Finding, ...]:
    """Return what `new` changes of the topics of `old` that would hit somebody."""
    found: list[Finding] = []
    for name, before in old.topics.items():
        after = new.topics.get(name)
        if after is None:
            found.append(_removed(before))
        elif before.kind is not TopicKind.DEAD:
            found += _changes(before, after, parties)
        elif _shorter(before.retention_days, after.retention_days):
            found.append(_retention(before, after, ()))
    return (*found, *_partitions(old, new))


def _removed(topic: Topic) -> Finding:
    kept = "for ever" if topic.retention_days is None else f"for {topic.retention_days:g} days"
    return Finding(
        "topic-removed",
        topic.name,
        f"it is no longer declared, and its records are kept {kept}",
        _users(topic),
        "declare it again until its readers have read it to the end and are deployed without it",
    )


def _changes(before: Topic, after: Topic, parties: Parties) -> Iterator[Finding]:
    name = before.name
    if before.key != after.key:
        yield Finding(
            "topic-key-changed",
            name,
            f"its key was {before.key} and is {after.key}: records of one {before.key} would no longer lie in one "
            "partition, nor in their order",
            _users(before),
            "make a new topic with the new key, and move its readers there",
        )
    if _shorter(before.tombstone_retention_days, after.tombstone_retention_days):
        yield Finding(
            "topic-cleanup-changed",
            name,
            f"it kept tombstones for {before.tombstone_retention_days:g} days and keeps them for "
            f"{after.tombstone_retention_days:g}: a store that was away for longer would not learn what was deleted",
            before.consumers,
            "keep the time; or be sure that no store is away for longer, then waive this",
        )
    if before.compacted != after.compacted:
        yield Finding(
            "topic-cleanup-changed",
            name,
            f"its cleanup was {_policy(before)} and is {_policy(after)}",
            before.consumers,
            "make a new topic with the other cleanup, and move its readers there",
        )
    if _shorter(before.retention_days, after.retention_days):
        deadlines = tuple(
            party.label
            for party in parties.by_name.values()
            if party.kind is PartyKind.SAGA
            and (party.deadline_days or 0) > (after.retention_days or 0)
            and any(use.topic == name for use in (*party.reads, *party.writes))
        )
        yield _retention(before, after, deadlines)
    yield from _values(before, after)
    yield from _settings(before.config, after, before)
    if _weaker(before.compatibility.value, after.compatibility.value):
        yield Finding(
            "topic-compatibility-weakened",
            name,
            f"it promised {before.compatibility.name.lower()} and promises {after.compatibility.name.lower()}",
            before.consumers,
            "keep the promise; or waive this, once its readers agree",
        )


def _partitions(old: Catalogue, new: Catalogue) -> Iterator[Finding]:
    """Yield one finding a cause: the topics of a saga have as many partitions as the topic of events it starts from."""
    grown = [
        topic
        for name, topic in old.topics.items()
        if name in new.topics and topic.kind is not TopicKind.DEAD and topic.partitions != new.topics[name].partitions
    ]
    left = sorted(grown, key=lambda one: (one.kind is not TopicKind.EVENTS, one.name))
    while left:
        first = left.pop(0)
        was, now = first.partitions, new.topics[first.name].partitions
        led = set(first.consumers) if first.kind is TopicKind.EVENTS else set()
        with_it = [
            one
            for one in left
            if one.kind is not TopicKind.EVENTS
            and (one.partitions, new.topics[one.name].partitions) == (was, now)
            and led & {one.owner, *_users(one)}
        ]
        left = [one for one in left if one not in with_it]
        also = f", and with it {', '.join(one.name for one in with_it)}" if with_it else ""
        yield Finding(
            "topic-partitions-changed",
            first.name,
            f"it had {was} partitions and has {now}{also}: keys would move to other partitions, past what still lies "
            "in the old ones",
            tuple(dict.fromkeys(who for one in (first, *with_it) for who in _users(one))),
            f"say {was} again, and plan a new generation of the topic",
        )


def _values(before: Topic, after: Topic) -> Iterator[Finding]:
    for value in before.values:
        if value not in after.values:
            yield Finding(
                "topic-value-removed",
                before.name,
                f"{value} is no longer among its values: its records still lie there, and nobody could decode them",
                _users(before),
                "list it until the topic has forgotten the last record of it",
            )


def _settings(before: Mapping[str, str], after: Topic, topic: Topic) -> Iterator[Finding]:
    limit = "max.message.bytes"
    old, new = before.get(limit), after.config.get(limit)
    if new is not None and int(new) < int(old or _MESSAGE_BYTES_DEFAULT):
        yield Finding(
            "topic-size-lowered",
            topic.name,
            f"{limit} was {old or _MESSAGE_BYTES_DEFAULT} and is {new}: larger records would be refused",
            topic.producers,
            "keep the limit",
        )


def _retention(before: Topic, after: Topic, deadlines: tuple[str, ...]) -> Finding:
    was = "for ever" if before.retention_days is None else f"for {before.retention_days:g} days"
    beyond = f", less than {', '.join(deadlines)} may run" if deadlines else ""
    return Finding(
        "topic-retention-shortened",
        before.name,
        f"it kept records {was} and keeps them for {after.retention_days:g} days{beyond}: what is older is thrown "
        "away at once",
        (*deadlines, *(name for name in before.consumers if name not in {one.split()[-1] for one in deadlines})),
        "keep the retention" if deadlines else "be sure that each reader has read so far, then waive this",
    )


def _shorter(before: float | None, after: float | None) -> bool:
    return after is not None and (before is None or after < before)


def _weaker(before: tuple[bool, ...], after: tuple[bool, ...]) -> bool:
    return any(had and not has for had, has in zip(before, after, strict=True))


def _policy(topic: Topic) -> str:
    return topic.kafka_config()["cleanup.policy"]


def _users(topic: Topic) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*topic.producers, *topic.consumers)))
