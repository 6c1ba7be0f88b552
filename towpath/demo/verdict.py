"""The verdict on a run: what was lost, what is stuck, how long it took, and whether views equal the fold of the log.

Pure: rows and records in, figures out.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any

from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.demo.demo import Check, Outcome
from towpath.errors import PeerError
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import ENDINGS
from towpath.saga.state import Status
from towpath.stream.broker.record import ConsumedRecord
from towpath.view import Occurrence, View
from towpath.view.view import fold_records


@dataclass(frozen=True, slots=True)
class Ending:
    """How one instance stands at the end of its history, and when it started and ended (by the log's own times)."""

    key: str
    saga_id: str
    status: str
    started_milliseconds: int
    ended_milliseconds: int | None

    @property
    def seconds(self) -> float | None:
        """Return how long it took, None if it has not ended."""
        return None if self.ended_milliseconds is None else (self.ended_milliseconds - self.started_milliseconds) / 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `towpath demo --json` prints. Counts are of orders of this run, except the invariants, which are of all."""

    orders: int
    completed: int
    compensated: int
    stuck: int
    lost: int
    executed_twice: int
    money_conserved: bool
    stock_conserved: bool
    view_exact: bool
    order_seconds_p50: float
    order_seconds_p99: float
    traffic_seconds: float
    elapsed_seconds: float
    stepped_over: int = 0
    """Records of which nobody can tell what they mean, or that are dead letters of a view: they count for nothing."""

    @property
    def holds(self) -> bool:
        """Return whether every invariant holds."""
        nothing_wrong = not (self.stuck or self.lost or self.executed_twice)
        return nothing_wrong and self.money_conserved and self.stock_conserved and self.view_exact

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def endings(
    history: Iterable[ConsumedRecord], codec: Codec, saga: str, stepped_over: set[str] | None = None
) -> dict[str, list[Ending]]:
    """Return the instances of `saga` by business key, as its history tells them.

    Positions of what is no entry of a history go into `stepped_over`. Raises PeerError for one where that is None.
    """
    found: dict[str, Ending] = {}
    for record in history:
        entry = _decoded(record, codec, stepped_over)
        if not isinstance(entry, HistoryEntry):
            if stepped_over is not None and record.value is not None:
                stepped_over.add(record.position)
            continue
        if entry.saga != saga or not entry.saga_id:
            continue
        before = found.get(entry.saga_id)
        started = entry.at_milliseconds if before is None else before.started_milliseconds
        ended = None if before is None else before.ended_milliseconds
        if ended is None and entry.status in ENDINGS:
            ended = record.timestamp_milliseconds
        found[entry.saga_id] = Ending(entry.key, entry.saga_id, entry.status, started, ended)
    by_key: dict[str, list[Ending]] = {}
    for ending in found.values():
        by_key.setdefault(ending.key, []).append(ending)
    return by_key


def _decoded(consumed: ConsumedRecord, codec: Codec, stepped_over: set[str] | None) -> Record | None:
    """Return what a record says; None where it says nothing, or cannot be decoded and is noted in `stepped_over`."""
    try:
        return None if consumed.value is None else codec.decode(consumed.value)
    except PeerError:
        if stepped_over is None:
            raise
        stepped_over.add(consumed.position)
        return None


def lost_keys(
    placed: Collection[str], instances: Mapping[str, list[Ending]], outcomes: Mapping[str, Outcome]
) -> set[str]:
    """Return keys that were accepted and have not exactly one instance that ended or is stuck, and an owner's word."""
    settled = ENDINGS | {Status.STUCK.value}
    return {
        key
        for key in placed
        if [ending.status in settled for ending in instances.get(key, [])] != [True] or key not in outcomes
    }


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed, by nearest rank; 0 where there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def fold_topics(
    view: View[Any],
    records: Iterable[ConsumedRecord],
    codec: Codec,
    *,
    dead: Collection[str] = (),
    stepped_over: set[str] | None = None,
) -> dict[str, Any]:
    """Return the rows that `view` must have after `records` (partition by partition, in order), by row key.

    `dead` are the positions of what lies in its quarantine, or did. They go into `stepped_over`, as do those of what
    cannot be decoded. Raises PeerError for one of those where that is None.
    """
    seen: set[tuple[str, int, str]] = set()
    rows: dict[str, Any] = {}
    for consumed in records:
        type_ = consumed.header("type")
        if consumed.topic not in view.topics or (type_ is not None and type_ not in view.type_names):
            continue
        if consumed.position in dead:
            if stepped_over is not None:
                stepped_over.add(consumed.position)
            continue
        event_id = consumed.header("id") or consumed.position
        if (consumed.topic, consumed.partition, event_id) in seen:
            continue
        record = _decoded(consumed, codec, stepped_over)
        if record is None:
            continue
        seen.add((consumed.topic, consumed.partition, event_id))
        occurrence = Occurrence(
            consumed.topic,
            (consumed.key or b"").decode(),
            event_id,
            datetime.fromtimestamp(consumed.timestamp_milliseconds / 1000, UTC),
            consumed.offset,
        )
        key = view.row_key(record, occurrence)
        if type(record) in view.folds and key is not None:
            for changed, row in fold_records(view, rows, [(key, record, occurrence)]).items():
                if row is None:
                    rows.pop(changed, None)
                else:
                    rows[changed] = row
    return rows


def judge(
    *,
    run_keys: Collection[str],
    placed: Collection[str],
    instances: Mapping[str, list[Ending]],
    outcomes: Mapping[str, Outcome],
    checks: Collection[Check],
    executed_twice: int,
    views_exact: bool,
    traffic_seconds: float,
    elapsed_seconds: float,
    stepped_over: int = 0,
) -> Verdict:
    """Return the verdict; orders, endings and times are those of `run_keys`, what is lost is of all that was placed."""
    mine = [ending for key in run_keys for ending in instances.get(key, [])]
    holds = {check.name: check.holds for check in checks}
    seconds = [ending.seconds for ending in mine if ending.seconds is not None]
    statuses = [ending.status for ending in mine]
    return Verdict(
        orders=len(run_keys),
        completed=statuses.count(Status.COMPLETED.value),
        compensated=statuses.count(Status.COMPENSATED.value),
        stuck=sum(ending.status == Status.STUCK.value for found in instances.values() for ending in found),
        lost=len(lost_keys(placed, instances, outcomes)),
        executed_twice=executed_twice,
        money_conserved=holds.get("money_conserved", False),
        stock_conserved=holds.get("stock_conserved", False),
        view_exact=views_exact,
        order_seconds_p50=round(percentile(seconds, 0.50), 3),
        order_seconds_p99=round(percentile(seconds, 0.99), 3),
        traffic_seconds=round(traffic_seconds, 1),
        elapsed_seconds=round(elapsed_seconds, 1),
        stepped_over=stepped_over,
    )
