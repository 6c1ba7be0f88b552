"""How commands speak: results on stdout (a table, or JSON when asked), everything else on stderr."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from towpath.errors import RefusedError, TowpathError

WIDE_COLUMNS = 10_000
"""No table is wider."""

# What people and applications wrote (reasons, keys, records) is printed as it is: brackets in it are no markup, and
# colons no emoji. Who means markup says so, by `styled` or `styled_result`.
results = Console(markup=False, emoji=False)
notes = Console(stderr=True, markup=False, emoji=False)


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
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    show_table(table)


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print named values as a table: a row for each name."""
    show_rows([{"what": name.replace("_", " "), "value": value} for name, value in facts.items()])


def show_table(table: Table) -> None:
    """Print a table: as wide as the terminal, or, where that is a pipe or a file, as wide as its content."""
    if results.is_terminal:
        results.print(table)
        return
    wide = Measurement.get(results, results.options.update(width=WIDE_COLUMNS), table).maximum
    Console(width=max(wide, 1), markup=False, emoji=False).print(table)


def repeat(show: Callable[[], None], every_seconds: float | None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Call `show`; where `every_seconds` is given, again and again, on a clean terminal, until it is interrupted."""
    show()
    while every_seconds is not None:
        sleep(every_seconds)
        if results.is_terminal:
            results.clear()
        show()


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts; `noun` stands for one, and takes an s for more: 1 record, 2 records."""
    return f"{number} {noun if number == 1 else f'{noun}s'}"


def note(text: str) -> None:
    """Tell the person at the terminal something that is not the result, word by word as it is given."""
    notes.print(text, highlight=False, soft_wrap=True)


def styled(text: str) -> None:
    """Tell it with Rich's markup: nothing in `text` may come from elsewhere unless it is escaped."""
    notes.print(text, markup=True, highlight=False, soft_wrap=True)


def styled_result(text: str) -> None:
    """Print a line of the result with Rich's markup, of which the same holds."""
    results.print(text, markup=True, highlight=False, soft_wrap=True)


def problem(subject: str, finding: str, fix: str | None) -> None:
    """Tell of something that is wrong, and what to run."""
    styled(f"[bold red]problem[/]: {escape(subject)}: {escape(finding)}")
    if fix:
        styled(f"[bold]next[/]: {escape(fix)}")


def ask(question: str, *, yes: bool) -> None:
    """Ask before something is changed, unless `yes`. Raises RefusedError where the answer is no, or nobody is there."""
    if yes:
        return
    if not sys.stdin.isatty() or not typer.confirm(question, err=True):
        raise RefusedError("nothing was done", kept="everything as it was", next_step="say --yes to do it unasked")


def show_error(error: TowpathError) -> None:
    """Write an error's cause, what was kept, and what to run next, on stderr."""
    styled(f"[bold red]error[/]: {escape(error.cause)}")
    if error.kept:
        styled(f"[green]kept[/]: {escape(error.kept)}")
    if error.next_step:
        styled(f"[bold]next[/]: {escape(error.next_step)}")
