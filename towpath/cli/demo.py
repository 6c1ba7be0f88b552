"""The verb `demo`: real orders through the real stack, and what became of them."""

import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from towpath.cli import output
from towpath.errors import ConfigurationError, ExitCode
from towpath.settings import Settings, load_settings

REASONS_SHOWN = 4
COLOURS = {"completed": "green", "compensated": "yellow", "stuck": "red"}


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("demo")(demo)


def demo(
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="How many orders to place.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the traffic: customers, products, baskets, decisions.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    crash: Annotated[
        bool, typer.Option("--crash", help="SIGKILL workers and Connect while orders are under way.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Start what is not running, place orders, and judge what became of them from databases and topics."""
    from towpath.demo.demo import Demo
    from towpath.demo.runner import Options, conduct
    from towpath.project import load_object

    settings = load_settings()
    if settings.project.demo is None:
        raise ConfigurationError("this project has no demo", next_step="name one in towpath.toml: [project] demo")
    registered = load_object(settings, settings.project.demo, Demo)  # type: ignore[type-abstract]
    with Show(orders) as show:
        report = conduct(
            settings,
            registered,
            Options(orders=orders, seed=seed, keep=keep, crash=crash),
            show,
            run_id=uuid.uuid4().hex[:8],
        )
    if as_json:
        output.emit_json(report.verdict.to_json())
    else:
        _show_report(report, settings)
    if not report.verdict.holds:
        sys.exit(int(ExitCode.FAILED))


class Show:
    """Shows on stderr how a run gets on: downloads, parts, orders."""

    def __init__(self, orders: int) -> None:
        self._orders = orders
        self._download: Progress | None = None
        self._traffic: Progress | None = None

    def __enter__(self) -> "Show":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    # --- What `up` tells

    def begin(self, files: int, size_bytes: int) -> None:
        """Downloads begin."""
        self._end()
        self._download = Progress(
            TextColumn("fetching {task.fields[files]} files, once"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=output.notes,
        )
        self._download.add_task("", total=size_bytes, files=files)
        self._download.start()

    def advance(self, size_bytes: int) -> None:
        """So many more bytes have arrived."""
        if self._download is not None:
            self._download.advance(self._download.task_ids[0], size_bytes)

    def step(self, text: str) -> None:
        """Something begins that may take a moment."""
        self._end()
        output.styled(f"  [dim]{text}[/]")

    def ready(self, name: str, seconds: float) -> None:
        """A part became ready."""
        self._end()
        output.styled(f"  [green]✓[/] {name} [dim]{seconds:.1f} s[/]")

    # --- What a run tells

    def placing(self, orders: int) -> None:
        """Traffic begins."""
        self._end()
        self._traffic = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=output.notes,
        )
        for name in ("placed", "completed", "compensated"):
            self._traffic.add_task(name, total=orders)
        self._traffic.start()

    def progress(self, placed: int, standing: Mapping[str, int]) -> None:
        """Orders move on."""
        if self._traffic is None:
            return
        counts = (placed, standing.get("completed", 0), standing.get("compensated", 0))
        for task, count in zip(self._traffic.task_ids, counts, strict=True):
            self._traffic.update(task, completed=count)

    def killed(self, name: str) -> None:
        """A process was killed."""
        output.styled(f"  [red]✗[/] SIGKILL {name}")

    def judging(self) -> None:
        """Databases and topics are read."""
        self._end()
        output.styled("  [dim]reading four databases and every topic[/]")

    def _end(self) -> None:
        for bar in (self._download, self._traffic):
            if bar is not None:
                bar.stop()
        self._download = self._traffic = None


def _show_report(report: Any, settings: Settings) -> None:
    console = output.results
    console.print()
    console.print(_outcomes(report.outcomes))
    for key, (status, hops) in report.journeys.items():
        console.print()
        console.print(_journey(key, status, hops))
    verdict = report.verdict
    console.print()
    console.print(
        f"{verdict.orders} orders in {verdict.traffic_seconds} s, {verdict.elapsed_seconds} s with start and check; "
        f"from placed to ended p50 {verdict.order_seconds_p50} s, p99 {verdict.order_seconds_p99} s"
    )
    console.print(_verdict(report))
    if verdict.stepped_over:
        console.print(
            f"{output.counted(verdict.stepped_over, 'record')} of the topics cannot be decoded, or died in a view: "
            "stepped over; towpath dead list --all shows what is known of them",
            highlight=False,
            soft_wrap=True,
        )
    if verdict.holds:
        console.print("Next: [bold]towpath saga check[/], then read sagas/place_order.py", markup=True, highlight=False)
    else:
        console.print(f"Something does not hold. The logs lie in {settings.stack_home / 'logs'}", highlight=False)


def _outcomes(outcomes: Mapping[str, Any]) -> Table:
    table = Table(title="What became of the orders", title_justify="left", box=None, padding=(0, 3, 0, 0))
    table.add_column("orders", justify="right")
    table.add_column("status")
    table.add_column("reason")
    counts = Counter((outcome.status, outcome.reason or "") for outcome in outcomes.values())
    shown: Counter[str] = Counter()
    for (status, reason), count in counts.most_common():
        shown[status] += 1
        if shown[status] <= REASONS_SHOWN:
            table.add_row(str(count), status, reason)
    rest = sum(counts.values()) - sum(count for (status, _), count in counts.items() if shown[status] <= REASONS_SHOWN)
    if rest:
        table.add_row("...", "", Text("further reasons", style="dim"))
    return table


def _journey(key: str, status: str, hops: list[Any]) -> Table:
    title = Text.assemble("One order that was ", (status, COLOURS[status]), f": {key}")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("ms", justify="right")
    table.add_column("topic")
    table.add_column("message")
    table.add_column("step", style="dim")
    for hop in hops:
        record = Text(("↩ " if hop.undo else "") + hop.record, style="yellow" if hop.undo else "")
        table.add_row(
            f"+{hop.milliseconds}",
            Text.assemble(hop.topic, (f"/{hop.partition}@{hop.offset}", "dim")),
            record,
            hop.step,
        )
    return table


def _verdict(report: Any) -> Panel:
    verdict = report.verdict
    details = {check.name: check.detail for check in report.checks}
    lines = [
        (not verdict.lost, "no order lost", f"{verdict.lost} lost of all ever placed"),
        (not verdict.stuck, "no order stuck", f"{verdict.stuck} stuck"),
        (not verdict.executed_twice, "no command executed twice", f"{verdict.executed_twice} second effects"),
        (verdict.money_conserved, "money conserved", details.get("money_conserved", "")),
        (verdict.stock_conserved, "stock conserved", details.get("stock_conserved", "")),
        (verdict.view_exact, "each view row equals the fold of its topic", ""),
    ]
    text = Text()
    for holds, claim, detail in lines:
        text.append("✓ " if holds else "✗ ", style="bold green" if holds else "bold red")
        text.append(claim)
        text.append(f"  {detail}\n", style="dim")
    text.rstrip()
    return Panel(text, title="verdict", border_style="green" if verdict.holds else "red", expand=False)
