"""What ends a process, raised by a function of a saga: nothing is lost by it, and the worker says where it stands."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sagas import orders, payments
from schemas.records.order import OrderConfirmed, OrderPlaced
from schemas.records.payment import AuthorisationVoided, AuthorisePayment, PaymentAuthorised, PaymentDeclined
from tests.unit.orchestrator.desktop import CODEC, order_placed
from tests.unit.orchestrator.family import authorise_payment, confirm_order, void_authorisation
from tests.unit.orchestrator.village import Village
from tests.unit.stream.test_handler_exits import EXITS
from towpath.orchestrator.envelope import headers_of
from towpath.saga import Saga, Undo, hours, seconds
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.failures import HandlerExit

Check = Callable[[OrderPlaced], None]
PLACE = TopicPartition("order.events", 0)
GROUP = "village-saga-buy"


def passes(_: OrderPlaced) -> None:
    """Raise nothing."""


def raising(error: BaseException) -> Check:
    def check(order: OrderPlaced) -> None:
        if order.order_id == "BAD":
            raise error

    return check


def buy(*, builds: Check = passes, asks: Check = passes, keys: Check = passes) -> Saga[OrderPlaced]:
    """Return a saga; each of its functions runs its own check first."""

    def key(order: OrderPlaced) -> str:
        keys(order)
        return order.order_id

    def authorise(order: OrderPlaced) -> AuthorisePayment:
        builds(order)
        return authorise_payment(order)

    def is_paid_later(order: OrderPlaced) -> bool:
        asks(order)
        return True

    made = Saga("buy", version=1, starts_on=OrderPlaced, deadline=hours(1), keyed_by=key)
    paid = made.step(
        payments,
        authorise,
        key="authorise_payment",
        when=is_paid_later,
        undo=Undo(void_authorisation, succeeds=AuthorisationVoided),
        succeeds=PaymentAuthorised,
        fails=PaymentDeclined,
        within=seconds(10),
    )
    made.pivot(orders, confirm_order, after=paid, succeeds=OrderConfirmed, within=seconds(10))
    return made


def three(folder: Path, saga: Saga[OrderPlaced]) -> Village:
    """Return a village in which three orders were placed, in one partition."""
    village = Village(folder, {}, saga)
    for order_id in ("one", "BAD", "two"):
        said = headers_of(id=f"placed-{order_id}", type=OrderPlaced.SCHEMA_NAME)
        value, key = CODEC.encode(order_placed(order_id)), order_id.encode()
        village.broker.append(PLACE.topic, value, key=key, headers=said, partition=PLACE.partition)
    return village


def begun(village: Village) -> list[str]:
    """Return the orders whose payment was asked for."""
    return sorted(command.order_id for command in village.sent("payment.commands"))


def run_alone(village: Village, until: Callable[[], bool]) -> None:
    """Run a worker of the saga, and nobody who answers."""
    village.answered = 1_000
    village.run(until, workers=("buy",))


FORMS = pytest.mark.parametrize("form", ["builds", "asks", "keys"])


@FORMS
@pytest.mark.parametrize("exit_", EXITS, ids=lambda kind: kind.__name__)
def test_what_ends_a_process_ends_a_sagas_worker_before_its_record(
    tmp_path: Path, form: str, exit_: type[BaseException]
) -> None:
    """Nothing of the unit is committed or quarantined, the error names the record; mended, each order begins once."""
    village = three(tmp_path, buy(**{form: raising(exit_(0))}))
    with pytest.raises(HandlerExit, match=rf"order\.events\[0\]@1: {exit_.__name__} "):
        run_alone(village, lambda: False)
    assert village.broker.committed_offsets(GROUP).get(PLACE, 0) == 0
    for topic in ("payment.commands", "buy.history", "buy.state", "order.events.dead"):
        assert village.broker.records(topic) == []
    assert not village.broker.open_transactions()
    village.sagas["buy"] = {1: buy().definition}
    run_alone(village, lambda: village.broker.committed_offsets(GROUP).get(PLACE, 0) == 3)
    assert begun(village) == ["BAD", "one", "two"]
    assert village.broker.records("order.events.dead") == []


@FORMS
def test_a_cancellation_in_a_saga_is_its_records_failure_alone(tmp_path: Path, form: str) -> None:
    """CancelledError is no order to end: its record is dead after its attempts, all others begin."""
    village = three(tmp_path, buy(**{form: raising(asyncio.CancelledError())}))
    stream = village.settings.stream.model_copy(update={"dead_letter_share_max": 1.0})
    village.settings = village.settings.model_copy(update={"stream": stream})
    run_alone(village, lambda: village.broker.committed_offsets(GROUP).get(PLACE, 0) >= 3)
    assert begun(village) == ["one", "two"]
    (dead,) = village.broker.records("order.events.dead")
    letter = read_dead_letter(dead.header("dead") or "")
    assert (letter.position, letter.error) == ("order.events[0]@1", "CancelledError")
    assert letter.attempts == stream.handler_attempts_max
