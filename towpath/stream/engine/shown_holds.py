"""Shows what a worker holds to those who look at its group: a note beside the partition's offset.

The one rule: the offset stays as it is. Positions that a log does not have are told by anyone who compares the two;
a changelog that lacks what a store has, a version or a timer only the worker itself can tell, wherever it runs.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog

from towpath.clock import Clock
from towpath.errors import WorldError
from towpath.stream.broker.position import NOTED_KINDS, PartitionHeld, read_held, write_held
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.membership import MemberHung, Membership

log = structlog.get_logger("towpath.stream.engine.shown_holds")

AGAIN_SECONDS = 30.0
"""After notes could not be written: asking again costs a held worker's other partitions time."""


class ShownHolds:
    """What is noted beside the offsets of one worker's partitions."""

    def __init__(self, clock: Clock, owns: Callable[[TopicPartition], bool]) -> None:
        self._clock = clock
        self._owns = owns
        self._noted: dict[TopicPartition, str] = {}
        self._again_seconds = float("-inf")

    def found(self, notes: Mapping[TopicPartition, str]) -> None:
        """Take over what was noted by whoever had these partitions before."""
        for partition, note in notes.items():
            if (error := read_held(note)) is not None:
                self._noted[partition] = error.cause

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Leave the notes of partitions that are another worker's now to that one."""
        for partition in partitions:
            self._noted.pop(partition, None)

    async def show(self, errors: Mapping[TopicPartition, PartitionHeld], member: Membership) -> None:
        """Write what is held now, and remove what is no more. Where that does not go now, it is tried again later."""
        held = {place: error for place, error in errors.items() if error.kind in NOTED_KINDS}
        told = {place: error.cause for place, error in held.items()}
        if told == self._noted or self._clock.monotonic_seconds() < self._again_seconds:
            return
        changed = [p for p in told.keys() | self._noted.keys() if told.get(p) != self._noted.get(p) and self._owns(p)]
        try:
            stored = await member.committed(changed)
            notes = dict(member.notes)
            for place in changed:
                offset = stored.get(place)
                if offset is not None:  # else there is nothing that a note could stand beside
                    await member.note(place, offset, write_held(held.get(place), notes.get(place, "")))
        except MemberHung:
            raise
        except WorldError as error:
            self._again_seconds = self._clock.monotonic_seconds() + AGAIN_SECONDS
            log.info("what is held could not be noted", reason=error.cause)
            return
        self._noted = told
