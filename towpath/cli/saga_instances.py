"""Verbs about real instances: list, show, export, history. They read the saga's own topics, and change nothing."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from towpath.cli import output
from towpath.cli.saga_room import own_topic
from towpath.errors import ConfigurationError, NotFoundError, RefusedError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.orchestrator.instance_status import KeptInstance
    from towpath.orchestrator.records import HistoryEntry
    from towpath.orchestrator.selection import Selection
    from towpath.saga.state import SagaState

ID_LETTERS = 36
ROWS_MAX = 200
"""Rows of a table that a person reads; JSON has them all."""


def register(saga_app: typer.Typer) -> None:
    """Add the verbs to `saga`."""
    saga_app.command(name="list")(list_instances)
    saga_app.command()(show)
    saga_app.command()(export)
    saga_app.command()(history)


Name = Annotated[str, typer.Argument(help="The saga.")]
Which = Annotated[str, typer.Argument(metavar="SAGA_ID", help="The instance's id, or its business key.")]
Json = Annotated[bool, typer.Option("--json", help="Everything as JSON.")]
Watch = Annotated[
    float | None, typer.Option("--watch", min=0.5, help="Look again every so many seconds, until interrupted.")
]


class Order(StrEnum):
    """What a list is sorted by, the first first."""

    STARTED = "started"
    CHANGED = "changed"
    KEY = "key"
    STATUS = "status"


_ORDERS: dict[Order, Callable[["KeptInstance"], Any]] = {
    Order.STARTED: lambda instance: instance.state.started_milliseconds,
    Order.CHANGED: lambda instance: instance.changed_milliseconds,
    Order.KEY: lambda instance: instance.state.key,
    Order.STATUS: lambda instance: (instance.state.status.value, instance.state.started_milliseconds),
}


def list_instances(
    name: Annotated[str | None, typer.Argument(help="The saga; by default all.", show_default=False)] = None,
    stuck: Annotated[bool, typer.Option("--stuck", help="Only those that need a person.")] = False,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only those that have not ended.")] = False,
    status: Annotated[str | None, typer.Option("--status", help="Only those of this status.")] = None,
    step: Annotated[str | None, typer.Option("--step", help="Only those that are at this step.")] = None,
    cause: Annotated[str | None, typer.Option("--cause", help="Only those whose cause has these words.")] = None,
    version: Annotated[int | None, typer.Option("--version", help="Only those of this version.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only those whose key matches this pattern.")] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", min=0, help="Unchanged for so many seconds.")
    ] = None,
    sort: Annotated[Order, typer.Option("--sort", help="What they are sorted by.")] = Order.STARTED,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
    count: Annotated[bool, typer.Option("--count", help="How many there are, by saga, version and status.")] = False,
    watch: Watch = None,
    as_json: Json = False,
) -> None:
    """List the instances of sagas: how each stands, what it waits for, and since when."""
    from towpath.orchestrator.selection import Selection

    chosen = Selection(
        status=status,
        step=step,
        cause=cause,
        version=version,
        older_than_seconds=older_than,
        key_pattern=key,
        stuck=stuck,
        unfinished=unfinished,
    )
    output.repeat(lambda: _list(name, chosen, sort, limit, count=count, as_json=as_json), watch)


def _list(name: str | None, chosen: "Selection", sort: Order, limit: int | None, *, count: bool, as_json: bool) -> None:
    settings = load_settings()
    everything = [instance for saga in _sagas(settings, name) for instance in read_instances(settings, saga)]
    found = sorted(chosen.of(everything, int(datetime.now(UTC).timestamp() * 1000)), key=_ORDERS[sort])
    if count:
        rows = _counted(found)
        output.emit_json(rows) if as_json else output.show_rows(rows or [{"instances": 0}])
        return
    of = len(found)
    found = found[: limit or of]
    cut = f" of {of}, cut by --limit" if len(found) < of else ""
    if as_json:
        output.emit_json([_plain(instance) for instance in found])
        if cut:
            output.note(f"{output.counted(len(found), 'instance')}{cut}")
        return
    # An id is there to be copied: it is never cut.
    table = Table(Column("instance", min_width=ID_LETTERS), "status", "waits for", "since", show_lines=True)
    for instance in found[:ROWS_MAX]:
        state = instance.state
        table.add_row(
            f"{state.saga_id}\n{state.saga}@{state.version} {state.key}",
            state.status.value,
            "\n".join(instance.under_way),
            _moment(instance.changed_milliseconds),
        )
    output.show_table(table)
    more = f", the first {ROWS_MAX} shown: --json has all" if len(found) > ROWS_MAX else ""
    output.note(f"{output.counted(len(found), 'instance')}{cut}{more}")


def _counted(found: Iterable["KeptInstance"]) -> list[dict[str, Any]]:
    counts = Counter((one.state.saga, one.state.version, one.state.status.value) for one in found)
    return [
        {"saga": saga, "version": version, "status": status, "instances": number}
        for (saga, version, status), number in sorted(counts.items())
    ]


def show(
    name: Name,
    which: Which,
    at: Annotated[
        str | None, typer.Option("--at", help="As it stood at this time (UTC), or at this offset of its history topic.")
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Each step of its run: what came, what it changed.")] = False,
    around: Annotated[
        bool, typer.Option("--beside", help="And the views' rows and the services' inboxes as they were then.")
    ] = False,
    watch: Watch = None,
    as_json: Json = False,
) -> None:
    """Show one instance: every step, what it waits for, which dead letters concern it; now, or as it stood once."""
    settings = load_settings()
    if at is not None or step or around:
        show_moments(settings, name, which, at, step=step, around=around, as_json=as_json)
        return
    output.repeat(lambda: _show(settings, name, which, as_json=as_json), watch)


def _show(settings: Settings, name: str, which: str, *, as_json: bool) -> None:
    from towpath.cli.saga_dead import letters_of
    from towpath.saga.state_snapshot import state_to_snapshot, tree_to_json

    instance = read_instance(settings, name, which)
    state = instance.state
    letters = letters_of(settings, name, state)
    if as_json:
        tree = tree_to_json(state_to_snapshot(state))
        output.emit_json({**_plain(instance), "dead_letters": letters, "state": tree})
        return
    show_state(state, _moment(instance.changed_milliseconds))
    for letter in letters:
        about = f" for {letter['step']}" if letter["step"] else ""
        words = f"dead letter {letter['topic']} {letter['place']}: {letter['type']}{about}: {letter['cause']}"
        output.results.print(f"{words}\n    {letter['look']}", highlight=False, soft_wrap=True)


def show_state(state: "SagaState", since: str) -> None:
    """Print how an instance stands."""
    cause = f", because of {state.cause}" if state.cause is not None else ""
    output.styled_result(
        f"[bold]{state.saga}[/] version {state.version}, {state.saga_id}, key {escape(state.key)}: "
        f"[bold]{state.status.value}[/] since {since}{escape(cause)}"
    )
    table = Table("step", "status", "attempt", "round", "until", "result")
    for step in state.steps:
        for cell in (step, *step.items):
            table.add_row(
                cell.key if cell is step else f"  item {cell.key}",
                cell.status.value,
                str(cell.attempt or ""),
                str(cell.round or ""),
                _moment(cell.due_milliseconds) if cell.due_milliseconds else "",
                "" if cell.result is None else type(cell.result).__name__,
            )
    output.show_table(table)
    if state.deadline_milliseconds:
        output.results.print(f"its deadline is {_moment(state.deadline_milliseconds)}", highlight=False)


def export(
    name: Name,
    to: Annotated[str, typer.Option("--output", help="A file; - for stdout.")] = "-",
    unfinished: Annotated[
        bool, typer.Option("--unfinished/--all", help="Those that may still change, or also those that will not.")
    ] = True,
) -> None:
    """Write the states of real instances, one JSON tree a line: what `saga upgrade --instances` reads.

    Records of the business are told by the names of their classes, so no customer's data leaves the topic.
    """
    from towpath.saga.state_snapshot import state_to_snapshot, tree_to_json

    found = [instance for instance in read_instances(load_settings(), name) if instance.needed or not unfinished]
    lines = (json.dumps(tree_to_json(state_to_snapshot(instance.state))) + "\n" for instance in found)
    if to == "-":
        sys.stdout.writelines(lines)
    else:
        with Path(to).open("w", encoding="utf-8") as file:
            file.writelines(lines)
    output.note(f"{output.counted(len(found), 'instance')} of {name}{'' if to == '-' else f' in {to}'}")


def history(
    name: Name,
    which: Which,
    golden: Annotated[
        Path | None, typer.Option("--golden", help="Write the run to this file as a golden history.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what happened to one instance, in order; with --golden, keep it as a run that is replayed for ever.

    Before a golden history is written the run is decided again, and must come out as it was recorded.
    """
    settings = load_settings()
    codec, entries = _read_history(settings, name, which)
    if golden is not None:
        _write_golden(settings, entries, codec, golden)
    elapsed = seconds_of(entry.at_milliseconds for entry in entries)
    if as_json:
        output.emit_json([{"seconds": at, **_told(one)} for at, one in zip(elapsed, entries, strict=True)])
        return
    output.styled_result(
        f"[bold]{name}[/] version {_versions_of(entries)}, {entries[0].saga_id}, key {escape(entries[0].key)}, "
        f"from {_moment(entries[0].at_milliseconds)} on"
    )
    table = Table("seconds", "what came", "what was sent", "saga")
    for seconds, entry in zip(elapsed, entries, strict=True):
        table.add_row(
            f"{seconds:.3f}",
            _came(entry),
            "\n".join(f"{sent.type.rpartition('.')[2]} to {sent.topic}" for sent in entry.sent),
            entry.status,
        )
    output.show_table(table)


