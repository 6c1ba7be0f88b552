"""What to do about a failure: cut the work smaller, try again, wait, or give a record up. Pure.

The one rule: the order of a partition's records is never changed. Work is cut into pieces that run one after the
other; only a record that stands alone is ever given up.
"""

from asyncio import CancelledError
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from towpath.errors import PeerError, ProgrammerError, RefusedError, WorldError
from towpath.stream.broker.port import Groups, RefusedEarlier
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.dead_records import DeadRecords, DeclaredDead, how_to_declare
from towpath.stream.engine.suspects import Suspects, Suspicion

E = TypeVar("E", bound=BaseException)
WINDOW_RECORDS = 100
BACKOFF_SECONDS_FIRST = 0.1
BACKOFF_SECONDS_MAX = 10.0
BROKER_BACKOFF_SECONDS_MAX = 1.0
"""After what the broker said, or did not: asking again costs nobody anything, and it may be back at any moment."""


class RecordFailed(Exception):
    """Raised by a batch handler that knows which of its records is at fault, with the error as the cause."""

    def __init__(self, record: ConsumedRecord, cause: BaseException) -> None:
        super().__init__(f"{record.position}: {type(cause).__qualname__}")
        self.record = record
        self.cause = cause


class HandlerExit(ProgrammerError):
    """A handler raised what ends a process (SystemExit, KeyboardInterrupt ...): the worker ends before its record."""


class HandlerTooSlow(ProgrammerError):
    """An agent did not finish a unit of work within its time limit."""


class AgentFailed(Exception):
    """An agent raised `cause` while it handled `record` (None: some record of its batch).

    An output that the broker has refused since may be of any record before: smaller units tell whose it is.
    """

    def __init__(self, cause: BaseException, record: ConsumedRecord | None) -> None:
        super().__init__(type(cause).__qualname__)
        self.cause = cause
        self.record = None if found_in(cause, (RefusedEarlier,)) is not None else record


def ends_the_worker(cause: BaseException) -> bool:
    """Return whether a handler raised what is no error of a record but an order to end.

    CancelledError is none: nobody but the handler's own code, or its time limit, cancels the task that it runs in.
    """
    return not isinstance(cause, (Exception, CancelledError))


def blocked(seconds: float) -> HandlerTooSlow:
    """Return the error for handlers that let no one else run for so long that their transaction has ended."""
    return HandlerTooSlow(
        f"agents held the worker for {seconds:.1f} s, longer than a transaction may take",
        next_step="await what takes long, or run it with asyncio.to_thread: a handler must not block",
    )


def handler_exit(cause: BaseException, place: str, application: str | None = None) -> HandlerExit:
    """Return the error with which a worker ends whose handler raised `cause` at `place`, records of `application`."""
    fix = "fix the handler, then start this worker again: raise an Exception where a record is at fault"
    return HandlerExit(
        f"{place}: {type(cause).__name__} ({str(cause) or 'without a text'}) was raised by a handler",
        kept="the record and all that follows it: nothing of this unit of work was committed",
        next_step=fix if application is None else f"{fix}; {or_give_up(application, place)}",
    )


def or_give_up(application: str, place: str) -> str:
    """Return what lets a worker go on whose handler cannot be fixed at once.

    Nothing is left of a process that has ended, so that it does not find out which of several records it was.
    """
    several = " to " in place or ", " in place
    one = " (with stream.batch_records_max = 1 the worker names the one that it is)" if several else ""
    return f"or, to have it dead and redrive it once that is done, {how_to_declare(application, place)}{one}"


class LetterRefused(ProgrammerError):
    """Not even a dead letter that only refers to its record can be written."""


class TooManyDead(RefusedError):
    """So large a share of the records is dead that the fault is not theirs: the worker stops with nothing diverted."""


RETRY_SECONDS_MAX = 5.0


def retry_seconds(attempts: int, first_seconds: float) -> float:
    """Return how long to wait before a record is run again that has failed `attempts` times by its handler's fault.

    PostgreSQL hands a commit to logical decoding before it lets other sessions see it: on a busy machine a command was
    at its service 140 ms after the row that it was about, and three runs within 10 ms did not find that.
    """
    return min(first_seconds * 4.0 ** (attempts - 1), RETRY_SECONDS_MAX)


class Blame(Enum):
    """Who is at fault, and so what is done: wait, dead-letter at once, or dead-letter after some attempts."""

    WORLD = "world"
    PEER = "peer"
    HANDLER = "handler"


def blame(cause: BaseException, world_errors: tuple[type[BaseException], ...] = ()) -> Blame:
    """Return who is at fault. Errors that do not say so are the handler's; in a task group's, the world comes first."""
    if isinstance(cause, RecordFailed):
        return blame(cause.cause, world_errors)
    if isinstance(cause, BaseExceptionGroup):
        found = {blame(each, world_errors) for each in cause.exceptions}
        return next(who for who in (Blame.WORLD, Blame.HANDLER, Blame.PEER) if who in found)
    if isinstance(cause, (WorldError, ConnectionError, *world_errors)):
        return Blame.WORLD
    if isinstance(cause, PeerError):
        return Blame.PEER
    return Blame.HANDLER


