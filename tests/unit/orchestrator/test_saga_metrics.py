"""Metrics agree with the log: scraped while sagas run, and counted again from the topics afterwards."""

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from prometheus_client import REGISTRY, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.records.catalog import StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderConfirmed
from schemas.records.payment import PaymentAuthorised
from tests.unit.orchestrator.desktop import CODEC, commands, order_placed
from tests.unit.orchestrator.test_requests import asking, captured, give, state_of, stuck_capture
from tests.unit.orchestrator.village import Village
from tests.unit.saga.course import COURSES
from tests.unit.saga.support import OPENED, SHAPES, Opened, Yes
from tests.unit.saga.support import step as add_step
from towpath import metrics
from towpath.clock import ManualClock
from towpath.metrics import MergedHistogram, SampledGauge, Sampling
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.saga_metrics import Tally
from towpath.saga import Saga, days, seconds
from towpath.saga.advance import Decision, advance
from towpath.saga.definition import Activity, Definition
from towpath.saga.effects import Happened, Record, SendCommand
from towpath.saga.inputs import Action, Input, Replied, Started
from towpath.saga.state import NEED_A_PERSON, Direction, SagaState, Status, StepState, StepStatus
from towpath.saga.testing import World

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
    tally = Tally("place_order")
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


Walked = list[tuple[Definition, SagaState | None, Input, Decision]]
SETTLED = {"succeeded", "undone", "skipped", "declined", "failed", "unknown", "abandoned"} | {
    one.value for one in NEED_A_PERSON
}


def walked(definition: Definition, seed: int) -> Walked:
    """Return what a saga decided in a hostile world."""
    dice, world = Random(seed), World(definition)
    for _ in range(40):
        moves = world.moves()
        usual = [move for move in moves if not move.adverse]
        (dice.choice(usual) if usual and dice.random() < 0.6 else dice.choice(moves)).happen()
    world.settle()
    states = [None, *(decision.state for _, decision in world.log)]
    return [(definition, before, *each) for before, each in zip(states, world.log, strict=False)]


def settled_in(state: SagaState | None) -> dict[tuple[str, str], StepState]:
    """Return each step without items, and each item, by its step and its own key."""
    steps = () if state is None else state.steps
    return {(step.key, one.key if step.items else ""): one for step in steps for one in step.items or (step,)}


