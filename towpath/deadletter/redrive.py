"""Empties the quarantine: reads the dead-letter topics, sends back what a person chose, says what is left.

The one rule: a record goes back, and its dead letter is settled, in one transaction, of one transactional id for the
whole project. The log is read after that id was fenced: whatever an earlier run left open has ended by then, and a
later run makes this one's transactions fail. So nothing is sent twice, however often and wherever one is killed.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from towpath.clock import Clock, SystemClock, epoch_milliseconds, retry, wait_until
from towpath.deadletter.quarantine import (
    Cohort,
    CohortKey,
    Dead,
    Fate,
    Quarantine,
    Settlement,
    key_of,
    sort_quarantine,
)
from towpath.deadletter.redrive_plan import (
    LetterStep,
    RedriveStep,
    announcement,
    drop_plan,
    next_steps,
    recounting_steps,
    redriven_record,
    released_steps,
    stand_in_record,
)
from towpath.errors import NotFoundError, RefusedError
from towpath.stream.broker.dead_letter import DEAD_HEADER, key_name, read_dead_letter, resolved
from towpath.stream.broker.port import (
    Broker,
    BrokerAway,
    Member,
    OutcomeUnknown,
    OutputRefused,
    Producer,
    ProducerFenced,
    TransactionAborted,
)
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

READ_SECONDS_MAX = 30.0
"""Longest wait for what comes next in a dead-letter topic: an open transaction hides it, at most for its time-out."""
STEPS_PER_TRANSACTION_MAX = 500
"""Two records a step; at 1 KiB each a transaction of 1 MiB, far below its time-out."""
ROUNDS_MAX = 100
"""Looks at the log after which a run ends though more keeps following; the next run goes on."""
ABORTS_MAX = 3
POLL_SECONDS = 0.1
LOOK_SECONDS = 0.5
"""Between two looks at the whole log: each reads all of it."""

Place = tuple[str, TopicPartition]
"""An application, and a partition that it reads."""


def read_quarantine(
    broker: Broker,
    topics: Iterable[str],
    *,
    seconds: float = READ_SECONDS_MAX,
    whole_seconds: float = math.inf,
    clock: Clock | None = None,
) -> Quarantine:
    """Return what lies in the dead-letter `topics`, all of it that was written when this is called.

    Values are kept in memory: 100,000 letters of 2 KiB are 200 MiB. A topic that does not exist has none. Raises
    BrokerAway where the broker does not answer, a transaction stays open over the end for `seconds`, or all of it is
    not read after `whole_seconds`.
    """
    counts = broker.partition_counts(topics)
    places = [TopicPartition(topic, number) for topic, count in sorted(counts.items()) for number in range(count)]
    begins, ends = broker.begin_offsets(places), broker.end_offsets(places)
    clock = clock or SystemClock()
    until_seconds = clock.monotonic_seconds() + whole_seconds
    records: list[ConsumedRecord] = []
    for place in places:
        records.extend(_read(broker, place, begins[place], ends[place], clock, seconds, until_seconds))
    return sort_quarantine(_whole(broker, record, clock, seconds, until_seconds) for record in records)


def _whole(
    broker: Broker, record: ConsumedRecord, clock: Clock, seconds: float, until_seconds: float
) -> ConsumedRecord:
    """Return a dead record that is only referred to as it lies where it died; as it is, where that is gone."""
    try:
        letter = read_dead_letter(record.header(DEAD_HEADER) or "{}")
    except ValueError:
        return record
    if letter.reference is None:
        return record
    place = TopicPartition(letter.topic, letter.partition)
    if place.partition >= broker.partition_counts([place.topic]).get(place.topic, 0):
        return record
    if not broker.begin_offsets([place])[place] <= letter.offset < broker.end_offsets([place])[place]:
        return record
    found = next(_read(broker, place, letter.offset, letter.offset + 1, clock, seconds, until_seconds), None)
    return record if found is None else resolved(record, letter, found) or record


def _read(
    broker: Broker,
    place: TopicPartition,
    begin: int,
    end: int,
    clock: Clock,
    seconds: float = READ_SECONDS_MAX,
    until_seconds: float = math.inf,
) -> Iterator[ConsumedRecord]:
    """Yield the committed records of a partition from `begin` to `end`.

    Gives up after `seconds` without any further, and in any case when the clock is past `until_seconds`.
    """
    if begin >= end:
        return
    deadline = clock.monotonic_seconds() + seconds
    reader = broker.reader(place, begin)
    try:
        reached = begin
        while reached < end:
            if clock.monotonic_seconds() > until_seconds:
                raise BrokerAway(
                    f"{place}: read up to {reached} of {end} in the time that there was",
                    kept="everything",
                    next_step="towpath dead list",
                )
            if clock.monotonic_seconds() > deadline:
                raise BrokerAway(
                    f"{place}: read up to {reached} of {end}: a transaction is open there",
                    kept="everything; what was sent before is settled",
                    next_step="run it again in some seconds",
                )
            before = reached
            further, reached = reader.poll(POLL_SECONDS)
            if reached > before:  # a long topic is read to its end: only what stands still is given up
                deadline = clock.monotonic_seconds() + seconds
            yield from (record for record in further if record.offset < end)
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, and what is left of what it was asked.

    `died_again` are redriven letters' successors, and what follows them; `left` is what was not sent; `unread` are
    the applications that have not read yet what was sent to them.
    """

    redriven: tuple[Dead, ...]
    dropped: tuple[Dead, ...]
    died_again: tuple[Dead, ...]
    left: tuple[Dead, ...]
    unread: tuple[str, ...]


