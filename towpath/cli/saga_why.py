"""`saga why`: says in sentences why an instance stands where it stands, and what would move it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from towpath.cli import output
from towpath.errors import NotFoundError
from towpath.settings import load_settings

if TYPE_CHECKING:
    from towpath.orchestrator.why import Line


def register(saga_app: typer.Typer) -> None:
    """Add the verb to `saga`."""
    saga_app.command()(why)


def why(
    name: Annotated[str, typer.Argument(help="The saga.")],
    which: Annotated[str, typer.Argument(metavar="ID", help="The instance's id, or its business key.")],
    as_json: Annotated[bool, typer.Option("--json", help="The sentences as JSON.")] = False,
) -> None:
    """Say why an instance stands where it stands, and what would move it."""
    from towpath.cli.saga_look import Look
    from towpath.orchestrator.why import explain

    facts = Look(load_settings(), name).at(which)
    lines = explain(facts)
    if as_json:
        output.emit_json([asdict(line) for line in lines])
    else:
        for line in lines:
            _show(line)
    if facts.state is None and facts.start is None and facts.refused is None:
        raise NotFoundError(f"nothing is known of {which}", next_step=f"towpath saga list {name}")


def _show(line: "Line") -> None:
    output.results.print(line.sentence, highlight=False, soft_wrap=True)
    if line.command is not None:
        output.results.print(f"    {line.command}", highlight=False, soft_wrap=True)
