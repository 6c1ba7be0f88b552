"""The forms of schemas that people have, rewritten for these tests: `tests/corpus/<field>/<case>`.

A case is one file, or a folder of files that refer to each other. `undistinguished` holds those that are refused: two
types of a union that no value of Python tells apart.
"""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from towpath.contract.codec import Codec
from towpath.contract.files import Contracts, SchemaSet, load_contracts
from towpath.contract.importing import Import, plan_import, read_sources, write_import
from towpath.contract.write import write_records

FOLDER: Final = Path(__file__).parents[2] / "corpus"
REFUSED: Final = "undistinguished"
CASES: Final = sorted(FOLDER.glob("*/*"))
MODULE: Final = "records"


@dataclass(frozen=True, slots=True)
class Brought:
    """A case as a project of its own: what was imported, and the codec of the classes generated from it."""

    plan: Import
    contracts: Contracts
    codec: Codec


def name_of(case: Path) -> str:
    """Return what a case is called in the ids of tests."""
    return f"{case.parent.name}-{case.stem}"


def planned(case: Path, folder: Path) -> Import:
    """Return what an import of the case comes to; everything goes into one module."""
    sources, refusals = read_sources(case)
    plan = plan_import(sources, folder, service=MODULE)
    plan.refusals[:0] = refusals
    return plan


def imported(case: Path, folder: Path) -> tuple[Import, Contracts]:
    """Import a case into a project of its own below `folder`, and load that."""
    package = package_of(case)
    source = SchemaSet(package, folder / "avro" / package, package, folder / package, folder)
    plan = planned(case, source.folder)
    assert not plan.refusals, plan.refusals
    write_import(plan)
    return plan, load_contracts([source])


def package_of(case: Path) -> str:
    """Return the package of the classes that are generated from a case."""
    return f"corpus_{case.parent.name}_{case.stem}"


def bring_in(case: Path, folder: Path) -> Brought:
    """Import a case, generate its classes and import them."""
    plan, contracts = imported(case, folder)
    write_records(contracts)
    importlib.invalidate_caches()
    try:
        return Brought(plan, contracts, Codec.of(contracts))
    finally:
        for module in [name for name in sys.modules if name.split(".")[0] == package_of(case)]:
            del sys.modules[module]


def records_of(contracts: Contracts) -> tuple[str, ...]:
    """Return the full names of the records, by name."""
    return tuple(schema.name for schema in contracts.schemas.records())


def original(case: Path, contracts: Contracts, record: str) -> Any:
    """Return the schema of a record as the case writes it, where one file is whole in itself; else as imported."""
    if case.is_file() and case.suffix == ".avsc":
        try:
            content = json.loads(case.read_text(encoding="utf-8"))
        except ValueError:
            content = None  # comments, or a byte order mark
        if isinstance(content, dict) and content.get("type") in {"record", "error"}:
            name, space = content["name"], content.get("namespace")
            if record == (name if "." in name or not space else f"{space}.{name}"):
                return content
    return contracts.schemas.avro(record)
