"""How commands speak: results on stdout (a table, or JSON when asked), everything else on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from towpath.errors import RefusedError, TowpathError

results = Console()
notes = Console(stderr=True)


def emit_json(value: Any) -> None:
    """Write `value` as one JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2 if sys.stdout.isatty() else None, default=str)
    sys.stdout.write("\n")


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows, of which there is at least one, as a table: a column for each name, numbers to the right."""
    table = Table(box=None, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    results.print(table)


def note(text: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    notes.print(text, highlight=False)


def ask(question: str, *, yes: bool) -> None:
    """Ask before something is changed, unless `yes`. Raises RefusedError where the answer is no, or nobody is there."""
    if yes:
        return
    if not sys.stdin.isatty() or not typer.confirm(question, err=True):
        raise RefusedError("nothing was done", kept="everything as it was", next_step="say --yes to do it unasked")


def show_error(error: TowpathError) -> None:
    """Write an error's cause, what was kept, and what to run next, on stderr."""
    notes.print(f"[bold red]error[/]: {error.cause}", highlight=False)
    if error.kept:
        notes.print(f"[green]kept[/]: {error.kept}", highlight=False)
    if error.next_step:
        notes.print(f"[bold]next[/]: {error.next_step}", highlight=False)
