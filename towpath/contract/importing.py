"""Brings schemas that exist already into a project: files, folders of files, the subjects of a registry.

What comes in is written as Towpath keeps it: one file a type under `avro/<service>/`, earlier versions under
`versions/`. What Avro ignores (a logical type that its carrier cannot have) is left out and said; what cannot be
brought in is named with its reason, and the rest is brought in all the same.
"""

import json
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from towpath.contract.parse import ParsedFile, parse_file
from towpath.contract.schema import NamedSchema, RecordSchema, Schemas

_AVRO_ENDINGS: Final = frozenset({".avsc", ".avpr", ".json"})
_OTHER_FORMATS: Final[Mapping[str, str]] = {
    ".proto": "Protobuf is not supported: write the message as an Avro record, or let a bridge translate its topic",
    ".avdl": "Avro IDL is not read: turn it into .avsc files first (`avro-tools idl2schemata`)",
    ".xsd": "XML Schema is not supported: write the document as an Avro record",
}
_JSON_SCHEMA: Final = (
    "JSON Schema is not supported: write the object as an Avro record, or let a bridge translate its topic"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One document to bring in: where it is from, its content, and of which version of a record it is the form."""

    name: str
    content: Any
    text: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was not brought in, and why; or a part of it that was left out."""

    source: str
    reason: str


@dataclass(slots=True)
class Import:
    """What an import comes to: the text of each file to write, and what it leaves out."""

    files: dict[Path, str] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Refusal] = field(default_factory=list)


def read_sources(path: Path) -> tuple[list[Source], list[Refusal]]:
    """Return the documents in a file, or in all files below a folder, and what is no Avro among them."""
    sources: list[Source] = []
    refusals: list[Refusal] = []
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        reason = _OTHER_FORMATS.get(found.suffix)
        if reason is not None:
            refusals.append(Refusal(found.name, reason))
        if not found.is_file() or found.suffix not in _AVRO_ENDINGS:
            continue
        try:
            text = found.read_text(encoding="utf-8")
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            refusals.append(Refusal(found.name, f"it is no JSON: {error}"))
            continue
        if isinstance(content, dict) and ("$schema" in content or "properties" in content):
            refusals.append(Refusal(found.name, _JSON_SCHEMA))
        elif found.suffix == ".avsc" or path == found or (isinstance(content, dict) and "protocol" in content):
            sources.append(Source(found.name, content, text))
    return sources, refusals


def plan_import(sources: Sequence[Source], folder: Path, *, service: str | None = None) -> Import:
    """Return what to write below `folder`, the project's folder of Avro files. Pure.

    `service` names the subfolder for all; without it, each type goes to the one that its namespace ends with.
    """
    plan = Import()
    current = [_read(source, plan) for source in sources if source.version is None]
    by_name: dict[str, NamedSchema] = {}
    usable: list[ParsedFile] = []
    for file in current:
        clash = [name for name, schema in file.schemas.items() if by_name.get(name, schema) != schema]
        if clash:
            plan.refusals.append(Refusal(file.source, f"{clash[0]} is defined in another file too, and otherwise"))
            continue
        usable.append(file)
        by_name |= file.schemas
    schemas = Schemas(by_name)
    for file in usable:
        file.foreign = False  # from here on these are the project's own, and held to its rules
        file.check_closed(schemas)
        if file.problems:
            plan.refusals.extend(Refusal(file.source, str(problem)) for problem in file.problems)
            continue
        for name in file.outermost or tuple(file.schemas):
            _put(plan, _path(folder, service, name), schemas, name, file.source)
    for source in sources:
        if source.version is not None:
            _put_version(plan, source, folder, service)
    return plan


def _put_version(plan: Import, source: Source, folder: Path, service: str | None) -> None:
    file = _read(source, plan)
    schemas = Schemas(file.schemas)
    file.check_closed(schemas)
    if file.problems or not file.outermost:
        plan.refusals.extend(Refusal(file.source, str(problem)) for problem in file.problems)
        return
    name = file.outermost[0]
    if isinstance(schemas[name], RecordSchema):
        today = _path(folder, service, name)
        _put(plan, today.parent / "versions" / f"{today.stem}.v{source.version}.avsc", schemas, name, file.source)


def _read(source: Source, plan: Import) -> ParsedFile:
    content = source.content
    if isinstance(content, dict) and "protocol" in content:
        space = {"namespace": content["namespace"]} if "namespace" in content else {}
        content = [{**space, **item} for item in content.get("types", []) if isinstance(item, dict)]
    found = parse_file(content, source=source.name, text=None, foreign=True)
    plan.notes.extend(Refusal(source.name, note) for note in found.notes)
    return found


def _put(plan: Import, path: Path, schemas: Schemas, name: str, source: str) -> None:
    text = json.dumps(schemas.avro(name), indent=2, ensure_ascii=False) + "\n"
    if plan.files.get(path, text) != text:
        plan.refusals.append(Refusal(source, f"{name} would be a second {path.name}: choose another --service for it"))
        return
    plan.files[path] = text


def _path(folder: Path, service: str | None, name: str) -> Path:
    space, _, short = name.rpartition(".")
    # A module of Python bears the name of the subfolder.
    own = re.sub(r"\W", "_", space.rpartition(".")[2]).lower() or "imported"
    return folder / (service or (f"{own}_" if keyword.iskeyword(own) else own)) / f"{short}.avsc"


def write_import(plan: Import) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Write the files of a plan; return those that were written, and those that stand there with another content.

    What a project already has is never changed.
    """
    written: list[Path] = []
    kept: list[Path] = []
    for path, text in plan.files.items():
        if path.exists():
            kept += [path] if json.loads(path.read_text(encoding="utf-8")) != json.loads(text) else []
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return tuple(written), tuple(kept)


def from_subject(subject: str, versions: Iterable[Mapping[str, Any]]) -> tuple[list[Source], list[Refusal]]:
    """Return the versions of one subject of a registry, the oldest first, as documents; the last is that of today."""
    forms = list(versions)
    if not forms:
        return [], [
            Refusal(subject, "it holds no Avro. " + _JSON_SCHEMA.replace("JSON Schema", "JSON Schema or Protobuf"))
        ]
    released = [Source(f"{subject} version {number}", avro, version=number) for number, avro in enumerate(forms, 1)]
    return [Source(subject, forms[-1]), *released], []
