"""Verbs of `demo`."""

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
