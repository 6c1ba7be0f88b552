"""Records whose unit of work failed, kept in mind where they have to be read again. Pure.

The one rule: what a failure has taught outlives the work that taught it. A handler that outlives its transaction, or
its place in the group, makes the worker read everything anew; without this it would do the same for ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of a record: runs that failed while it stood alone, and the last failure if it is to be dead."""

    attempts: int = 0
    verdict: BaseException | None = None


class Suspects:
    """Suspicions by position. At most what one backlog held; gone once its partition has been committed past them.

    Begins with what a person has declared `dead`, by offset: those run alone as well, and come to that `verdict`.
    """

    def __init__(
        self, dead: Mapping[TopicPartition, Iterable[int]] | None = None, verdict: BaseException | None = None
    ) -> None:
        declared = Suspicion(0, verdict)
        self._known = {place: dict.fromkeys(offsets, declared) for place, offsets in (dead or {}).items()}

    def __bool__(self) -> bool:
        return bool(self._known)

    def note(self, groups: Groups, suspicion: Suspicion) -> None:
        """Suspect every record in `groups`: when they come again, each is run alone, its attempts counted on."""
        for partition, records in groups.items():
            known = self._known.setdefault(partition, {})
            for record in records:
                before = known.get(record.offset)
                if before is None or suspicion.attempts >= before.attempts:
                    known[record.offset] = suspicion

    def sort(self, groups: Groups) -> list[tuple[Groups, Suspicion | None]]:
        """Cut `groups`, newly read, so that each suspect stands alone; the order within each partition stays."""
        trusted: Groups = {}
        pieces: list[tuple[Groups, Suspicion | None]] = []
        for partition, records in groups.items():
            known = self._known.get(partition)
            if not known or not any(record.offset in known for record in records):
                trusted[partition] = records
                continue
            run: Groups = {}
            for record in records:
                suspicion = known.get(record.offset)
                if suspicion is None:
                    run.setdefault(partition, []).append(record)
                    continue
                if run:
                    pieces.append((run, None))
                    run = {}
                pieces.append(({partition: [record]}, suspicion))
            if run:
                pieces.append((run, None))
        return [(trusted, None), *pieces] if trusted else pieces

    def clear(self, partition: TopicPartition, before: int) -> None:
        """Forget the records of `partition` before an offset: they are committed."""
        known = self._known.get(partition)
        if known is None:
            return
        left = {offset: suspicion for offset, suspicion in known.items() if offset >= before}
        if left:
            self._known[partition] = left
        else:
            del self._known[partition]