class Redrive:
    """One run. `transactional_id` is the same for every run of a project."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        *,
        transactional_id: str,
        dead_topics: Sequence[str],
        actor: str,
        reason: str,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._dead_topics = dead_topics
        self._actor = actor
        self._reason = reason
        self._transactional_id = transactional_id
        self._producer: Producer | None = None
        self._members: dict[str, Member] = {}
        self._ends: dict[Place, int] = {}
        self._tried: set[str] = set()
        # Known to be committed: retention may take a letter and what settles it before they are read again.
        self._sent: dict[str, Dead] = {}
        self._aborts = 0
        self._refused: dict[CohortKey, RefusedError] = {}

    def start(self) -> Quarantine:
        """End what an earlier run left open, shut out one that still goes on, and return what there is now."""
        self._begin_anew()
        return self._look()

    def close(self) -> None:
        """Close what was opened."""
        for member in self._members.values():
            member.close()
        if self._producer is not None:
            self._producer.close()

    def _begin_anew(self) -> None:
        """Take a new producer, whose start ends what the one before has left open."""
        if self._producer is not None:
            self._producer.close()
        self._producer = self._broker.producer(self._transactional_id)
        self._producer.start()

    def _look(self) -> Quarantine:
        return read_quarantine(self._broker, self._dead_topics, clock=self._clock)

    def run(self, requests: Sequence[RedriveStep], *, wait_seconds: float) -> Outcome:
        """Do `requests`, after `start`; wait so long without progress for the applications to read what was sent.

        Raises RefusedError where another run has begun since, or, once the other keys were sent, where a topic does not
        take a record again or is gone; NotFoundError where retention took what was to be sent before it was, WorldError
        where the broker is away: what was sent by then is settled, and running it again does the rest.
        """
        deadline = self._clock.monotonic_seconds() + wait_seconds
        self._note_ends(_places(self._look(), requests))
        for _ in range(ROUNDS_MAX):
            self._ends = self._unread()
            quarantine = self._look()
            self._refuse_without_place(step for request in requests for step in request.steps(quarantine))
            open_requests = (request for request in requests if request.cohort not in self._refused)
            steps = [step for request in open_requests for step in _sendable(quarantine, request, self._ends)]
            if steps:
                self._tried |= {step.dead.letter.identity for step in steps}
                self._send_all(steps)
                deadline = self._clock.monotonic_seconds() + wait_seconds
            elif not self._ends or not self._await(deadline):
                break
        self._ends = self._unread()
        self._tell_refused()
        quarantine = self._look()
        self._tell_gone(quarantine, requests)
        return self._outcome(quarantine, requests)

    def _tell_refused(self) -> None:
        """Raise RefusedError for what a topic does not take, once all else was sent."""
        for error in self._refused.values():
            raise error

    def _refuse_without_place(self, steps: Iterable[LetterStep]) -> None:
        """Leave the keys alone of which something goes back to a topic or partition that there is no more."""
        sending = [step.dead for step in steps if step.sends]
        there = self._there({_target(dead) for dead in sending})
        for dead in sending:
            if _target(dead) not in there:
                self._refused[key_of(dead)] = _no_place(dead)

    def _there(self, places: Collection[TopicPartition]) -> set[TopicPartition]:
        """Return those of some partitions that there are."""
        counts = self._broker.partition_counts({place.topic for place in places})
        return {place for place in places if 0 <= place.partition < counts.get(place.topic, 0)}

    def _tell_gone(self, quarantine: Quarantine, requests: Iterable[RedriveStep]) -> None:
        """Raise NotFoundError where nothing is left of what was asked, and nothing of it was sent either."""
        sent = {key_of(dead) for dead in self._sent.values()}
        for request in requests:
            if request.cohort not in quarantine.cohorts and request.cohort not in sent:
                raise _gone(request.cohort)

    def release(self, key: CohortKey, *, followers: bool, wait_seconds: float) -> Outcome:
        """Count anew what is held of a key, after `start`, and let it go on: what waits is redriven, or dropped.

        For a key that waits for dead letters that are no longer there. First a record is sent that stands in for them;
        once the application has read it, what is still there is sent back behind it, and so is counted; last it is
        dropped. Each of these is found in the log, so this can be killed and run again anywhere. Without a worker it
        ends early, and leaves what it left. Raises what `run` raises.
        """
        cohort = self._cohort(key)
        self._refuse_without_place(released_steps(cohort, followers=followers))
        self._tell_refused()
        if cohort.stand_in is None and not cohort.announced:
            # What was sent before was to be counted as it was then, so it must have been read.
            self._note_ends(_places_of(cohort))
            if not self._all_read(self._clock.monotonic_seconds() + wait_seconds):
                return self._outcome(self._look(), [RedriveStep(key, cohort.behind)])
            cohort = self._cohort(key)
            if cohort.waiting:
                self._send_stand_in(cohort)
        cohort = self._await_stand_in(key, self._clock.monotonic_seconds() + wait_seconds)
        stand_in = cohort.stand_in
        if stand_in is None or cohort.announced:
            return self._outcome(self._look(), [RedriveStep(key, cohort.behind)])
        for _ in range(ROUNDS_MAX):
            steps = recounting_steps(self._cohort(key))
            if not steps:
                break
            self._send_all(steps)
            self._tell_refused()
        if not self._all_read(self._clock.monotonic_seconds() + wait_seconds):
            return self._outcome(self._look(), [RedriveStep(key, cohort.behind)])
        quarantine = self._look()
        if key not in quarantine.cohorts:
            raise _gone(key)
        return self.run(drop_plan(quarantine, [stand_in], followers=followers), wait_seconds=wait_seconds)

    def _cohort(self, key: CohortKey) -> Cohort:
        """Return what there is now of a key. Raises NotFoundError where retention has taken all of it."""
        cohort = self._look().cohorts.get(key)
        if cohort is None:
            raise _gone(key)
        return cohort

    def _send_stand_in(self, cohort: Cohort) -> None:
        now_milliseconds = epoch_milliseconds(self._clock)
        record, dead = stand_in_record(cohort, now_milliseconds), cohort.waiting[-1].record
        told = announcement(cohort, actor=self._actor, reason=self._reason, now_milliseconds=now_milliseconds)

        def send(producer: Producer) -> None:
            _send_back(producer, record, now_milliseconds)
            producer.produce(dead.topic, None, key=dead.key, headers=told.to_headers(), partition=dead.partition)

        self._in_transaction(send)  # if that does not commit, none comes, and the run ends
        self._note_ends(_places_of(cohort))

    def _await_stand_in(self, key: CohortKey, deadline: float) -> Cohort:
        """Return the cohort once its stand-in is there; a service's database sends that by its outbox."""
        self._all_read(deadline)
        return wait_until(
            self._clock,
            lambda: self._cohort(key),
            holds=lambda cohort: not cohort.announced,
            seconds=deadline - self._clock.monotonic_seconds(),
            every_seconds=LOOK_SECONDS,
        )

    def _all_read(self, deadline: float) -> bool:
        """Return whether all that was sent has been read, waiting for it until `deadline`."""
        while self._ends:
            self._ends = self._unread()
            if not self._ends or not self._await(deadline):
                break
        return not self._ends

    # Whether what was sent has been read

    def _note_ends(self, places: set[Place]) -> None:
        """Remember where partitions end now: what was sent to them lies before; nobody reads what is gone."""
        ends = self._broker.end_offsets(self._there({place for _, place in places}))
        self._ends.update({name: ends[name[1]] for name in places if name[1] in ends})

    def _unread(self) -> dict[Place, int]:
        """Return the places that their application has not read to the end that was noted."""
        return {name: end for name, end in self._ends.items() if self._has_unread(*name, end)}

    def _has_unread(self, application: str, place: TopicPartition, end: int) -> bool:
        """Return whether a record lies between a group's offset and `end`; the markers of transactions are none."""
        committed = self._committed(application, place)
        if committed is not None and committed >= end:
            return False
        begin = max(committed or 0, self._broker.begin_offsets([place])[place])
        return any(True for _ in _read(self._broker, place, begin, end, self._clock))

    def _committed(self, application: str, place: TopicPartition) -> int | None:
        member = self._members.get(application)
        if member is None:
            member = self._members[application] = self._broker.member(application, client_id="towpath-dead")
        # A unit of work may be open over the group's offsets, for at most its time-out.
        found = retry(
            self._clock,
            lambda: member.committed([place]),
            on=BrokerAway,
            seconds=READ_SECONDS_MAX,
            every_seconds=POLL_SECONDS,
        )
        return found[place]

    def _await(self, deadline: float) -> bool:
        """Wait until something of what was sent has been read; return whether it has."""
        left_seconds = deadline - self._clock.monotonic_seconds()
        return left_seconds > 0 and wait_until(
            self._clock,
            lambda: len(self._unread()) < len(self._ends),
            seconds=left_seconds,
            every_seconds=POLL_SECONDS,
        )

    # Sending

    def _send_all(self, steps: Sequence[LetterStep]) -> None:
        """Send steps, some hundred in a transaction, until one of these does not commit: the log is read again then."""
        for start in range(0, len(steps), STEPS_PER_TRANSACTION_MAX):
            chunk = steps[start : start + STEPS_PER_TRANSACTION_MAX]
            committed = self._send_or_apart(chunk)
            self._note_ends({(step.dead.letter.application, _target(step.dead)) for step in chunk if step.sends})
            if not committed:
                return

    def _send_or_apart(self, steps: Sequence[LetterStep]) -> bool:
        """Send steps together; key by key where a topic refuses something of them, and leave the key of that alone."""
        try:
            return self._send(steps)
        except OutputRefused:
            by_key: dict[CohortKey, list[LetterStep]] = {}
            for step in steps:
                by_key.setdefault(key_of(step.dead), []).append(step)
        for key, mine in by_key.items():
            try:
                if not self._send(mine):
                    return False
            except OutputRefused as error:
                self._refused[key] = _too_large(key, error)
                self._tried -= {step.dead.letter.identity for step in mine}
        return True

    def _send(self, steps: Sequence[LetterStep]) -> bool:
        now_milliseconds = epoch_milliseconds(self._clock)

        def send(producer: Producer) -> None:
            for step in steps:
                self._send_step(producer, step, now_milliseconds)

        committed = self._in_transaction(send)
        if committed:
            self._sent.update({step.dead.letter.identity: self._settled(step, now_milliseconds) for step in steps})
        return committed

    def _settled(self, step: LetterStep, now_milliseconds: int) -> Dead:
        settlement = Settlement(step.dead.letter.identity, step.fate, self._actor, self._reason, now_milliseconds)
        return replace(step.dead, settlement=settlement)

    def _in_transaction(self, send: Callable[[Producer], None]) -> bool:
        """Let `send` produce in a transaction; return whether that is known to have been committed."""
        assert self._producer is not None, "start() comes first"
        try:
            self._producer.begin()
            send(self._producer)
            self._producer.commit({}, None)
        except OutputRefused:
            self._producer.abort()
            raise
        except TransactionAborted:
            self._producer.abort()
            self._aborts += 1
            if self._aborts == ABORTS_MAX:
                raise
            return False
        except OutcomeUnknown:
            # The next look at the log tells; before it, what this run began must have an end.
            self._begin_anew()
            return False
        except ProducerFenced as error:
            raise RefusedError(
                "another redrive or drop has begun since",
                kept="every dead letter: what was sent is settled, the rest lies where it was",
                next_step="run it again when the other one has ended",
            ) from error
        return True

    def _send_step(self, producer: Producer, step: LetterStep, now_milliseconds: int) -> None:
        record, dead = redriven_record(step), step.dead.record
        if record is not None:
            _send_back(producer, record, now_milliseconds)
        settlement = self._settled(step, now_milliseconds).settlement
        assert settlement is not None  # made just now
        key = None if dead.key is None else key_name(dead.key)
        producer.produce(dead.topic, None, key=key, headers=settlement.to_headers(), partition=dead.partition)

    def _outcome(self, quarantine: Quarantine, requests: Sequence[RedriveStep]) -> Outcome:
        left: list[Dead] = []
        again: list[Dead] = []
        there = quarantine.letters()
        waiting: dict[tuple[object, ...], list[Dead]] = {}
        for dead in there:
            if dead.settlement is None and dead.letter.first_offset is not None:
                waiting.setdefault(_first_death(dead), []).append(dead)
        for request in requests:
            cohort = quarantine.cohorts.get(request.cohort)
            if cohort is None:
                continue
            for dead in cohort.letters:
                if dead.settlement is not None and not dead.letter.parked:  # it stood alone, and so does the next
                    again.extend(waiting.get(_first_death(dead), ()))
            asked = [dead for dead in cohort.waiting if request.redrives or dead.letter.identity in request.drops]
            (left if cohort.behind == request.behind else again).extend(asked)
        done = [dead for dead in there if dead.letter.identity in self._tried]
        known = {dead.letter.identity for dead in there}
        done += [dead for identity, dead in self._sent.items() if identity not in known]
        return Outcome(
            redriven=tuple(dead for dead in done if dead.fate is Fate.REDRIVEN),
            dropped=tuple(dead for dead in done if dead.fate is Fate.DROPPED),
            died_again=tuple(again),
            left=tuple(left),
            unread=tuple(sorted({application for application, _ in self._ends})),
        )


