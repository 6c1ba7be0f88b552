"""The options by which a person's requests are made: declared once, and each verb names those that it takes."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from towpath.errors import ConfigurationError

if TYPE_CHECKING:
    from towpath.orchestrator.selection import Selection

WAIT_SECONDS = 30.0

Name = Annotated[str, typer.Argument(help="The saga.")]
Which = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="The instance's id, or its business key; without one, those that match."),
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the outcome; 0 does not wait.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what the machine would decide, and send nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who asks; by default the user of this machine.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before acting on several.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest first.")]
Rate = Annotated[float | None, typer.Option("--rate", min=0.1, help="At most so many a second.")]
Like = Annotated[bool, typer.Option("--like", help="Fill what --value leaves out from the contract's example.")]


@dataclass(frozen=True, slots=True)
class Options:
    """What a person said. A verb that does not take an option leaves it at its default."""

    step: Annotated[
        str, typer.Option("--step", help="The step, needed where several need a person; of many, those at this step.")
    ] = ""
    item: Annotated[str, typer.Option("--item", help="The item of an `each`.")] = ""
    reply: Annotated[str | None, typer.Option("--reply", help="The class of the reply that the step is to take.")] = (
        None
    )
    value: Annotated[str | None, typer.Option("--value", help="The reply as JSON, held against its contract.")] = None
    like: Like = False
    reason: Reason = ""
    actor: Actor = None
    status: Annotated[str | None, typer.Option("--status", help="Those of this status.")] = None
    cause: Annotated[str | None, typer.Option("--cause", help="Those whose cause has these words.")] = None
    version: Annotated[int | None, typer.Option("--version", help="Those of this version.")] = None
    older_than: Annotated[float | None, typer.Option("--older-than", min=0, help="Unchanged for so many seconds.")] = (
        None
    )
    key: Annotated[str | None, typer.Option("--key", help="Those whose key matches this pattern (* and ?).")] = None
    file: Annotated[
        Path | None, typer.Option("--file", help="Those whose ids or keys stand in this file, one a line.")
    ] = None
    limit: Limit = None
    rate: Rate = None
    wait: Wait = WAIT_SECONDS
    dry_run: DryRun = False
    yes: Yes = False
    as_json: Json = False

    def selection(self, which: str | None, *, of_a_step: bool = False) -> "Selection":
        """Return which instances are meant: those that match, and where `which` is given are called that.

        `of_a_step` says that of one instance, the step is what is asked about. Raises ConfigurationError.
        """
        from towpath.orchestrator.selection import Selection

        if which is not None and self.file is not None:
            raise ConfigurationError("an id and --file exclude each other", next_step="say one of them")
        asked_about = of_a_step and which is not None
        return Selection(
            status=self.status,
            step=None if asked_about else self.step or None,
            cause=self.cause,
            version=self.version,
            older_than_seconds=self.older_than,
            key_pattern=self.key,
            names=_names_in(self.file) if self.file is not None else None if which is None else frozenset({which}),
        )


def _names_in(file: Path) -> frozenset[str]:
    try:
        return frozenset(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}", next_step="name another file") from error


def command_with(
    names: Iterable[str], run: Callable[[str, str | None, Options], None], help_: str
) -> Callable[..., None]:
    """Return a command that takes a saga, an instance and the options called `names`, and calls `run` with them."""
    hints = get_type_hints(Options, include_extras=True)
    defaults = {field.name: field.default for field in fields(Options) if field.default is not MISSING}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("name", kind, annotation=Name),
        inspect.Parameter("which", kind, default=None, annotation=Which),
        *(inspect.Parameter(name, kind, default=defaults[name], annotation=hints[name]) for name in names),
    ]

    def command(name: str, which: str | None = None, **said: Any) -> None:
        run(name, which, Options(**said))

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = help_
    return command
