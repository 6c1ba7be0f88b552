"""Verbs of `replay`: capture recorded runs, and let a changed saga decide over them; what sends is in replay_plans."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output, replay_plans
from towpath.cli.files import read_text, require_writable, write_text
from towpath.cli.replay_planning import load_function, milliseconds
from towpath.cli.saga_definitions import find_definition, runnable_definition
from towpath.cli.saga_room import own_topic
from towpath.errors import ConfigurationError, ContractError, NotFoundError, RefusedError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.replay.report import Report
    from towpath.replay.runs import RecordedRun

group = typer.Typer(
    name="replay", help="What has happened, once more: sent again by a plan, or decided anew.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The saga.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Only runs that started at this time (UTC) or later.")]
Until = Annotated[datetime | None, typer.Option("--until", help="Only runs that started before this time (UTC).")]


class FailOn(StrEnum):
    """From which verdict on the command fails, for CI."""

    NEVER = "never"
    DIFFERENT = "different"
    POSSIBLY = "possibly"


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    group.command()(capture)
    group.command()(shadow)
    replay_plans.register(group)
    app.add_typer(group)


def capture(
    name: Name,
    to: Annotated[Path, typer.Option("--output", help="The file; it must not exist yet.")],
    since: Since = None,
    until: Until = None,
) -> None:
    """Write the recorded runs of a saga to a file, one a line, for shadow runs without a stack.

    The file holds the runs' records whole: look before it goes where customers' data must not be.
    """
    settings = load_settings()
    if to.exists():
        raise RefusedError(f"{to} exists", kept="the file, as it was", next_step="name another file")
    require_writable(to)
    # Whoever finds the file finds it whole: what is killed or fails on the way leaves nothing of that name.
    half = to.with_name(f"{to.name}.part")
    try:
        with half.open("w", encoding="utf-8") as file:
            count = 0
            for run in _recorded(settings, name, since, until):
                file.write(run.to_line())
                count += 1
        half.rename(to)
    except OSError as error:
        raise ConfigurationError(f"{to} cannot be written: {error}", next_step="name another file") from error
    finally:
        half.unlink(missing_ok=True)
    output.note(f"{count} runs of {name} in {to}")


def shadow(
    name: Name,
    with_: Annotated[str, typer.Option("--with", help="The changed definition: a file, GITREF:FILE, or NAME@VERSION.")],
    old: Annotated[
        str | None,
        typer.Option("--old", help="The definition that decided then; by default the project's of that version."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--from", help="A file that `replay capture` wrote, - for stdin.")
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many runs.")] = None,
    value: Annotated[
        str | None, typer.Option("--value", help="MODULE:FUNCTION of the start event: a number to add up.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the report as a page.")] = None,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Exit with 3 if a run is that different.")
    ] = FailOn.NEVER,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Let a changed definition decide over recorded runs: what stays, what certainly differs, what possibly does.

    Both definitions run in the world of each run: what was answered to which command and after how long, signals and
    people's requests, each with the timers that it sets itself. Commands are compared, never sent. Where the new one
    asks what nobody was asked, each declared answer is tried.
    """
    from towpath.replay.report import report_of
    from towpath.replay.shadow import Verdict, compare
    from towpath.saga.testing.samples import sample

    settings = load_settings()
    require_writable(html)
    new = runnable_definition(settings, with_)
    before = None if old is None else runnable_definition(settings, old)
    worth = None if value is None else _worth(settings, value)
    comparisons, left_out, values = [], dict[str, int](), dict[str, float]()
    for number, run in enumerate(_runs(settings, name, file, since, until, before, left_out)):
        if limit is not None and number >= limit:
            break
        try:
            definition = before or find_definition(settings, name, run.version)
            comparisons.append(compare(definition, new, run.inputs, sample, run.saga_id))
        except NotFoundError:
            reason = f"version {run.version} is not in the project: name it with --old"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        except ValueError as error:
            left_out[str(error)] = left_out.get(str(error), 0) + 1
            continue
        if worth is not None:
            values[run.saga_id] = worth(run)
    report = report_of(name, comparisons, left_out, values)
    if html is not None:
        write_text(html, report.to_html(old or f"{name} as recorded", with_))
        output.note(f"wrote {html}")
    if as_json:
        output.emit_json(report.to_json())
    else:
        _show(report)
    if fail_on is not FailOn.NEVER and not comparisons:
        raise NotFoundError(
            f"no recorded run of {name} was compared, so nothing is shown" + "".join(f"; {one}" for one in left_out),
            kept="everything: a shadow run sends nothing",
            next_step="name a file with runs of it: towpath replay capture NAME --output FILE",
        )
    certain = report.count(Verdict.DIFFERENT) + report.count(Verdict.FAILS)
    possible = report.count(Verdict.POSSIBLY)
    if (fail_on is not FailOn.NEVER and certain) or (fail_on is FailOn.POSSIBLY and possible):
        raise ContractError(
            f"{certain} of {len(comparisons)} recorded runs would have gone otherwise, {possible} possibly",
            kept="everything: a shadow run sends nothing",
            next_step="look at the groups above; towpath saga history NAME ID shows a run",
        )


