"""The generator: typed, frozen, deterministic, and as the formatter would leave it."""

import dataclasses
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_type_hints
from uuid import UUID

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.record import Record
from towpath.contract.write import release, stale_files, write_records
from towpath.errors import ContractError

SIZE: Final = {
    "type": "enum",
    "name": "Size",
    "namespace": "shop.order",
    "symbols": ["small", "large"],
    "default": "small",
}
CARD: Final = record("Card", field("token"))
CASH: Final = record("Cash", field("till", "int", default=1))
EVERYTHING: Final = record(
    "Everything",
    field("flag", "boolean", default=True),
    field("count", "int", default=-3),
    field("total", "long"),
    field("ratio", "double", default=0.5),
    field("small", "float", default=1),
    field("blob", "bytes", default="\u0000\u00ff"),
    field("name", "string", default='say "hi"\n'),
    field("note", ["null", "string"], default=None),
    field("size", "shop.order.Size", default="large"),
    field("digest", {"type": "fixed", "name": "Digest", "size": 4}),
    field("tags", {"type": "array", "items": "string"}, default=["a"]),
    field("grid", {"type": "array", "items": {"type": "array", "items": "int"}}, default=[]),
    field("weights", {"type": "map", "values": "double"}, default={}),
    field("cards", {"type": "map", "values": "shop.order.Card"}, default={}),
    field("paid_by", ["null", "shop.order.Card", "shop.order.Cash"], default=None),
    field("till", "shop.order.Cash", default={"till": 7}),
    field("spare", ["null", "shop.order.Card"], default=None),
    field("at", {"type": "long", "logicalType": "timestamp-micros"}),
    field("at_millis", {"type": "long", "logicalType": "timestamp-millis"}),
    field("day", {"type": "int", "logicalType": "date"}),
    field("key", {"type": "string", "logicalType": "uuid"}),
    field("price", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}),
    field("maybe_at", ["null", {"type": "long", "logicalType": "timestamp-micros"}], default=None),
    field("sizes", {"type": "array", "items": "shop.order.Size"}, default=[]),
    doc="Every type that a record may hold.",
)


@pytest.fixture
def everything(workshop: Workshop) -> Workshop:
    """Return a project with every type in one record."""
    for avro in (SIZE, CARD, CASH, EVERYTHING):
        workshop.put(avro)
    workshop.generate()
    return workshop


def one_of_everything(module: Any) -> Any:
    """Return a record whose every field without a default is given."""
    return module.Everything(
        total=12,
        digest=b"abcd",
        at=datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC),
        at_millis=datetime(2026, 3, 14, 9, 26, 53, 589000, tzinfo=UTC),
        day=date(2026, 3, 14),
        key=UUID(int=7),
        price=Decimal("12.50"),
    )


