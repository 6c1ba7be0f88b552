"""Judges where an application stands in a log that may have lost its tail, its head, or be another log. Pure.

The one rule: a position that the log does not have is never fixed by a guess. Reading on from either end would lose
or repeat records in silence; the partition waits until a person has said what is to become of them.
"""

import json
from enum import StrEnum

from towpath.errors import WorldError
from towpath.stream.broker.port import UNKNOWN_END
from towpath.stream.broker.record import TopicPartition


class HoldKind(StrEnum):
    """Why a partition waits for a person."""

    BEYOND_END = "beyond_end"
    """Its stored offset lies beyond the end of the log: the log lost its tail."""
    EXPIRED = "expired"
    """Retention has removed records that were not read."""
    RESTORED = "restored"
    """The log is not the one that was read up to the stored offset, and nobody can say from where on."""
    RECREATED = "recreated"
    """The topic is another one of the same name."""
    CHANGELOG = "changelog"
    """The changelog lacks what its store holds: the store may be the last copy."""
    VERSION = "version"
    """A record concerns what this worker's code does not know, or knows differently."""
    TIMER = "timer"
    """A timer is due, and its topic does not take its record."""


NOTED_KINDS = frozenset({HoldKind.CHANGELOG, HoldKind.VERSION, HoldKind.TIMER})
"""Only the worker that holds can tell of these: nobody sees them who compares an offset with its log."""


class PartitionHeld(WorldError):
    """One partition must wait for a person; the others go on. `proposed` is the offset to go on at, if any."""

    def __init__(
        self,
        kind: HoldKind,
        cause: str,
        *,
        kept: str | None = None,
        next_step: str | None = None,
        proposed: int | None = None,
    ) -> None:
        super().__init__(cause, kept=kept, next_step=next_step)
        self.kind = kind
        self.proposed = proposed


def accept_command(application: str, partition: TopicPartition, offset: int | None = None) -> str:
    """Return the command with which a person lets a partition go on, the reason left to them."""
    place = f"towpath positions accept {application} {partition.topic} {partition.partition}"
    return f"{place}{'' if offset is None else f' --from {offset}'} --reason REASON"


def judge(application: str, partition: TopicPartition, stored: int, begin: int, end: int) -> PartitionHeld | None:
    """Return why an application cannot read on from `stored`, None if it can.

    `begin` is the offset of the oldest record, `end` the high watermark, read after `stored` was. A log that is shorter
    than what was read of it may have grown since it was cut: to go on at its end would pass over what it got meanwhile,
    so nothing is proposed.
    """
    if stored > end:
        return PartitionHeld(
            HoldKind.BEYOND_END,
            f"{partition}: {application} stands at {stored}, and the log ends at {end}: it has lost records that had "
            "been applied, and where it was cut nobody has noted; it may have grown since",
            kept="everything that was applied; nothing further is read of this partition",
            next_step=f"{accept_command(application, partition)} --from OFFSET, of the first record not yet applied: "
            f"at most {end}",
        )
    if stored < begin:
        return PartitionHeld(
            HoldKind.EXPIRED,
            f"{partition}: {application} stands at {stored}, and the oldest record is {begin}: up to "
            f"{_records(begin - stored)} expired before they were read",
            kept="everything that was applied; nothing further is read of this partition",
            next_step=f"{accept_command(application, partition, begin)}; what its producers still have "
            "is sent again by: towpath capture re-emit SERVICE --reason REASON",
            proposed=begin,
        )
    return None


