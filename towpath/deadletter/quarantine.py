"""What lies in the dead-letter topics, and what of it belongs together. Pure.

The one rule: the log alone says what was done. A dead letter that was redriven or dropped is settled by a further
record of its dead-letter topic, written in the transaction that sent it back; whatever is decided here is decided
from what was read, never from what an earlier run remembers.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from operator import attrgetter

from towpath.stream.broker.dead_letter import (
    ANNOUNCED_HEADER,
    DEAD_HEADER,
    FOLLOWER,
    POSITION_HEADER,
    STAND_IN,
    DeadLetter,
    Mark,
    as_bytes,
    dead_topic,
    key_name,
    original,
    read_announcement,
    read_dead_letter,
)
from towpath.stream.broker.json_header import content_of
from towpath.stream.broker.record import ConsumedRecord, Headers

SETTLED_HEADER = "settled"


class Fate(StrEnum):
    """What became of a dead letter."""

    WAITING = "waiting"
    REDRIVEN = "redriven"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Settlement:
    """Who redrove or dropped a dead letter (`of` is its identity), when and why."""

    of: str
    fate: Fate
    actor: str
    reason: str
    at_milliseconds: int

    def to_headers(self) -> Headers:
        """Return the headers of the record that settles."""
        return ((SETTLED_HEADER, json.dumps(asdict(self)).encode()),)


def read_settlement(text: str) -> Settlement:
    """Return what a settling record says. Raises ValueError where it is none."""
    content = content_of(text, Settlement)
    return Settlement(**{**content, "fate": Fate(content["fate"])})


@dataclass(frozen=True, slots=True)
class Dead:
    """One dead letter: the record as it lies in the dead-letter topic, what is said of it, and what became of it."""

    record: ConsumedRecord
    letter: DeadLetter
    settlement: Settlement | None = None

    @property
    def fate(self) -> Fate:
        """Return what became of it."""
        return Fate.WAITING if self.settlement is None else self.settlement.fate

    @property
    def is_gone(self) -> bool:
        """Return whether its record did not go with it, and does not lie where it died any more."""
        return self.letter.reference is not None

    @property
    def place(self) -> str:
        """Return its partition and offset in the dead-letter topic, as a person types them."""
        return f"{self.record.partition}:{self.record.offset}"

    @property
    def sets_parking(self) -> bool:
        """Return whether its key waits for this one, since when it died."""
        return self.letter.parked and self.letter.behind is None

    @property
    def stands_in(self) -> bool:
        """Return whether it is no dead record, but stands in for some that are no longer there."""
        return self.letter.kind == STAND_IN

    @property
    def first_offset(self) -> int:
        """Return where it stood in its topic before it ever died."""
        first = self.letter.first_offset
        return self.letter.offset if first is None else first

    @property
    def first_died_milliseconds(self) -> int:
        """Return when it died first."""
        first = self.letter.first_died_milliseconds
        return self.letter.died_milliseconds if first is None else first

    @property
    def mark(self) -> Mark:
        """Return the mark under which it is redriven, but for its turn."""
        return Mark(
            application=self.letter.application,
            of=self.letter.identity,
            behind=None,
            drop=False,
            first_offset=self.first_offset,
            first_died_milliseconds=self.first_died_milliseconds,
            timestamp_milliseconds=self.letter.timestamp_milliseconds,
        )


CohortKey = tuple[str, int, bytes | None, str]
"""Application, partition number and key; the last is the identity of one that parks nothing, and so stands alone."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """All that one application holds of one key, in the order in which it was read: what is redriven together.

    `behind` is the position that the key waits for, or did last (None: it is not parked, or that is not seen).
    `awaited` are the dead letters that something waited for, by position; `unseen` are positions that something waits
    for and whose dead letter is not in the log: not yet, or no longer. `announced` are stand-ins that were sent and
    have not come: when they do, the count of what is held begins anew.
    """

    key: CohortKey
    letters: tuple[Dead, ...]
    behind: str | None
    awaited: Mapping[str, Dead]
    unseen: tuple[str, ...]
    announced: int = 0

    @property
    def waiting(self) -> tuple[Dead, ...]:
        """Return what is neither redriven nor dropped."""
        return tuple(dead for dead in self.letters if dead.settlement is None)

    @property
    def stand_in(self) -> Dead | None:
        """Return what its key waits for in place of dead letters that are no longer there."""
        head = None if self.behind is None else self.awaited.get(self.behind)
        return head if head is not None and head.stands_in and head.settlement is None else None

    @property
    def uncounted(self) -> tuple[Dead, ...]:
        """Return what waits and is not held: it died before the stand-in, with which the count began anew.

        Exact, since the stand-in is settled with the first that is sent in its turn: as long as it waits, whatever died
        after it names it.
        """
        first = self.stand_in
        if first is None:
            return ()
        place = first.letter.position
        return tuple(dead for dead in self.waiting if dead is not first and dead.letter.behind != place)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Everything in the dead-letter topics; `strangers` are records that no worker of ours wrote."""

    cohorts: Mapping[CohortKey, Cohort]
    strangers: tuple[ConsumedRecord, ...] = ()

    def letters(self) -> list[Dead]:
        """Return all dead letters, in the order in which they died."""
        found = (dead for cohort in self.cohorts.values() for dead in cohort.letters)
        return sorted(found, key=lambda dead: (dead.letter.died_milliseconds, dead.record.topic, dead.record.offset))

    def cohort_of(self, dead: Dead) -> Cohort:
        """Return what is redriven together with `dead`."""
        return self.cohorts[key_of(dead)]

    def cause_of(self, dead: Dead) -> Dead:
        """Return the dead letter whose cause is that of `dead`: a follower's is what it follows, where that is seen."""
        if dead.letter.behind is None:
            return dead
        return self.cohort_of(dead).awaited.get(dead.letter.behind, dead)


