"""Rules in the Avro file bind who writes: the codec refuses what breaks them, and says which; readers are told."""

from datetime import date, time
from typing import Any

import pytest

from tests.unit.contract.test_check import Project
from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.cel import compile_cel
from towpath.contract.codec import derived_id, wire_prefix
from towpath.contract.field_rules import annotation_findings, compile_rules, rule_findings
from towpath.contract.snapshot import schemas_of
from towpath.errors import ContractError

LINE = record("OrderLine", field("pieces", "int", minimum=1, maximum=99))
FIELDS = (
    field("order_id", pattern="o-[0-9]+"),
    field("total", "long", minimum=0),
    field("note", ["null", "string"], default=None, minLength=2, maxLength=5),
    field("rate", "double", default=0.5, cel="value >= 0.0 && value < 1.0"),
    field("price", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, default="d", maximum=10.5),
    field("lines", {"type": "array", "items": LINE}, default=[]),
)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"order_id": "x"}, "order_id: does not match the pattern o-[0-9]+"),
        ({"order_id": "o-1\n"}, "order_id: does not match the pattern"),
        ({"total": -1}, "total: is below its minimum of 0"),
        ({"note": "a"}, "note: is 1 long, and minLength is 2"),
        ({"note": "abcdef"}, "note: is 6 long, and maxLength is 5"),
        ({"rate": 1.0}, "rate: does not hold: value >= 0.0 && value < 1.0"),
        ({"price": "10.51"}, "price: is above its maximum of 10.5"),
        ({"lines": (0,)}, "lines[0].pieces: is below its minimum of 1"),
        ({"lines": (1, 100)}, "lines[1].pieces: is above its maximum of 99"),
    ],
)
def test_a_producer_cannot_write_what_breaks_a_rule(workshop: Workshop, values: dict[str, Any], words: str) -> None:
    """The error names field and rule, and never the value."""
    from decimal import Decimal

    workshop.put(record("OrderPlaced", *FIELDS))
    codec, classes = workshop.codec(), workshop.classes()
    whole = {"order_id": "o-1", "total": 0, "note": None, "rate": 0.0, "price": "10.50", "lines": (1, 99), **values}
    whole["lines"] = tuple(classes.OrderLine(pieces=pieces) for pieces in whole["lines"])
    whole["price"] = Decimal(whole["price"])
    with pytest.raises(ContractError) as caught:
        codec.encode(classes.OrderPlaced(**whole))
    assert words in caught.value.cause


def test_what_keeps_the_rules_is_written_and_what_was_written_before_is_read(workshop: Workshop) -> None:
    """A reader is held to no rule: the record was written before there was one."""
    workshop.put(record("OrderPlaced", field("total", "int")))
    codec, classes = workshop.codec(), workshop.classes()
    before = codec.encode(classes.OrderPlaced(total=-5))
    workshop.put(record("OrderPlaced", field("total", "int", minimum=0)))
    contracts = workshop.generate()
    codec = workshop.codec()
    prefix = wire_prefix(derived_id(contracts.schemas, "shop.order.OrderPlaced"))
    assert codec.decode(prefix + before[5:]) == workshop.classes().OrderPlaced(total=-5)
    assert codec.encode(workshop.classes().OrderPlaced(total=5))


def test_records_without_rules_pay_nothing(workshop: Workshop) -> None:
    """They have no check at all, unless they hold a record that has rules."""
    workshop.put(record("Plain", field("x")))
    workshop.put(record("OrderPlaced", field("line", ["null", LINE], default=None)))
    assert set(compile_rules(workshop.contracts().schemas)) == {"shop.order.OrderPlaced", "shop.order.OrderLine"}


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"pattern": "("}, "pattern is no regular expression"),
        ({"minimum": "1"}, "minimum is '1', and must be a number"),
        ({"maxLength": 1.5}, "maxLength is 1.5, and must be a number"),
        ({"cel": "value >"}, "cel cannot be read"),
    ],
)
def test_a_rule_that_cannot_be_is_found_at_once(workshop: Workshop, attributes: dict[str, Any], words: str) -> None:
    """Before anything is written; the error names record and field."""
    workshop.put(record("OrderPlaced", field("x", **attributes)))
    with pytest.raises(ContractError, match=r"shop\.order\.OrderPlaced\.x: ") as caught:
        compile_rules(workshop.contracts().schemas)
    assert words in caught.value.cause


def test_a_good_example_keeps_the_rules_and_random_data_need_not(workshop: Workshop) -> None:
    """Else the example would show what nobody may write."""
    project = Project(workshop.folder)
    workshop.package = project.package
    project.put(record("OrderPlaced", field("order_id"), field("total", "int", minimum=10)))
    (finding,) = project.problems()
    assert finding.problem == "it breaks a rule: total: is below its minimum of 10"
    project.example("good/usual", {"order_id": "o-1", "total": 10})
    assert project.problems() == []


