"""Records as plain JSON and samples of them: what golden histories and random walks are made of."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from schemas.records.order import OrderPlaced
from towpath.saga.testing import sample
from towpath.saga.testing.plain import from_plain, to_plain


class Colour(Enum):
    """An enum, as Avro has them."""

    RED = "red"


@dataclass(frozen=True)
class Inner:
    """A record in a record."""

    count: int


@dataclass(frozen=True)
class Everything:
    """A record with a field of every kind."""

    text: str
    count: int
    share: float
    flag: bool
    raw: bytes
    moment: datetime
    day: date
    price: Decimal
    id: UUID
    colour: Colour
    inner: Inner
    several: tuple[Inner, ...]
    listed: list[int]
    named: dict[str, Inner]
    maybe: int | None
    none: None


FULL = Everything(
    text="t",
    count=2,
    share=0.5,
    flag=True,
    raw=b"\x00\xff",
    moment=datetime(2026, 1, 1, tzinfo=UTC),
    day=date(2026, 1, 1),
    price=Decimal("1.20"),
    id=UUID(int=7),
    colour=Colour.RED,
    inner=Inner(1),
    several=(Inner(2), Inner(3)),
    listed=[1],
    named={"a": Inner(4)},
    maybe=None,
    none=None,
)


def test_a_record_is_plain_and_comes_back() -> None:
    """Every kind of field."""
    plain = to_plain(FULL)
    assert plain["raw"] == "AP8="
    assert plain["price"] == "1.20"
    assert from_plain(Everything, plain) == FULL


@pytest.mark.parametrize("kind", [Everything, OrderPlaced])
def test_a_sample_is_valid_always_the_same_and_plain(kind: Any) -> None:
    """It fits its own field types."""
    made = sample(kind)
    assert made == sample(kind)
    assert from_plain(kind, to_plain(made)) == made


@pytest.mark.parametrize(
    ("kind", "plain"),
    [(int, "1"), (str, 1), (bool, 1), (None, 1), (int | None, "1"), (object, "1"), (datetime, "yesterday")],
)
def test_what_does_not_fit_is_refused(kind: Any, plain: Any) -> None:
    """Nothing is guessed at."""
    with pytest.raises((TypeError, ValueError)):
        from_plain(kind, plain)


def test_whole_numbers_fit_a_float() -> None:
    """JSON writes 1.0 as 1 in some hands."""
    assert from_plain(float, 1) == 1.0
    assert isinstance(from_plain(float, 1), float)


def test_what_has_no_plain_form_is_named() -> None:
    """The type is."""
    with pytest.raises(TypeError, match="a object has no plain form"):
        to_plain(object())
    with pytest.raises(TypeError, match="no sample of <class 'object'> is known"):
        sample(object)


def test_a_union_is_sampled_by_its_first() -> None:
    """`int | None` gives a number."""
    assert sample(int | None) == 1
