"""Names that Python cannot take, and files that are no Avro: generated all the same, or refused one by one."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.codec import Codec, derived_id, wire_prefix
from towpath.contract.datum import encode_datum
from towpath.contract.problems import BrokenSchemas
from towpath.contract.sample import sample

# What mypy knows of the standard library, read once for all tests of this file.
_CACHE: Final = tempfile.TemporaryDirectory()
TYPE_NAMES: Final = ["date", "time", "datetime", "int", "float", "bool", "tuple", "str", "bytes", "field", "dataclass"]
LOGICAL: Final = [
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    "int",
    "double",
    "boolean",
    {"type": "array", "items": "string"},
    "string",
    "bytes",
    {"type": "map", "values": "int"},
    "string",
]
DEFAULTS: Final[list[Any]] = [3, 5, 7, 1, 2, True, ["a"], "s", "b", {"a": 1}, "d"]


def require_generated(workshop: Workshop, *names: str) -> tuple[Codec, Mapping[str, Any]]:
    """Generate, type-check strictly, and require that random data survives; return the codec and the classes."""
    contracts = workshop.generate()
    codec = Codec.of(contracts)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", _CACHE.name, workshop.package],
        cwd=workshop.folder,
        env={"MYPYPATH": f"{workshop.folder}:{Path(__file__).parents[3]}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    from random import Random

    chance = Random(1)
    for name in names:
        prefix = wire_prefix(derived_id(contracts.schemas, name))
        for _ in range(20):
            body = encode_datum(contracts.schemas, name, sample(contracts.schemas, name, chance))
            assert codec.encode(codec.decode(prefix + body)) == prefix + body, f"{name}, seed 1"
    from towpath.contract.files import load_classes

    return codec, load_classes(contracts)


@pytest.mark.parametrize("with_defaults", [True, False])
def test_fields_may_be_called_as_types_are(workshop: Workshop, with_defaults: bool) -> None:
    """`date: date = ...` hides the type from every field after it; the wire names stay."""
    fields = [
        field(name, schema, **({"default": default} if with_defaults else {}))
        for name, schema, default in zip(TYPE_NAMES, LOGICAL, DEFAULTS, strict=True)
    ]
    again = [field(f"{name}_too", schema) for name, schema in zip(TYPE_NAMES, LOGICAL, strict=True)]
    workshop.put(record("Types", *fields, *again))
    codec, classes = require_generated(workshop, "shop.order.Types")
    assert set(TYPE_NAMES) <= set(classes["shop.order.Types"].__slots__)
    assert workshop.contracts().schemas.record("shop.order.Types").fields[0].name == "date"
    assert codec


def test_names_that_python_keeps_for_itself_change_in_python_alone(workshop: Workshop) -> None:
    """Keywords, leading underscores, names in capitals and records called as Python's own words."""
    names = ["class", "class_", "None", "_id", "__typename", "ID", "self", "SCHEMA_NAME", "lambda", "MPCORB", "__"]
    for kind in ("None", "class", "Record", "Decimal", "Exception"):
        workshop.put(record(kind, *(field(name, "int") for name in names)))
    workshop.put(
        record("item", field("item", ["null", "shop.order.item"], default=None), field("n", "shop.order.None"))
    )
    wanted = [f"shop.order.{kind}" for kind in ("None", "class", "Record", "Decimal", "Exception", "item")]
    codec, classes = require_generated(workshop, *wanted)
    assert set(classes["shop.order.None"].__slots__) == {
        *("class_", "class__", "None_", "_id", "typename", "ID", "self"),
        *("SCHEMA_NAME_", "lambda_", "MPCORB", "field"),
    }
    assert set(codec.to_json(codec.from_json("shop.order.None", dict.fromkeys(names, 1)))) == set(names)


def test_one_short_name_in_two_namespaces_is_two_classes(workshop: Workshop) -> None:
    """Both stand in one module, told apart by as much of the namespace as that takes."""
    address = {"type": "record", "name": "Address", "fields": [field("street")]}
    workshop.put(
        record(
            "Parcel",
            field("sender", {**address, "namespace": "shop.sender"}),
            field("receiver", {**address, "namespace": "shop.receiver", "fields": [field("code", "int")]}),
        )
    )
    _, classes = require_generated(workshop, "shop.order.Parcel")
    assert classes["shop.sender.Address"].__name__ == "sender_Address"
    assert classes["shop.receiver.Address"].__name__ == "receiver_Address"