def test_readers_are_told_of_deprecated_and_of_personal_fields() -> None:
    """A warning until the last day, an error after it; only who uses the field is named."""
    fields = (field("mail", personal=True), field("old", default="", deprecated="2027-01-31"))
    name = "shop.order.OrderPlaced"
    schemas = schemas_of(name, record("OrderPlaced", *fields), "test")
    readers = {
        "billing": {name: schemas_of(name, record("OrderPlaced", field("mail"), field("old")), "test")},
        "audit": {name: schemas_of(name, record("OrderPlaced", field("x", default="")), "test")},
    }
    personal, deprecated = annotation_findings(schemas, readers, date(2027, 1, 31))
    assert (personal.rule, personal.fails) == ("personal-field", False)
    assert personal.problem == "OrderPlaced.mail: it is about a person, and is read by billing"
    assert (deprecated.rule, deprecated.fails, deprecated.breaks) == ("deprecated-field", False, ("billing",))
    _, over = annotation_findings(schemas, readers, date(2027, 2, 1))
    assert over.fails
    wrong = schemas_of(name, record("OrderPlaced", field("x", deprecated="soon")), "test")
    with pytest.raises(ContractError, match="must be a day like"):
        list(annotation_findings(wrong, {}, date(2027, 1, 1)))


@pytest.mark.parametrize(
    ("schema", "attributes", "words"),
    [
        ("int", {"pattern": "a"}, "its type has no text, so that pattern never applies"),
        ("string", {"minimum": 1}, "its type has no numbers, so that minimum never applies"),
        ({"type": "int", "logicalType": "date"}, {"maximum": 5}, "its type has no numbers"),
        ("long", {"minLength": 1}, "its type has no length"),
        ("string", {"minLength": -1}, "minLength is -1, and must not be negative"),
        ("int", {"minimum": 5, "maximum": 1}, "minimum is 5 and maximum 1: no value fits"),
        ("int", {"minimum": "x"}, "minimum is 'x', and must be a number"),
        ("string", {"pattern": "("}, "pattern is no regular expression"),
        ("int", {"cel": 5}, "cel cannot be read: it is a text of at most 2000 characters"),
        ("int", {"cel": "value >"}, "cel cannot be read"),
        ("int", {"cel": "value > 0" + " && value > 0" * 500}, "cel cannot be read: it is a text of at most"),
        ("int", {"deprecated": "soon"}, "deprecated is 'soon', and must be a day like 2027-01-31"),
        ("int", {"personal": "yes"}, "personal is 'yes', and must be true or false"),
    ],
)
def test_a_rule_that_cannot_be_or_never_applies_is_a_finding(
    workshop: Workshop, schema: Any, attributes: dict[str, Any], words: str
) -> None:
    """A promise that is ignored is a broken one. All of them are told, not the first."""
    avro = record("OrderPlaced", field("odd", schema, **attributes), field("also", "int", pattern="a"))
    workshop.put(avro)
    (found, also) = rule_findings(workshop.contracts().schemas)
    assert (found.rule, found.place) == ("field-rule", "OrderPlaced.odd")
    assert words in found.problem
    assert also.place == "OrderPlaced.also"


@pytest.mark.parametrize(
    ("cel", "value", "said"),
    [
        ("size(value) > 1", b"\xff", "does not hold: size(value) > 1"),
        ("value > timestamp('2020-01-01T00:00:00Z')", date(2019, 1, 1), "does not hold: value > timestamp"),
        ("value >= duration('1h')", time(0, 30), "does not hold: value >= duration"),
        ("value", 1, "cannot be judged by value: it gives no true or false"),
        ("other > 1", 1, "cannot be judged by other > 1: undeclared reference to 'other'"),
        ("(" * 400 + "value" + ")" * 400 + " > 0", 1, "it is nested too deeply"),
        ("value.all(a, value.all(b, a + b < 0))", (-1,) * 300, "it takes more than 50000 steps"),
    ],
)
def test_an_expression_is_asked_within_bounds_and_never_tells_the_value(cel: str, value: Any, said: str) -> None:
    """What it cannot judge is a broken rule in words, not an error of the library."""
    problem = compile_cel(cel)(value)
    assert problem is not None
    assert said in problem
    assert "activation" not in problem


def test_what_is_no_number_breaks_every_bound(workshop: Workshop) -> None:
    """NaN is neither above nor below."""
    workshop.put(record("OrderPlaced", field("rate", "double", minimum=0)))
    codec, classes = workshop.codec(), workshop.classes()
    with pytest.raises(ContractError, match="rate: is no number, and has a minimum"):
        codec.encode(classes.OrderPlaced(rate=float("nan")))
