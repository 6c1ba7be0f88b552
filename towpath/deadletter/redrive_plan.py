"""What is to be sent in which order to empty the quarantine. Pure.

The one rule: a request says what a person asked; what is left of it to be sent follows from the log alone, each time.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from towpath.deadletter.quarantine import Cohort, CohortKey, Dead, Fate, Quarantine
from towpath.stream.broker.dead_letter import Announcement, Mark, as_text, original
from towpath.stream.broker.record import ConsumedRecord


@dataclass(frozen=True, slots=True)
class LetterStep:
    """One dead letter that is redriven or dropped, and the position that its key waits for."""

    dead: Dead
    fate: Fate
    behind: str | None

    @property
    def topic(self) -> str:
        """Return the topic that it goes back to."""
        return self.dead.letter.topic

    @property
    def sends(self) -> bool:
        """Return whether it sends a record to the topic: what is dropped and holds nothing is settled without."""
        return self.fate is Fate.REDRIVEN or self.dead.letter.parked


@dataclass(frozen=True, slots=True)
class RedriveStep:
    """What a person asked about one cohort: to drop some of it (`drops`, identities) and redrive the rest, or no rest.

    `behind` is what its key waited for then: what dies again after that is another question.
    """

    cohort: CohortKey
    behind: str | None
    drops: frozenset[str] = frozenset()
    redrives: bool = True

    def steps(self, quarantine: Quarantine) -> list[LetterStep]:
        """Return what of it is left to be sent, in order: nothing where retention has taken it meanwhile."""
        cohort = quarantine.cohorts.get(self.cohort)
        if cohort is None or cohort.behind != self.behind or cohort.announced:
            return []
        uncounted = cohort.uncounted
        ready = not cohort.unseen and not uncounted
        steps = []
        blocked = False
        for dead in sorted(cohort.waiting, key=lambda dead: not dead.stands_in):
            asked = dead.letter.identity in self.drops
            # Nothing passes a record that is gone: it has to be dropped first.
            blocked = blocked or (dead.is_gone and not asked and not dead.stands_in)
            if blocked and not asked:
                continue
            # A stand-in has nothing to apply; it goes first, and once all that it stands before is counted.
            if (self.redrives and ready) or (asked and (ready or not dead.stands_in)):
                # What is dropped releases its key whatever that waits for, so any position will do where none is seen.
                behind = (self.behind or dead.letter.behind) if dead.letter.parked and dead not in uncounted else None
                steps.append(LetterStep(dead, Fate.DROPPED if asked or dead.stands_in else Fate.REDRIVEN, behind))
        return steps


def recounting_steps(cohort: Cohort) -> list[LetterStep]:
    """Return what sends what is not held back into quarantine, behind the stand-in, where it is.

    A stand-in that another one has replaced was not counted either, and has nothing to say; a record that is gone is
    given up with the rest.
    """
    return [
        LetterStep(dead, Fate.DROPPED if dead.stands_in or dead.is_gone else Fate.REDRIVEN, None)
        for dead in cohort.uncounted
    ]


def released_steps(cohort: Cohort, *, followers: bool) -> list[LetterStep]:
    """Return what in the end becomes of what waits, where the key of a cohort is released: `followers` are dropped."""
    return [
        LetterStep(dead, Fate.DROPPED if followers or dead.stands_in else Fate.REDRIVEN, None)
        for dead in cohort.waiting
    ]


def stand_in_record(cohort: Cohort, now_milliseconds: int) -> ConsumedRecord:
    """Return the record that stands in for what is no longer there of a cohort; something of it must wait."""
    dead = cohort.waiting[-1]
    record = original(dead.record, dead.letter)
    mark = Mark(
        application=dead.letter.application,
        of="",
        behind=None,
        drop=False,
        first_offset=dead.letter.offset,
        first_died_milliseconds=now_milliseconds,
        timestamp_milliseconds=now_milliseconds,
        stand_in=True,
    )
    return record._replace(value=None, headers=(mark.to_header(),))


def announcement(cohort: Cohort, *, actor: str, reason: str, now_milliseconds: int) -> Announcement:
    """Return what is written into the dead-letter topic with a stand-in."""
    application, partition, key, _ = cohort.key
    return Announcement(application, partition, as_text(key) or "", actor, reason, now_milliseconds)


def next_steps(steps: Iterable[LetterStep], unread: Iterable[str]) -> list[LetterStep]:
    """Return how many of a cohort's `steps` may be sent at once.

    Within a topic order is kept by the log; between topics only by waiting, so what follows in another topic is sent
    once the application has read what precedes it. `unread` are topics with something of this cohort that it has
    not read.
    """
    sent = set(unread)
    found = []
    for step in steps:
        if step.fate is Fate.REDRIVEN:
            if sent - {step.topic}:
                break
            sent.add(step.topic)
        found.append(step)
    return found


def redriven_record(step: LetterStep) -> ConsumedRecord | None:
    """Return the record that a step sends to the topic, None where it sends none."""
    if not step.sends:
        return None
    mark = step.dead.mark
    record = original(step.dead.record, step.dead.letter)
    turn = Mark(**{**asdict(mark), "behind": step.behind, "drop": step.fate is Fate.DROPPED})
    if step.fate is Fate.REDRIVEN:
        return record._replace(headers=(*record.headers, turn.to_header()))
    return record._replace(value=None, headers=(turn.to_header(),))


def redrive_plan(quarantine: Quarantine, chosen: Iterable[Dead]) -> list[RedriveStep]:
    """Return what it takes to redrive `chosen`, each with all that is parked with it."""
    cohorts = {quarantine.cohort_of(dead).key: dead for dead in chosen}
    return [RedriveStep(key, _asked(quarantine, dead)) for key, dead in cohorts.items()]


def drop_plan(quarantine: Quarantine, chosen: Iterable[Dead], *, followers: bool) -> list[RedriveStep]:
    """Return what it takes to drop `chosen`.

    Where a key waits for one of them, what is parked behind is redriven, or, with `followers`, dropped as well.
    """
    found: dict[CohortKey, RedriveStep] = {}
    for dead in chosen:
        cohort = quarantine.cohort_of(dead)
        before = found.get(cohort.key, RedriveStep(cohort.key, _asked(quarantine, dead), redrives=False))
        drops, frees = before.drops | {dead.letter.identity}, before.redrives or dead.letter.behind is None
        if followers and dead.letter.behind is None:
            drops |= {each.letter.identity for each in cohort.waiting}
        found[cohort.key] = RedriveStep(cohort.key, before.behind, drops, frees)
    return list(found.values())


def _asked(quarantine: Quarantine, dead: Dead) -> str | None:
    """Return what the key of `dead` waits for, as the person who names it knows: once settled, what it waited for."""
    if dead.settlement is None:
        return quarantine.cohort_of(dead).behind
    return dead.letter.behind or (dead.letter.position if dead.letter.parked else None)
