"""Verb of the containers: `compose` writes `docker-compose.yml` from the settings of the parts."""

from typing import Annotated

import typer

from towpath.cli import output
from towpath.errors import ContractError
from towpath.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(compose)


def compose(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the file does not follow.")] = False,
) -> None:
    """Write docker-compose.yml: the parts as containers, and one for each of the project's workers."""
    from towpath.project import worker_names
    from towpath.stack.compose import COMPOSE_FILE, render_compose
    from towpath.stack.lock import load_lock

    settings = load_settings(environment=False)
    path = settings.root / COMPOSE_FILE
    text = render_compose(settings, load_lock(), worker_names(settings))
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        output.note(f"{COMPOSE_FILE} follows the settings")
    elif check:
        raise ContractError(f"{COMPOSE_FILE} does not follow the settings", next_step="towpath compose")
    else:
        path.write_text(text, encoding="utf-8")
        output.note(f"wrote {COMPOSE_FILE}")
