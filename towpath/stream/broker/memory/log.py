"""One partition in memory: records, transaction markers, the last stable offset. Pure."""

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from operator import attrgetter

from towpath.stream.broker.record import ConsumedRecord


class TransactionStatus(Enum):
    """Whether a record's transaction has ended, and how. Records without one are committed at once."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"
    MARKER = "marker"


@dataclass(slots=True)
class Entry:
    """What lies at one offset; a marker has no record."""

    offset: int
    record: ConsumedRecord | None
    status: TransactionStatus
    producer: int | None = None


_offset_of = attrgetter("offset")


@dataclass(slots=True)
class PartitionLog:
    """One partition's log."""

    begin: int = 0
    end: int = 0
    entries: list[Entry] = field(default_factory=list)
    epoch: int = 0
    """Of its leader: one more with each that takes over."""
    epochs_since: dict[int, int] = field(default_factory=lambda: {0: 0})
    """Leader epoch -> the log's end when that leader took over."""
    open_since: dict[int, int] = field(default_factory=dict)
    """Producer id of each open transaction -> offset of its first record here."""

    def append(self, record: ConsumedRecord, producer: int | None) -> int:
        """Append a record (its offset is set here); return the offset."""
        offset = self.end
        standing = TransactionStatus.COMMITTED if producer is None else TransactionStatus.OPEN
        self.entries.append(Entry(offset, record._replace(offset=offset), standing, producer))
        if producer is not None:
            self.open_since.setdefault(producer, offset)
        self.end += 1
        return offset

    def mark(self, producer: int, *, committed: bool) -> None:
        """End a producer's transaction here, with a marker that takes an offset of its own."""
        since = self.open_since.pop(producer)
        verdict = TransactionStatus.COMMITTED if committed else TransactionStatus.ABORTED
        for entry in self.entries:
            if entry.offset >= since and entry.producer == producer and entry.status is TransactionStatus.OPEN:
                entry.status = verdict
        self.entries.append(Entry(self.end, None, TransactionStatus.MARKER))
        self.end += 1

    @property
    def last_stable(self) -> int:
        """Return the offset before which every transaction has ended."""
        return min(self.open_since.values(), default=self.end)

    def offset_at(self, milliseconds: int) -> int:
        """Return the offset of the first record of this time or later, the end where there is none."""
        found = (e for e in self.entries if e.record is not None and e.record.timestamp_milliseconds >= milliseconds)
        return next((entry.offset for entry in found), self.end)

    def read(self, offset: int, records_max: int) -> tuple[list[ConsumedRecord], int]:
        """Return committed records from `offset` on, and the next offset to read, markers skipped."""
        stable = self.last_stable
        records: list[ConsumedRecord] = []
        position = max(offset, self.begin)
        first = bisect_left(self.entries, position, key=_offset_of)
        for entry in islice(self.entries, first, None):
            if entry.offset >= stable or len(records) == records_max:
                return records, max(position, min(entry.offset, stable))
            if entry.status is TransactionStatus.COMMITTED and entry.record is not None:
                records.append(entry.record)
            position = entry.offset + 1
        return records, max(position, stable) if len(records) < records_max else position

    def expire(self, before: int) -> None:
        """Forget what lies before an offset, as retention does."""
        self.begin = max(self.begin, min(before, self.end))
        self.entries = [entry for entry in self.entries if entry.offset >= self.begin]

    def truncate(self, end: int) -> None:
        """Lose the tail from an offset on, as a lone broker may that was cut off; it then leads anew."""
        self.end = min(self.end, end)
        self.entries = [entry for entry in self.entries if entry.offset < self.end]
        self.epoch += 1
        kept = {epoch: since for epoch, since in self.epochs_since.items() if since < self.end or not epoch}
        self.epochs_since = {**kept, self.epoch: self.end}

    def end_of_epoch(self, epoch: int) -> int | None:
        """Return where what was written under leaders up to `epoch` ends, None for one that this log never had."""
        if epoch > self.epoch:
            return None
        return min((since for later, since in self.epochs_since.items() if later > epoch), default=self.end)

    def epoch_at(self, offset: int) -> int:
        """Return under which leader an offset was written."""
        return max((epoch for epoch, since in self.epochs_since.items() if since <= offset), default=0)

    def compact(self) -> None:
        """Keep the last record of each key below the last stable offset, and no tombstones."""
        last: dict[bytes, int] = {}
        for entry in self.entries:
            if (
                entry.record is not None
                and entry.record.key is not None
                and entry.status is TransactionStatus.COMMITTED
            ):
                last[entry.record.key] = entry.offset
        self.entries = [entry for entry in self.entries if self._stays(entry, last)]

    def _stays(self, entry: Entry, last: dict[bytes, int]) -> bool:
        if entry.offset >= self.last_stable:
            return True
        record = entry.record
        if record is None or entry.status is not TransactionStatus.COMMITTED:
            return False
        return record.key is None or (last[record.key] == entry.offset and record.value is not None)
