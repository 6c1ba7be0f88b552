"""Where contracts lie on disk, and how they are read: a schema set is a folder of Avro files and its record classes.

`<folder>/<service>/<Name>.avsc` is a record as it is now; files refer to each other by full name. Where two records of
a service have one short name, a file is called by as much of the full name as tells them apart: `v2.Account.avsc`.
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
from towpath.contract.parse import ParsedFile, misspelt, parse_file
from towpath.contract.problems import BrokenSchemas, Problem, strict_object
from towpath.contract.python_names import classes as class_names
from towpath.contract.schema import EnumSchema, FixedSchema, NamedSchema, RecordSchema, Schemas
from towpath.errors import ContractError
from towpath.settings import Settings

_VERSION_FILE: Final = re.compile(r"(?P<name>[\w.]+?)\.v(?P<version>[1-9][0-9]*)\.avsc\Z")


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

    def of_service(self, service: str) -> tuple[str, ...]:
        """Return the full names of what the files of one subfolder define, in alphabetical order."""
        return tuple(sorted(name for name, found in self.services.items() if found == service))


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

    def class_names(self, module: str) -> Mapping[str, str]:
        """Return the class for each named type that the module with this import path holds, by full name."""
        names = [
            name
            for loaded in self.sets
            for name, service in loaded.services.items()
            if loaded.source.module(service) == module
        ]
        return class_names(names)

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
    """Read every Avro file of `sets`. Raises BrokenSchemas with all that is wrong, by file and line."""
    loading = _Loading()
    loaded = tuple(loading.load(source) for source in sets)
    schemas = Schemas(loading.by_name)
    for file in loading.files:
        file.check_closed(schemas)
    for file in loading.versions:
        file.check_closed(Schemas(file.schemas), hint=", and a released version is whole in itself")
    problems = [*loading.problems, *(problem for file in loading.parsed for problem in file.problems)]
    if problems:
        raise BrokenSchemas(problems)
    return Contracts(schemas, loaded)


class _Loading:
    """Reads the files of all sets, and goes on after a mistake."""

    def __init__(self) -> None:
        self.by_name: dict[str, NamedSchema] = {}
        self.files: list[ParsedFile] = []
        self.versions: list[ParsedFile] = []
        self.problems: list[Problem] = []

    @property
    def parsed(self) -> list[ParsedFile]:
        """Return every file that was JSON."""
        return [*self.files, *self.versions]

    def load(self, source: SchemaSet) -> LoadedSet:
        """Read one set. Raises ContractError where it has no folder."""
        services: dict[str, str] = {}
        paths: dict[str, Path] = {}
        versions: dict[str, dict[int, Schemas]] = {}
        if not source.folder.is_dir():
            raise ContractError(f"{source.folder}: there is no such folder", next_step="put the Avro files there")
        for path in sorted(source.folder.rglob("*.avsc")):
            if path.parent.name == "versions":
                self._version(path, versions)
                continue
            service = path.parent.relative_to(source.folder).as_posix().removeprefix(".")
            if bool(service) != source.is_package or "/" in service:
                self._find(path, f"it belongs into {source.folder.name}/<service>/", "move it there")
            elif (file := self._read(path, self.files)) is not None:
                self._take(file, path, service, services, paths)
        for name in versions:
            if name not in services:
                self._find(
                    source.folder,
                    f"released versions of {name}, but no current file{misspelt(name, services)}",
                    f"put {name.rpartition('.')[2]}.avsc back: topics still hold its records. Remove file, versions "
                    "and examples together once those topics have forgotten the last one and nobody reads it",
                )
        by_number = {name: dict(sorted(found.items())) for name, found in versions.items()}
        return LoadedSet(source, services, paths, by_number)

    def _take(
        self, file: ParsedFile, path: Path, service: str, services: dict[str, str], paths: dict[str, Path]
    ) -> None:
        if len(file.outermost) == 1 and not ends_with(file.outermost[0], path.stem):
            self._find(path, f"it defines {file.outermost[0]}", "name file and schema alike")
        for name, schema in file.schemas.items():
            known = self.by_name.get(name)
            if known is not None and known != schema:
                # The same type written out in each file that uses it is common, and no contradiction.
                self._find(
                    path,
                    f"{name} is defined elsewhere too, and otherwise",
                    "define it once, in a file of its own, and refer to it by its full name",
                )
            elif known is None:
                self.by_name[name] = schema
                services[name] = service
                paths[name] = path

    def _version(self, path: Path, versions: dict[str, dict[int, Schemas]]) -> None:
        match = _VERSION_FILE.match(path.name)
        if match is None:
            self._find(path, "no version", "call it versions/<Name>.v<N>.avsc")
            return
        file = self._read(path, self.versions)
        if file is None or not file.schemas:
            return
        name = next(iter(file.schemas))
        if not isinstance(file.schemas[name], RecordSchema) or not ends_with(name, match["name"]):
            self._find(path, f"it defines {name}", "name file and record alike")
        versions.setdefault(name, {})[int(match["version"])] = Schemas(file.schemas)

    def _read(self, path: Path, files: list[ParsedFile]) -> ParsedFile | None:
        try:
            if not path.is_file():  # a pipe would be waited for
                raise FileNotFoundError("there is a folder, a pipe or a link to nothing instead of a file")
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            place = error.object.count(b"\n", 0, error.start) + 1
            self._find(path, f"it is no UTF-8: {error.reason}", "save it as UTF-8", line=place)
            return None
        except OSError as error:
            self._find(path, f"it cannot be read: {error.strerror or error}", "put the file there, or remove it")
            return None
        try:
            content = json.loads(text, object_pairs_hook=strict_object)
        except (ValueError, RecursionError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else None
            cause = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            self._find(path, f"it is no JSON: {cause}", "correct the file", line=line)
            return None
        found = parse_file(content, source=_shown(path), text=text)
        files.append(found)
        return found

    def _find(self, path: Path, text: str, fix: str, *, line: int | None = None) -> None:
        self.problems.append(Problem(_shown(path), line, "", text, fix))


def ends_with(name: str, end: str) -> bool:
    """Return whether a full name ends with `end`, whole parts of it: as the file that defines it is called."""
    return f".{name}".endswith(f".{end}")


def load_classes(contracts: Contracts) -> dict[str, type[Any]]:
    """Import the generated class of every record and every enum, by full name.

    Raises ContractError where a class is missing or was generated from another form of its schema.
    """
    classes: dict[str, type[Any]] = {}
    names_of: dict[str, Mapping[str, str]] = {}
    for name, schema in contracts.schemas.by_name.items():
        if isinstance(schema, FixedSchema):
            continue
        path = contracts.module_of(name)
        if path not in names_of:
            names_of[path] = contracts.class_names(path)
        module = _import(path, contracts.source_of(name).import_root)
        found = getattr(module, names_of[path][name], None)
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


def _shown(path: Path) -> str:
    """Return a path short enough to read: the folder's own tail of it."""
    parts = path.parts
    start = parts.index("avro") if "avro" in parts else len(parts) - 1
    return "/".join(parts[max(start - 1, 0) :])
