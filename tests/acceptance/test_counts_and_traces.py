"""What workers tell of themselves, on the whole stack: metrics held against log and databases, and an order's trace."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from pipelines.services.order.postgres import add_order
from schemas.records.order import OrderLine, OrderPlaced
from tests.acceptance.collector import Collector, Exported
from tests.acceptance.shop import SMALL_CENTS, Shop, await_instances, open_shop
from tests.acceptance.verbs import found_here
from tests.stack_fixture import RunningStack, free_ports
from towpath import tracing
from towpath.capture import postgres as capture_postgres
from towpath.capture.connect import ConnectClient
from towpath.client import Client
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import NAME
from towpath.outbox.names import VIEWS_DATABASE, connector_name, slot_name
from towpath.project import worker_names
from towpath.stack.workers import start_workers
from towpath.stream.broker.kafka import read_records

ORDERS, REFUSED = 40, 10
WAIT_SECONDS_MAX = 90.0
OVER_THE_LIMIT_CENTS = 200_000_00
EXPORT_MILLISECONDS = "200"

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Observed:
    """A shop on workers that serve metrics and export spans; `ports` are those of the metrics, by worker."""

    stack: RunningStack
    shop: Shop
    collector: Collector
    ports: dict[str, int]
    before: dict[Sample, float] = field(default_factory=dict)

    def scrape(self) -> dict[Sample, float]:
        """Return every sample of every worker; of the same sample in several workers, the sum."""
        found: defaultdict[Sample, float] = defaultdict(float)
        for port in self.ports.values():
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found[sample.name, frozenset(sample.labels.items())] += sample.value
        return dict(found)

    def scrape_until(self, condition: Callable[[dict[Sample, float]], bool]) -> dict[Sample, float]:
        """Scrape until a condition holds; return that scrape."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            samples = self.scrape()
            if condition(samples):
                return samples
            assert time.monotonic() < deadline, {name: value for (name, _), value in samples.items()}
            time.sleep(0.5)


@contextmanager
def observed_by(stack: RunningStack, collector: Collector, endpoint: str) -> Iterator[Observed]:
    """Run all workers so that they serve metrics from one port on, and export their spans to `endpoint`."""
    names = worker_names(stack.settings)
    running = stack.client.status()
    for name in names:
        if name in running:
            stack.client.stop(name)
    environment = {
        **os.environ,
        **stack.environment,
        "TOWPATH_METRICS_PORT": str(free_ports(1)[0]),
        "TOWPATH_TRACING__EXPORTER": "otlp",
        "TOWPATH_TRACING__ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": EXPORT_MILLISECONDS,
    }
    try:
        start_workers(stack.settings, stack.client, names, environment)
        told = {row["name"]: row["metrics_port"] for row in found_here(stack, "status")["processes"]}
        yield Observed(stack, open_shop(stack, on_hand=1_000), collector, {name: told[name] for name in names})
    finally:
        for name in names:
            stack.client.stop(name)


@pytest.fixture(scope="module")
def observed(stack: RunningStack) -> Iterator[Observed]:
    """Observe the workers by a collector of the tests' own."""
    with Collector() as collector, observed_by(stack, collector, collector.endpoint) as found:
        yield found


