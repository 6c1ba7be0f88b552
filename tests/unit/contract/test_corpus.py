"""Three hundred forms of schemas that people have: imported, generated, strictly typed, read as fastavro reads them.

What Java makes of them: `tests/integration/contract/test_java.py`.
"""

import contextlib
import enum
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import fastavro
import pytest

from tests.unit.contract.corpus import (
    CASES,
    FOLDER,
    REFUSED,
    Brought,
    bring_in,
    name_of,
    original,
    package_of,
    planned,
    records_of,
)
from towpath.contract.avro_readers import CannotJudge, judges
from towpath.contract.codec import WIRE_PREFIX_BYTES, derived_id, wire_prefix
from towpath.contract.datum import encode_datum
from towpath.contract.field_rules import compile_rules
from towpath.contract.python_names import attributes
from towpath.contract.record import Duration, Record
from towpath.contract.sample import sample
from towpath.contract.schema import Schemas
from towpath.errors import ContractError

SEED: Final = 11
RECORDS_EACH: Final = 12
RIGHT: Final = [case for case in CASES if case.parent.name != REFUSED]
WRONG: Final = [case for case in CASES if case.parent.name == REFUSED]


# What fastavro does not parse as it was found, by its own fault: it is asked under the imported schema.
UNPARSED: Final = {
    "spec-decimal_that_is_none": "a decimal with impossible digits is ignored, not refused",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder in which every case is a project of its own."""
    path = list(sys.path)
    yield tmp_path_factory.mktemp("corpus")
    sys.path[:] = path


@pytest.fixture(scope="module")
def brought(folder: Path) -> dict[str, Brought]:
    """Return every case that is to be right, imported and generated; filled as the tests ask."""
    return {}


def of(case: Path, folder: Path, brought: dict[str, Brought]) -> Brought:
    """Return one case, imported once."""
    name = name_of(case)
    if name not in brought:
        brought[name] = bring_in(case, folder)
    return brought[name]


def test_there_are_three_hundred_forms_and_98_of_a_hundred_are_right() -> None:
    """Those that are not are the ones in `undistinguished`, which the next tests hold to their words."""
    assert len(CASES) >= 300
    assert len(RIGHT) / len(CASES) >= 0.98
    assert WRONG


@pytest.mark.parametrize("case", RIGHT, ids=name_of)
def test_each_survives_the_round_trip_as_fastavro_reads_it(
    case: Path, folder: Path, brought: dict[str, Brought]
) -> None:
    """Bytes under the schema as it was found become a typed record, and the same bytes again; fastavro reads the same
    values from them, under that schema and under the imported one.
    """
    found = of(case, folder, brought)
    schemas = found.contracts.schemas
    chance = Random(f"{SEED} {name_of(case)}")
    for name in records_of(found.contracts):
        ours = _parsed(schemas.avro(name))
        theirs = ours if name_of(case) in UNPARSED else _parsed(original(case, found.contracts, name))
        prefix = wire_prefix(derived_id(schemas, name))
        for _ in range(RECORDS_EACH):
            body = encode_datum(schemas, name, sample(schemas, name, chance))
            record = found.codec.decode(prefix + body)
            context = f"seed {SEED}, {name}: {body.hex()}"
            read = _read(theirs, body)
            again = _encoded(found, name, record)
            # Of several numbers in a union another one may be written, which is the same number.
            assert again in (None, body) or repr(_read(theirs, again)) == repr(read), context
            assert read == _read(ours, body), context
            assert _plain(schemas, record) == _comparable(read), context


@pytest.mark.parametrize("case", RIGHT, ids=name_of)
def test_the_judges_of_contracts_test_see_the_same_in_each(
    case: Path, folder: Path, brought: dict[str, Brought]
) -> None:
    """Else `contracts test` would fail a project for what two libraries know of logical types."""
    schemas = of(case, folder, brought).contracts.schemas
    chance = Random(f"{SEED} {name_of(case)}")
    for name in records_of(of(case, folder, brought).contracts):
        avro = schemas.avro(name, docs=False)
        for _ in range(3):
            body = encode_datum(schemas, name, sample(schemas, name, chance))
            seen = []
            for judge in judges():
                with contextlib.suppress(CannotJudge):
                    seen.append(judge.read(body, writer=avro, reader=avro))
            assert all(datum == seen[0] for datum in seen), f"seed {SEED}, {name}: {body.hex()}"


def _encoded(found: Brought, name: str, record: Record) -> bytes | None:
    """Return the bytes of a record; None where chance broke a rule that its fields have."""
    try:
        return found.codec.encode(record)[WIRE_PREFIX_BYTES:]
    except ContractError:
        rule = compile_rules(found.contracts.schemas).get(name)
        assert rule is not None
        assert rule(record)
        return None


def test_all_are_strictly_typed(folder: Path, brought: dict[str, Brought]) -> None:
    """One run of mypy over what was generated for all of them."""
    for case in RIGHT:
        of(case, folder, brought)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder / ".cache")]
    packages = [package_of(case) for case in RIGHT if (folder / package_of(case)).is_dir()]
    done = subprocess.run(
        [*command, *packages],
        cwd=folder,
        env={"MYPYPATH": str(FOLDER.parents[1]), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", WRONG, ids=name_of)
def test_what_python_cannot_tell_apart_is_refused_with_the_field(case: Path, tmp_path: Path) -> None:
    """One finding that names the two types, and what to do; nothing of the file is brought in."""
    plan = planned(case, tmp_path)
    assert plan.files == {}
    assert plan.refusals
    for refusal in plan.refusals:
        assert "no Python value tells" in refusal.reason
        assert refusal.reason.endswith("put each into a record of its own")


def test_what_avro_ignores_is_said(folder: Path, brought: dict[str, Brought]) -> None:
    """A logical type on a carrier that cannot have it, one that nobody here knows, one that stands beside the type."""
    wrong = of(FOLDER / "spec/logical_on_the_wrong_type.avsc", folder, brought)
    assert len(wrong.plan.notes) == 8
    assert any("timestamp-millis is carried by ['long'], not by int" in note.reason for note in wrong.plan.notes)
    unknown = of(FOLDER / "payments/iban_by_own_logical_type.avsc", folder, brought)
    (note,) = unknown.plan.notes
    assert "the logical type 'iban' is not known here: it stays an attribute, values are plain string" in note.reason
    beside = of(FOLDER / "media/characters_with_field_level_logical_type.avsc", folder, brought)
    assert [("beside the type" in note.reason) for note in beside.plan.notes] == [True, True]


def test_attributes_of_others_come_in_and_stay(folder: Path, brought: dict[str, Brought]) -> None:
    """On records, fields, enums, fixed, and on types without a name."""
    found = of(FOLDER / "spec/properties_everywhere.avsc", folder, brought)
    (written,) = found.plan.files.values()
    content = json.loads((FOLDER / "spec/properties_everywhere.avsc").read_text(encoding="utf-8"))
    assert _without_empty(json.loads(written)) == _without_empty(content)
    iban = of(FOLDER / "payments/iban_by_own_logical_type.avsc", folder, brought)
    (written,) = iban.plan.files.values()
    assert json.loads(written)["fields"][0]["type"] == {"type": "string", "logicalType": "iban"}


def _without_empty(avro: Any) -> Any:
    """Return a schema without the namespaces that inner types repeat."""
    if isinstance(avro, list):
        return [_without_empty(item) for item in avro]
    if not isinstance(avro, dict):
        return avro.removeprefix("spec.") if isinstance(avro, str) else avro
    return {key: _without_empty(value) for key, value in avro.items() if key != "namespace"}


def _parsed(avro: Any) -> Any:
    return fastavro.parse_schema(json.loads(json.dumps(avro)), named_schemas={})


def _read(schema: Any, body: bytes) -> Any:
    buffer = io.BytesIO(body)
    datum = fastavro.schemaless_reader(buffer, schema, None)
    assert buffer.tell() == len(body)
    return datum


def _plain(schemas: Schemas, value: Any) -> Any:  # noqa: PLR0911 - a case each
    """Return one of our values as fastavro would give it."""
    match value:
        case Record():
            names = attributes(schemas.record(value.SCHEMA_NAME))
            assert set(names.values()) == set(type(value).__slots__)
            return {name: _plain(schemas, getattr(value, attribute)) for name, attribute in names.items()}
        case enum.Enum():
            return value.value
        case tuple():
            return [_plain(schemas, item) for item in value]
        case Mapping():
            return {key: _plain(schemas, item) for key, item in value.items()}
        case UUID():
            return value.bytes
        case Duration():
            return b"".join(part.to_bytes(4, "little") for part in (value.months, value.days, value.milliseconds))
        case _:
            return value


def _comparable(datum: Any) -> Any:
    """Return what fastavro read; a UUID as its bytes, since fastavro leaves one on a fixed type as it is."""
    match datum:
        case dict():
            return {key: _comparable(item) for key, item in datum.items()}
        case list():
            return [_comparable(item) for item in datum]
        case UUID():
            return datum.bytes
        case _:
            return datum
