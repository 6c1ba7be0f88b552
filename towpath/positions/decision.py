"""What may be decided about a position that its log does not have. Pure.

The one rule: nothing is decided for a person, and nothing where there is nothing to decide. A decision names what is
lost, moves one position, and is written down with who made it and why, in the same transaction.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from towpath.errors import ConfigurationError, NotFoundError, RefusedError
from towpath.stream.broker.position import NOTED_KINDS, HoldKind, PartitionHeld
from towpath.stream.broker.record import TopicPartition


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an application stands in one partition. `held` says why it cannot go on, None where it can."""

    application: str
    partition: TopicPartition
    stored: int | None
    begin: int
    end: int
    topic_id: str
    held: PartitionHeld | None

    @property
    def lag(self) -> int | None:
        """Return how many offsets are to be read, None where nothing was read yet."""
        return None if self.stored is None else max(self.end - self.stored, 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "application": self.application,
            "topic": self.partition.topic,
            "partition": self.partition.partition,
            "stored": self.stored,
            "begin": self.begin,
            "end": self.end,
            "lag": self.lag,
            "held": None if self.held is None else self.held.kind.value,
            "reason": None if self.held is None else self.held.cause,
            "next": None if self.held is None else self.held.next_step,
        }


@dataclass(frozen=True, slots=True)
class PositionDecision:
    """One position moved: what was found, where it stood, where it goes on, by whom and why.

    `forgets_from` is the offset from which on the log has other records than those that were read there: a record
    without an id is known by its position, which is forgotten from there on. None: it has no others.
    """

    application: str
    topic: str
    partition: int
    topic_id: str
    offset_before: int
    offset_after: int
    found: str
    actor: str
    reason: str
    forgets_from: int | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def header(self) -> bytes:
        """Return what the record of it carries in the header `position`."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()


def decide(standing: Standing, from_offset: int | None, *, actor: str, reason: str) -> PositionDecision:
    """Return the decision to go on from `from_offset`; by default where the hold itself proposes.

    Raises RefusedError where the position is one that its log has, NotFoundError where nothing was read yet,
    ConfigurationError for an offset outside the log or a reason that says nothing.
    """
    place = standing.partition
    if standing.stored is None:
        raise NotFoundError(
            f"{standing.application} has read nothing of {place} yet: it begins at the oldest record",
            next_step="towpath positions list",
        )
    if standing.held is None:
        raise RefusedError(
            f"{standing.application} stands at {standing.stored} of {place}, which has {standing.begin} to "
            f"{standing.end}: there is nothing to accept",
            kept="the position",
            next_step="towpath positions list",
        )
    if standing.held.kind in NOTED_KINDS:
        raise RefusedError(
            f"no offset helps {standing.application} in {place}: {standing.held.cause}",
            kept="the position",
            next_step=standing.held.next_step,
        )
    if not reason.strip():
        raise ConfigurationError("a decision needs a reason", next_step="say --reason TEXT")
    is_cut = standing.held.kind in (HoldKind.RESTORED, HoldKind.BEYOND_END)
    if is_cut and standing.held.proposed is None and from_offset is None:
        raise ConfigurationError(
            f"where to go on in {place} cannot be told: {standing.held.cause}",
            next_step="look at its records, and name the first that was not applied: --from OFFSET",
        )
    # Not before the log's beginning, which retention may have moved since the hold; nor at its end, if it has grown.
    after = max(standing.held.proposed or 0, standing.begin) if from_offset is None else from_offset
    if not standing.begin <= after <= standing.end:
        or_none = "" if is_cut and standing.held.proposed is None else ", or leave --from out"
        raise ConfigurationError(
            f"{place} has the offsets {standing.begin} to {standing.end}, not {after}",
            next_step=f"name an offset between these{or_none}",
        )
    return PositionDecision(
        standing.application,
        place.topic,
        place.partition,
        standing.topic_id,
        standing.stored,
        after,
        f"{standing.held.kind.value}: {standing.held.cause}",
        actor,
        reason,
        _forgets_from(standing.held, after),
    )


def _forgets_from(held: PartitionHeld, after: int) -> int | None:
    if held.kind is HoldKind.EXPIRED:
        return None
    # Before the end at which it was cut, a log has what was read: read again from there on, it must be known again.
    return max(after, held.proposed or 0)
