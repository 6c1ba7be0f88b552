"""Records as JSON for people: strict, and every problem told with its place."""

import json
from random import Random
from typing import Any, Final

import pytest

from tests.unit.contract.test_generate import CARD, CASH, EVERYTHING, SIZE
from tests.unit.contract.workshop import field, record
from towpath.contract.json_form import read_json, write_json
from towpath.contract.parse import parse
from towpath.contract.sample import sample
from towpath.contract.schema import Schemas

SEED: Final = 3
NAME: Final = "shop.order.Everything"


def everything() -> Schemas:
    """Return the schemas with every type in one record."""
    return Schemas(
        {name: schema for avro in (SIZE, CARD, CASH, EVERYTHING) for name, schema in parse(avro, source="x").items()}
    )


GOOD: Final[dict[str, Any]] = {
    "total": 12,
    "digest": "YWJjZA==",
    "at": "2026-03-14T09:26:53.589793+00:00",
    "at_millis": "2026-03-14T09:26:53Z",
    "day": "2026-03-14",
    "key": "00000000-0000-0000-0000-000000000007",
    "price": "12.50",
}


def test_fields_with_defaults_may_be_left_out() -> None:
    """A good example names what it is about; the rest is filled in as a reader would."""
    reading = read_json(everything(), NAME, GOOD)
    assert reading.problems == ()
    assert reading.datum["tags"] == ["a"]
    assert reading.datum["till"] == {"till": 7}
    assert reading.datum["blob"] == b"\x00\xff"


def test_what_is_written_is_read_back_the_same() -> None:
    """Random data of every type survives JSON, through its text."""
    schemas = everything()
    chance = Random(SEED)
    for turn in range(300):
        datum = sample(schemas, NAME, chance)
        text = json.dumps(write_json(schemas, NAME, datum))
        reading = read_json(schemas, NAME, json.loads(text))
        assert reading.problems == (), f"seed {SEED}, turn {turn}"
        assert reading.datum == datum, f"seed {SEED}, turn {turn}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total": None}, "total: takes a whole number, not null"),
        ({"total": 1.0}, "total: takes a whole number, not a number"),
        ({"total": True}, "total: takes a whole number, not true or false"),
        ({"total": 2**63}, "total: takes a whole number of 64 bits, not a larger one"),
        ({"flag": "yes"}, "flag: takes true or false, not a text"),
        ({"ratio": "0.5"}, "ratio: takes a number, not a text"),
        ({"small": 1e39}, "small: takes a number of 32 bits"),
        ({"note": 5}, "note: takes a text, not a whole number"),
        ({"size": "larg"}, "size: takes one of small, large (did you mean 'large'?)"),
        ({"digest": "YWI="}, "digest: takes 4 bytes, not 2"),
        ({"blob": "?"}, "blob: takes bytes in base64, not another text"),
        ({"tags": {"0": "a"}}, "tags: takes a list, not an object"),
        ({"tags": ["a", 2]}, "tags[1]: takes a text, not a whole number"),
        ({"weights": {"a": "b"}}, "weights{a}: takes a number, not a text"),
        ({"cards": {"x": {}}}, "cards{x}.token: missing"),
        ({"paid_by": {"token": "t"}}, "paid_by: takes an object with one key out of shop.order.Card, shop.order.Cash"),
        ({"at": "2026-03-14T09:26:53"}, "at: takes a time in ISO 8601 with its zone"),
        ({"at": 1773480413}, "at: takes a time in ISO 8601 with its zone, not a whole number"),
        ({"day": "14.3.2026"}, "day: takes a date in ISO 8601"),
        ({"key": "7"}, "key: takes a UUID, not another text"),
        ({"price": "1.005"}, "price: takes a decimal of 8 digits, 2 after the point"),
        ({"price": 12.5}, "price: takes a decimal of 8 digits, 2 after the point, as a text, not a number"),
        ({"totl": 1}, "totl: unknown field (did you mean 'total'?)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_value_is_refused_with_its_place(change: dict[str, Any], words: str) -> None:
    """The words say the field, what it takes, and what kind of value stood there."""
    problems = read_json(everything(), NAME, {**GOOD, **change}).problems
    assert [problem for problem in problems if words in problem], problems
    assert len(problems) == 1


def test_all_problems_are_told_at_once() -> None:
    """A person fixes an example in one go."""
    schemas = Schemas(parse(record("A", field("x"), field("y", "int")), source="A"))
    problems = read_json(schemas, "shop.order.A", {"x": 1, "z": 0}).problems
    assert len(problems) == 3


def test_one_of_several_records_is_named() -> None:
    """Where two records could stand, the JSON says which."""
    schemas = everything()
    reading = read_json(schemas, NAME, {**GOOD, "paid_by": {"shop.order.Cash": {"till": 3}}})
    assert reading.datum["paid_by"] == ("shop.order.Cash", {"till": 3})
    assert write_json(schemas, NAME, reading.datum)["paid_by"] == {"shop.order.Cash": {"till": 3}}