def all_in(cause: BaseException, kinds: tuple[type[E], ...]) -> Iterator[E]:
    """Yield `cause`, or the errors within (a task group's, a named record's) of `kinds`."""
    if isinstance(cause, kinds):
        yield cause
        return
    within: tuple[BaseException, ...] = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
    if isinstance(cause, RecordFailed):
        within = (cause.cause,)
    for each in within:
        yield from all_in(each, kinds)


def found_in(cause: BaseException, kinds: tuple[type[E], ...]) -> E | None:
    """Return the first of `all_in`; None where none is."""
    return next(all_in(cause, kinds), None)


def named_in(error: BaseException, world_errors: tuple[type[BaseException], ...] = ()) -> RecordFailed | None:
    """Return what says whose fault `error` is: of a task group's, the first that names one; None where nothing does.

    Nor does anything where the world is at fault in the same group, or where the named were only cancelled for another:
    what failed without a name is the cause then, and has stopped records that are good.
    """
    if not isinstance(error, BaseExceptionGroup):
        return found_in(error, (RecordFailed,)) if isinstance(error, Exception) else None
    if not isinstance(error, Exception) or blame(error, world_errors) is Blame.WORLD:
        return None
    found = (named_in(each, world_errors) for each in error.exceptions)
    return next((named for named in found if named and not isinstance(named.cause, CancelledError)), None)


@dataclass(slots=True)
class Work:
    """Records that will make one unit of work. `attempts` and `verdict` mean something only for one alone."""

    groups: Groups
    attempts: int = 0
    verdict: BaseException | None = None
    cut: bool = False
    by_reference: bool = False
    """Whether its dead letter was refused as it was, and goes as a reference to its position."""

    @property
    def has_failed(self) -> bool:
        """Return whether it, or what it was cut from, has failed before."""
        return self.cut or self.attempts > 0

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    @property
    def is_declared_dead(self) -> bool:
        """Return whether a person has given its record up, not its failures."""
        return isinstance(self.verdict, DeclaredDead)

    @property
    def place(self) -> str:
        """Return which records these are, as logs write positions."""
        ranges = [
            records[0].position if len(records) == 1 else f"{records[0].position} to {records[-1].offset}"
            for records in self.groups.values()
        ]
        return ", ".join(ranges)

    @property
    def only(self) -> ConsumedRecord | None:
        """Return the record, if it is just one."""
        if len(self) != 1:
            return None
        return next(record for records in self.groups.values() for record in records)

    def own(self, named: ConsumedRecord | None) -> ConsumedRecord | None:
        """Return the record here that an agent named, as it came: it may have named a changed copy, or none."""
        here = () if named is None else self.groups.get(named.topic_partition, ())
        return next((record for record in here if named is not None and record.offset == named.offset), None)


def halve(work: Work) -> list[Work]:
    """Cut work whose culprit is unknown in two: by partitions where there are several, else in the middle."""
    if len(work.groups) > 1:
        items = list(work.groups.items())
        middle = len(items) // 2
        return [Work(dict(items[:middle]), cut=True), Work(dict(items[middle:]), cut=True)]
    ((partition, records),) = work.groups.items()
    middle = len(records) // 2
    return [Work({partition: records[:middle]}, cut=True), Work({partition: records[middle:]}, cut=True)]


def single_out(work: Work, culprit: ConsumedRecord) -> list[Work]:
    """Cut work into what comes before the culprit (other partitions too), the culprit alone, and what follows it."""
    partition = culprit.topic_partition
    records = work.groups[partition]
    index = next(place for place, record in enumerate(records) if record.offset == culprit.offset)
    before: Groups = {other: rest for other, rest in work.groups.items() if other != partition}
    if index:
        before[partition] = records[:index]
    after: Groups = {partition: records[index + 1 :]} if index + 1 < len(records) else {}
    parts = [Work(before, cut=True), Work({partition: [culprit]}, cut=True), Work(after, cut=True)]
    return [part for part in parts if part.groups]


def after_failure(work: Work, failure: AgentFailed, who: Blame, *, attempts_max: int) -> list[Work]:
    """Return what takes the place of `work`, which failed through no fault of a dependency."""
    only = work.only
    if only is None:
        known = failure.record
        if known is None or known.topic_partition not in work.groups:
            return halve(work)
        pieces = single_out(work, known)
        alone = next(piece for piece in pieces if piece.only == known)
        _judge(alone, failure, who, attempts_max)
        return pieces
    _judge(work, failure, who, attempts_max)
    work.cut = True
    return [work]


