"""Which ids are new, which were applied, and which can no longer be told apart. Pure.

The one rule: a record is beyond the horizon only if it is not newer than the newest id that was forgotten. A backlog,
a re-emit or a rebuild is therefore never beyond it: where nothing was forgotten, every age is fine.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from towpath.errors import PeerError
from towpath.stream.broker.record import ConsumedRecord


class BeyondDedupHorizon(PeerError):
    """Whether this record was applied is no longer known; applying it would be a guess."""

    parks_key = False
    """It is older than what is no longer known: nothing that comes after it has to wait for it."""


def event_id_of(record: ConsumedRecord) -> str:
    """Return the id by which a record is known when it comes again: of one without an id, its position."""
    return record.header("id") or record.position


@dataclass(frozen=True, slots=True)
class Sighting:
    """An event's id (the outbox row's uuid, header `id`) and its record's timestamp."""

    id: str
    timestamp_milliseconds: int


@dataclass(frozen=True, slots=True)
class Sorted:
    """Sightings sorted: `fresh` are to be applied; those `beyond` are to be dead-lettered; the rest were applied."""

    fresh: tuple[Sighting, ...]
    beyond: tuple[Sighting, ...]


def sort_sightings(
    sightings: Iterable[Sighting], applied: Collection[str], forgotten_milliseconds: int | None
) -> Sorted:
    """Sort `sightings`, given the ids that are known to be applied and the time of the newest forgotten one.

    A second sighting of an id among them is a repetition.
    """
    seen = set(applied)
    fresh: list[Sighting] = []
    beyond: list[Sighting] = []
    for sighting in sightings:
        if sighting.id in seen:
            continue
        seen.add(sighting.id)
        known = forgotten_milliseconds is None or sighting.timestamp_milliseconds > forgotten_milliseconds
        (fresh if known else beyond).append(sighting)
    return Sorted(tuple(fresh), tuple(beyond))


def beyond_horizon(position: str, forgotten_milliseconds: int) -> BeyondDedupHorizon:
    """Return the error for a record at `position`."""
    return BeyondDedupHorizon(
        f"{position}: not newer than {forgotten_milliseconds}, up to where applied ids are forgotten",
        kept="the record, untouched",
        next_step="towpath dead list names it; look whether its effect is there, then redrive it, or else drop it",
    )
