"""Schemas that exist already come in as they are; what cannot come in is named with what to do."""

import json
from pathlib import Path
from typing import Any

from tests.unit.contract.workshop import Workshop, field
from towpath.contract.examples import load_examples
from towpath.contract.importing import Import, from_subject, plan_import, read_sources, write_import
from towpath.contract.write import release


def planned(workshop: Workshop, files: dict[str, Any], *, service: str | None = "order") -> Import:
    """Return the plan for importing a folder of these files."""
    folder = workshop.folder / "theirs"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    sources, refusals = read_sources(folder)
    plan = plan_import(sources, workshop.source.folder, service=service)
    plan.refusals[:0] = refusals
    return plan


def record(name: str, *fields: Any, **attributes: Any) -> dict[str, Any]:
    """Return a record without a namespace of these tests'."""
    return {"type": "record", "name": name, "namespace": "their.space", "fields": list(fields), **attributes}


def test_a_folder_with_references_between_files_comes_in_whole(workshop: Workshop) -> None:
    """Several records, a list in one file, and a file that refers to another become files of this project."""
    plan = planned(
        workshop,
        {
            "a/Order.avsc": record("Order", field("line", "their.space.Line"), field("ID", "long")),
            "b/shared.avsc": [record("Line", field("sku")), {"type": "enum", "name": "Kind", "symbols": ["a"]}],
            "c.avpr": {
                "protocol": "P",
                "namespace": "their.space",
                "types": [{"type": "error", "name": "E", "fields": []}],
            },
        },
    )
    assert plan.refusals == []
    assert sorted(path.name for path in plan.files) == ["E.avsc", "Kind.avsc", "Line.avsc", "Order.avsc"]
    write_import(plan)
    codec = workshop.codec()
    built = codec.from_json("their.space.Order", {"line": {"sku": "x"}, "ID": 7})
    assert codec.decode(codec.encode(built)) == built


def test_what_avro_ignores_is_left_out_and_said(workshop: Workshop) -> None:
    """A logical type that its carrier cannot have means nothing to any reader; nobody is advised to change it."""
    odd = [
        field("at", {"type": "int", "logicalType": "timestamp-millis"}),
        field("s", {"type": "string", "logicalType": "iban"}),
    ]
    plan = planned(workshop, {"A.avsc": record("A", *odd)})
    assert len(plan.notes) == 2
    assert "carried by ['long'], not by int" in plan.notes[0].reason
    assert "'iban' is not known here: it stays an attribute" in plan.notes[1].reason
    (text,) = plan.files.values()
    assert [item["type"] for item in json.loads(text)["fields"]] == ["int", {"type": "string", "logicalType": "iban"}]


def test_what_is_no_avro_is_named_with_what_to_do(workshop: Workshop) -> None:
    """Protobuf, JSON Schema and files that are no JSON do not come in, and the rest does."""
    plan = planned(
        workshop,
        {
            "m.proto": "message M {}",
            "j.json": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"},
            "broken.avsc": "{",
            "Bad.avsc": record("Bad", field("x", "int", default="a")),
            "Good.avsc": record("Good", field("x")),
        },
    )
    reasons = {item.source: item.reason for item in plan.refusals}
    assert sorted(reasons) == ["Bad.avsc", "broken.avsc", "j.json", "m.proto"]
    assert "write the message as an Avro record" in reasons["m.proto"]
    assert "JSON Schema is not supported" in reasons["j.json"]
    assert [path.name for path in plan.files] == ["Good.avsc"]


def test_what_the_project_has_is_never_changed(workshop: Workshop) -> None:
    """A file that says something else stays as it is, and is named; the same again is no difference."""
    plan = planned(workshop, {"A.avsc": record("A", field("x"))})
    assert len(write_import(plan)[0]) == 1
    assert write_import(plan) == ((), ())
    (path,) = plan.files
    path.write_text(json.dumps(record("A", field("mine"))), encoding="utf-8")
    assert write_import(plan) == ((), (path,))
    assert "mine" in path.read_text(encoding="utf-8")


def test_a_subject_brings_its_versions(workshop: Workshop) -> None:
    """The last version is the form of today, all are released: their records lie in the topic."""
    forms = [record("A", field("x")), record("A", field("x"), field("y", "int", default=1))]
    sources, refusals = from_subject("a-value", forms, current=forms[-1])
    plan = plan_import(sources, workshop.source.folder)
    assert refusals == []
    names = sorted(str(path.relative_to(workshop.source.folder)) for path in plan.files)
    assert names == ["space/A.avsc", "space/versions/A.v1.avsc", "space/versions/A.v2.avsc"]
    write_import(plan)
    contracts = workshop.generate()
    assert list(contracts.versions("their.space.A")) == [1, 2]


def test_a_subject_without_avro_is_named() -> None:
    """JSON Schema and Protobuf lie in the same registries."""
    sources, refusals = from_subject("p-value", [], current=None)
    assert sources == []
    assert "JSON Schema or Protobuf is not supported" in refusals[0].reason
    assert Path(refusals[0].source).name == "p-value"


def test_a_version_that_was_taken_back_is_not_the_form_of_today(workshop: Workshop) -> None:
    """Deleted softly, its records may lie in the topic all the same."""
    forms = [record("A", field("x")), record("A", field("x"), field("y", "int", default=1))]
    sources, _ = from_subject("a-value", forms, current=forms[0])
    plan = plan_import(sources, workshop.source.folder)
    today = json.loads(plan.files[workshop.source.folder / "space/A.avsc"])
    assert [item["name"] for item in today["fields"]] == ["x"]
    assert len(plan.files) == 3


def test_what_defines_no_record_is_said(workshop: Workshop) -> None:
    """A list of numbers, and a union of types that nobody defines are no values of a topic; the schema of plain keys
    is passed over with a note.
    """
    plan = planned(
        workshop,
        {"key.avsc": '"string"', "n.avsc": {"type": "array", "items": "int"}, "u.avsc": ["their.Missing", "null"]},
    )
    reasons = {item.source: item.reason for item in plan.refusals}
    assert sorted(reasons) == ["n.avsc", "u.avsc"]
    assert "it defines no record, enum or fixed" in reasons["n.avsc"]
    assert [(note.source, "a plain value" in note.reason) for note in plan.notes] == [("key.avsc", True)]
    assert "unknown type 'their.Missing'" in reasons["u.avsc"]
    assert plan.files == {}


def test_two_records_of_one_short_name_come_in_side_by_side(workshop: Workshop) -> None:
    """Their files are told apart by as much of the full name as that takes; so are versions and examples."""
    old = {**record("Account", field("name")), "namespace": "acct.v1"}
    new = {**record("Account", field("first"), field("last")), "namespace": "acct.v2"}
    plan = planned(workshop, {"all.avsc": [old, new]})
    assert plan.refusals == []
    assert sorted(path.name for path in plan.files) == ["Account.avsc", "v2.Account.avsc"]
    write_import(plan)
    contracts = workshop.contracts()
    released = release(contracts, ["acct.v1.Account", "acct.v2.Account"])
    assert sorted(path.name for path in released) == ["Account.v1.avsc", "v2.Account.v1.avsc"]
    assert list(workshop.contracts().versions("acct.v2.Account")) == [1]
    path = workshop.folder / "examples/order/v2.Account/good/usual.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"first": "a", "last": "b"}', encoding="utf-8")
    (example,) = load_examples(contracts, workshop.folder / "examples")
    assert example.record == "acct.v2.Account"
