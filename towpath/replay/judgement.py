"""Who recognises repeated records as done already, who cannot, and of which they can no longer tell. Pure.

The one rule: everything of Towpath's own tells by the id of the event (a command by its idempotency key), for as long
as it remembers; of an outsider nothing is known, so it counts as one who does everything twice.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.parties import ENGINE_PARTIES, Parties, PartyKind
from towpath.errors import RefusedError
from towpath.replay.plan import Recognition
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

NEVER = frozenset({TopicKind.STATE, TopicKind.TIMERS, TopicKind.DEAD})
"""What is no message between two parties: a saga's own memory and clock, and the quarantine."""

HOW: Mapping[PartyKind, str] = {
    PartyKind.SERVICE: "its inbox, by the command's idempotency key",
    PartyKind.SAGA: "the instance's recent ids, and the mark that a finished instance leaves",
    PartyKind.VIEW: "the ids beside its offsets",
}


@dataclass(frozen=True, slots=True)
class Consumer:
    """One who reads a topic. `types` are the records it reads, `recognises` how it tells, None where it cannot."""

    name: str
    topic: str
    types: frozenset[str]
    recognises: str | None


@dataclass(slots=True)
class Judgement:
    """Counts, for each consumer, what it would meet again.

    `forgotten` says up to which time (milliseconds) a consumer has forgotten ids, by partition, and in words why.
    """

    consumers: tuple[Consumer, ...]
    forgotten: Mapping[tuple[str, TopicPartition], tuple[int, str]]
    _records: Counter[tuple[str, str]] = field(default_factory=Counter)
    _beyond: Counter[tuple[str, str]] = field(default_factory=Counter)
    _why: dict[tuple[str, str], str] = field(default_factory=dict)
    _oldest: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def meet(self, record: ConsumedRecord, topic: str) -> None:
        """Count a record that goes to `topic`."""
        type_ = record.header("type")
        for one in self.consumers:
            if one.topic != topic or (type_ is not None and type_ not in one.types):
                continue
            self._records[one.name, topic] += 1
            place, at = TopicPartition(topic, record.partition), record.timestamp_milliseconds
            known = self.forgotten.get((one.name, place))
            if known is not None and at <= known[0]:
                self._beyond[one.name, topic] += 1
                self._why[one.name, topic] = known[1]
            else:
                oldest = self._oldest.setdefault((one.name, topic), {})
                oldest[str(place)] = min(at, oldest.get(str(place), at))

    def recognitions(self) -> tuple[Recognition, ...]:
        """Return what each consumer makes of what it meets."""
        return tuple(
            Recognition(
                one.name,
                one.topic,
                self._records[one.name, one.topic],
                one.recognises,
                self._beyond[one.name, one.topic],
                self._why.get((one.name, one.topic), ""),
                self._oldest.get((one.name, one.topic), {}),
            )
            for one in self.consumers
            if self._records[one.name, one.topic]
        )

    def since(self, planned: Iterable[Recognition]) -> tuple[str, ...]:
        """Return what consumers have forgotten of a plan since they were looked at, one reason each."""
        found = []
        for one in planned:
            for (name, place), (until, why) in sorted(self.forgotten.items()):
                at = one.oldest.get(str(place))
                if name == one.consumer and place.topic == one.topic and at is not None and at <= until:
                    found.append(
                        f"{name} can no longer tell of records of {place}, as it could when it was planned: {why}"
                    )
                    break
        return tuple(found)


def consumers_of(catalogue: Catalogue, parties: Parties, topics: Iterable[str]) -> tuple[Consumer, ...]:
    """Return who reads `topics`. Raises RefusedError for a topic into which nothing is ever replayed."""
    found = []
    for topic in sorted(set(topics)):
        known = catalogue.topics.get(topic)
        if known is None:  # another topic, of which nobody here knows
            continue
        if known.kind in NEVER:
            fix = (
                f"towpath dead redrive {known.dead_for} --all sends back what is in it"
                if known.kind is TopicKind.DEAD
                else ""
            )
            raise RefusedError(
                f"{topic} is a {known.kind.value} topic: what lies in it is no message that may come again",
                kept="everything: nothing was sent",
                next_step=fix or "replay the topics of its messages, or read it into a file with --to-file",
            )
        names = {name for name, party in parties.by_name.items() if any(use.topic == topic for use in party.reads)}
        for name in sorted(names | (set(known.consumers) & ENGINE_PARTIES)):
            party = parties.by_name.get(name)
            types = frozenset(known.values)
            if name in ENGINE_PARTIES:
                if name == "sagas":
                    found.append(Consumer("view sagas", topic, types, HOW[PartyKind.VIEW]))
                continue
            if party is not None and known.kind is TopicKind.HISTORY and party.kind is PartyKind.SAGA:
                continue  # its commands read it for a person; its workers write it
            if party is not None:
                read = frozenset(use.record for use in party.reads if use.topic == topic)
                found.append(Consumer(party.label, topic, read or types, HOW.get(party.kind)))
    return tuple(found)