def sort_quarantine(records: Iterable[ConsumedRecord]) -> Quarantine:
    """Return what `records`, read from dead-letter topics in order, say. What Debezium repeated counts once."""
    letters: dict[tuple[str, str], tuple[ConsumedRecord, DeadLetter]] = {}
    settled: dict[tuple[str, str], Settlement] = {}
    coming = Counter[tuple[CohortKey, str]]()
    strangers = []
    for record in records:
        settling, text = record.header(SETTLED_HEADER), record.header(DEAD_HEADER)
        if text is not None:
            settling = None  # a dead record may have had any header of its own; ours is the last one called `dead`
        elif record.header(POSITION_HEADER) is not None:
            continue  # a decision about a position, which lost records and no letter (see towpath/positions)
        announcing = record.header(ANNOUNCED_HEADER) if settling is text is None else None
        try:
            if announcing is not None:
                told = read_announcement(announcing)
                coming[(told.application, told.partition, as_bytes(told.key), ""), record.topic] += 1
            elif settling is not None:
                settlement = read_settlement(settling)
                settled.setdefault((record.topic, settlement.of), settlement)
            else:
                letter = read_dead_letter(text or "{}")
                name = (record.topic, letter.identity)
                if letter.kind == STAND_IN and name not in letters:
                    # The announcement lies before it, or retention has taken that already.
                    own = (key_of(Dead(record, letter)), record.topic)
                    coming[own] = max(0, coming[own] - 1)
                letters.setdefault(name, (record, letter))
        except ValueError:
            strangers.append(record)
    by_key: dict[CohortKey, list[Dead]] = {}
    for name, (record, letter) in letters.items():
        dead = Dead(record, letter, settled.get(name))
        by_key.setdefault(key_of(dead), []).append(dead)
    announced = Counter[CohortKey]()
    for (key, _), count in coming.items():
        announced[key] += count
    cohorts = {key: _cohort(key, found, announced[key]) for key, found in by_key.items()}
    return Quarantine(cohorts, tuple(strangers))


def key_of(dead: Dead) -> CohortKey:
    """Return the cohort that a dead letter belongs to."""
    letter = dead.letter
    key = original(dead.record, letter).key
    return (
        letter.application,
        letter.partition,
        None if key is None else key_name(key),
        "" if letter.parked else letter.identity,
    )


def _cohort(key: CohortKey, found: Sequence[Dead], announced: int) -> Cohort:
    awaited = {dead.letter.position: dead for dead in found if dead.sets_parking}
    named = {dead.letter.behind for dead in found if dead.settlement is None and dead.letter.behind is not None}
    # A stand-in that waits came after all else, whatever the clocks of those say that the key waited for before.
    heads = [dead for dead in awaited.values() if dead.stands_in and dead.settlement is None] or awaited.values()
    # Within a topic its offsets say which was later; between topics the clocks of those who wrote it must.
    latest: dict[str, Dead] = {}
    for dead in sorted(heads, key=attrgetter("letter.offset")):
        latest[dead.letter.topic] = dead
    last = max(latest.values(), key=lambda dead: (dead.letter.died_milliseconds, dead.letter.offset), default=None)
    behind = None if last is None else last.letter.position
    return Cohort(key, _in_order(found), behind, awaited, tuple(sorted(named - awaited.keys())), announced)


