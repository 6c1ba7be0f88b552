"""Verbs of the local stack: `up`, `down`, `status`, `logs`, `doctor`."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from towpath.cli import output
from towpath.errors import ExitCode, NotFoundError, RefusedError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.stack.findings import Finding

FOLLOW_SECONDS = 0.2
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("logs")(logs)
    app.command("doctor")(doctor)


def up(
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew: remove all data of the stack first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before removing data.")] = False,
    brokers: Annotated[
        int | None, typer.Option(min=1, max=5, help="Kafka brokers; from three on, each record has three replicas.")
    ] = None,
    workers: Annotated[bool, typer.Option("--workers", help="Start the project's workers as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the parts as processes of this machine and leave them running; ready when this command ends."""
    from towpath.stack import up as stack_up

    if brokers is not None:
        os.environ["TOWPATH_STACK__BROKERS"] = str(brokers)
    settings = load_settings()
    if fresh:
        _ask_before_removing(settings, yes=yes)
    began = time.monotonic()
    with _shown() as watcher:
        started = list(stack_up.up(settings, fresh=fresh, watcher=watcher))
        if workers:
            watcher.step("starting the workers")
            started += _start_workers(settings)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        output.emit_json({"started": started, "seconds": seconds, "processes": _rows(settings)})
        return
    output.styled(f"[green]ready[/] in {seconds} s" if started else "[green]ready[/]: it was up already")
    output.show_table(_table(_rows(settings)))


def _ask_before_removing(settings: Settings, *, yes: bool) -> None:
    data = settings.stack_home / "data"
    if yes or not data.exists():
        return
    if not sys.stdin.isatty():
        raise RefusedError(f"--fresh removes {data}", kept="the data", next_step="towpath up --fresh --yes")
    if not typer.confirm(f"Remove all databases and topics in {data}?", err=True):
        raise RefusedError("nothing was done", kept="the data")


def _start_workers(settings: Settings) -> tuple[str, ...]:
    from towpath.project import worker_names
    from towpath.stack.client import StackClient
    from towpath.stack.workers import start_workers

    with StackClient(settings.stack_home) as client:
        return start_workers(settings, client, worker_names(settings))


def down(as_json: AsJson = False) -> None:
    """Stop the stack, workers included; its data stays."""
    from towpath.stack.home import Home
    from towpath.stack.supervisor.logs import ended_by_force
    from towpath.stack.up import down as stop

    settings = load_settings()
    began_seconds = time.time()
    stopped = stop(settings)
    forced = ended_by_force(Home(settings.stack_home).logs, began_seconds) if stopped else []
    if as_json:
        output.emit_json({"stopped": stopped, "ended_by_force": forced})
        return
    output.note("stopped; the data stays" if stopped else "it was not running")
    for name in forced:
        output.note(f"{name} did not end by itself and was killed: towpath logs {name} shows where it stood")


def status(as_json: AsJson = False) -> None:
    """Show each process: state, pid, port, memory (shared pages counted once), version, uptime."""
    settings = load_settings()
    rows = _rows(settings)
    waiting = sum(row["successor_memory_bytes"] for row in rows)
    total = sum(row["memory_bytes"] or 0 for row in rows) + waiting
    problems = _problems(settings, rows)
    if as_json:
        report = {"running": bool(rows), "memory_bytes": total, "processes": rows, "groups": _groups(settings, rows)}
        output.emit_json({**report, "problems": [problem.to_json() for problem in problems]})
    elif rows:
        output.show_table(_table(rows))
        _show_groups(_groups(settings, rows))
        beside = f", {waiting / 2**20:,.0f} MiB of it in successors that wait" if waiting else ""
        output.note(f"memory, shared pages counted once: {total / 2**20:,.0f} MiB{beside}")
        for problem in problems:
            output.problem(problem.subject, problem.finding, problem.fix)
    else:
        output.note("not running; start it with towpath up")
    if not rows or problems or any(row["state"] != "ready" for row in rows if row["state"] != "stopped"):
        sys.exit(int(ExitCode.FAILED))


def _problems(settings: Settings, rows: list[dict[str, Any]]) -> "list[Finding]":
    """Return what is wrong though the processes run; where a part does not, its row says so already."""
    from towpath.stack.doctor import troubles
    from towpath.stack.findings import frozen
    from towpath.stack.supervisor.spec import Group, State

    still = [frozen(row["name"]) for row in rows if row["state"] == State.FROZEN.value]
    parts = [row for row in rows if row["group"] == Group.PART.value]
    if not parts or any(row["state"] != "ready" for row in parts):
        return still
    return [*still, *troubles(settings)]