class OneByOne:
    """What the counters have to say of decisions, each looked at by itself."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Labels]] = Counter()

    def count(self, name: str, **labels: str) -> None:
        """Count one."""
        self.counts[name, frozenset(labels.items())] += 1

    def note(self, definition: Definition, before: SagaState | None, input_: Input, decision: Decision) -> None:
        """Count what one decision tells."""
        saga, after = definition.name, decision.state
        for effect in decision.effects:
            if isinstance(effect, SendCommand):
                told = {"direction": effect.direction.value, "attempt": "first" if effect.attempt == 1 else "again"}
                self.count("towpath_step_commands_total", saga=saga, step=effect.step, **told)
            if isinstance(effect, Record) and effect.happened is Happened.REFUSED:
                self.count("towpath_saga_inputs_refused_total", saga=saga, input=type(input_).__name__)
        if after is None:
            return
        if before is None:
            self.count("towpath_sagas_started_total", saga=saga, version=str(after.version))
        if before is None or before.status is not after.status:
            if after.ended:
                self.count("towpath_sagas_ended_total", saga=saga, status=after.status.value)
                self.count("towpath_saga_seconds_count", saga=saga, status=after.status.value)
            if after.status is Status.STUCK:
                self.count("towpath_sagas_stuck_total", saga=saga)
        earlier = settled_in(before)
        for (key, item), is_ in settled_in(after).items():
            self.note_step(definition, key, earlier.get((key, item)), is_, answered=isinstance(input_, Replied))

    def note_step(
        self, definition: Definition, key: str, was: StepState | None, is_: StepState, *, answered: bool
    ) -> None:
        """Count what a step, or an item, has come to."""
        if was is not None and was.status is is_.status:
            return
        if is_.status.value in SETTLED:
            self.count("towpath_steps_total", saga=definition.name, step=key, outcome=is_.status.value)
        if was is None or not answered or not was.due_milliseconds:
            return
        declared = definition.steps[definition.index[key]]
        if was.status is StepStatus.SENT and declared.policy is not None:
            self.count("towpath_step_seconds_count", saga=definition.name, step=key, direction="do")
        if was.status is StepStatus.UNDOING and declared.undo is not None:
            self.count("towpath_step_seconds_count", saga=definition.name, step=key, direction="undo")


@pytest.mark.parametrize("name", [*SHAPES, *COURSES])
def test_a_unit_tells_what_its_decisions_would_tell_one_by_one(name: str) -> None:
    """Whatever a saga meets, in units of any length: nothing is left out or told twice by what is kept together."""
    definition = {**SHAPES, **COURSES}[name]().definition
    waits = {step.key for step in definition.steps if step.activity is Activity.WAIT}
    for seed in range(5):
        found, before, dice = walked(definition, seed), scrape(), Random(seed)
        tally = Tally(definition.name)
        for each in found:
            tally.note(*each)
            if dice.random() < 0.2:
                (tally.take() or (lambda: None))()
        (tally.take() or (lambda: None))()
        expected = OneByOne()
        for each in found:
            expected.note(*each)
        grown = {
            (metric, labels): number - before.get((metric, labels), 0.0)
            for (metric, labels), number in scrape().items()
            if metric.endswith(("_total", "_count")) and dict(labels).get("saga") == definition.name
        }
        of_waits = {one for one in grown if one[0] == "towpath_step_seconds_count" and dict(one[1])["step"] in waits}
        assert {one: number for one, number in grown.items() if number and one not in of_waits} == expected.counts, seed


def one_step(version: int, within: timedelta) -> Definition:
    """Return a saga of one step."""
    made = Saga("timed_by_version", version=version, starts_on=Opened, deadline=days(4))
    add_step(made, "only", within=within)
    return made.definition


def answered_after(definition: Definition, milliseconds: int) -> Walked:
    """Return the decisions of an instance whose only command was answered after so long."""
    started = Started("s", 1_000_000, OPENED, "key")
    begun = advance(definition, None, started)
    replied = Replied("r", 1_000_000 + milliseconds, "only", Direction.DO, 1, 1, Yes())
    return [
        (definition, None, started, begun),
        (definition, begun.state, replied, advance(definition, begun.state, replied)),
    ]


def test_a_step_is_timed_by_the_version_that_sent_its_command() -> None:
    """Two versions in one unit may give a step's attempts different times."""
    short, long = (one_step(version, within) for version, within in ((1, seconds(10)), (2, seconds(30))))
    tally, before = Tally(short.name), scrape()
    for definition in (short, long, short):
        for each in answered_after(definition, milliseconds=4_000):
            tally.note(*each)
    tell(tally)
    after = scrape()
    labels = {"saga": short.name, "step": "only", "direction": "do"}
    for name, expected in (("count", 3), ("sum", 12.0)):
        grown = value(after, f"towpath_step_seconds_{name}", **labels) - value(
            before, f"towpath_step_seconds_{name}", **labels
        )
        assert grown == pytest.approx(expected), name


def test_observations_that_are_told_together_lie_in_the_buckets_in_which_each_would() -> None:
    """On a bound, between two, above all: as Prometheus itself counts them."""
    named = "towpath_of_a_test_seconds", "For this test."
    together = MergedHistogram(*named, buckets=(0.01, 0.5, 1.0), registry=None)
    each = Histogram(*named, buckets=(0.01, 0.5, 1.0), registry=None)
    amounts = [0.0, 0.01, 0.0100001, 0.5, 0.7, 0.7, 1.0, 1.0000001, 9e9]
    together.observe_all(amounts)
    together.observe_all([])
    for amount in amounts:
        each.observe(amount)

    def samples(histogram: Histogram) -> list[tuple[str, dict[str, str], float]]:
        (family,) = histogram.collect()
        return [(one.name, one.labels, one.value) for one in family.samples if not one.name.endswith("_created")]

    assert samples(together) == samples(each)


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
    tally, before = Tally("place_order"), scrape()
    context = stuck_capture(tally.note)
    tally.clear()
    assert tally.take() is None
    assert value(scrape(), "towpath_sagas_started_total", saga="place_order", version="1") == value(
        before, "towpath_sagas_started_total", saga="place_order", version="1"
    )
    assert state_of(context).status.value == "stuck"
