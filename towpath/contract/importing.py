"""Brings schemas that exist already into a project: files, folders of files, the subjects of a registry.

What comes in is written as Towpath keeps it: one file a type under `avro/<service>/`, earlier versions under
`versions/`. What Avro ignores (a logical type that its carrier cannot have) is left out and said; what cannot be
brought in is named with its reason, and the rest is brought in all the same.
"""

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from towpath.contract.parse import ParsedFile, misspelt, parse_file
from towpath.contract.problems import Problem
from towpath.contract.schema import PRIMITIVES, NamedSchema, RecordSchema, Schemas

_AVRO_ENDINGS: Final = frozenset({".avsc", ".avpr", ".json"})
_OTHER_FORMATS: Final[Mapping[str, str]] = {
    ".proto": "Protobuf is not supported: write the message as an Avro record, or let a bridge translate its topic",
    ".avdl": "Avro IDL is not read: turn it into .avsc files first (`avro-tools idl2schemata`)",
    ".xsd": "XML Schema is not supported: write the document as an Avro record",
}
# A text, which stays as it is, or a comment.
_COMMENT: Final = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_PLAIN: Final = "it is a plain value and no record: there is nothing to bring in"
_JSON_SCHEMA: Final = (
    "JSON Schema is not supported: write the object as an Avro record, or let a bridge translate its topic"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One document to bring in: where it is from, its content, and of which version of a record it is the form."""

    name: str
    content: Any
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was not brought in, and why; or a part of it that was left out."""

    source: str
    reason: str


@dataclass(slots=True)
class Import:
    """What an import comes to: the text of each file to write, what it leaves out, and the file of each type."""

    files: dict[Path, str] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Refusal] = field(default_factory=list)
    places: dict[str, Path] = field(default_factory=dict)


def read_sources(path: Path) -> tuple[list[Source], list[Refusal]]:
    """Return the documents in a file, or in all files below a folder, and what is no Avro among them."""
    sources: list[Source] = []
    refusals: list[Refusal] = []
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        shown = found.name if found == path else found.relative_to(path).as_posix()
        reason = _OTHER_FORMATS.get(found.suffix)
        if reason is not None:
            refusals.append(Refusal(shown, reason))
        if not found.is_file() or found.suffix not in _AVRO_ENDINGS:
            continue
        try:
            content = _json_of(found.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            refusals.append(Refusal(shown, f"it is no JSON: {error}"))
            continue
        if isinstance(content, dict) and ("$schema" in content or (content.get("type") == "object")):
            refusals.append(Refusal(shown, _JSON_SCHEMA))
        elif found.suffix == ".avsc" or path == found or (isinstance(content, dict) and "protocol" in content):
            sources.append(Source(shown, content))
    return sources, refusals


def _json_of(text: str) -> Any:
    """Return what a text says, comments aside: Java's parser of schemas allows them."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return json.loads(_COMMENT.sub(lambda found: found[1] or " ", text))


def plan_import(sources: Sequence[Source], folder: Path, *, service: str | None = None) -> Import:
    """Return what to write below `folder`, the project's folder of Avro files. Pure.

    `service` names the subfolder for all; without it, each type goes to the one that its namespace ends with.
    """
    plan = Import()
    plain = {source.name for source in sources if _is_plain(source.content)}
    plan.notes.extend(Refusal(name, _PLAIN) for name in sorted(plain))
    sources = [source for source in sources if source.name not in plain]
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
        _check_outermost(file, schemas)
        if file.problems:
            plan.refusals.extend(Refusal(file.source, _in_words(problem)) for problem in file.problems)
            continue
        for name in file.outermost:
            _put(plan, _path(plan, folder, service, name), schemas, name, file.source)
    for source in sources:
        if source.version is not None:
            _put_version(plan, source, folder, service)
    return plan


def _is_plain(content: Any) -> bool:
    """Return whether a document is one of Avro's primitive types, as the schema of a topic's keys often is."""
    kind = content.get("type") if isinstance(content, dict) else content
    return isinstance(kind, str) and kind in PRIMITIVES


def _check_outermost(file: ParsedFile, schemas: Schemas) -> None:
    """Add a problem for a file whose top is no named type, nor holds one: a topic's values are records."""
    if not file.outermost and not file.problems:
        file.find(
            "", (), "it defines no record, enum or fixed", "put the type into a record: a topic's values are records"
        )
    for name in file.outermost:
        if name not in schemas:
            file.find(
                "", (), f"unknown type {name!r}{misspelt(name, schemas.by_name)}", "import what defines it as well"
            )


def _put_version(plan: Import, source: Source, folder: Path, service: str | None) -> None:
    file = _read(source, plan)
    schemas = Schemas(file.schemas)
    file.check_closed(schemas)
    if file.problems or not file.outermost:
        plan.refusals.extend(Refusal(file.source, _in_words(problem)) for problem in file.problems)
        return
    name = file.outermost[0]
    if isinstance(schemas[name], RecordSchema):
        today = _path(plan, folder, service, name)
        _put(plan, today.parent / "versions" / f"{today.stem}.v{source.version}.avsc", schemas, name, file.source)


def _in_words(problem: Problem) -> str:
    return f"{problem.place}: {problem.text}; {problem.fix}" if problem.place else f"{problem.text}; {problem.fix}"


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


def _path(plan: Import, folder: Path, service: str | None, name: str) -> Path:
    """Return the file of a type: called by its short name, or by more of it where another type took that."""
    if name in plan.places:
        return plan.places[name]
    space, _, _ = name.rpartition(".")
    # A module of Python bears the name of the subfolder.
    own = re.sub(r"\W", "_", space.rpartition(".")[2]).lower() or "imported"
    place = folder / (service or (f"{own}_" if keyword.iskeyword(own) else own))
    parts = name.split(".")
    ends = (place / f"{'.'.join(parts[-length:])}.avsc" for length in range(1, len(parts) + 1))
    taken = set(plan.places.values())
    return plan.places.setdefault(name, next((path for path in ends if path not in taken), place / f"{name}.avsc"))


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


def from_subject(
    subject: str, versions: Sequence[Mapping[str, Any]], *, current: Mapping[str, Any] | None
) -> tuple[list[Source], list[Refusal]]:
    """Return the versions of one subject of a registry, the oldest first, as documents.

    `current` is the form of today: the last version that was not deleted, None where the subject holds no Avro.
    """
    if current is None:
        return [], [
            Refusal(subject, "it holds no Avro. " + _JSON_SCHEMA.replace("JSON Schema", "JSON Schema or Protobuf"))
        ]
    released = [Source(f"{subject} version {number}", avro, version=number) for number, avro in enumerate(versions, 1)]
    return [Source(subject, current), *released], []
