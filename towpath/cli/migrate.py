"""`towpath migrate`: the numbered migrations of services, applied once each."""

import sys
from typing import Annotated

import typer

from towpath.cli import output
from towpath.errors import ExitCode, NotFoundError
from towpath.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("migrate")(migrate)


def migrate(
    service: Annotated[str | None, typer.Argument(help="One service; by default all.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Apply nothing; exit code 1 where something is to be applied.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The migrations as JSON.")] = False,
) -> None:
    """Apply the numbered migrations that a service's database has not had; `towpath provision` does it too."""
    from towpath.participant.postgres import apply_migrations, pending_migrations
    from towpath.stack.config import service_databases

    settings = load_settings()
    services = service_databases(settings)
    if service is not None and service not in services:
        raise NotFoundError(
            f"there is no service {service!r}", next_step=f"one of: {', '.join(services) or 'none yet'}"
        )
    work = pending_migrations if check else apply_migrations
    found = {name: work(settings, name) for name in services if service in (None, name)}
    if as_json:
        named = {name: [f"{one.number:04}_{one.name}" for one in those] for name, those in found.items()}
        output.emit_json({"pending" if check else "applied": named})
    else:
        for name, those in found.items():
            for one in those:
                output.results.print(f"{name}: {one.number:04}_{one.name}", highlight=False, soft_wrap=True)
    count = sum(map(len, found.values()))
    output.note(f"{count} {'to be applied: towpath migrate' if check else 'applied'}" if count else "all are applied")
    if check and count:
        sys.exit(int(ExitCode.FAILED))
