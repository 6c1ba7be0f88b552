"""Verb of existing clusters: `provision` makes on them what the project needs, as `up` does on the local stack."""

import typer

from towpath.cli import output
from towpath.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(provision)


def provision() -> None:
    """Make databases, tables, topics, schemas and connectors where the settings point; what is there stays as it is."""
    from towpath.stack import prepare
    from towpath.stack.postgres import make_databases

    settings = load_settings()
    for what, make in (
        ("databases", make_databases),
        ("tables", prepare.apply_tables),
        ("topics", prepare.make_topics),
        ("schemas", prepare.register_schemas),
        ("connectors", prepare.make_connectors),
    ):
        make(settings)
        output.note(f"{what}: all there")
