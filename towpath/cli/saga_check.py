"""`saga check`: prove sagas before they run."""

from typing import Annotated

import typer

TESTS_FOLDER = "tests/check"
STATES_MAX = 1_000_000
"""As the check itself has it, which is imported when the verb runs; a test holds the two equal."""


def register(saga_app: typer.Typer) -> None:
    """Add the verb to `saga`."""
    saga_app.command(name="check")(check)


def check(
    modules: Annotated[
        list[str] | None,
        typer.Argument(help="Packages, modules or files with sagas; by default the project's.", show_default=False),
    ] = None,
    saga: Annotated[str | None, typer.Option("--saga", help="Check only the saga of this name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
    tests: Annotated[str, typer.Option("--tests", help="Where to write a test for each violation.")] = TESTS_FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no tests.")] = False,
    states_max: Annotated[int, typer.Option("--states-max", min=1, help="States to explore of one saga.")] = STATES_MAX,
    explain: Annotated[bool, typer.Option("--explain", help="Say what was proved, and how.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Tell of large sagas.")] = True,
) -> None:
    """Walk through every state that each saga can reach, and prove that it keeps its promises; exit 3 if one does not.

    For each violation a test is written that fails until it is fixed.
    """
    from towpath.cli.saga_check_run import run

    run(
        modules,
        saga,
        as_json=as_json,
        tests=tests,
        dry_run=dry_run,
        states_max=states_max,
        explain=explain,
        progress=progress,
    )
