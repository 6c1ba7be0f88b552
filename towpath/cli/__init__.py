"""The command line: data on stdout, everything else on stderr, `--json` everywhere, stable exit codes.

Each module beside this one holds the verbs of one room and imports that room only when a verb runs.
"""

import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated

import typer

from towpath.cli import output
from towpath.errors import ConfigurationError, ExitCode, TowpathError


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        output.results.print("towpath", metadata.version("towpath"), highlight=False)
        raise typer.Exit


app = typer.Typer(
    name="towpath",
    help="Business transactions across services, on PostgreSQL, Debezium, Kafka and Faust.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Business transactions across services, on PostgreSQL, Debezium, Kafka and Faust."""


@cache
def _register() -> None:
    """Give `app` its verbs, once: a process may call `main` again."""
    from towpath.cli import (
        add,
        capture,
        compose,
        contracts,
        dead,
        demo,
        dev,
        migrate,
        new,
        positions,
        provision,
        replay,
        run,
        saga,
        stack,
        views,
    )

    for module in (
        new,
        add,
        dev,
        stack,
        compose,
        provision,
        migrate,
        capture,
        dead,
        demo,
        positions,
        run,
        saga,
        views,
        replay,
        contracts,
    ):
        module.register(app)


def _require_text(arguments: Sequence[str]) -> None:
    """Raise ConfigurationError for bytes that are no text in the terminal's encoding: nothing could keep or show it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="surrogateescape")
            raise ConfigurationError(
                f"the argument {shown!r} is no text in UTF-8",
                next_step="type it again, or change the terminal's encoding",
            ) from None


def main() -> None:
    """Run the command line; a user's mistake ends in its message and exit code, never in a traceback."""
    try:
        _require_text(sys.argv)
        _register()
        app(standalone_mode=True)
    except TowpathError as error:
        output.show_error(error)
        sys.exit(int(error.exit_code))
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise  # no file that the user named or owns: a mistake of ours
        output.show_error(
            TowpathError(
                f"{error.filename}: {error.strerror}",
                kept="what was written before it",
                next_step="make room or give the rights, and run the same command again",
            )
        )
        sys.exit(int(ExitCode.FAILED))
    except KeyboardInterrupt:
        output.note("interrupted")
        sys.exit(int(ExitCode.FAILED))