def test_a_type_may_be_called_as_python_mangles_or_as_an_import_is_renamed(workshop: Workshop) -> None:
    """`__Kind` inside a class would be another name; a record `time` and a field `time` both want `time_`."""
    kind = {"type": "enum", "name": "__Kind", "symbols": ["A"]}
    workshop.put(record("Holder", field("kind", kind, default="A")))
    moment = {"type": "int", "logicalType": "time-millis"}
    workshop.put(record("time", field("time", moment), field("ClassVar"), field("other", moment)))
    workshop.put(record("ClassVar", field("x", "int")))
    _, classes = require_generated(workshop, "shop.order.Holder", "shop.order.time", "shop.order.ClassVar")
    assert {one.__name__ for one in classes.values()} == {"Kind", "Holder", "time_", "ClassVar_"}


def test_symbols_of_every_form_become_members(workshop: Workshop) -> None:
    """enum's own words, mangled names, methods of texts, keywords, and two that differ in their case alone."""
    symbols = ["_ignore_", "__A", "__B__", "mro", "name", "count", "Count", "None", "_", "value", "UP"]
    enum = {"type": "enum", "name": "Odd", "symbols": symbols}
    workshop.put(
        record("Holder", field("odd", enum, default="_ignore_"), field("all", {"type": "array", "items": "Odd"}))
    )
    _, classes = require_generated(workshop, "shop.order.Holder")
    assert [member.value for member in classes["shop.order.Odd"]] == symbols
    assert str(classes["shop.order.Holder"](all=()).odd) == "_ignore_"


def test_defaults_of_every_form_are_valid_python(workshop: Workshop) -> None:
    """Bytes with quotes, an array of records of the class itself, maps of records, and logical values."""
    tree = record(
        "Tree",
        field("v", "int", default=0),
        field("kids", {"type": "array", "items": "Tree"}, default=[{"v": 1, "kids": [{"v": 2, "kids": []}]}]),
        field("raw", "bytes", default="'\"\\\n\u00ff"),
        field("text", "string", default='it\'s "quoted" \\ \U0001f6a3'),
        field("by_name", {"type": "map", "values": "Tree"}, default={}),
        field("at", {"type": "long", "logicalType": "timestamp-millis"}, default=1),
        field("local", {"type": "long", "logicalType": "local-timestamp-micros"}, default=1),
        field("day", {"type": "int", "logicalType": "date"}, default=1),
        field("clock", {"type": "int", "logicalType": "time-millis"}, default=1),
        field("key", {"type": "string", "logicalType": "uuid"}, default="12345678-1234-5678-1234-567812345678"),
        field("span", {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}, default="\u0001" * 12),
        field("nanos", {"type": "long", "logicalType": "timestamp-nanos"}, default=5),
        field("either", ["int", "string", {"type": "array", "items": "long"}], default=[1, 2]),
        field("wide", "double", default=1),
    )
    tree["fields"][1]["default"][0] |= {}
    workshop.put(tree)
    codec, classes = require_generated(workshop, "shop.order.Tree")
    built = classes["shop.order.Tree"](kids=())
    assert (built.raw, built.text) == (b"'\"\\\n\xff", 'it\'s "quoted" \\ \U0001f6a3')
    assert codec.decode(codec.encode(built)) == built
    assert built.either == (1, 2)


