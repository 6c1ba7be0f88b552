"""Brings a partition's store to the end of its changelog before it serves.

The one rule: the end is the read-uncommitted high watermark, taken after the group's offsets were stable. Reading
committed records up to "end of file" alone would stop at the last stable offset: before the records of a predecessor
whose commit is still being marked, whose input will not come again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import structlog

from towpath.clock import Clock, epoch_milliseconds
from towpath.errors import WorldError
from towpath.stream.broker.port import Broker, BrokerAway
from towpath.stream.broker.position import BETWEEN_NOTES
from towpath.stream.broker.reader.ranges import read_range
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.state.partition_state import RESERVED, Checkpoint, Store
from towpath.stream.state.timers import with_derived

log = structlog.get_logger("towpath.stream.state.changelog")
T = TypeVar("T")

DELETE_RETENTION_MILLISECONDS_DEFAULT = 86_400_000
"""Kafka's own default of `delete.retention.ms`: for so long a reader is promised to see tombstones."""
PROGRESS_RECORDS = 50_000
LOOKED_BACK_OFFSETS = 200
"""How far before a store's checkpoint the last record is looked for that the store must have."""
COMPARING_SECONDS_MAX = 5.0
"""How long a comparison may wait for a record: what an open transaction keeps back is not compared."""
DECIDED = RESERVED + b"d"
"""Key prefix under which a changelog keeps what people decided about it."""

NONE_NOTED: Mapping[str, int] = MappingProxyType({})

Progress = Callable[[TopicPartition, int], None]


class CatchUpStopped(Exception):
    """The partition was given away, or the worker stops, while a store was catching up."""


class StrangeChangelog(Exception):
    """A changelog is not the one that a store has followed, or lacks its end: the store may be the last copy.

    `has_store` is False where this worker does not have it either: the state was committed into another topic of that
    name, or behind what is now its end. `is_continued` is True where others have written into it since it lost its end,
    so that the store cannot be written back over what they wrote; `is_decided` where a person has then decided that the
    changelog is what counts.
    """

    def __init__(
        self, cause: str, *, has_store: bool = True, is_continued: bool = False, is_decided: bool = False
    ) -> None:
        super().__init__(cause)
        self.has_store = has_store
        self.is_continued = is_continued
        self.is_decided = is_decided


_NOTED = "changelogs "


def write_changelogs(ends: Mapping[str, int]) -> str:
    """Return the note beside a group's offset: into which changelogs, by id, the state up to it went, and how far.

    `ends` are lower bounds: where each changelog ends at least once the offset is committed. A changelog that was made
    anew, or lost its tail, is told by it even where no store is left that remembers more.
    """
    return _NOTED + " ".join(f"{topic_id}@{end}" for topic_id, end in ends.items())


def read_changelogs(note: str) -> dict[str, int]:
    """Return the changelogs that a note names, and how far each goes at least; none where it says something else."""
    ours = (part.removeprefix(_NOTED) for part in note.split(BETWEEN_NOTES) if part.startswith(_NOTED))
    named = (name.partition("@") for part in ours for name in part.split())
    return {topic_id: int(end) if end.isdigit() else 0 for topic_id, _, end in named}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the changelog says of itself at the time of the catch-up."""

    topic_id: str
    begin: int
    end: int
    delete_retention_milliseconds: int


def bounds_of(broker: Broker, changelog: TopicPartition) -> Bounds:
    """Ask the broker. Call it only once the offsets of the input are stable. Raises BrokerAway."""
    config = broker.topic_config(changelog.topic)
    return Bounds(
        topic_id=broker.topic_ids([changelog.topic])[changelog.topic],
        begin=broker.begin_offsets([changelog])[changelog],
        end=broker.end_offsets([changelog])[changelog],
        delete_retention_milliseconds=int(config.get("delete.retention.ms", DELETE_RETENTION_MILLISECONDS_DEFAULT)),
    )


def strangeness(broker: Broker, changelog: TopicPartition, store: Store, bounds: Bounds) -> StrangeChangelog | None:
    """Return why the changelog cannot be what the store has followed, None if it can. Raises BrokerAway.

    A store that is rebuilt from such a changelog loses what only it still has.
    """
    checkpoint = store.checkpoint()
    reason = reason_to_hold(checkpoint, bounds)
    if reason is not None:
        return StrangeChangelog(f"{changelog}: {reason}")
    if checkpoint is None:
        return None
    first = max(bounds.begin, checkpoint.offset - LOOKED_BACK_OFFSETS)
    # A store that wrote the last record before its checkpoint, or read it, has it. Of those before it that need not be
    # so: while a worker serves, it does not see what somebody else writes into its changelog.
    last = _asked(broker, changelog, first, checkpoint.offset, _last_of)
    if last is None or last.key is None or store.get(last.key) == last.value:
        return None
    return StrangeChangelog(
        f"{changelog}: the record at {last.offset}, up to which the store has followed it, is not the one that it "
        "has: the changelog has lost its tail and grown again",
        is_continued=True,
        is_decided=bool(_asked(broker, changelog, first, bounds.end, lambda records: any(map(_is_decision, records)))),
    )


def reason_to_hold(checkpoint: Checkpoint | None, bounds: Bounds) -> str | None:
    """Return what about a changelog's id and end cannot be so where a store has followed it, None if nothing."""
    if checkpoint is None:
        return None
    if checkpoint.topic_id != bounds.topic_id:
        return "the changelog is another topic of the same name: it was made anew"
    if checkpoint.offset > bounds.end:
        return f"the store stands at {checkpoint.offset}, and the changelog ends at {bounds.end}: it has lost its tail"
    return None