def _in_order(found: Iterable[Dead]) -> tuple[Dead, ...]:
    """Return dead letters as they were read first: by offset within a topic, by time of death between topics."""
    by_topic: dict[str, list[Dead]] = {}
    for dead in found:
        by_topic.setdefault(dead.letter.topic, []).append(dead)
    runs = [sorted(run, key=attrgetter("first_offset", "letter.died_milliseconds")) for run in by_topic.values()]
    return tuple(heapq.merge(*runs, key=lambda dead: (dead.first_died_milliseconds, dead.letter.kind == FOLLOWER)))


# --- What a person may name --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one application and topic that died of one cause, and are in one state."""

    topic: str
    application: str
    kind: str
    fingerprint: str
    fate: Fate
    cause: Dead
    dead: tuple[Dead, ...]
    parked: tuple[Dead, ...]

    @property
    def example(self) -> Dead:
        """Return the last of them."""
        return (self.dead or self.parked)[-1]

    @property
    def last_milliseconds(self) -> int:
        """Return when the last of them died."""
        return max(each.letter.died_milliseconds for each in (*self.dead, *self.parked))

    @property
    def first_milliseconds(self) -> int:
        """Return when the first of them died."""
        return min(each.letter.died_milliseconds for each in (*self.dead, *self.parked))


def groups_of(quarantine: Quarantine, topics: Iterable[str], *, settled: bool = False) -> list[Group]:
    """Return the dead letters of dead-letter `topics`, grouped, newest last; those that are settled only if asked.

    A follower is counted with what it follows, under that one's topic.
    """
    wanted = frozenset(topics)
    found: dict[tuple[str, str, str, str, Fate], tuple[list[Dead], list[Dead]]] = {}
    causes: dict[tuple[str, str, str, str, Fate], Dead] = {}
    for dead in quarantine.letters():
        cause = quarantine.cause_of(dead)
        if cause.record.topic not in wanted or (dead.settlement is not None and not settled):
            continue
        letter = cause.letter
        name = (cause.record.topic, letter.application, letter.kind, letter.fingerprint, dead.fate)
        dead_ones, followers = found.setdefault(name, ([], []))
        (dead_ones if dead.letter.behind is None else followers).append(dead)
        causes[name] = cause
    groups = [Group(*name, causes[name], tuple(dead), tuple(parked)) for name, (dead, parked) in found.items()]
    return sorted(groups, key=attrgetter("last_milliseconds"))


def find(quarantine: Quarantine, dead_letter_topic: str, partition: int, offset: int) -> Dead | None:
    """Return the dead letter at a place of its dead-letter topic."""
    for dead in quarantine.letters():
        if (dead.record.topic, dead.record.partition, dead.record.offset) == (dead_letter_topic, partition, offset):
            return dead
    return None


def find_origin(quarantine: Quarantine, topic: str, partition: int, offset: int) -> list[Dead]:
    """Return the dead letters of the record at a position of its own topic: one for each application it died in."""
    return [
        dead
        for dead in quarantine.letters()
        if dead.record.topic == dead_topic(topic)
        and (dead.letter.topic, dead.letter.partition, dead.letter.offset) == (topic, partition, offset)
    ]


def waiting_in(quarantine: Quarantine, dead_letter_topic: str) -> list[Dead]:
    """Return what waits in a dead-letter topic, or elsewhere behind something of it."""
    return [
        dead
        for dead in quarantine.letters()
        if dead.settlement is None and dead_letter_topic in (dead.record.topic, quarantine.cause_of(dead).record.topic)
    ]


def with_fingerprint(quarantine: Quarantine, dead_letter_topic: str, fingerprint: str) -> list[Dead]:
    """Return what waits in a dead-letter topic, or elsewhere behind something of it, for causes of one fingerprint."""
    return [
        dead
        for dead in quarantine.letters()
        if dead.settlement is None
        and (cause := quarantine.cause_of(dead)).record.topic == dead_letter_topic
        and cause.letter.fingerprint == fingerprint
    ]
