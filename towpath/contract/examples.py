"""Examples of records, good and bad, as JSON files that anyone can write.

`<folder>/<service>/<Record>/good/<name>.json` is a record (see `json_form`); `<name>.v<N>.json` is one as the
released version N wrote it. `<folder>/<service>/<Record>/bad/<name>.json` is `{"expect": "<words>", "record": ...}`:
the record must be refused, with those words in the refusal.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from towpath.contract.files import Contracts
from towpath.contract.parse import misspelt
from towpath.contract.python_names import shortest_names
from towpath.errors import ContractError

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
    return tuple(_load(path, folder, records) for path in sorted(folder.rglob("*.json")))


def _records_by_folder(contracts: Contracts) -> dict[str, str]:
    """Return the full name of each record by the folder of its examples, as in `order/OrderPlaced`."""
    found: dict[str, str] = {}
    for loaded in contracts.sets:
        if loaded.source.is_package:
            for service in dict.fromkeys(loaded.services.values()):
                names = shortest_names(loaded.of_service(service))
                found |= {f"{service}/{short}": name for name, short in names.items()}
    return found


def _load(path: Path, folder: Path, records: Mapping[str, str]) -> Example:
    place = path.relative_to(folder)
    shown = f"examples/{place.as_posix()}"
    if len(place.parts) != 4 or place.parts[2] not in {"good", "bad"}:
        raise ContractError(f"{shown}: it lies in no place", next_step="put it in <service>/<Record>/good or .../bad")
    owner = "/".join(place.parts[:2])
    if owner not in records:
        raise ContractError(
            f"{shown}: an example of {owner}, which no Avro file defines{misspelt(owner, records)}",
            next_step="move or remove the example, or add the schema",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(f"{shown}: {error}", next_step="mend the file") from error
    if place.parts[2] == "good":
        match = _VERSION.search(path.stem)
        return Example(shown, records[owner], content, int(match["version"]) if match else None)
    if not isinstance(content, dict) or content.keys() != {"expect", "record"} or not content["expect"]:
        raise ContractError(
            f'{shown}: it must be {{"expect": "<words>", "record": ...}}',
            next_step="say with which words it is refused",
        )
    return Example(shown, records[owner], content["record"], expect=str(content["expect"]))
