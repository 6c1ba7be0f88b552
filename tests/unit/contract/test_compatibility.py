"""Who can read whom: the rules by themselves, and against two libraries on random pairs of schemas."""

import json
from random import Random
from typing import Any, Final

import avro.compatibility
import avro.schema
import pytest

from tests.unit.contract.workshop import field, record
from towpath.contract.avro_readers import CannotJudge, judges, write_body
from towpath.contract.compatibility import breaks
from towpath.contract.parse import parse
from towpath.contract.sample import sample
from towpath.contract.schema import Schemas

SEED: Final = 11
SIZE: Final = {"type": "enum", "name": "Size", "symbols": ["small", "large"]}
MOVED: Final = {**SIZE, "namespace": "old"}
MILLIS: Final = {"type": "long", "logicalType": "timestamp-millis"}
MICROS: Final = {"type": "long", "logicalType": "timestamp-micros"}


def schemas(*fields: dict[str, Any]) -> Schemas:
    """Return the schemas of a record A with these fields."""
    return Schemas(parse(record("A", *fields), source="A.avsc"))


def problems(reader: list[dict[str, Any]], writer: list[dict[str, Any]]) -> list[str]:
    """Return why the reader cannot read the writer."""
    found = breaks("shop.order.A", reader=schemas(*reader), writer=schemas(*writer))
    assert all(item.fix for item in found)
    return [str(item) for item in found]


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        ([field("x")], [field("x"), field("more")]),
        ([field("x"), field("new", default="")], [field("x")]),
        ([field("y", aliases=["x"])], [field("x")]),
        ([field("x", "long")], [field("x", "int")]),
        ([field("x", "double")], [field("x", "float")]),
        ([field("x", "bytes")], [field("x", "string")]),
        ([field("x", ["null", "string"])], [field("x")]),
        ([field("x", ["null", "long"])], [field("x", "int")]),
        ([field("x", {**SIZE, "symbols": ["small", "large", "huge"]})], [field("x", SIZE)]),
        ([field("x", {**SIZE, "default": "small"})], [field("x", {**SIZE, "symbols": ["small", "huge"]})]),
        ([field("x", {"type": "array", "items": "long"})], [field("x", {"type": "array", "items": "int"})]),
        ([field("x", SIZE)], [field("x", MOVED)]),
        ([field("x", ["null", {**SIZE, "aliases": ["old.Size"]}])], [field("x", MOVED)]),
        ([field("x", ["null", SIZE])], [field("x", ["null", MOVED])]),
    ],
)
def test_what_avro_resolves_is_readable(reader: list[dict[str, Any]], writer: list[dict[str, Any]]) -> None:
    """The changes that the specification allows are no breaks."""
    assert problems(reader, writer) == []


@pytest.mark.parametrize(
    ("reader", "writer", "words"),
    [
        # Python's libraries read it by the short name, Java's reader of unions does not.
        ([field("x", ["null", SIZE])], [field("x", [MOVED, "null"])], "A.x: the reader's union has shop.order.Size, "),
        ([field("x", ["null", SIZE])], [field("x", MOVED)], "A.x: the reader's union has shop.order.Size, "),
        (
            [field("x", ["null", "int", {"type": "fixed", "name": "F", "size": 2}])],
            [field("x", ["null", {"type": "fixed", "name": "F", "size": 2, "namespace": "old"}])],
            "A.x: the reader's union has shop.order.F, the writer wrote old.F",
        ),
        ([field("x"), field("new")], [field("x")], "A.new: the reader needs it, the writer does not write it"),
        ([field("x", "int")], [field("x", "long")], "A.x: the reader takes int, the writer wrote long"),
        (
            [field("x", "string")],
            [field("x", ["null", "string"])],
            "A.x: the reader takes string, the writer wrote null",
        ),
        (
            [field("x", SIZE)],
            [field("x", {**SIZE, "symbols": ["huge"]})],
            "A.x: the reader does not know the symbols huge",
        ),
        ([field("x", MICROS)], [field("x", MILLIS)], "A.x: the reader takes it for timestamp-micros, the writer meant"),
        ([field("x", "long")], [field("x", MILLIS)], "it would read another value"),
        ([field("x", "string")], [field("x", "int")], "A.x: the reader takes string, the writer wrote int"),
        ([field("x", "double")], [field("x", "long")], "it may read another value, or none"),
        ([field("x", "string")], [field("x", "bytes")], "it may read another value, or none"),
        (
            [field("x", {"type": "array", "items": "int"})],
            [field("x", {"type": "array", "items": "string"})],
            "A.x[]: the reader takes int, the writer wrote string",
        ),
        (
            [field("x", {"type": "map", "values": "int"})],
            [field("x", {"type": "array", "items": "int"})],
            "A.x: the reader takes a map of int, the writer wrote an array of int",
        ),
        (
            [field("x", record("B", field("y"), field("z")))],
            [field("x", record("B", field("y")))],
            "A.x.z: the reader needs it",
        ),
        (
            [field("x", ["null", record("B", field("y"), field("z"))])],
            [field("x", ["null", record("B", field("y"))])],
            "A.x.z: the reader needs it",
        ),
        ([field("x", record("B", field("y")))], [field("x", record("C", field("y")))], "takes shop.order.B"),
        (
            [field("x", {"type": "fixed", "name": "F", "size": 4})],
            [field("x", {"type": "fixed", "name": "F", "size": 5})],
            "takes 4 bytes, the writer wrote 5 bytes",
        ),
        (
            [field("x", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2})],
            [field("x", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 3})],
            "takes decimal(8, 2), the writer wrote decimal(8, 3)",
        ),
    ],
)
def test_what_would_break_is_told_with_its_place(
    reader: list[dict[str, Any]], writer: list[dict[str, Any]], words: str
) -> None:
    """A person reads which field it is, what each side means, and what would fix it."""
    found = problems(reader, writer)
    assert len(found) == 1
    assert words in found[0]


