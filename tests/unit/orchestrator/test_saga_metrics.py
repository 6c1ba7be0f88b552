"""Metrics agree with the log: scraped while sagas run, and counted again from the topics afterwards."""

import re
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.records.catalog import StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderConfirmed
from schemas.records.payment import PaymentAuthorised
from tests.unit.orchestrator.desktop import CODEC, commands, order_placed
from tests.unit.orchestrator.test_requests import asking, captured, give, state_of, stuck_capture
from tests.unit.orchestrator.village import Village
from towpath import metrics
from towpath.clock import ManualClock
from towpath.metrics import SampledGauge, Sampling
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.saga_metrics import Tally
from towpath.saga.inputs import Action

ORDERS = 40
Labels = frozenset[tuple[str, str]]


def scrape() -> dict[tuple[str, Labels], float]:
    """Return what a scrape gives, by name and labels."""
    text = generate_latest(REGISTRY).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    """Return one value of a scrape; 0 where it has none."""
    return found.get((name, frozenset(labels.items())), 0.0)


def tell(tally: Tally) -> None:
    """Tell the metrics what was noted, as after a commit."""
    told = tally.take()
    assert told is not None
    told()


def test_what_is_scraped_under_load_agrees_with_the_log(tmp_path: Path) -> None:
    """Started, ended, commands by step and records by topic; the lag is there from the first partition on, and ends."""
    answers = {
        "ReserveStock": StockReserved(order_id="o", reservation_id="r"),
        "VerifyCustomer": CustomerVerified(order_id="o", customer_id="c"),
        "AuthorisePayment": PaymentAuthorised(order_id="o", authorisation_id="a", amount_cents=1),
        "ConfirmOrder": OrderConfirmed(order_id="o", confirmed_at=ManualClock().now()),
        "CapturePayment": captured(),
    }
    village = Village(tmp_path, answers)
    before = scrape()
    for number in range(ORDERS):
        order = order_placed(f"order-{number}")
        said = headers_of(id=f"event-{number}", type=order.SCHEMA_NAME)
        village.broker.append("order.events", CODEC.encode(order), key=f"order-{number}".encode(), headers=said)
    seen: list[dict[tuple[str, Labels], float]] = []

    def done() -> bool:
        seen.append(scrape())
        return sum(1 for entry in village.history("buy") if entry.status == "completed") >= ORDERS

    village.run(done)
    after = scrape()
    lags = [one for found in seen for (name, _), one in found.items() if name == "towpath_lag_records"]
    assert lags
    assert max(lags) >= 0

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    entries = village.history("buy")
    assert grown("towpath_sagas_started_total", saga="buy", version="1") == ORDERS
    assert grown("towpath_sagas_ended_total", saga="buy", status="completed") == ORDERS
    assert grown("towpath_saga_seconds_count", saga="buy", status="completed") == ORDERS
    sent = Counter(one.step for entry in entries for one in entry.sent if one.topic.endswith(".commands"))
    assert sent
    for step, number in sent.items():
        counted = grown("towpath_step_commands_total", saga="buy", step=step, direction="do", attempt="first")
        assert counted == number, step
        assert grown("towpath_step_seconds_count", saga="buy", step=step, direction="do") == number
        assert grown("towpath_steps_total", saga="buy", step=step, outcome="succeeded") == number
    records = grown("towpath_records_total", application="village-saga-buy", topic="order.events")
    assert records == ORDERS


def test_retries_undos_and_stuck_sagas_are_told_apart() -> None:
    """A capture that nobody answers is sent again and again, then needs a person."""
    tally = Tally()
    before = scrape()
    context = stuck_capture(tally.note)
    tell(tally)
    first = scrape()

    def grown(name: str, **labels: str) -> float:
        return value(first, name, **labels) - value(before, name, **labels)

    capture = {"saga": "place_order", "step": "capture_payment", "direction": "do"}
    assert grown("towpath_step_commands_total", **capture, attempt="first") == 1
    assert grown("towpath_step_commands_total", **capture, attempt="again") > 10
    assert grown("towpath_sagas_stuck_total", saga="place_order") == 1
    assert grown("towpath_steps_total", saga="place_order", step="capture_payment", outcome="stuck") == 1
    request = asking(state_of(context), Action.CANCEL)
    assert commands(give(context, request)) == []
    tell(tally)
    refused = value(scrape(), "towpath_saga_inputs_refused_total", saga="place_order", input="OperatorAsked")
    assert refused - value(first, "towpath_saga_inputs_refused_total", saga="place_order", input="OperatorAsked") == 1


def test_a_source_that_fails_is_counted_and_the_others_still_speak() -> None:
    """One database that is away must not blind the rest."""
    gauge = SampledGauge("towpath_of_a_test", "For this test.", ("which",))
    sampling = Sampling()

    def fails() -> list[metrics.Sample]:
        raise ConnectionError("away")

    sampling.add("broken", fails)
    sampling.add("whole", lambda: [(gauge, ("a",), 1.0), (gauge, ("b",), 2.0)])
    before = metrics.SAMPLES_FAILED.labels("broken")._value.get()
    (family,) = sampling.collect()
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"which": "a"}, 1.0),
        ({"which": "b"}, 2.0),
    ]
    assert metrics.SAMPLES_FAILED.labels("broken")._value.get() - before == 1
    sampling.remove("whole")
    assert list(sampling.collect()) == []


ENGINE = Path(metrics.__file__).parent


@pytest.mark.parametrize(
    "name", [name for name, each in vars(metrics).items() if hasattr(each, "_labelnames") or type(each) is SampledGauge]
)
def test_each_metric_that_is_exported_is_set_somewhere(name: str) -> None:
    """One that nothing sets would be told as nothing, or not at all, for ever."""
    used = re.compile(rf"\bmetrics\.{name}\b|\b{name}\.labels\(")
    assert any(used.search(path.read_text(encoding="utf-8")) for path in ENGINE.rglob("*.py")), name


@pytest.mark.parametrize("name", [name for name, each in vars(metrics).items() if hasattr(each, "_labelnames")])
def test_no_metric_is_labelled_with_a_key_or_an_id(name: str) -> None:
    """Their number would grow with the business."""
    assert not {"saga_id", "key", "id", "item"} & set(vars(metrics)[name]._labelnames)


def test_what_an_aborted_unit_decided_is_not_counted() -> None:
    """It is decided again in the next unit, and counted once."""
    tally, before = Tally(), scrape()
    context = stuck_capture(tally.note)
    tally.clear()
    assert tally.take() is None
    assert value(scrape(), "towpath_sagas_started_total", saga="place_order", version="1") == value(
        before, "towpath_sagas_started_total", saga="place_order", version="1"
    )
    assert state_of(context).status.value == "stuck"
