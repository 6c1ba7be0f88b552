"""Examples of records, good and bad, as JSON files that anyone can write.

`<folder>/<service>/<Record>/good/<name>.json` is a record (see `json_form`); `<name>.v<N>.json` is one as the
released version N wrote it. `<folder>/<service>/<Record>/bad/<name>.json` is `{"expect": "<words>", "record": ...}`:
the record must be refused, with those words in the refusal.
All of a service's may also lie in one file, `<folder>/<service>.json`:
`{"<Record>": {"good": {"<name>": ...}, "bad": {"<name>": {"expect": "<words>", "record": ...}}}}`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from towpath.contract.files import Contracts
from towpath.contract.parse import misspelt
from towpath.contract.python_names import shortest_names
from towpath.errors import ContractError
from towpath.settings import Settings

_VERSION: Final = re.compile(r"\.v(?P<version>[1-9][0-9]*)\Z")


@dataclass(frozen=True, slots=True)
class Example:
    """One example. `version` is the released version that wrote it, None for that of today; `expect` is None for a
    good one.
    """

    name: str
    record: str
    content: Any
    version: int | None = None
    expect: str | None = None


def load_examples(contracts: Contracts, folder: Path) -> tuple[Example, ...]:
    """Read all examples. Raises ContractError for one that belongs to no schema or is not in the form above."""
    records = _records_by_folder(contracts)
    found: list[Example] = []
    for path in sorted(folder.rglob("*.json")):
        found += _of_service(path, records) if path.parent == folder else [_load(path, folder, records)]
    return tuple(found)


def good_examples(contracts: Contracts, settings: Settings) -> dict[str, list[Any]]:
    """Return what a project's good examples of today hold, by record, in the order of their files' names.

    Raises ContractError as `load_examples` does.
    """
    found: dict[str, list[Any]] = {}
    for example in load_examples(contracts, settings.root / settings.project.schemas / "examples"):
        if example.expect is None and example.version is None:
            found.setdefault(example.record, []).append(example.content)
    return found


def _records_by_folder(contracts: Contracts) -> dict[str, str]:
    """Return the full name of each record by the folder of its examples, as in `order/OrderPlaced`."""
    found: dict[str, str] = {}
    for loaded in contracts.sets:
        if loaded.source.is_package:
            for service in dict.fromkeys(loaded.services.values()):
                names = shortest_names(loaded.of_service(service))
                found |= {f"{service}/{short}": name for name, short in names.items()}
    return found


def _of_service(path: Path, records: Mapping[str, str]) -> Iterator[Example]:
    """Yield the examples in the one file of a service."""
    shown = f"examples/{path.name}"
    content = _json(path, shown)
    groups = content.items() if isinstance(content, dict) else [("", None)]
    for record, kinds in groups:
        if not isinstance(kinds, dict) or not all(isinstance(one, dict) for one in kinds.values()):
            raise ContractError(
                f'{shown}: it must be {{"<Record>": {{"good": {{"<name>": ...}}, "bad": {{...}}}}}}',
                next_step=f"fix {shown}",
            )
        for kind, named in kinds.items():
            for name, one in named.items():
                yield _example(f"{shown}: {record}/{kind}/{name}", f"{path.stem}/{record}", kind, name, one, records)


def _load(path: Path, folder: Path, records: Mapping[str, str]) -> Example:
    place = path.relative_to(folder)
    shown = f"examples/{place.as_posix()}"
    if len(place.parts) != 4:
        raise _misplaced(shown)
    owner, kind = "/".join(place.parts[:2]), place.parts[2]
    return _example(shown, owner, kind, path.stem, _json(path, shown), records)


def _json(path: Path, shown: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(f"{shown}: {error}", next_step="fix the file") from error


def _example(shown: str, owner: str, kind: str, name: str, content: Any, records: Mapping[str, str]) -> Example:
    if kind not in {"good", "bad"}:
        raise _misplaced(shown)
    if owner not in records:
        raise ContractError(
            f"{shown}: an example of {owner}, which no Avro file defines{misspelt(owner, records)}",
            next_step="move or remove the example, or add the schema",
        )
    if kind == "good":
        match = _VERSION.search(name)
        return Example(shown, records[owner], content, int(match["version"]) if match else None)
    if not isinstance(content, dict) or content.keys() != {"expect", "record"} or not content["expect"]:
        raise ContractError(
            f'{shown}: it must be {{"expect": "<words>", "record": ...}}',
            next_step="say with which words it is refused",
        )
    return Example(shown, records[owner], content["record"], expect=str(content["expect"]))


def _misplaced(shown: str) -> ContractError:
    return ContractError(f"{shown}: it lies in no place", next_step="put it in <service>/<Record>/good or .../bad")
