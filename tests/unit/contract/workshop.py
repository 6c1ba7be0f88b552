"""A small project of contracts in a temporary folder, for tests to build, change and break."""

import importlib
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from towpath.contract.codec import Codec
from towpath.contract.files import Contracts, SchemaSet, load_classes, load_contracts
from towpath.contract.write import write_records

NAMESPACE: Final = "shop.order"
_numbers = itertools.count(1)


def record(name: str, *fields: Mapping[str, Any], **attributes: Any) -> dict[str, Any]:
    """Return the Avro of a record in the namespace of these tests."""
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": list(fields), **attributes}


def field(name: str, schema: Any = "string", **attributes: Any) -> dict[str, Any]:
    """Return the Avro of a field."""
    return {"name": name, "type": schema, **attributes}


class Workshop:
    """Writes Avro files of one service into `folder`, and loads them as the engine does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = f"workshop_records_{next(_numbers)}"
        self.source = SchemaSet("workshop", folder / "avro", self.package, folder / self.package, folder)

    def put(self, avro: Mapping[str, Any], *, version: int | None = None, service: str = "order") -> Path:
        """Write one file, as the form of today or as a released version."""
        name = str(avro["name"])
        place = self.source.folder / service
        path = place / f"{name}.avsc" if version is None else place / "versions" / f"{name}.v{version}.avsc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(avro), encoding="utf-8")
        return path

    def contracts(self) -> Contracts:
        """Load what was written."""
        return load_contracts([self.source])

    def generate(self) -> Contracts:
        """Load, write the record classes, and make them importable."""
        contracts = self.contracts()
        write_records(contracts)
        importlib.invalidate_caches()
        for module in [name for name in sys.modules if name.split(".")[0] == self.package]:
            del sys.modules[module]
        return contracts

    def codec(self) -> Codec:
        """Generate, and build the offline codec."""
        return Codec.of(self.generate())

    def classes(self, service: str = "order") -> Any:
        """Return the generated module of one service."""
        load_classes(self.contracts())
        return importlib.import_module(f"{self.package}.{service}")