def _judge(work: Work, failure: AgentFailed, who: Blame, attempts_max: int) -> None:
    if work.verdict is not None:
        _judge_letter(work, failure)
        return
    work.attempts += 1
    if who is Blame.PEER or work.attempts >= attempts_max:
        work.verdict = failure.cause


def _judge_letter(work: Work, failure: AgentFailed) -> None:
    """Have a dead letter that could not be written sent as a reference; one that cannot either ends the worker."""
    if work.by_reference:
        raise LetterRefused(
            f"{work.place} is dead, and its dead letter is refused: {type(failure.cause).__qualname__}",
            kept="the record, where it is: its offset is not committed",
            next_step="see why the dead-letter topic, or the outbox, takes not even a small record",
        ) from failure.cause
    work.by_reference = True


class Backlog:
    """Work that has been read and not yet committed, in the order in which it will run.

    `dead_records` are the positions that a person has declared dead, as `stream.dead_records` has them.
    """

    def __init__(self, records_max: int, dead_records: Iterable[str] = ()) -> None:
        self._records_max = records_max
        self._works: deque[Work] = deque()
        self._suspects = Suspects(DeadRecords(dead_records))

    def __len__(self) -> int:
        return len(self._works)

    @property
    def records(self) -> int:
        """Return how many records it holds."""
        return sum(map(len, self._works))

    def add(self, groups: Groups) -> None:
        """Append what a poll brought, to the last piece of work while that is whole and small enough."""
        if not groups:
            return
        if not self._suspects:
            self._append(groups)
            return
        for piece, suspicion in self._suspects.sort(groups):
            if suspicion is None:
                self._append(piece)
            else:
                self._works.append(Work(piece, suspicion.attempts, suspicion.verdict, cut=True))

    def _append(self, groups: Groups) -> None:
        last = self._works[-1] if self._works else None
        if last is not None and not last.cut and not last.attempts and len(last) < self._records_max:
            for partition, records in groups.items():
                last.groups.setdefault(partition, []).extend(records)
        else:
            self._works.append(Work(groups))

    def take(self) -> Work | None:
        """Remove and return the next piece of work."""
        return self._works.popleft() if self._works else None

    def put_back(self, works: list[Work]) -> None:
        """Put pieces in front, in their order."""
        self._works.extendleft(reversed(works))

    def drop(self, partitions: frozenset[TopicPartition] | None = None) -> None:
        """Forget the work of `partitions` (None: all); whoever owns them reads it again."""
        for work in self._works:
            self.remember(work)
        if partitions is None:
            self._works.clear()
            return
        for work in self._works:
            for partition in partitions & work.groups.keys():
                del work.groups[partition]
        self._works = deque(work for work in self._works if work.groups)

    def remember(self, work: Work) -> None:
        """Keep in mind what `work`, which is to be read again, has taught by failing."""
        if work.has_failed:
            self._suspects.note(work.groups, Suspicion(work.attempts, work.verdict) if work.only else Suspicion())

    def committed(self, partition: TopicPartition, before: int) -> None:
        """Learn that the records of `partition` before an offset are committed."""
        if self._suspects:
            self._suspects.clear(partition, before)

    def holds(self, partition: TopicPartition) -> bool:
        """Return whether records of `partition` are waiting."""
        return any(partition in work.groups for work in tuple(self._works))  # also asked from another thread


@dataclass(slots=True)
class DeadShare:
    """The share of dead records among the last hundred. Followers do not count: they failed nothing."""

    limit: float
    _window: deque[bool] = field(default_factory=lambda: deque([False] * WINDOW_RECORDS, maxlen=WINDOW_RECORDS))

    def applied(self, records: int) -> None:
        """Count records that went well."""
        self._window.extend([False] * min(records, WINDOW_RECORDS))

    def check(self, further: int) -> None:
        """Raise TooManyDead if `further` dead records would pass the limit."""
        share = (sum(self._window) + further) / WINDOW_RECORDS
        if share > self.limit:
            raise TooManyDead(
                f"{sum(self._window) + further} of the last {WINDOW_RECORDS} records could not be applied, "
                f"more than the limit of {self.limit:.0%}",
                kept="the records are where they were: their offsets are not committed",
                next_step="look at the last errors; raise stream.dead_letter_share_max if the records are at fault",
            )

    def died(self, records: int) -> None:
        """Count records that were dead-lettered."""
        self._window.extend([True] * min(records, WINDOW_RECORDS))


def backoff_seconds(failures: int, seconds_max: float = BACKOFF_SECONDS_MAX) -> float:
    """Return how long to wait after so many failures in a row: doubling from 0.1 s to 10 s, or to `seconds_max`."""
    return min(BACKOFF_SECONDS_FIRST * 2.0 ** min(failures - 1, 16), seconds_max)
