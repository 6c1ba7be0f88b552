"""Where the time of a saga goes, from what lies in outboxes and topics. Pure.

The one rule: times are the broker's and the databases' own. The topics are set to LogAppendTime for this, so that a
record's timestamp says when the broker took it, and an outbox row's `created_at` when it was written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from towpath.orchestrator import records as wire
from towpath.stream.broker.record import ConsumedRecord


@dataclass(slots=True)
class Trail:
    """When each message came into its topic, first and again, by id."""

    appended: dict[str, int] = field(default_factory=dict)
    twins: int = 0

    def add(self, id_: str, at_milliseconds: int) -> None:
        """Note a record; of a message that came twice, the first counts."""
        known = self.appended.get(id_)
        if known is not None:
            self.twins += 1
        self.appended[id_] = at_milliseconds if known is None else min(known, at_milliseconds)


def hops(
    records: Sequence[ConsumedRecord],
    entries: Iterable[tuple[int, wire.HistoryEntry]],
    written: Mapping[str, float],
    keys: frozenset[bytes],
) -> dict[str, dict[str, float]]:
    """Return how long each kind of hop took, in milliseconds, for the sagas whose business keys are `keys`.

    `records` are those of all event, command and reply topics, `entries` the history with its times in the topic,
    `written` the time of each outbox row in milliseconds, by id.
    """
    trail, commands = Trail(), []
    for record in records:
        id_ = record.header("id")
        if id_ is None or record.key not in keys:
            continue
        trail.add(id_, record.timestamp_milliseconds)
        if record.topic.endswith(".commands"):
            commands.append(record)
    came = trail.appended
    capture = [came[id_] - at for id_, at in written.items() if id_ in came]
    decided = [at - came[entry.input_id] for at, entry in entries if entry.input_id in came]
    answered = [
        written[reply] - record.timestamp_milliseconds for record in commands if (reply := _reply_id(record)) in written
    ]
    return {
        "outbox_to_kafka": spread(capture),
        "orchestrator": spread(decided),
        "participant": spread(answered),
        "twins": {"count": trail.twins},
    }


def _reply_id(command: ConsumedRecord) -> str:
    """Return the id of the reply to a command (see `participant.core.reply_message`)."""
    return str(uuid5(UUID(command.header("idempotency_key") or ""), f"reply:{command.header('attempt')}"))


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return count, p10, p50 and p99 of some milliseconds."""
    found = sorted(values)
    if not found:
        return {"count": 0}
    return {
        "count": len(found),
        **{f"p{share}_milliseconds": round(quantile(found, share / 100), 1) for share in (10, 50, 99)},
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of `ordered` lie."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