def _show(report: "Report") -> None:
    from towpath.replay.shadow import Verdict

    counts = ", ".join(f"{report.count(verdict)} {verdict.value}" for verdict in Verdict)
    output.results.print(f"{len(report.comparisons)} recorded runs of {report.saga}: {counts}", highlight=False)
    for reason, number in report.left_out.items():
        output.note(f"{number} left out: {reason}")
    if report.endings:
        output.show_rows([_without_empty_value(row) for row in report.endings])
    if report.groups:
        output.show_rows([_without_empty_value(row) for row in report.groups])


def _worth(settings: Settings, path: str) -> "Callable[[RecordedRun], float]":
    """Return what a person's function makes of a run's start; it raises ConfigurationError for what is no number."""
    function = load_function(settings, path)

    def worth(run: "RecordedRun") -> float:
        try:
            return float(function(run.inputs[0].event))  # type: ignore[union-attr]
        except Exception as error:
            raise ConfigurationError(
                f"{path} gives no number for {run.saga_id}: {type(error).__name__}: {error}",
                kept="everything: a shadow run sends nothing",
                next_step="let it return a number for each start event",
            ) from error

    return worth


def _without_empty_value(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "value" or value is not None}


def _recorded(settings: Settings, name: str, since: datetime | None, until: datetime | None) -> "Iterator[RecordedRun]":
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec
    from towpath.orchestrator import envelope
    from towpath.replay.runs import runs_in
    from towpath.stream.broker.kafka import read_records

    catalogue = Catalogue.load(settings)
    topic = own_topic(settings, catalogue, name, envelope.HISTORY).name
    codec = load_codec(settings, catalogue, catalogue.topics_of(name))
    begin, end = milliseconds(since) or 0, milliseconds(until) or 2**62
    yield from runs_in(read_records(settings, [topic]), codec, begin, end)


def _runs(
    settings: Settings,
    name: str,
    file: Path | None,
    since: datetime | None,
    until: datetime | None,
    old: Any,
    left_out: dict[str, int],
) -> "Iterator[RecordedRun]":
    from towpath.replay.runs import runs_of_lines

    if file is None:
        yield from _recorded(settings, name, since, until)
        return

    def definition_of(saga: str, version: int) -> Any:
        try:
            return old or find_definition(settings, saga, version)
        except NotFoundError as error:
            raise ValueError(error.cause) from error

    begin, end = milliseconds(since) or 0, milliseconds(until) or 2**62
    for run in runs_of_lines(_lines(file), definition_of):
        if isinstance(run, ValueError):
            left_out[str(run)] = left_out.get(str(run), 0) + 1
        elif run.saga == name and begin <= run.inputs[0].at_milliseconds < end:
            yield run


def _lines(file: Path) -> Iterable[str]:
    return read_text(file, next_step="towpath replay capture NAME --output FILE").splitlines()
