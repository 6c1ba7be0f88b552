"""The check encodes what builders build, by the contracts of the project: what cannot be written is found."""

from dataclasses import replace
from typing import Any

import pytest

from sagas import place_order
from sagas.place_order import capture_payment, release_stock
from schemas.records.order import OrderPlaced
from schemas.records.payment import CapturePayment, PaymentAuthorised
from towpath.cli.saga_samples import contract_samples
from towpath.saga.check import Check, Property
from towpath.saga.definition import Definition
from towpath.settings import load_settings

SAMPLES = contract_samples(load_settings())


def with_builder(key: str, build: Any, *, undo: bool = False) -> Definition:
    """Return place_order with another builder of one step."""
    definition = place_order.saga.definition
    step = definition.step(key)
    if undo:
        assert step.undo is not None
        changed = replace(step, undo=replace(step.undo, build=build))
    else:
        changed = replace(step, build=build)
    return replace(definition, steps=tuple(changed if each.key == key else each for each in definition.steps))


def nobody(order: OrderPlaced) -> Any:
    """Return an undo without an order."""
    return replace(release_stock(order), order_id=None)  # type: ignore[arg-type]


def a_number(order: OrderPlaced) -> Any:
    """Return an undo whose order is a number."""
    return replace(release_stock(order), order_id=42)  # type: ignore[arg-type]


def too_much(order: OrderPlaced, payment: PaymentAuthorised) -> CapturePayment:
    """Return an amount that no long holds."""
    return replace(capture_payment(order, payment), amount_cents=(payment.amount_cents + 1) * 10**25)


@pytest.mark.parametrize(
    ("key", "build", "undo"),
    [("reserve_stock", nobody, True), ("reserve_stock", a_number, True), ("capture_payment", too_much, False)],
)
def test_a_command_that_cannot_be_encoded_is_found(key: str, build: Any, undo: bool) -> None:
    """Its participant would never see it: the worker would fail at the send."""
    definition = with_builder(key, build, undo=undo)
    (report,) = Check([definition], lambda: 0.0, SAMPLES).run()
    found = [each for each in report.violations if (each.rule, each.subject) == (Property.WRONG_VALUE, key)]
    assert found
    assert "cannot be encoded" in found[0].words