def _asked(
    broker: Broker, changelog: TopicPartition, begin: int, end: int, ask: Callable[[Iterable[ConsumedRecord]], T]
) -> T | None:
    """Return what `ask` says of the committed records of a range, None where a transaction keeps some of them back."""
    if begin >= end:
        return None
    kept, next_step = "both", "ask again once its transaction has ended"
    seconds = COMPARING_SECONDS_MAX
    try:
        return ask(
            read_range(broker, changelog, begin, end, silence_seconds_max=seconds, kept=kept, next_step=next_step)
        )
    except BrokerAway:
        raise
    except WorldError:
        return None


def _last_of(records: Iterable[ConsumedRecord]) -> ConsumedRecord | None:
    return next((record for record in reversed(list(records)) if not _is_decision(record)), None)


def _is_decision(record: ConsumedRecord) -> bool:
    return (record.key or b"").startswith(DECIDED)


def reason_to_rebuild(checkpoint: Checkpoint | None, bounds: Bounds, now_milliseconds: int) -> str | None:
    """Return why a store must be read anew from its changelog, which has it all; None where it can go on."""
    if checkpoint is None:
        return None
    if checkpoint.offset < bounds.begin:
        return f"it stands at {checkpoint.offset}, before the oldest record of its changelog, {bounds.begin}"
    away_milliseconds = now_milliseconds - checkpoint.written_milliseconds
    if away_milliseconds > bounds.delete_retention_milliseconds:
        return f"it was away for {away_milliseconds} ms, longer than tombstones are kept"
    return None


def catch_up(
    broker: Broker,
    changelog: TopicPartition,
    store: Store,
    clock: Clock,
    *,
    noted: Mapping[str, int] = NONE_NOTED,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda _changelog, _left: None,
) -> int:
    """Bring `store` to the end of `changelog`; return how many records it took. Blocks.

    `noted` says, by id, into which changelogs the group's state went, and how far at least (see `read_changelogs`).

    Raises CatchUpStopped when `should_stop` says so, BrokerAway where the broker is, and StrangeChangelog
    where the changelog is not what the store has followed, and the store holds anything; or where it is not what the
    group committed into, or ends before that, the store knows no more, and nobody has decided that the state is given
    up. A decision of a person stands for good: from then on only the store tells what such a changelog has lost.
    """
    bounds = bounds_of(broker, changelog)
    now_milliseconds = epoch_milliseconds(clock)
    strange = strangeness(broker, changelog, store, bounds)
    if should_stop():
        raise CatchUpStopped(str(changelog))
    if strange is not None and not strange.is_decided and any(True for _ in store.scan(b"")):
        raise strange
    reason = strange or reason_to_rebuild(store.checkpoint(), bounds, now_milliseconds)
    if reason is not None:
        log.warning("store is rebuilt", changelog=str(changelog), reason=str(reason))
        store.clear()
    checkpoint = store.checkpoint()
    position = max(checkpoint.offset if checkpoint else 0, bounds.begin)
    taken = 0
    if position >= bounds.end:
        store.apply({}, Checkpoint(position, bounds.topic_id, now_milliseconds))
    else:
        taken = _read(broker, changelog, store, bounds, position, clock, should_stop, progress)
    lacking = _lacking(checkpoint, noted, bounds)
    # Once a person has decided that the state goes on with what this changelog has, that is all there is.
    if lacking is not None and not any(True for _ in store.scan(DECIDED)):
        store.clear()  # it has nothing that the changelog does not: whoever gives the state up finds nothing followed
        raise StrangeChangelog(f"{changelog}: {lacking}", has_store=False)
    return taken


def _lacking(checkpoint: Checkpoint | None, noted: Mapping[str, int], bounds: Bounds) -> str | None:
    """Return what the group says went into the changelog and is in no store and not in it either, None if nothing."""
    if checkpoint is None and noted and bounds.topic_id not in noted:
        return (
            "the changelog is another topic of the name that the state went into: it was made anew, and this worker "
            "has no store of the old one"
        )
    if noted.get(bounds.topic_id, 0) > bounds.end:
        return (
            f"the state went into it up to {noted[bounds.topic_id]} at least, and it ends at {bounds.end}: it has lost "
            "its tail, and this worker has no store of that"
        )
    return None


def _read(
    broker: Broker,
    changelog: TopicPartition,
    store: Store,
    bounds: Bounds,
    position: int,
    clock: Clock,
    should_stop: Callable[[], bool],
    progress: Progress,
) -> int:
    taken = told = 0
    reader = broker.reader(changelog, position)
    try:
        while position < bounds.end:
            if should_stop():
                raise CatchUpStopped(str(changelog))
            records, reached = reader.poll(0.2)
            if reached < position:
                raise WorldError(f"{changelog}: the broker went back from {position} to {reached}")
            position = reached
            taken += len(records)
            now_milliseconds = epoch_milliseconds(clock)
            changes = {record.key: record.value for record in records if record.key is not None}
            store.apply(with_derived(changes, store.get), Checkpoint(position, bounds.topic_id, now_milliseconds))
            progress(changelog, max(bounds.end - position, 0))
            if taken - told >= PROGRESS_RECORDS:
                told = taken
                log.info("store catches up", changelog=str(changelog), records=taken, left=bounds.end - position)
    finally:
        reader.close()
    progress(changelog, 0)
    return taken