def _first_death(dead: Dead) -> tuple[object, ...]:
    """Return what the letters of one record have in common, however often it was redriven and died again."""
    letter = dead.letter
    return letter.application, letter.topic, letter.partition, dead.first_offset, dead.first_died_milliseconds


def _too_large(key: CohortKey, error: OutputRefused) -> RefusedError:
    refused = RefusedError(
        f"{_quarantine_of(key)} does not fit its topic together with what says that it is sent again: {error.cause}",
        kept="its letters, in quarantine; all else that was asked for was sent",
        next_step="raise the topic's max.message.bytes in schemas/topics/, then: towpath provision",
    )
    refused.__cause__ = error
    return refused


def _no_place(dead: Dead) -> RefusedError:
    return RefusedError(
        f"{_quarantine_of(key_of(dead))} cannot go back: there is no {_target(dead)} any more",
        kept="its letters, in quarantine; all else that was asked for was sent",
        next_step="have the topic in schemas/topics/, with as many partitions as it had, then: towpath provision",
    )


def _quarantine_of(key: CohortKey) -> str:
    application, partition, name, _ = key
    return f"what {application} has in quarantine of {_name_of(name)}, partition {partition},"


def _gone(key: CohortKey) -> NotFoundError:
    application, partition, name, _ = key
    return NotFoundError(
        f"what {application} had in quarantine of {_name_of(name)}, partition {partition}, is no longer there: "
        "retention took it meanwhile",
        kept="all else; what was sent is settled",
        next_step="towpath dead list",
    )


