"""Where contracts lie on disk, and how they are read: a schema set is a folder of Avro files and its record classes.

`<folder>/<service>/<Name>.avsc` is a record as it is now; files refer to each other by full name.
`<folder>/<service>/versions/<Name>.v<N>.avsc` is a released version, whole in itself, and never changes again: what
was written under it still lies in topics.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import towpath
from towpath.contract.parse import misspelt, parse
from towpath.contract.schema import (
    EnumSchema,
    FixedSchema,
    NamedSchema,
    RecordSchema,
    Reference,
    Schemas,
    references,
    unions,
)
from towpath.errors import ContractError
from towpath.settings import Settings

_VERSION_FILE: Final = re.compile(r"(?P<name>\w+)\.v(?P<version>[1-9][0-9]*)\.avsc\Z")


@dataclass(frozen=True, slots=True)
class SchemaSet:
    """A folder of Avro files and where the classes generated from it go.

    `records` is the import path of a package with one module for each subfolder (a project's services), or, where
    the Avro files lie in `folder` itself, of the one module (the engine's own). `target` is that package's folder or
    that module's file. `import_root` is the folder from which `records` is imported, where Python may not know it yet.
    """

    name: str
    folder: Path
    records: str
    target: Path
    import_root: Path | None = None

    @property
    def is_package(self) -> bool:
        """Return whether each subfolder has a module of its own."""
        return self.target.suffix != ".py"

    def module(self, service: str) -> str:
        """Return the import path of the module that holds the classes of the subfolder `service`."""
        return f"{self.records}.{service}" if self.is_package else self.records


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """What a schema set's files say.

    `services` maps each file's own schema (by full name) to the subfolder it lies in ("" for the engine's);
    `versions` maps a record's full name to its released versions, each whole in itself.
    """

    source: SchemaSet
    services: Mapping[str, str]
    paths: Mapping[str, Path]
    versions: Mapping[str, Mapping[int, Schemas]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contracts:
    """All schemas of all sets, closed: every reference is found."""

    schemas: Schemas
    sets: tuple[LoadedSet, ...]

    def versions(self, name: str) -> Mapping[int, Schemas]:
        """Return the released versions of the record called `name`, by number, the oldest first."""
        for loaded in self.sets:
            if name in loaded.versions:
                return loaded.versions[name]
        return {}

    def source_of(self, name: str) -> SchemaSet:
        """Return the set that `name` belongs to."""
        return self._loaded(name).source

    def module_of(self, name: str) -> str:
        """Return the import path of the module that holds the class generated for `name`."""
        loaded = self._loaded(name)
        return loaded.source.module(loaded.services[name])

    def path_of(self, name: str) -> Path:
        """Return the file that defines `name`."""
        return self._loaded(name).paths[name]

    def _loaded(self, name: str) -> LoadedSet:
        for loaded in self.sets:
            if name in loaded.services:
                return loaded
        raise ContractError(f"no file defines {name}", next_step="add its .avsc file")


def engine_set() -> SchemaSet:
    """Return the set of the engine itself: what sagas keep, in `towpath/orchestrator`."""
    room = Path(towpath.__file__).parent / "orchestrator"
    return SchemaSet("towpath", room / "avro", "towpath.orchestrator.records", room / "records.py")


def project_set(settings: Settings) -> SchemaSet:
    """Return the set of the project that `settings` describe."""
    records = settings.project.records
    target = settings.root.joinpath(*records.split("."))
    return SchemaSet(
        settings.project.name, settings.root / settings.project.schemas / "avro", records, target, settings.root
    )


def schema_sets(settings: Settings) -> tuple[SchemaSet, ...]:
    """Return the engine's set and the project's."""
    return (engine_set(), project_set(settings))


def load_contracts(sets: Iterable[SchemaSet]) -> Contracts:
    """Read every Avro file of `sets`. Raises ContractError naming the file that is wrong and how to mend it."""
    by_name: dict[str, NamedSchema] = {}
    loaded = tuple(_load_set(source, by_name) for source in sets)
    schemas = Schemas(by_name)
    for item in loaded:
        for name, path in item.paths.items():
            _check_references(name, schemas, path)
    return Contracts(schemas, loaded)


def _load_set(source: SchemaSet, by_name: dict[str, NamedSchema]) -> LoadedSet:
    services: dict[str, str] = {}
    paths: dict[str, Path] = {}
    versions: dict[str, dict[int, Schemas]] = {}
    if not source.folder.is_dir():
        raise ContractError(f"{source.folder}: there is no such folder", next_step="put the Avro files there")
    for path in sorted(source.folder.rglob("*.avsc")):
        if path.parent.name == "versions":
            _load_version(path, versions)
            continue
        service = path.parent.relative_to(source.folder).as_posix().removeprefix(".")
        if bool(service) != source.is_package or "/" in service:
            raise ContractError(f"{path}: it belongs into {source.folder}/<service>/", next_step="move it there")
        found = parse(_read_json(path), source=_shown(path))
        outermost = next(iter(found))
        if outermost.rpartition(".")[2] != path.stem:
            raise ContractError(f"{_shown(path)}: it defines {outermost}", next_step="name file and schema alike")
        for name, schema in found.items():
            if name in by_name:
                raise ContractError(
                    f"{_shown(path)}: {name} is defined elsewhere too",
                    next_step="define it once, in a file of its own, and refer to it by its full name",
                )
            by_name[name] = schema
            services[name] = service
            paths[name] = path
    for name in versions:
        if name not in services:
            raise ContractError(
                f"{source.folder}: released versions of {name}, but no current file{misspelt(name, services)}",
                next_step=f"put {name.rpartition('.')[2]}.avsc back: topics still hold its records. Remove file, "
                "versions and examples together once those topics have forgotten the last one and nobody reads it",
            )
    return LoadedSet(source, services, paths, {name: dict(sorted(found.items())) for name, found in versions.items()})


def _load_version(path: Path, versions: dict[str, dict[int, Schemas]]) -> None:
    match = _VERSION_FILE.match(path.name)
    if match is None:
        raise ContractError(f"{_shown(path)}: no version", next_step="call it versions/<Name>.v<N>.avsc")
    found = parse(_read_json(path), source=_shown(path))
    name = next(iter(found))
    if not isinstance(found[name], RecordSchema) or name.rpartition(".")[2] != match["name"]:
        raise ContractError(f"{_shown(path)}: it defines {name}", next_step="name file and record alike")
    schemas = Schemas(found)
    _check_references(name, schemas, path)
    versions.setdefault(name, {})[int(match["version"])] = schemas


def _check_references(name: str, schemas: Schemas, path: Path) -> None:
    """Refuse names that nothing defines, and unions that no Python value could be told apart in."""
    for target in references(schemas[name]):
        if target not in schemas:
            raise ContractError(
                f"{_shown(path)}: unknown type {target!r}{misspelt(target, schemas.by_name)}",
                next_step="define it in a file of its own, or mend the name",
            )
    for union in unions(schemas[name]):
        records = [b for b in union.present if isinstance(b, Reference) and isinstance(schemas[b.name], RecordSchema)]
        if len(union.present) > 1 and len(records) < len(union.present):
            raise ContractError(
                f"{_shown(path)}: a union of several types that are not all records",
                next_step="make it null and one type, or records only",
            )


def load_classes(contracts: Contracts) -> dict[str, type[Any]]:
    """Import the generated class of every record and every enum, by full name.

    Raises ContractError where a class is missing or was generated from another form of its schema.
    """
    classes: dict[str, type[Any]] = {}
    for name, schema in contracts.schemas.by_name.items():
        if isinstance(schema, FixedSchema):
            continue
        module = _import(contracts.module_of(name), contracts.source_of(name).import_root)
        found = getattr(module, name.rpartition(".")[2], None)
        if not isinstance(found, type):
            raise _stale(f"{module.__name__} has no class for {name}")
        if isinstance(schema, EnumSchema):
            if tuple(symbol.value for symbol in cast("Iterable[Enum]", found)) != schema.symbols:
                raise _stale(f"the symbols of {name} in {module.__name__} are not those of its file")
        elif getattr(found, "SCHEMA_FINGERPRINT", None) != contracts.schemas.fingerprint(name):
            raise _stale(f"the class of {name} in {module.__name__} is stale")
        classes[name] = found
    return classes


def _stale(cause: str) -> ContractError:
    return ContractError(cause, next_step="towpath contracts generate")


def _import(name: str, root: Path | None) -> ModuleType:
    if root is not None and str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ContractError(f"no module {name}", next_step="towpath contracts generate") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(f"{_shown(path)}: {error}", next_step="mend the file") from error


def _shown(path: Path) -> str:
    """Return a path short enough to read: the folder's own tail of it."""
    parts = path.parts
    start = parts.index("avro") if "avro" in parts else len(parts) - 1
    return "/".join(parts[max(start - 1, 0) :])
