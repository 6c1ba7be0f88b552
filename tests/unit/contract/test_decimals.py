"""Decimals keep every digit or are refused; the error names the branch and the field that are meant."""

from decimal import Decimal
from typing import Any, Final

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.codec import Codec
from towpath.errors import ContractError

MONEY: Final = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
FIXED: Final = {"type": "fixed", "name": "Amount", "size": 4, "logicalType": "decimal", "precision": 6, "scale": 2}
TAKES: Final = "takes a Decimal of 6 digits, 2 after the point, not one that would be rounded or cut"


@pytest.fixture(params=[MONEY, FIXED, ["null", MONEY], [FIXED, "string"]], ids=["bytes", "fixed", "optional", "union"])
def till(workshop: Workshop, request: pytest.FixtureRequest) -> tuple[Codec, Any]:
    """Return codec and class of a record that holds an amount of six digits, two after the point."""
    workshop.put(record("Till", field("amount", request.param)))
    return workshop.codec(), workshop.classes().Till


@pytest.mark.parametrize(
    ("given", "cents"),
    [
        (Decimal("2.00") * Decimal("1.50"), 300),
        (Decimal("2.50") * Decimal("3.00") / Decimal("0.50"), 1500),
        (Decimal("1E+3"), 100_000),
        (Decimal(100), 10_000),
        (Decimal("9999.990000000000000000000000000000000000"), 999_999),
        (Decimal("-9999.99"), -999_999),
        (Decimal("-0.00"), 0),
        (Decimal("0E-40"), 0),
        (Decimal("0E+40"), 0),
        (Decimal("0.1"), 10),
        (sum([Decimal("0.10")] * 3, Decimal(0)), 30),
    ],
    ids=str,
)
def test_what_is_exact_passes_however_it_was_computed(till: tuple[Codec, Any], given: Decimal, cents: int) -> None:
    """Zeros after the last digit, and exponents, are no part of the value."""
    codec, built = till
    read: Any = codec.decode(codec.encode(built(amount=given)))
    assert read.amount == given == Decimal(cents).scaleb(-2)
    assert codec.encode(built(amount=given)) == codec.encode(built(amount=Decimal(cents).scaleb(-2)))


@pytest.mark.parametrize(
    "given",
    ["0.001", "2.005", "10000.00", "-10000", "1E+4", "1E-30", "1E+999999", "9999.9900000000000000000000000000000001"],
)
def test_what_would_be_rounded_or_cut_is_refused(till: tuple[Codec, Any], given: str) -> None:
    """Never written as another amount; the error says what the field takes, and not that a Decimal is no Decimal."""
    codec, built = till
    with pytest.raises(ContractError) as caught:
        codec.encode(built(amount=Decimal(given)))
    assert f"amount {TAKES}" in caught.value.cause


@pytest.mark.parametrize("given", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(till: tuple[Codec, Any], given: str) -> None:
    """Python's decimals have values that Avro's have not."""
    codec, built = till
    with pytest.raises(ContractError, match=r"amount takes a Decimal of 6 digits"):
        codec.encode(built(amount=Decimal(given)))


def test_the_error_blames_the_branch_that_is_meant(workshop: Workshop) -> None:
    """The one whose class the value has: neither the first of the union, nor the one that comes closest by name."""
    card = record("Card", field("token"), field("limit", MONEY))
    cash = record("Cash", field("till", "int"), field("float_", MONEY))
    workshop.put(
        record(
            "Payment",
            field("by", ["null", card, cash]),
            field("tip", ["null", "string", MONEY], default=None),
            field("parts", {"type": "array", "items": ["Card", "Cash"]}, default=[]),
            field("rates", {"type": "map", "values": ["int", MONEY]}, default={}),
        )
    )
    codec, classes = workshop.codec(), workshop.classes()
    fine = classes.Card(token="t", limit=Decimal(1))
    broken = classes.Cash(till=1, float_=Decimal("0.001"))

    def words(**values: Any) -> str:
        with pytest.raises(ContractError) as caught:
            codec.encode(classes.Payment(**{"by": fine, **values}))
        return caught.value.cause

    assert f"by.float_ {TAKES}" in words(by=broken)
    assert f"tip {TAKES}" in words(tip=Decimal("0.001"))
    assert f"parts[1].float_ {TAKES}" in words(parts=(fine, broken))
    assert f"rates{{}} {TAKES}" in words(rates={"a": 1, "b": Decimal(10**5)})
    assert "tip takes a str or a Decimal or None, not float" in words(tip=0.5)
    assert "by.token takes a str, not int" in words(by=classes.Card(token=1, limit=Decimal("0.001")))