def _name_of(key: bytes | None) -> str:
    return "no key" if key is None else f"the key {key.decode(errors='backslashreplace')}"


def _letters_of(quarantine: Quarantine, request: RedriveStep) -> tuple[Dead, ...]:
    """Return what there is of a request's cohort: none where retention has taken it."""
    cohort = quarantine.cohorts.get(request.cohort)
    return () if cohort is None else cohort.letters


def _target(dead: Dead) -> TopicPartition:
    return TopicPartition(dead.letter.topic, dead.letter.partition)


def _send_back(producer: Producer, record: ConsumedRecord, now_milliseconds: int) -> None:
    # With the present time: by its own, retention might take it before anybody reads it.
    producer.produce(
        record.topic,
        record.value,
        key=record.key,
        headers=record.headers,
        partition=record.partition,
        timestamp_milliseconds=now_milliseconds,
    )


def _places_of(cohort: Cohort) -> set[Place]:
    """Return where something of a cohort came from, and who reads it there."""
    return {(dead.letter.application, _target(dead)) for dead in cohort.letters}


def _places(quarantine: Quarantine, requests: Sequence[RedriveStep]) -> set[Place]:
    """Return where something of the requests' cohorts was sent to already, and who reads it there."""
    return {
        (dead.letter.application, _target(dead))
        for request in requests
        for dead in _letters_of(quarantine, request)
        if dead.fate is Fate.REDRIVEN or (dead.fate is Fate.DROPPED and dead.letter.parked)
    }


def _sendable(quarantine: Quarantine, request: RedriveStep, unread: dict[Place, int]) -> list[LetterStep]:
    application, partition, *_ = request.cohort
    topics = {dead.letter.topic for dead in _letters_of(quarantine, request) if dead.fate is Fate.REDRIVEN}
    topics = {topic for topic in topics if (application, TopicPartition(topic, partition)) in unread}
    return next_steps(request.steps(quarantine), topics)