def test_a_record_that_contains_itself_is_compared_once() -> None:
    """The comparison ends, and still finds the break inside."""
    inner: list[dict[str, Any]] = [field("children", {"type": "array", "items": "A"})]
    assert problems([*inner, field("x")], [*inner, field("x")]) == []
    assert len(problems([*inner, field("x")], inner)) == 1


def test_our_rules_agree_with_two_libraries_on_random_pairs() -> None:
    """Where we see no break, both libraries read random data, and alike; where we see one, Apache's own checker does
    too, unless what changed lets Avro read another value without a word: there we are stricter.
    """
    chance = Random(SEED)
    agreed = broken = 0
    for turn in range(600):
        writer, reader = evolved_pair(chance)
        context = f"seed {SEED}, turn {turn}: {reader.avro('shop.order.A')} reads {writer.avro('shop.order.A')}"
        found = breaks("shop.order.A", reader=reader, writer=writer)
        if not found:
            agreed += 1
            _require_that_judges_read(writer, reader, chance, context)
        elif not any("another value" in item.problem for item in found):
            broken += 1
            assert not _apache_calls_compatible(writer, reader), f"{[str(item) for item in found]} {context}"
    assert agreed > 100
    assert broken > 100


def evolved_pair(chance: Random) -> tuple[Schemas, Schemas]:
    """Return a random record `shop.order.A` and what its next version might be."""
    before = [_random_field(chance, f"f{place}") for place in range(chance.randint(1, 4))]
    after = [_mutated(chance, item) for item in before if chance.random() < 0.9]
    if chance.random() < 0.3:
        after.append(_random_field(chance, "added"))
    return schemas(*before), schemas(*after)


def _require_that_judges_read(writer: Schemas, reader: Schemas, chance: Random, context: str) -> None:
    written, wanted = writer.avro("shop.order.A"), reader.avro("shop.order.A")
    for _ in range(5):
        body = write_body(written, sample(writer, "shop.order.A", chance))
        first, second = judges()
        seen = first.read(body, writer=written, reader=wanted)
        try:
            assert second.read(body, writer=written, reader=wanted) == seen, context
        except CannotJudge:
            continue


def _apache_calls_compatible(writer: Schemas, reader: Schemas) -> bool:
    parsed = [avro.schema.parse(json.dumps(form.avro("shop.order.A"))) for form in (reader, writer)]
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(parsed[0], parsed[1])
    return result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible


_TYPES: Final[list[Any]] = ["boolean", "int", "long", "float", "double", "string", MILLIS, MICROS]


def _random_type(chance: Random, name: str, depth: int = 0) -> Any:
    kind = chance.choice(["plain", "plain", "plain", "null", "array", "map", "enum", "record"])
    if kind == "plain" or depth > 1:
        return chance.choice(_TYPES)
    if kind == "null":
        return ["null", chance.choice(_TYPES)]
    if kind in {"array", "map"}:
        return {"type": kind, {"array": "items", "map": "values"}[kind]: _random_type(chance, name, depth + 1)}
    if kind == "enum":
        symbols = chance.sample(["a", "b", "c", "d"], chance.randint(1, 3))
        default = {"default": symbols[0]} if chance.random() < 0.5 else {}
        return {"type": "enum", "name": f"E_{name}", "symbols": symbols, **default}
    fields = [field(f"g{place}", _random_type(chance, f"{name}_{place}", depth + 1)) for place in range(2)]
    return {"type": "record", "name": f"R_{name}", "fields": fields}


def _random_field(chance: Random, name: str) -> dict[str, Any]:
    schema = _random_type(chance, name)
    if schema == "string" and chance.random() < 0.5:
        return field(name, schema, default="")
    if isinstance(schema, list) and chance.random() < 0.5:
        return field(name, schema, default=None)
    return field(name, schema)


def _mutated(chance: Random, item: dict[str, Any]) -> dict[str, Any]:
    """Return the field as the next version might have it; mostly as it was."""
    name = item["name"]
    turn = chance.random()
    if turn < 0.5:
        return item
    if turn < 0.7:
        return _random_field(chance, name)
    if turn < 0.85:
        wider = {"int": "long", "long": "int", "float": "double"}
        schema = item["type"]
        return field(name, wider.get(schema, schema) if isinstance(schema, str) else schema)
    if isinstance(item["type"], list) or turn < 0.9:
        return field(f"{name}_renamed", item["type"], aliases=[name])
    return field(name, ["null", item["type"]], default=None)


def test_a_judge_that_refuses_a_default_which_is_valid_does_not_judge() -> None:
    """A whole number is a valid default of a double; Apache's Python library alone says otherwise."""
    old: dict[str, Any] = {"type": "record", "name": "Rate", "namespace": "shop", "fields": []}
    new = {**old, "fields": [{"name": "rate", "type": "double", "default": 1}]}
    body = write_body(old, {})
    read, silent = [], []
    for judge in judges():
        try:
            read.append(judge.read(body, writer=old, reader=new))
        except CannotJudge:
            silent.append(judge.name)
    assert read == [{"rate": 1}]
    assert len(silent) == 1
    assert silent[0].startswith("avro ")