def test_a_record_is_frozen_slotted_typed_and_named(everything: Workshop) -> None:
    """Nobody can change a record, add to it, or mistake what a field holds."""
    module = everything.classes()
    found = one_of_everything(module)
    assert issubclass(module.Everything, Record)
    assert (found.SCHEMA_NAME, hasattr(found, "__dict__")) == ("shop.order.Everything", False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.total = 13
    with pytest.raises(TypeError):
        module.Card("tok")  # by keyword only: the order of fields in a schema may change
    hints = get_type_hints(module.Everything)
    assert hints["paid_by"] == module.Card | module.Cash | None
    assert hints["grid"] == tuple[tuple[int, ...], ...]
    assert (hints["at"], hints["key"], hints["price"]) == (datetime, UUID, Decimal)


def test_defaults_are_those_of_the_schema(everything: Workshop) -> None:
    """What a reader would fill in is what a constructor fills in."""
    module = everything.classes()
    found = one_of_everything(module)
    assert (found.flag, found.count, found.ratio, found.small) == (True, -3, 0.5, 1.0)
    assert (found.blob, found.name, found.note) == (b"\x00\xff", 'say "hi"\n', None)
    assert (found.size, found.tags, found.weights) == (module.Size.LARGE, ("a",), {})
    assert found.till == module.Cash(till=7)


def test_the_same_schemas_give_the_same_text(everything: Workshop) -> None:
    """A second run changes nothing, and nothing depends on the order of files or of hashing."""
    assert stale_files(everything.contracts()) == ()
    module = everything.folder / everything.package / "order.py"
    before = module.read_bytes()
    module.unlink()
    code = (
        "import sys; from pathlib import Path; from tests.unit.contract.workshop import Workshop; "
        "w = Workshop(Path(sys.argv[1])); "
        "from towpath.contract.generate import generate; c = w.contracts(); "
        "sys.stdout.write(next(t for p, t in generate(c, c.sets[0]).items() if p.name == 'order.py'))"
    )
    root = Path(__file__).parents[3]
    again = subprocess.run(
        [sys.executable, "-c", code, str(everything.folder)],
        capture_output=True,
        check=True,
        cwd=root,
        env={"PYTHONHASHSEED": "1"},
    )
    assert again.stdout == before


def test_generated_text_is_as_the_formatter_and_the_linter_want_it(everything: Workshop) -> None:
    """A generated file can stand among others without exemptions."""
    package = str(everything.folder / everything.package)
    config = str(Path(__file__).parents[3] / "pyproject.toml")
    for command in (["format", "--check"], ["check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", config, "--no-force-exclude", package],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_stale_missing_and_orphaned_files_are_found_and_mended(everything: Workshop) -> None:
    """A file that a person wrote beside them is left alone."""
    package = everything.folder / everything.package
    (package / "order.py").write_text('"""Generated by hand."""\n', encoding="utf-8")
    (package / "gone.py").write_text('"""Generated long ago."""\n', encoding="utf-8")
    (package / "mine.py").write_text('"""Written by a person."""\n', encoding="utf-8")
    contracts = everything.contracts()
    assert [path.name for path in stale_files(contracts)] == ["gone.py", "order.py"]
    write_records(contracts)
    assert stale_files(contracts) == ()
    assert (package / "mine.py").exists()
    assert not (package / "gone.py").exists()


def test_services_may_share_types_in_one_direction(workshop: Workshop) -> None:
    """A type of another service is imported; two services that need each other are refused."""
    workshop.put(record("Line", field("sku")))
    refund = record("Refund", field("line", "shop.order.Line"), namespace="shop.payment")
    workshop.put(refund, service="payment")
    codec = workshop.codec()
    line = workshop.classes("order").Line(sku="mug")
    paid = workshop.classes("payment").Refund(line=line)
    assert codec.decode(codec.encode(paid)) == paid
    workshop.put(record("Order", field("refund", "shop.payment.Refund")))
    with pytest.raises(ContractError, match="refer to each other's types"):
        workshop.generate()


def test_release_keeps_the_form_of_today_once(workshop: Workshop) -> None:
    """A released version is whole, numbered, and made only where something changed since the last one."""
    workshop.put(record("Line", field("sku")))
    order = record("Order", field("lines", {"type": "array", "items": "shop.order.Line"}))
    workshop.put(order)
    name = "shop.order.Order"
    assert [path.name for path in release(workshop.contracts(), [name], dry_run=True)] == ["Order.v1.avsc"]
    assert workshop.contracts().versions(name) == {}
    release(workshop.contracts(), [name])
    assert release(workshop.contracts(), [name]) == ()
    workshop.put(record("Line", field("sku"), field("note", default="")))
    assert [path.name for path in release(workshop.contracts(), [name])] == ["Order.v2.avsc"]
    versions = workshop.contracts().versions(name)
    assert [len(form.record("shop.order.Line").fields) for form in versions.values()] == [1, 2]


@pytest.mark.parametrize("fields", [(), (field("id", doc='Either "a" or "b"'),)], ids=["alone", "with fields"])
@pytest.mark.parametrize(
    "doc", ['Either "open" or "closed"', '"', '""', '"""', 'a""""', "ends with \\", '\\"', "nul\x00, half \ud800, \x0c"]
)
def test_words_of_a_schema_are_valid_python_whatever_they_are(
    workshop: Workshop, doc: str, fields: tuple[dict[str, Any], ...]
) -> None:
    """A quotation mark at the end, marks in rows, a backslash, what no source file can hold."""
    workshop.put(record("Odd", *fields, field("plain"), doc=doc))
    workshop.generate()
    assert workshop.classes().Odd.SCHEMA_NAME == "shop.order.Odd"
