"""The spans of one record: how it came here, and what is done with it; and what of it a log line names.

The one rule: a record's own header `traceparent` is the parent, so the spans of all processes make one trace.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from towpath import tracing
from towpath.outbox.handover import HANDED_OVER
from towpath.stream.broker.record import ConsumedRecord, with_header
from towpath.tracing import Span, SpanKind

TRACEPARENT = "traceparent"
_FACTS = ("saga", "saga_id", "step", "item", "direction", "attempt")


def facts_of(record: ConsumedRecord | None) -> dict[str, str]:
    """Return what a log line says of a record: its saga, step, key and trace, where its headers tell."""
    if record is None:
        return {}
    facts = {name: value for name in _FACTS if (value := record.header(name))}
    if record.key is not None:
        facts["key"] = record.key.decode("utf-8", "replace")
    parts = (record.header(TRACEPARENT) or "").split("-")
    if len(parts) > 1:
        facts["trace_id"] = parts[1]
    return facts


@contextmanager
def handling(record: ConsumedRecord, what: str) -> Iterator[Span]:
    """Record how `record` came here, and below that the span of what is done with it: "`what` Type"."""
    type_ = (record.header("type") or record.topic).rpartition(".")[2]
    facts = {f"towpath.{name}": value for name, value in facts_of(record).items() if name != "trace_id"}
    with _carried(record) as parent, tracing.span(f"{what} {type_}", facts, parent=parent) as opened:
        yield opened


@contextmanager
def handling_all(records: Iterable[ConsumedRecord], what: str) -> Iterator[list[ConsumedRecord]]:
    """Do as `handling` for each of `records`; give them with headers by which what they cause is below their spans."""
    with ExitStack() as open_spans:
        linked = []
        for record in records:
            opened = open_spans.enter_context(handling(record, what))
            linked.append(_linked(record, tracing.traceparent(opened)))
        yield linked


@contextmanager
def _carried(record: ConsumedRecord) -> Iterator[str]:
    """Record the span from when a record was written to now; give its traceparent."""
    by = "hand-over" if record.header(HANDED_OVER) else None
    attributes: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
        "towpath.carried_by": by,
    }
    with tracing.span(
        f"carry {record.topic}",
        attributes,
        parent=record.header(TRACEPARENT) or "",
        kind=SpanKind.CONSUMER,
        start_nanoseconds=record.timestamp_milliseconds * 1_000_000,
    ) as opened:
        below = tracing.traceparent(opened) or ""
    yield below


def _linked(record: ConsumedRecord, traceparent: str | None) -> ConsumedRecord:
    if traceparent is None:
        return record
    return record._replace(headers=with_header(record.headers, TRACEPARENT, traceparent.encode()))
