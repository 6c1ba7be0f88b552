"""Records whose unit of work failed, kept in mind where they have to be read again. Pure.

The one rule: what a failure has taught outlives the work that taught it. A handler that outlives its transaction, or
its place in the group, makes the worker read everything anew; without this it would do the same for ever.
"""

from dataclasses import dataclass

from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.dead_records import DeadRecords, DeclaredDead


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is known of a record: runs that failed while it stood alone, and the last failure if it is to be dead."""

    attempts: int = 0
    verdict: BaseException | None = None


class Suspects:
    """Suspicions by position. At most what one backlog held; gone once its partition has been committed past them.

    What a person has declared `dead` is suspected for good: each runs alone as well, and its verdict stands.
    """

    def __init__(self, dead: DeadRecords | None = None) -> None:
        self._known: dict[TopicPartition, dict[int, Suspicion]] = {}
        self._dead = dead or DeadRecords()
        by_whom = DeclaredDead("declared dead by stream.dead_records, without a run of its handler")
        self._declared = Suspicion(verdict=by_whom)

    def __bool__(self) -> bool:
        return bool(self._known or self._dead)

    def _suspicion(self, record: ConsumedRecord) -> Suspicion | None:
        if record in self._dead:
            return self._declared
        return self._known.get(record.topic_partition, {}).get(record.offset)

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
            suspicions = [self._suspicion(record) for record in records]
            if not any(suspicions):
                trusted[partition] = records
                continue
            run: Groups = {}
            for record, suspicion in zip(records, suspicions, strict=True):
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
