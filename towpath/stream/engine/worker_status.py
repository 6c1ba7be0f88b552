"""How one worker stands, as a value: what supervisors, `towpath status` and a person are told. Pure.

The one rule: a worker is ready while it serves every partition that it owns, or owns none because the others of its
group do. One that is no member, holds a partition or waits is not.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPartition:
    """A partition that waits for a person."""

    partition: str
    kind: str
    reason: str
    next_step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker at a moment. `waiting_for` names what is away, None where nothing is.

    Where it `has_stalled`, that is which of its records a handler does not come back from.
    `metrics_port` is where it serves its metrics, None where it serves none.
    """

    application: str
    slot: str
    is_member: bool
    serving: tuple[str, ...] = ()
    recovering: tuple[str, ...] = ()
    held: tuple[HeldPartition, ...] = ()
    waiting_for: str | None = None
    has_stalled: bool = False
    metrics_port: int | None = None

    @property
    def is_standby(self) -> bool:
        """Return whether it is a member that owns nothing: the others of its group have everything."""
        return self.is_member and not (self.serving or self.recovering or self.held)

    @property
    def is_ready(self) -> bool:
        """Return whether all that is this worker's is served."""
        return self.is_member and not self.recovering and not self.held and self.waiting_for is None

    @property
    def words(self) -> str:
        """Say in one line how it stands."""
        if self.held:
            first, more = self.held[0], len(self.held) - 1
            return f"holds {first.partition} ({first.reason}){f' and {more} more' if more else ''}"
        if self.waiting_for is not None:
            return f"{'stalled' if self.has_stalled else 'waits'}: {self.waiting_for}"
        if not self.is_member:
            return "is no member of its group"
        if self.recovering:
            return f"{len(self.recovering)} of {len(self.recovering) + len(self.serving)} partitions catch up"
        if self.is_standby:
            return "standby: the other workers of its group have every partition"
        return f"serves {len(self.serving)} partitions"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "is_ready": self.is_ready, "is_standby": self.is_standby, "words": self.words}
