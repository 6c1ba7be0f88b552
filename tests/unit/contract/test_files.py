"""A schema set on disk: what lies in the wrong place, or refers to nothing, is refused with a way to fix it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.codec import Codec
from towpath.contract.files import load_classes
from towpath.errors import ContractError


def test_a_reference_to_nothing_is_refused_with_the_name_that_was_meant(workshop: Workshop) -> None:
    """A misspelt type is an error at load, not at the first record."""
    workshop.put(record("Line", field("sku")))
    workshop.put(record("Order", field("lines", {"type": "array", "items": "shop.order.Lines"})))
    with pytest.raises(ContractError, match=r"unknown type 'shop.order.Lines' \(did you mean 'shop.order.Line'"):
        workshop.contracts()


def test_a_file_is_called_as_what_it_defines(workshop: Workshop) -> None:
    """Whoever looks for a record finds it by its name."""
    path = workshop.put(record("Order", field("id")))
    path.rename(path.with_name("Ordr.avsc"))
    with pytest.raises(ContractError, match=r"it defines shop\.order\.Order"):
        workshop.contracts()


def test_a_type_is_defined_once(workshop: Workshop) -> None:
    """Two files cannot give one name two meanings; the same meaning written twice is none of that."""
    inner = {"type": "record", "name": "Line", "fields": [field("sku")]}
    workshop.put(record("A", field("line", inner)))
    workshop.put(record("B", field("line", inner)))
    assert "shop.order.Line" in workshop.contracts().schemas
    workshop.put(record("B", field("line", {**inner, "fields": [field("sku", "int")]})))
    with pytest.raises(ContractError, match=r"shop\.order\.Line is defined elsewhere too"):
        workshop.contracts()


def test_a_released_version_needs_a_current_form(workshop: Workshop) -> None:
    """A version without its record is an orphan, and the name that was meant is told."""
    workshop.put(record("OrderPlaced", field("id")))
    workshop.put(record("OrderPlacd", field("id")), version=1)
    with pytest.raises(ContractError, match=r"did you mean 'shop\.order\.OrderPlaced'"):
        workshop.contracts()


def test_a_released_version_is_whole_in_itself(workshop: Workshop) -> None:
    """It does not change when a type that it used to share does."""
    workshop.put(record("Line", field("sku")))
    order = record("Order", field("lines", {"type": "array", "items": "shop.order.Line"}))
    workshop.put(order)
    workshop.put(order, version=1)
    with pytest.raises(
        ContractError, match=r"versions/Order\.v1\.avsc:1: shop\.order\.Order\.lines: unknown type 'shop\.order\.Line'"
    ):
        workshop.contracts()


def test_a_union_of_numbers_takes_the_narrowest_that_holds_the_value(workshop: Workshop) -> None:
    """An int and a long are both `int` in Python: the number itself comes back either way."""
    workshop.put(record("A", field("x", ["int", "long"])))
    codec = workshop.codec()
    known = workshop.classes().A
    assert codec.encode(known(x=5))[5:] == b"\x00\x0a"
    assert codec.encode(known(x=2**40))[5:6] == b"\x02"
    assert [codec.decode(codec.encode(known(x=x))).x for x in (5, 2**40)] == [5, 2**40]  # type: ignore[attr-defined]


@pytest.mark.parametrize("problem", ["not json", "too deep", "odd version"])
def test_a_file_in_no_place_or_form_is_refused(workshop: Workshop, problem: str) -> None:
    """No file under avro/ is passed over in silence."""
    path = workshop.put(record("A", field("x")))
    if problem == "not json":
        path.write_text("{", encoding="utf-8")
    elif problem == "too deep":
        (path.parent / "deep").mkdir()
        path.rename(path.parent / "deep" / "A.avsc")
    else:
        (path.parent / "versions").mkdir()
        (path.parent / "versions" / "A.1.avsc").write_text(json.dumps(record("A", field("x"))), encoding="utf-8")
    with pytest.raises(ContractError):
        workshop.contracts()


def test_a_stale_class_is_refused_at_start(workshop: Workshop) -> None:
    """A worker whose classes are older than its Avro files does not begin to write records."""
    workshop.put(record("Order", field("id")))
    workshop.generate()
    workshop.put(record("Order", field("id"), field("note", default="")))
    with pytest.raises(ContractError, match="is stale") as caught:
        Codec.of(workshop.contracts())
    assert caught.value.next_step == "towpath contracts generate"


def test_a_stale_enum_is_refused_at_start(workshop: Workshop) -> None:
    """An enum has no fingerprint; its symbols are compared."""
    size = {"type": "enum", "name": "Size", "namespace": "shop.order", "symbols": ["small", "large"]}
    workshop.put(size)
    workshop.generate()
    workshop.put({**size, "symbols": ["small", "large", "huge"]})
    with pytest.raises(ContractError, match="the symbols of"):
        load_classes(workshop.contracts())


def _deep(path: Path) -> None:
    inner = '{"type": "array", "items": ' * 300 + '"int"' + "}" * 300
    text = '{"type": "record", "name": "Odd", "namespace": "shop.order", "fields": [{"name": "x", "type": %s}]}'
    path.write_text(text % inner, encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.symlink_to(path.parent / "nowhere"), "it cannot be read: there is a folder, a pipe or"),
        (lambda path: path.symlink_to(path), "it cannot be read: there is a folder, a pipe or"),
        (Path.mkdir, "it cannot be read: there is a folder, a pipe or"),
        (os.mkfifo, "it cannot be read: there is a folder, a pipe or"),
        (lambda path: path.write_bytes(b'{\n"doc": "caf\xe9"}'), ":2: it is no UTF-8: invalid continuation byte"),
        (_deep, "types are nested deeper than 64 levels"),
    ],
    ids=["dangling", "loop", "folder", "pipe", "latin1", "deep"],
)
def test_what_is_no_file_of_schemas_is_named_and_not_a_traceback(
    workshop: Workshop, make: Callable[[Path], object], problem: str
) -> None:
    """A link to nothing, a folder, a pipe, another encoding, too deep a nesting: said beside the other mistakes."""
    workshop.put(record("Good", field("id")))
    make(workshop.source.folder / "order" / "Odd.avsc")
    with pytest.raises(ContractError) as refused:
        workshop.contracts()
    assert "avro/order/Odd.avsc" in refused.value.cause
    assert problem in refused.value.cause
