"""Verbs of `saga`."""

import typer

from towpath.cli import saga_check

saga_app = typer.Typer(help="Sagas: prove them before they run.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    saga_check.register(saga_app)
    app.add_typer(saga_app, name="saga")
