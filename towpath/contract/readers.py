"""Reader schemas of those whom the project does not know: what they really need of a record, in a file that they keep.

`<schemas>/readers/<consumer>/<Record>.avsc` is the record as that consumer reads it: the fields that it uses, no
others. A consumer with such a folder reads those records only, and each change is judged by what it really uses.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from towpath.contract.compatibility import breaks
from towpath.contract.files import Contracts
from towpath.contract.finding import Finding
from towpath.contract.parse import misspelt, parse
from towpath.contract.schema import RecordSchema, Schemas, references
from towpath.errors import ContractError

ReaderSchemas = Mapping[str, Mapping[str, Schemas]]


def load_reader_schemas(folder: Path) -> dict[str, dict[str, Schemas]]:
    """Return the reader schemas in `folder`, by consumer and record. Raises ContractError naming a file that is wrong.

    Each file is whole in itself. A folder without files declares a consumer that reads whatever its topics carry.
    """
    found: dict[str, dict[str, Schemas]] = {}
    for path in sorted(folder.glob("*/*.avsc")):
        shown = f"readers/{path.parent.name}/{path.name}"
        try:
            schemas = Schemas(parse(json.loads(path.read_text(encoding="utf-8")), source=shown))
        except (ValueError, OSError, RecursionError) as error:
            raise ContractError(f"{shown}: {error}", next_step=f"fix schemas/{shown}") from error
        name = next(iter(schemas.by_name))
        if not isinstance(schemas[name], RecordSchema):
            raise ContractError(f"{shown}: a reader schema is a record", next_step=f"fix schemas/{shown}")
        for inner in schemas.by_name.values():
            for target in references(inner):
                if target not in schemas:
                    raise ContractError(
                        f"{shown}: unknown type {target!r}{misspelt(target, schemas.by_name)}",
                        next_step="write the type out where it is first used: a reader schema is whole in itself",
                    )
        found.setdefault(path.parent.name, {})[name] = schemas
    return found


def reader_findings(contracts: Contracts, readers: ReaderSchemas) -> tuple[Finding, ...]:
    """Return where a consumer's reader schema cannot read what is written, today or under a released version."""
    found: list[Finding] = []
    for consumer, records in sorted(readers.items()):
        for name, reader in sorted(records.items()):
            file = f"schemas/readers/{consumer}/{name.rpartition('.')[2]}.avsc"
            if name not in contracts.schemas:
                known = [record.name for record in contracts.schemas.records()]
                problem = f"{consumer} reads it, and no Avro file defines it{misspelt(name, known)}"
                found.append(Finding("reader-schema", name, problem, (consumer,), f"fix {file}", file=file))
                continue
            for number, writer in [*contracts.versions(name).items(), (None, contracts.schemas)]:
                label = "the form of today writes" if number is None else f"version {number} wrote"
                found += [
                    Finding(
                        "compatibility",
                        name,
                        f"{consumer} cannot read what {label}: {item}",
                        (f"{consumer} ({file})",),
                        item.fix_of(reader=number is not None),
                        place=item.place,
                        file=file,
                    )
                    for item in breaks(name, reader=reader, writer=writer)
                ]
    return tuple(found)
