"""One trace a saga: the spans of its records lie in their order below the start, over the header `traceparent`."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sagas import place_order
from schemas.records.catalog import StockReserved
from schemas.records.order import OrderConfirmed
from schemas.records.payment import PaymentAuthorised
from tests.unit.orchestrator.desktop import CODEC, commands, desktop, order_placed
from tests.unit.orchestrator.village import Village
from towpath import tracing
from towpath.clock import ManualClock
from towpath.outbox.message import from_record
from towpath.saga.keys import saga_id_of
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.record_spans import facts_of, handling_all

ANSWERS = {
    "ReserveStock": StockReserved(order_id="order-1", reservation_id="r-1"),
    "AuthorisePayment": PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=20_00),
    "ConfirmOrder": OrderConfirmed(order_id="order-1", confirmed_at=ManualClock().now()),
}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Record spans in memory."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


def above(found: tuple[ReadableSpan, ...], span: ReadableSpan) -> list[str]:
    """Return the names of the spans above `span`, the nearest first."""
    by_id = {one.context.span_id: one for one in found if one.context is not None}
    names = []
    parent = span.parent
    while parent is not None and parent.span_id in by_id:
        names.append(by_id[parent.span_id].name)
        parent = by_id[parent.span_id].parent
    return names


def test_a_saga_and_its_sub_saga_are_one_trace(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    """From the application's own span down: start, sub-saga, its answer, payment, pivot, each below what caused it."""
    village = Village(tmp_path, ANSWERS)
    with tracing.span("POST /orders"):
        started = tracing.traceparent()
    assert started is not None
    village.place(traceparent=started)
    village.run(lambda: any(entry.status == "completed" for entry in village.history("buy")))
    found = spans.get_finished_spans()
    (root,) = (span for span in found if span.parent is None)
    assert root.name == "POST /orders"
    assert {span.context.trace_id for span in found if span.context} == {root.context.trace_id}
    handled = [span for span in found if not span.name.startswith("carry") and span is not root]
    names = [span.name for span in sorted(handled, key=lambda span: span.start_time or 0)]
    order = ["buy OrderPlaced", "hold_goods OrderPlaced", "hold_goods StockReserved", "buy SubsagaCompleted"]
    order += ["buy PaymentAuthorised", "buy OrderConfirmed"]
    assert [name for name in names if name in order] == order
    (last,) = (span for span in handled if span.name == "buy OrderConfirmed")
    assert last.attributes is not None
    assert last.attributes["towpath.saga_id"] == saga_id_of("buy", "event-1")
    assert last.attributes["towpath.key"] == "order-1"
    assert "buy OrderPlaced" in above(found, last)
    carried = [span for span in found if span.name == "carry order.events"]
    assert above(found, carried[0]) == ["POST /orders"]


def test_what_is_sent_is_below_the_span_that_sent_it(spans: InMemorySpanExporter) -> None:
    """Commands and history alike; with tracing off they carry the start's own header."""
    for on in (True, False):
        context = desktop(place_order.saga)
        given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        if not on:
            tracing.use(None)
        with tracing.span("outer", parent=given):
            sent = context.give("order.events", order_placed(), id="event-1", traceparent=given)
        headers = {message.headers.get("traceparent") for message in commands(sent)}
        assert (headers == {given}) is not on
        assert {str(header).split("-")[1] for header in headers} == {"0af7651916cd43dd8448eb211c80319c"}


def test_what_another_trace_moves_goes_on_in_the_trace_of_the_saga(spans: InMemorySpanExporter) -> None:
    """A person's signal or request, and a timer, come from a trace of their own: a saga is one trace all the same."""
    context = desktop(place_order.saga)
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context.give("order.events", order_placed(), id="event-1", traceparent=given)
    context.clock.advance(11)
    with tracing.span("place_order attempt", {"towpath.key": "order-1"}, parent="") as outer:
        sent = context.fire_timers()
        context.clock.advance(60)
        sent += context.fire_timers()
    assert commands(sent), "the attempts were not repeated"
    assert {str(one.headers["traceparent"]).split("-")[1] for one in sent} == {given.split("-")[1]}
    found = [span for span in spans.get_finished_spans() if span.name == "place_order attempt" and span.context]
    here = outer.get_span_context()
    twins = [span for span in found if span.context and span.context.trace_id != here.trace_id]
    assert twins
    for twin in twins:
        assert twin.parent is not None
        assert f"{twin.parent.span_id:016x}" == given.split("-")[2]
        assert [link.context.span_id for link in twin.links] == [here.span_id]
        assert dict(twin.attributes or {}) == {"towpath.key": "order-1"}
    (outer_span,) = (span for span in found if span.context and span.context.trace_id == here.trace_id)
    linked = {link.context.span_id for link in outer_span.links}
    assert linked == {span.context.span_id for span in twins if span.context}


def test_an_outbox_row_carries_the_span_that_is_open(spans: InMemorySpanExporter) -> None:
    """Whoever opened it: an application's own instrumentation counts as well. What the caller says wins."""
    order = order_placed()
    assert from_record(CODEC, "order.events", "o", order, id=UUID(int=1)).traceparent is None
    with tracing.span("POST /orders") as opened:
        row = from_record(CODEC, "order.events", "o", order, id=UUID(int=1))
        said = from_record(CODEC, "order.events", "o", order, id=UUID(int=1), traceparent="mine")
    assert row.traceparent == tracing.traceparent(opened)
    assert said.traceparent == "mine"


def test_records_of_a_batch_stand_in_traces_of_their_own(spans: InMemorySpanExporter) -> None:
    """Also those that have no header: no record of a batch lands below another one."""
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    records = [
        ConsumedRecord("payment.commands", 0, 1, 0, b"o-1", b"", (("traceparent", given.encode()), ("type", b"a.B"))),
        ConsumedRecord("payment.commands", 0, 2, 0, b"o-2", b"", (("type", b"a.B"),)),
    ]
    with handling_all(records, "payment") as linked:
        headers = [record.header("traceparent") for record in linked]
    traces = {span.context.trace_id for span in spans.get_finished_spans() if span.name == "payment B" and span.context}
    assert len(traces) == 2
    assert next(str(header).split("-")[1] for header in headers) == given.split("-")[1]
    assert len(set(headers)) == 2


def test_a_log_line_names_saga_step_key_and_trace() -> None:
    """As far as the record's headers tell."""
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = (("saga_id", b"s-1"), ("step", b"payment"), ("traceparent", given.encode()))
    record = ConsumedRecord("payment.commands", 0, 1, 0, b"order-1", b"", headers)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    assert facts_of(record) == {"saga_id": "s-1", "step": "payment", "key": "order-1", "trace_id": trace_id}
    assert facts_of(None) == {}