def lost_tail(application: str, partition: TopicPartition, stored: int, end: int) -> PartitionHeld:
    """Return why an application cannot read on a log that ended at `end` when it was found to have lost its tail.

    It may have grown since: what lies behind `end` now has never been read. UNKNOWN_END: nobody can say where it ended.
    """
    if end == UNKNOWN_END:
        return PartitionHeld(
            HoldKind.RESTORED,
            f"{partition}: {application} stands at {stored}, and this is not the log that it read up to there: it was "
            "cut off, or restored from elsewhere, and where the two part cannot be told",
            kept="everything that was applied; nothing further is read of this partition",
            next_step=f"{accept_command(application, partition)} --from OFFSET, of the first record not yet applied",
        )
    return PartitionHeld(
        HoldKind.BEYOND_END,
        f"{partition}: {application} stands at {stored}, and the log ended at {end}: it has lost "
        f"{_records(stored - end)} that had been applied, and gives their offsets to others",
        kept="everything that was applied; nothing further is read of this partition",
        next_step=accept_command(application, partition, end),
        proposed=end,
    )


def recreated(application: str, partition: TopicPartition, stored: int) -> PartitionHeld:
    """Return why an application cannot read a topic that was made anew under the name of the one that it has read."""
    return PartitionHeld(
        HoldKind.RECREATED,
        f"{partition}: {application} has read another topic of this name, up to {stored}: it was made anew",
        kept="everything that was applied; nothing of the new topic is read",
        next_step=accept_command(application, partition),
    )


BETWEEN_NOTES = "; "
"""Stands between what is noted beside one offset for different purposes."""
_LOST_TAIL = "lost tail at "


def write_lost_tail(end: int, note: str = "") -> str:
    """Return the note that is kept beside a stored offset, so that the hold outlives the worker that found it.

    What `note`, the one that is there, says of other things stays.
    """
    return _put(note, _LOST_TAIL, f"{_LOST_TAIL}{end}")


def without_lost_tail(note: str) -> str:
    """Return a note without what it says of a tail that the log lost."""
    return _put(note, _LOST_TAIL)


def _put(note: str, beginning: str, part: str = "") -> str:
    """Return a note with `part` in the place of what begins so; what it says of other things stays."""
    others = (other for other in note.split(BETWEEN_NOTES) if not other.startswith(beginning))
    return BETWEEN_NOTES.join(filter(None, (part, *others)))


def read_lost_tail(note: str) -> int | None:
    """Return where the log ended, None where a note does not say that it has lost its tail."""
    for part in note.split(BETWEEN_NOTES):
        text = part.removeprefix(_LOST_TAIL)
        if part.startswith(_LOST_TAIL) and (text.isdigit() or text == str(UNKNOWN_END)):
            return int(text)
    return None


_HELD = "held "
_HELD_CHARACTERS = (1_000, 500, 250, 100, 10)
_HELD_BYTES_MAX = 3_000
"""Kafka keeps 4,096 bytes beside an offset (`offset.metadata.max.bytes`), and there are other notes."""


def write_held(error: PartitionHeld | None, note: str = "") -> str:
    """Return the note that says why a partition is held, or that it is not; what `note` says of other things stays."""
    if error is None:
        return _put(note, _HELD)
    texts = (_held_text(error, characters) for characters in _HELD_CHARACTERS)
    return _put(note, _HELD, next(text for text in texts if len(text.encode()) <= _HELD_BYTES_MAX))


def _held_text(error: PartitionHeld, characters_max: int) -> str:
    said = {"kind": error.kind.value, "cause": error.cause, "kept": error.kept, "next_step": error.next_step}
    cut = {name: words and words[:characters_max] for name, words in said.items()}
    return _HELD + json.dumps(cut).replace(";", "\\u003b")


def read_held(note: str) -> PartitionHeld | None:
    """Return why a partition is held, None where a note does not say that it is."""
    for part in note.split(BETWEEN_NOTES):
        if part.startswith(_HELD):
            try:
                said = json.loads(part.removeprefix(_HELD))
                return PartitionHeld(
                    HoldKind(said["kind"]), said["cause"], kept=said["kept"], next_step=said["next_step"]
                )
            except (ValueError, KeyError, TypeError):  # somebody else's note
                continue
    return None


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"
