"""Verbs of `contracts`: what topics and schemas promise, checked before it ships."""

from typing import Annotated

import typer

from towpath.cli import output
from towpath.errors import ContractError
from towpath.settings import load_settings

contracts_app = typer.Typer(
    help="Schemas, topics and examples: generate records, test promises, register.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.add_typer(contracts_app, name="contracts")


@contracts_app.command()
def generate(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is stale.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Name the files as JSON.")] = False,
) -> None:
    """Write the record classes anew from the Avro files."""
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.write import stale_files, write_records

    contracts = load_contracts(schema_sets(load_settings()))
    changed = stale_files(contracts) if check else write_records(contracts)
    if as_json:
        output.emit_json({"stale" if check else "written": [str(path) for path in changed]})
    else:
        for path in changed:
            output.results.print(str(path), highlight=False, soft_wrap=True)
    if check and changed:
        raise ContractError(f"{len(changed)} generated files are stale", next_step="towpath contracts generate")
    output.note("the record classes are those of the Avro files")