def labelled(samples: dict[Sample, float], name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
    """Return the samples of one name that have these labels."""
    wanted = set(labels.items())
    return {place: value for (one, place), value in samples.items() if one == name and wanted <= place}


def total(samples: dict[Sample, float], name: str, **labels: str) -> float:
    """Return the sum of the samples of one name that have these labels."""
    return sum(labelled(samples, name, **labels).values())


def test_each_worker_of_a_machine_serves_metrics_on_a_port_of_its_own(observed: Observed) -> None:
    """All were given the same port; `towpath status --json` says which each has, and none is without."""
    assert sorted(observed.ports) == sorted(worker_names(observed.stack.settings))
    assert None not in observed.ports.values()
    assert len(set(observed.ports.values())) == len(observed.ports)


def test_metrics_scraped_under_load_agree_with_the_log_and_the_databases(observed: Observed) -> None:
    """Counters never fall and are what the topics hold in the end; gauges are what PostgreSQL says."""
    stack = observed.stack
    first = observed.scrape_until(lambda samples: not total(samples, "towpath_lag_records"))
    since = datetime.now(UTC)
    mark = uuid4().hex[:8]
    small = [f"counted-{mark}-{number}" for number in range(ORDERS)]
    dear = [f"refused-{mark}-{number}" for number in range(REFUSED)]
    observed.shop.place_many(small, SMALL_CENTS)
    observed.shop.place_many(dear, OVER_THE_LIMIT_CENTS)
    ended, scrapes = False, [first]
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not ended:
        assert time.monotonic() < deadline
        scrapes.append(observed.scrape())
        ended = total(scrapes[-1], "towpath_sagas_ended_total") - total(first, "towpath_sagas_ended_total") == 50
    last = observed.scrape_until(lambda samples: not total(samples, "towpath_lag_records"))
    for earlier, later in zip(scrapes, [*scrapes[1:], last], strict=True):
        counters = [place for place in earlier if place[0].endswith(("_total", "_count", "_bucket"))]
        assert all(later[place] >= earlier[place] for place in counters)
    await_instances(stack, small + dear, lambda one: one.state.ended)

    def grown(name: str, **labels: str) -> float:
        return total(last, name, **labels) - total(first, name, **labels)

    compare_with_the_log(stack, since, grown)
    compare_with_postgres(observed)


def compare_with_the_log(stack: RunningStack, since: datetime, grown: Callable[..., float]) -> None:
    """Hold counters against what lies in the topics since then."""
    settings = stack.settings
    codec = load_codec(settings, Catalogue.load(settings), ["place_order.history"])
    told = [codec.decode(record.value or b"") for record in read_records(settings, ["place_order.history"], since)]
    entries = [one for one in told if isinstance(one, HistoryEntry)]
    started = [one for one in entries if one.happened == "started"]
    assert grown("towpath_sagas_started_total", saga="place_order") == len(started) == ORDERS + REFUSED
    last = {one.saga_id: one.status for one in entries}
    for status, number in Counter(last.values()).items():
        assert grown("towpath_sagas_ended_total", saga="place_order", status=status) == number
        assert grown("towpath_saga_seconds_count", saga="place_order", status=status) == number
    refused = Counter(one.input for one in entries if one.happened == "refused")
    assert grown("towpath_saga_inputs_refused_total", saga="place_order") == refused.total()
    services = ("identity", "catalog", "payment", "order")
    sent: Counter[tuple[str, str, str]] = Counter()
    for service in services:
        records = list(read_records(settings, [f"{service}.commands"], since))
        sent.update(
            (str(one.header("step")), str(one.header("direction")), str(one.header("attempt"))) for one in records
        )
        application = f"{settings.project.name}-service-{service}"
        topic = f"{service}.commands"
        assert grown("towpath_records_total", application=application, topic=topic) == len(records), service
    for step in {step for step, _, _ in sent}:
        of_step = sum(number for (name, _, _), number in sent.items() if name == step)
        assert grown("towpath_step_commands_total", saga="place_order", step=step) == of_step, step
        undone = sum(number for (name, direction, _), number in sent.items() if (name, direction) == (step, "undo"))
        assert grown("towpath_step_commands_total", step=step, direction="undo") == undone, step
    assert grown("towpath_steps_total", step="capture_payment", outcome="succeeded") == ORDERS
    assert grown("towpath_steps_total", step="verify_customer", outcome="failed") == REFUSED
    assert grown("towpath_step_seconds_count", step="capture_payment") == ORDERS
    replies = len(list(read_records(settings, ["place_order.replies"], since)))
    assert grown("towpath_records_total", topic="place_order.replies") == replies
    assert grown("towpath_dead_letters_total") == 0


def compare_with_postgres(observed: Observed) -> None:
    """Hold gauges against the view of instances, the outbox and the slot; with capture paused, they grow."""
    settings = observed.stack.settings
    with psycopg.connect(settings.postgres.database_url(VIEWS_DATABASE)) as views:
        query = f"SELECT saga, version::text, status, count(*)::float8 FROM {NAME} GROUP BY 1, 2, 3"
        rows = views.execute(query).fetchall()
    counted = {(saga, version, status): number for saga, version, status, number in rows}

    def as_counted(samples: dict[Sample, float]) -> bool:
        shown = {
            (labels["saga"], labels["version"], labels["status"]): value
            for place, value in labelled(samples, "towpath_sagas").items()
            for labels in [dict(place)]
        }
        return shown == counted

    samples = observed.scrape_until(as_counted)  # looked up every few seconds, whoever scrapes
    assert total(samples, "towpath_sagas_near_deadline", saga="place_order") == 0
    observed.scrape_until(lambda samples: not total(samples, "towpath_outbox_rows", service="order"))
    name = connector_name(settings.project.name, "order")
    with ConnectClient(settings.connect) as connect:
        connect.pause(name)
        try:
            while connect.status(name).tasks and connect.status(name).tasks[0].state != "PAUSED":
                time.sleep(0.2)
            observed.scrape()  # notes where the log stands
            orders = [f"unseen-{uuid4().hex[:8]}" for _ in range(3)]
            observed.shop.place_many(orders, SMALL_CENTS)
            samples = observed.scrape_until(lambda samples: total(samples, "towpath_outbox_rows", service="order") >= 3)
            assert total(samples, "towpath_outbox_rows", service="order") == 3
            assert 0 < total(samples, "towpath_outbox_seconds", service="order") < WAIT_SECONDS_MAX
            with closing(capture_postgres.connect(settings, "order")) as connection:
                slot = capture_postgres.slot_state(connection, slot_name(settings.project.name, "order"))
            assert slot is not None
            assert 0 < total(samples, "towpath_slot_lag_bytes", service="order") <= slot.lag_bytes
            assert total(samples, "towpath_slot_lost") == 0
        finally:
            connect.resume(name)
    await_instances(observed.stack, orders, lambda one: one.state.ended)
    observed.scrape_until(lambda samples: not total(samples, "towpath_outbox_rows", service="order"))


# --- One order's trace ------------------------------------------------------------------------------------------------


def test_an_order_is_one_trace_from_the_application_to_the_views(observed: Observed) -> None:
    """The application's own spans lie in memory; below them those that workers export by OTLP, in their order."""
    follow_an_order(observed)


def follow_an_order(observed: Observed) -> None:
    """Place an order by the client, within a span of the application's, and look at its trace."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    try:
        with tracing.span("POST /orders"):
            place(observed)
    finally:
        tracing.use(None)
    start, root = exporter.get_finished_spans()
    assert (start.name, root.name) == ("start place_order", "POST /orders")
    assert start.context is not None
    trace_id = f"{start.context.trace_id:032x}"
    last_names = ("place_order PaymentCaptured", "order_status OrderConfirmed", f"{NAME} HistoryEntry")
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    application_id, by_id = f"{start.context.span_id:016x}", dict[str, Exported]()
    # Workers export their spans when they like: until each of those above one is there as well.
    while not set(last_names) <= {span.name for span in by_id.values()} or not all(
        span.parent in by_id or span.parent == application_id for span in by_id.values()
    ):
        assert time.monotonic() < deadline, sorted(span.name for span in by_id.values())
        time.sleep(0.2)
        by_id = {span.span_id: span for span in observed.collector.of_trace(trace_id)}
    spans = list(by_id.values())
    first = next(span for span in spans if span.name == "carry order.events")
    assert first.parent == application_id
    assert "towpath.carried_by" not in first.attributes, "capture carried it"
    last = next(span for span in spans if span.name == last_names[0])
    assert chain(by_id, last)[:13] == [
        "place_order PaymentCaptured",
        "carry place_order.replies",
        "payment CapturePayment",
        "carry payment.commands",
        "place_order OrderConfirmed",
        "carry place_order.replies",
        "order ConfirmOrder",
        "carry order.commands",
        "place_order PaymentAuthorised",
        "carry place_order.replies",
        "payment AuthorisePayment",
        "carry payment.commands",
        chain(by_id, last)[12],
    ]
    assert chain(by_id, last)[-2:] == ["place_order OrderPlaced", "carry order.events"]
    view = next(span for span in spans if span.name == "order_status OrderConfirmed")
    assert chain(by_id, view)[:3] == ["order_status OrderConfirmed", "carry order.events", "order ConfirmOrder"]
    assert {span.service for span in spans} >= {
        "saga:place_order",
        "service:payment",
        "view:order_status",
        "view:sagas",
    }
    assert last.attributes["towpath.step"] == "capture_payment"
    handled = [span for span in spans if not span.name.startswith("carry ")]
    for span in handled:
        parents = [by_id[name] for name in ancestors(by_id, span) if not by_id[name].name.startswith("carry ")]
        assert all(parent.start_nanoseconds <= span.start_nanoseconds for parent in parents), span
        assert span.start_nanoseconds <= span.end_nanoseconds


def place(observed: Observed) -> None:
    """Place an order as an application does: its row, and the start of its saga by the client."""
    settings, shop = observed.stack.settings, observed.shop
    order = OrderPlaced(
        order_id=f"traced-{uuid4().hex[:8]}",
        customer_id=shop.customer_id,
        lines=(OrderLine(sku=shop.sku, quantity=1, unit_price_cents=SMALL_CENTS),),
        total_cents=SMALL_CENTS,
        currency="EUR",
        card_token="card-1",
        placed_at=datetime.now(UTC),
    )
    with psycopg.connect(settings.postgres.database_url("order")) as connection:
        add_order(connection, order)
        Client.load(settings).start(connection, "place_order", order.order_id, order, event_id=uuid4())


def ancestors(by_id: dict[str, Exported], span: Exported) -> list[str]:
    """Return the ids of the exported spans above one, the nearest first."""
    found = []
    while span.parent in by_id:
        found.append(span.parent)
        span = by_id[span.parent]
    return found


def chain(by_id: dict[str, Exported], span: Exported) -> list[str]:
    """Return the name of a span, and of those above it."""
    return [span.name, *(by_id[one].name for one in ancestors(by_id, span))]
