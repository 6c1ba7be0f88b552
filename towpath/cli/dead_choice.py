"""Which dead letters a person means, and what of that must not be done now. Pure."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from towpath.cli import dead_report
from towpath.errors import ConfigurationError, NotFoundError, RefusedError

if TYPE_CHECKING:
    from towpath.deadletter.quarantine import Cohort, Dead, Quarantine

ON_ITS_WAY = (
    "run it again in some seconds: a dead letter leaves a service's database by its outbox (towpath capture status)"
)
_PLACE = re.compile(r"(?P<partition>\d+):(?P<offset>\d+)")
POSITION = re.compile(r"(?P<topic>[^\[\]@]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")


def choose(
    quarantine: "Quarantine", dead_topic: str, position: str | None, fingerprint: str | None, *, everything: bool
) -> "list[Dead]":
    """Return the dead letters that a person means, the newest last. Raises ConfigurationError, NotFoundError."""
    from towpath.deadletter.quarantine import waiting_in, with_fingerprint

    if sum((position is not None, fingerprint is not None, everything)) != 1:
        raise ConfigurationError(
            "one of POSITION, --fingerprint or (to redrive) --all says which dead letters are meant",
            next_step=f"towpath dead list {dead_topic.removesuffix('.dead')}",
        )
    if position is not None:
        return [_at(quarantine, dead_topic, position)]
    if fingerprint is None:
        return waiting_in(quarantine, dead_topic)
    found = with_fingerprint(quarantine, dead_topic, fingerprint)
    if not found:
        raise NotFoundError(
            f"nothing in {dead_topic} waits with the fingerprint {fingerprint}",
            next_step=f"towpath dead list {dead_topic.removesuffix('.dead')}",
        )
    return found


def _at(quarantine: "Quarantine", dead_topic: str, position: str) -> "Dead":
    """Return the dead letter at a position, in either form. Raises ConfigurationError, NotFoundError."""
    from towpath.deadletter.quarantine import find, find_origin

    origin = dead_topic.removesuffix(".dead")
    place, where = _PLACE.fullmatch(position), POSITION.fullmatch(position)
    if place is None and where is None:
        raise ConfigurationError(
            f"{position!r} is no position",
            next_step=f"write PARTITION:OFFSET, as in `towpath dead list {origin}`, or {origin}[PARTITION]@OFFSET",
        )
    if where is not None and where["topic"] not in (dead_topic, origin):
        raise ConfigurationError(
            f"{position} lies in another topic than {origin}", next_step=f"name {where['topic']} as the topic"
        )
    match = place or where
    assert match is not None
    partition, offset = int(match["partition"]), int(match["offset"])
    if where is not None and where["topic"] == origin:
        found: Sequence[Dead] = find_origin(quarantine, origin, partition, offset)
        waiting = [dead for dead in found if dead.settlement is None] or found
        if len(waiting) > 1:
            raise ConfigurationError(
                f"{position} died in {', '.join(dead.letter.application for dead in waiting)}",
                next_step=f"name one of {', '.join(dead.place for dead in waiting)} instead",
            )
    else:
        only = find(quarantine, dead_topic, partition, offset)
        waiting = [] if only is None else [only]
    if not waiting:
        raise NotFoundError(f"no dead letter of {origin} at {position}", next_step=f"towpath dead list {origin}")
    return waiting[0]


def refuse_out_of_turn(quarantine: "Quarantine", chosen: "Sequence[Dead]") -> None:
    """Raise RefusedError for a follower whose turn has not come, and for what waits for something that is not seen."""
    for dead in chosen:
        before = quarantine.cause_of(dead)
        if before is not dead and before.settlement is None and dead.settlement is None:
            topic = before.letter.topic
            raise RefusedError(
                f"{dead.letter.position} follows {before.letter.position}, which waits itself",
                kept="both",
                next_step=f"towpath dead redrive {topic} {before.place}: it takes along what follows it",
            )
        cohort = quarantine.cohort_of(dead)
        unseen = cohort.unseen
        if unseen:
            raise RefusedError(
                f"{dead.letter.position} waits behind {unseen[0]}, whose dead letter is not in its topic",
                kept="everything",
                next_step=f"{ON_ITS_WAY}; if retention took it, {dead_report.release_command(cohort, dead)}",
            )


def refuse_half_released(quarantine: "Quarantine", chosen: "Sequence[Dead]") -> None:
    """Raise RefusedError for what is of a key whose count of what is held is about to begin anew."""
    for dead in chosen:
        cohort = quarantine.cohort_of(dead)
        if cohort.uncounted or cohort.announced:
            raise RefusedError(
                f"{dead.letter.position} is of a key whose release has begun and not ended",
                kept="everything",
                next_step=dead_report.release_command(cohort, dead),
            )


def parked(quarantine: "Quarantine", dead_topic: str, key: str, application: str | None) -> "Cohort":
    """Return what waits of a key. Raises NotFoundError, or ConfigurationError where that is in several applications."""
    from towpath.deadletter.quarantine import waiting_in

    cohorts = {(cohort := quarantine.cohort_of(dead)).key: cohort for dead in waiting_in(quarantine, dead_topic)}
    found = [
        cohort
        for (name, _, own, alone), cohort in cohorts.items()
        if not alone and dead_report.text_of(own) == key and application in (None, name)
    ]
    if not found:
        raise NotFoundError(
            f"nothing of the key {key} is parked in {dead_topic}" + (f" for {application}" if application else ""),
            next_step=f"towpath dead list {dead_topic.removesuffix('.dead')}",
        )
    if len(found) > 1:
        names = ", ".join(sorted(cohort.key[0] for cohort in found))
        raise ConfigurationError(f"the key {key} is parked in {names}", next_step="say which one: --application NAME")
    return found[0]