@pytest.mark.parametrize(
    ("avro", "words"),
    [
        ({"type": "record", "name": "A", "fields": None}, "the fields are a list, not None"),
        ({"type": "record", "name": 7, "fields": []}, "7 is no Avro name"),
        ({"type": "enum", "name": "A", "symbols": ["a", 7]}, "the symbols are a list of texts"),
        ({"type": "enum", "name": "A", "symbols": None}, "an enum needs symbols"),
        ({"type": "fixed", "name": "A", "size": -1}, "the size -1 is no number of bytes"),
        ({"type": "fixed", "name": "A", "size": True}, "the size True is no number of bytes"),
        ({"type": "record", "name": "A", "fields": [7]}, "a field is an object with a name"),
        ({"type": "record", "name": "A", "fields": [{"name": "x", "type": None}]}, "None is no Avro type"),
        ({"type": "record", "name": "A", "fields": [], "aliases": "B"}, "the aliases are a list of texts"),
        ({"type": "record", "name": "A", "fields": [{"name": "x", "type": "array"}]}, "is no type by itself"),
        ({"type": "record", "name": "A", "doc": 7, "fields": []}, "the doc is a text"),
        ({"type": {"type": "record"}, "name": "A"}, "a file holds one record"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_avro_is_one_finding(workshop: Workshop, avro: Any, words: str) -> None:
    """No traceback: the file, the line and what is wrong."""
    workshop.put({**avro, "name": "A"}).write_text(json.dumps(avro, indent=1), encoding="utf-8")
    with pytest.raises(BrokenSchemas) as caught:
        workshop.contracts()
    assert words in caught.value.cause
    assert len(caught.value.problems) == 1
    assert (caught.value.problems[0].line or 0) > 0


def test_a_type_object_around_another_type_is_that_type(workshop: Workshop) -> None:
    """`{"type": ["null", "string"]}` is written by many tools."""
    workshop.put(record("A", field("x", {"type": ["null", "string"]}), field("y", {"type": {"type": "int"}})))
    codec, _ = require_generated(workshop, "shop.order.A")
    assert codec


@pytest.mark.parametrize(
    ("schema", "default", "words"),
    [
        ("int", 2**40, "it takes a whole number of 32 bits"),
        ("int", 1.0, "it takes a whole number of 32 bits"),
        ("long", True, "it takes a whole number of 64 bits"),
        ({"type": "array", "items": "int"}, ["x"], "it takes a whole number of 32 bits, not 'x'"),
        ({"type": "map", "values": "string"}, {"a": 1}, "it takes a text, not 1"),
        ("bytes", "\u0100", "code points up to 255"),
        ({"type": "fixed", "name": "F", "size": 2}, "abc", "a text of 2 code points"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, "b", "takes one of a, not 'b'"),
        ({"type": "record", "name": "R", "fields": [field("a", "int")]}, {}, "R.a is left out"),
        ({"type": "record", "name": "R", "fields": [field("a", "int")]}, {"b": 1, "a": 1}, "has no field 'b'"),
        ({"type": "int", "logicalType": "date"}, -(2**31), "is no date"),
        ({"type": "string", "logicalType": "uuid"}, "x", "is no uuid"),
        (["null", "int"], "x", "it fits no type of the union"),
        ("string", None, "it takes a text, not None"),
        ("double", "NaN", "it takes a number"),
        ("float", 1e300, "a number of 32 bits"),
    ],
    ids=str,
)
def test_a_default_that_does_not_fit_is_refused(workshop: Workshop, schema: Any, default: Any, words: str) -> None:
    """With file, line and field, before a class is generated that cannot be built."""
    path = workshop.put(record("A", field("x", schema, default=default)))
    with pytest.raises(BrokenSchemas) as caught:
        workshop.contracts()
    (problem,) = caught.value.problems
    assert words in problem.text
    assert (problem.place, problem.line, problem.file.endswith(path.name)) == ("shop.order.A.x", 1, True)


def test_all_mistakes_of_all_files_are_found_at_once(workshop: Workshop) -> None:
    """One run names everything, each by its file and its own line."""
    first = record("A", field("x", "strng"), field("y", "int", default="a"), field("ok"))
    workshop.put(first).write_text(json.dumps(first, indent=1), encoding="utf-8")
    workshop.put(record("B", field("z", {"type": "fixed", "name": "F", "size": -1})))
    workshop.put(record("C", field("w", "shop.order.Missing")))
    with pytest.raises(BrokenSchemas) as caught:
        workshop.contracts()
    found = sorted((problem.file.rpartition("/")[2], problem.line, problem.place) for problem in caught.value.problems)
    assert found == [
        ("A.avsc", 6, "shop.order.A.x"),
        ("A.avsc", 10, "shop.order.A.y"),
        ("B.avsc", 1, "shop.order.F"),
        ("C.avsc", 1, "shop.order.C.w"),
    ]


def test_a_union_whose_branches_python_cannot_tell_apart_is_refused(workshop: Workshop) -> None:
    """Two fixed of one size are both bytes: what was read as one would be written as the other."""
    fixed = [{"type": "fixed", "name": name, "size": 4} for name in ("F", "G")]
    workshop.put(record("A", field("x", fixed)))
    with pytest.raises(BrokenSchemas, match=r"no Python value tells shop\.order\.F from shop\.order\.G"):
        workshop.contracts()


def test_attributes_of_your_own_are_kept_and_promise_nothing(workshop: Workshop) -> None:
    """Annotations do not change the fingerprint, and are there for those who look for them."""
    plain = record("A", field("x"))
    workshop.put(plain)
    before = workshop.contracts().schemas.fingerprint("shop.order.A")
    workshop.put(record("A", field("x", order="descending", personal=True), owner="team-a"))
    schemas = workshop.contracts().schemas
    assert schemas.fingerprint("shop.order.A") == before
    assert schemas.record("shop.order.A").properties == {"owner": "team-a"}
    assert schemas.record("shop.order.A").fields[0].properties == {"personal": True}
    assert schemas.avro("shop.order.A")["fields"][0]["order"] == "descending"