def _versions_of(entries: Sequence[Any]) -> str:
    """Return the version of an instance, or the versions that it went through."""
    return ", then ".join(map(str, dict.fromkeys(entry.version for entry in entries)))


# --- what is read -----------------------------------------------------------------------------------------------------


def read_instances(settings: Settings, name: str) -> Sequence["KeptInstance"]:
    """Return the instances of a saga, read from its state topic. Raises NotFoundError where it has none."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec
    from towpath.orchestrator import envelope
    from towpath.orchestrator.instance_status import instances_in
    from towpath.project import load_sagas
    from towpath.stream.broker.kafka import read_records

    catalogue = Catalogue.load(settings)
    topic = own_topic(settings, catalogue, name, envelope.STATE).name
    codec = load_codec(settings, catalogue, [topic])
    definitions = load_sagas(settings).get(name, {})
    return tuple(instances_in(read_records(settings, [topic]), codec, definitions=definitions))


def read_instance(settings: Settings, name: str, which: str) -> "KeptInstance":
    """Return the instance of that id or business key. Raises NotFoundError, RefusedError where a key has several."""
    from towpath.cli.saga_reading import InstanceReader
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec
    from towpath.orchestrator import envelope
    from towpath.project import load_sagas

    catalogue = Catalogue.load(settings)
    codec = load_codec(settings, catalogue, [own_topic(settings, catalogue, name, envelope.STATE).name])
    definitions = load_sagas(settings).get(name, {})
    fitting = InstanceReader(settings).instances(name, which, codec, definitions=definitions)
    if not fitting:
        raise NotFoundError(
            f"saga {name} has no instance {which}", next_step=f"towpath saga list {name}; it may be forgotten already"
        )
    if len(fitting) > 1:
        ids = ", ".join(instance.state.saga_id for instance in fitting)
        raise RefusedError(f"key {which} has {len(fitting)} instances: {ids}", next_step="name one by its id")
    return fitting[0]


def _sagas(settings: Settings, name: str | None) -> Iterator[str]:
    from towpath.contract.catalogue import Catalogue, TopicKind

    if name is not None:
        yield name
        return
    yield from (topic.owner for topic in Catalogue.load(settings).live() if topic.kind is TopicKind.STATE)


def _read_history(settings: Settings, name: str, which: str) -> tuple[Any, list["HistoryEntry"]]:
    """Return the entries of one instance in order, and the codec that opens them."""
    codec, placed = read_placed_history(settings, name, which)
    return codec, [entry for _, entry in placed]


def read_placed_history(settings: Settings, name: str, which: str) -> tuple[Any, list[tuple[int, "HistoryEntry"]]]:
    """Return the entries of one instance in order, each with its offset, and the codec that opens them."""
    from towpath.cli.saga_reading import InstanceReader
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec
    from towpath.orchestrator import envelope

    catalogue = Catalogue.load(settings)
    topic = own_topic(settings, catalogue, name, envelope.HISTORY).name
    codec = load_codec(settings, catalogue, catalogue.topics_of(name))
    found = InstanceReader(settings).history(name, which, codec)
    if not found:
        raise NotFoundError(
            f"the history of {name} says nothing of {which}",
            next_step=f"towpath saga list {name}; retention_days of {topic} says for how long it remembers",
        )
    if len(found) > 1:
        raise RefusedError(
            f"key {which} has {len(found)} instances: {', '.join(found)}", next_step="name one by its id"
        )
    return codec, next(iter(found.values()))


def show_moments(
    settings: Settings, name: str, which: str, at: str | None, *, step: bool, around: bool, as_json: bool
) -> None:
    """Show an instance as it stood at a time or an offset of its history; with `step`, each step up to there."""
    from towpath.cli.saga_definitions import find_definition
    from towpath.orchestrator.time_travel import moments, until
    from towpath.project import load_sagas
    from towpath.saga.state_snapshot import state_to_snapshot, tree_to_json

    codec, placed = read_placed_history(settings, name, which)
    chosen = until(placed, **_place_of(at))
    definition = find_definition(settings, name, chosen[0][1].version)
    found = list(moments(definition, chosen, codec, load_sagas(settings)[name]))
    last = found[-1]
    there = {}
    if around:
        from towpath.cli.saga_beside import beside, show_beside

        # Up to the inputs after which it stood so, of which the last need not be the latest: capture carries a reply
        # later than a hand-over does. What a person sees is of one moment.
        then = _place_of(at).get("at_milliseconds") or max(one.entry.at_milliseconds for one in found)
        there = {"beside": beside(settings, last.entry.saga_id, last.entry.key, then)}
    if as_json:
        rows = [
            {"number": one.number, "offset": one.offset, **_told(one.entry), "changes": list(one.changes)}
            for one in found
        ]
        state = None if last.state is None else tree_to_json(state_to_snapshot(last.state))
        steps = rows if step else rows[-1:]
        output.emit_json({"state": state, "later": len(placed) - len(chosen), "steps": steps, **there})
        return
    if step:
        elapsed = seconds_of(one.entry.at_milliseconds for one in found)
        table = Table("#", "offset", "seconds", "what came", "what it changed", "what was sent", show_lines=True)
        for seconds, one in zip(elapsed, found, strict=True):
            table.add_row(
                str(one.number),
                str(one.offset),
                f"{seconds:.3f}",
                _came(one.entry),
                "\n".join(one.changes),
                "\n".join(f"{sent.type.rpartition('.')[2]} to {sent.topic}" for sent in one.entry.sent),
            )
        output.show_table(table)
    if last.state is not None:
        show_state(last.state, _moment(last.entry.at_milliseconds))
    if around:
        show_beside(there["beside"])
    output.note(f"{len(placed) - len(chosen)} inputs came later")


def _place_of(at: str | None) -> dict[str, int]:
    """Return what `--at` says: an offset, or a time. Raises ConfigurationError for neither."""
    if at is None:
        return {}
    if at.isascii() and at.isdigit():
        return {"offset": int(at)}
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise ConfigurationError(
            f"{at!r} is neither a time nor an offset", next_step="say --at 2026-01-31T12:00:00 or --at 42"
        ) from error
    return {"at_milliseconds": int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)}


def _write_golden(settings: Settings, entries: Sequence["HistoryEntry"], codec: Any, path: Path) -> None:
    from towpath.cli.saga_definitions import find_definition
    from towpath.orchestrator.recording import golden_of
    from towpath.saga.testing.golden import write_history

    definition = find_definition(settings, entries[0].saga, entries[0].version)
    try:
        write_history(path, golden_of(definition, entries, codec))
    except FileExistsError as error:
        raise RefusedError(str(error), kept="the file, as it was", next_step="name another file") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}", next_step="name another file") from error
    output.note(
        f"wrote {path}: {len(entries)} inputs, decided as they were recorded. It holds the run's records whole: "
        "look before it goes where customers' data must not be"
    )


# --- how it is told ---------------------------------------------------------------------------------------------------


def _plain(instance: "KeptInstance") -> dict[str, Any]:
    state = instance.state
    return {
        "saga": state.saga,
        "version": state.version,
        "saga_id": state.saga_id,
        "key": state.key,
        "status": state.status.value,
        "waits_for": list(instance.under_way),
        "held": instance.held,
        "cause": None if state.cause is None else str(state.cause),
        "started_at": _exactly(state.started_milliseconds),
        "since": _exactly(instance.changed_milliseconds),
    }


def _told(entry: "HistoryEntry") -> dict[str, Any]:
    """Return an entry as JSON, what the input carried left out."""
    plain = asdict(entry)
    for name in ("message", "headers", "at_milliseconds"):
        del plain[name]
    return {"at": _exactly(entry.at_milliseconds), **plain}


def seconds_of(moments: Iterable[int]) -> list[float]:
    """Return for each moment (milliseconds) the seconds since the first, in the order of decisions, never falling.

    An input's time is its writer's clock, and one that is behind would let time run backwards.
    """
    times = list(moments)
    return [(latest - times[0]) / 1000 for latest in accumulate(times, max)]


def _came(entry: "HistoryEntry") -> str:
    """Say in a few lines what an entry is about, and why it was refused or asked for."""
    lines = [f"{entry.happened.replace('_', ' ')} {entry.detail}"]
    if entry.step:
        item, undo = f" {entry.item}" if entry.item else "", "undo of " if entry.direction == "undo" else ""
        attempt = f", attempt {entry.attempt}" if entry.attempt else ""
        lines.append(f"{undo}{entry.step}{item}{attempt}")
    if entry.actor:
        lines.append(f"by {entry.actor}: {entry.asked_because}")
    if entry.happened == "refused":
        lines.append(entry.reason)
    return "\n".join(lines)


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _exactly(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