def _groups(settings: Settings, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how each consumer group stands, as plain values; none while Kafka does not run."""
    from towpath.errors import TowpathError
    from towpath.stack.groups import group_reports
    from towpath.stream.broker.kafka import KafkaBroker

    if not any(row["name"].startswith("kafka") and row["state"] == "ready" for row in rows):
        return []
    try:
        broker = KafkaBroker(settings.kafka, settings.stream)
        reports = list(group_reports(settings, broker))
    except TowpathError as error:
        output.note(f"groups: {error.cause}")
        return []
    for cause in dict.fromkeys(report.away.cause for report in reports if report.away is not None):
        output.note(f"groups: {cause}")
    return [report.to_json() for report in reports if report.away is None]


def _show_groups(groups: list[dict[str, Any]]) -> None:
    read = [one for one in groups if one["members"] or one["lag"]]
    if read:
        output.show_rows(
            [
                {
                    "group": one["group"],
                    "members": len(one["members"]),
                    "lag": one["lag"],
                    "held": ", ".join(f"{held['topic']}[{held['partition']}]" for held in one["held"]),
                }
                for one in read
            ]
        )


def _rows(settings: Settings) -> list[dict[str, Any]]:
    """Return the processes as plain values, the supervisor first; none where it does not run."""
    from towpath.stack.client import NotRunning, StackClient
    from towpath.stack.home import Home
    from towpath.stack.machine import memory_bytes
    from towpath.stack.workers import told_status

    try:
        with StackClient(settings.stack_home) as client:
            statuses = [client.supervisor(), *client.status().values()]
    except NotRunning:
        return []
    home = Home(settings.stack_home)
    told = {one.name: told_status(home, one.name, one.pid) for one in statuses}
    ports = {name: status.get("metrics_port") for name, status in told.items() if status is not None}
    said = {name: status["words"] for name, status in told.items() if status is not None and not status["is_ready"]}
    return [
        {
            "name": one.name,
            "group": one.group.value,
            "state": one.state.value,
            "pid": one.pid,
            "ports": list(one.ports),
            "metrics_port": ports.get(one.name),
            "memory_bytes": memory_bytes(one.pid, children=one.name != "supervisor") if one.pid else None,
            "successor_memory_bytes": (memory_bytes(one.successor_pid) or 0) if one.successor_pid else 0,
            "version": one.version,
            "uptime_seconds": None if one.uptime_seconds is None else round(one.uptime_seconds, 1),
            "starts": one.starts,
            "reason": one.reason if one.state.value == "waiting" else said.get(one.name) or one.reason,
        }
        for one in statuses
    ]


_COLOURS = {
    "ready": "green",
    "starting": "yellow",
    "waiting": "yellow",
    **dict.fromkeys(("not ready", "failed", "frozen"), "red"),
}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("part", no_wrap=True)
    table.add_column("state")
    table.add_column("pid", justify="right")
    table.add_column("port")
    table.add_column("memory", justify="right")
    table.add_column("version")
    table.add_column("uptime", justify="right")
    table.add_column("")
    for row in rows:
        colour = _COLOURS.get(row["state"], "dim")
        memory = row["memory_bytes"]
        table.add_row(
            row["name"],
            Text(row["state"], style=colour),
            str(row["pid"] or ""),
            ", ".join(map(str, row["ports"])),
            "" if memory is None else f"{memory / 2**20:,.0f} MiB",
            row["version"],
            "" if row["uptime_seconds"] is None else _duration(row["uptime_seconds"]),
            row["reason"] or _told_of_starts(row),
        )
    return table


def _told_of_starts(row: dict[str, Any]) -> str:
    """Return how often a process was started, until it has run well for so long that it concerns nobody any more."""
    from towpath.stack.findings import STEADY_SECONDS

    is_steady = row["state"] == "ready" and (row["uptime_seconds"] or 0.0) > STEADY_SECONDS
    return f"started {row['starts']} times" if row["starts"] > 1 and not is_steady else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join([*filter(None, parts[:3]), f"{rest} s" if not (days or hours) else ""]).strip()


def logs(
    part: Annotated[str, typer.Argument(help="A name that `towpath status` shows, or `supervisor`.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines arrive.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show what a part or worker said."""
    from towpath.stack.home import Home
    from towpath.stack.supervisor.logs import tail

    home = Home(load_settings().stack_home)
    path = home.log_file(part)
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in home.logs.glob("*.log")))
        next_step = f"use one of {known}" if known else "towpath up starts what writes logs"
        raise NotFoundError(f"no log of {part!r} in {home.logs}", next_step=next_step)
    said = tail(path, lines) if lines else []
    if as_json:
        output.emit_json({"part": part, "file": str(path), "lines": said})
        return
    sys.stdout.writelines(f"{line}\n" for line in said)
    if follow:
        _follow(path)


def _follow(path: Path) -> None:
    position = path.stat().st_size
    while True:
        sys.stdout.flush()
        size = path.stat().st_size
        if size < position:
            position = 0  # it was cut
        if size == position:
            time.sleep(FOLLOW_SECONDS)
            continue
        with path.open("rb") as file:
            file.seek(position)
            said = file.read()
            position += len(said)
        sys.stdout.write(said.decode("utf-8", errors="replace"))


def doctor(as_json: AsJson = False) -> None:
    """Look at everything that a stack needs, and name what is wrong with its fix."""
    from towpath.stack.doctor import examine

    findings = examine(load_settings())
    if as_json:
        output.emit_json([finding.to_json() for finding in findings])
    else:
        table = Table(box=None, header_style="bold")
        for title in ("", "what", "finding", "fix"):
            table.add_column(title)
        for one in findings:
            colour = {"ok": "green", "warning": "yellow", "problem": "red"}[one.severity.value]
            table.add_row(Text(one.severity.value, style=colour), one.subject, one.finding, one.fix or "")
        output.show_table(table)
    if any(one.severity.value == "problem" for one in findings):
        sys.exit(int(ExitCode.FAILED))


class _Watcher:
    """Shows on stderr how `up` gets on: a bar while it fetches, a line for each part that is ready."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._fetching: Any = None

    def begin(self, files: int, size_bytes: int) -> None:
        self._fetching = self._bars.add_task(f"fetching {files} files", total=size_bytes)

    def advance(self, size_bytes: int) -> None:
        self._bars.update(self._fetching, advance=size_bytes)

    def step(self, text: str) -> None:
        output.note(text)

    def ready(self, name: str, seconds: float) -> None:
        output.note(f"  {name} ready after {seconds:.1f} s")


@contextmanager
def _shown() -> Iterator[_Watcher]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.notes) as bars:
        yield _Watcher(bars)
