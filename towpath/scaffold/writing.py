"""Puts the files of a project or a part in place: what is missing, and nothing else. A file that is there stays."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from towpath.errors import ConfigurationError
from towpath.scaffold.parts import Part
from towpath.scaffold.plan import avro_path, examples_path, examples_text, topic_text

_VALUES = re.compile(r"^values:[ \t]*\n(?:[ \t]*-[^\n]*\n)*", re.MULTILINE)


def write_missing(root: Path, files: Mapping[str, str]) -> tuple[Path, ...]:
    """Write the files that are not there yet; return them, relative to `root`."""
    written = []
    for name, text in files.items():
        path = root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(Path(name))
    return tuple(written)


def write_part(root: Path, project: str, part: Part) -> tuple[Path, ...]:
    """Write what of a part is missing; return the files that were written or got something added.

    Raises ConfigurationError for a file of examples or of a topic that is not in a form that something can be added to.
    """
    written = list(write_missing(root, part.files))
    missing = [one for one in part.records if not _known(root, one.service, one.name)]
    written += write_missing(root, {avro_path(one): one.avro(project) for one in missing})
    for service in dict.fromkeys(one.service for one in missing):
        path = root / examples_path(service)
        known = _examples(path)
        mine = [one for one in missing if one.service == service and not _has_example(root, service, one.name)]
        if mine:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(examples_text(known, mine), encoding="utf-8")
            written.append(path.relative_to(root))
    for topic, values in part.values.items():
        path = root / "schemas" / "topics" / f"{topic}.yaml"
        if _list_in(path, project, topic, values, part.keys.get(topic, "id")):
            written.append(path.relative_to(root))
    return tuple(dict.fromkeys(written))


def _known(root: Path, service: str, record: str) -> bool:
    return (root / "schemas" / "avro" / service / f"{record}.avsc").exists()


def _has_example(root: Path, service: str, record: str) -> bool:
    return any((root / "schemas" / "examples" / service / record / "good").glob("*.json"))


def _examples(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path.name}: {error}", next_step=f"fix schemas/examples/{path.name}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path.name}: it is no object", next_step="towpath contracts test")
    return content


def _list_in(path: Path, project: str, topic: str, values: tuple[str, ...], key: str) -> bool:
    """List records in the file of a topic, which is made where it is missing; return whether it changed."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        service = topic.partition(".")[0]
        short = tuple(value.rpartition(".")[2] for value in values)
        path.write_text(topic_text(project, topic, key, short, f"What happened in {service}."), encoding="utf-8")
        return True
    text = path.read_text(encoding="utf-8")
    missing = [value for value in values if not re.search(rf"\b{re.escape(value)}\b", text)]
    if not missing:
        return False
    whole = text if text.endswith("\n") else f"{text}\n"
    found = _VALUES.search(whole)
    if found is None:
        raise ConfigurationError(
            f"{path.name}: its values are no list with a line each",
            kept="the file as it was",
            next_step=f"add {', '.join(missing)} to schemas/topics/{path.name} by hand",
        )
    added = "".join(f"  - {value}\n" for value in missing)
    path.write_text(whole[: found.end()] + added + whole[found.end() :], encoding="utf-8")
    return True
