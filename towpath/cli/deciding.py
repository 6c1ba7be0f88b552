"""What a person says who decides something, in whichever room: who, why, whether only to try, and what was done."""

import getpass
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from towpath.cli import output
from towpath.errors import ConfigurationError

Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the decision.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who decides; by default the user of this machine.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def user_name() -> str:
    """Return who is at this machine; `unknown` where the system has no name for the user, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def require_reason(reason: str | None, what: str = "a decision") -> str:
    """Return the reason. Raises ConfigurationError for one that says nothing."""
    if reason is None or not reason.strip():
        raise ConfigurationError(f"{what} needs a reason", next_step="say --reason TEXT")
    return reason


def show_done(done: Mapping[str, Any], *, as_json: bool) -> None:
    """Say what was done, or would be: as JSON, or a row for each name."""
    if as_json:
        output.emit_json(done)
        return
    output.show_facts(done)
