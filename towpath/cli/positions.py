"""Verbs of `positions`: where workers stand in their topics, and what a person decides where they cannot go on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.cli.deciding import Actor, DryRun, Reason, Yes, require_reason, show_done, user_name
from towpath.errors import NotFoundError, RefusedError, WorldError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.stack.groups import Application as GroupApplication
    from towpath.stream.broker.kafka import KafkaBroker
    from towpath.stream.broker.record import TopicPartition
    from towpath.stream.state.rocks import RocksStore

OPEN_SECONDS_MAX = 20.0
"""How long a store is waited for. A worker that holds its partition looks at it for a second or two at a time."""

TAKEN_UP = "a running worker takes it up within half a minute: towpath status"

group = typer.Typer(
    name="positions", help="Where workers stand in their topics, and what holds them.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Application = Annotated[str, typer.Argument(metavar="APPLICATION", help="The consumer group, as a hold names it.")]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, or a saga's changelog.")]
Partition = Annotated[int, typer.Argument(metavar="PARTITION", min=0)]
Slot = Annotated[str, typer.Option("--slot", help="The worker whose store it is.")]
StateFolder = Annotated[
    Path | None,
    typer.Option("--state-folder", help="Where that worker keeps its stores; needed only where there are two."),
]
Database = Annotated[
    str | None,
    typer.Option("--database", help="Of an application outside this project: the database that keeps its positions."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    group.command("list")(list_positions)
    group.command()(accept)
    group.command()(rewrite)
    app.add_typer(group)


def list_positions(
    application: Annotated[str | None, typer.Argument(help="Only this consumer group.")] = None,
    held: Annotated[bool, typer.Option("--held", help="Only positions that wait for a person.")] = False,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """List where each application stands, how much it has yet to read, and what its log does not have."""
    from towpath.stack.groups import applications, standings

    settings = load_settings()
    broker = _broker(settings)
    names = [application] if application is not None else sorted(applications(settings))
    found = [one for name in names for one in standings(settings, broker, _application(settings, name, database))]
    shown = [one for one in found if one.held is not None or not held]
    if as_json:
        output.emit_json([one.to_json() for one in shown])
        return
    if not shown:
        output.note("no position is held" if held else "nothing has been read yet")
        return
    plain = ("application", "topic", "partition", "stored", "begin", "end", "lag", "held")
    output.show_rows([{name: one.to_json()[name] for name in plain} for one in shown])
    for step in dict.fromkeys(one.held.next_step for one in shown if one.held is not None):
        output.note(f"next: {step}")


def accept(
    application: Application,
    topic: Topic,
    partition: Partition,
    reason: Reason,
    from_offset: Annotated[
        int | None, typer.Option("--from", min=0, help="Where to go on; by default where the hold proposes.")
    ] = None,
    slot: Slot = "1",
    state_folder: StateFolder = None,
    actor: Actor = None,
    database: Database = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Accept that records are lost, and let a held partition go on. A running worker does so within half a minute.

    Of a saga's changelog it gives up the worker's own store, and the state goes on with what the changelog has.
    """
    from towpath.clock import SystemClock
    from towpath.positions.decision import decide
    from towpath.stack.groups import standings
    from towpath.stream.broker.record import TopicPartition

    settings = load_settings()
    broker, place = _broker(settings), TopicPartition(topic, partition)
    _require_partition(broker, place)
    if state_folder or _is_changelog(settings, topic) or _store_paths(settings, application, place, slot):
        store = _store(settings, application, place, slot, state_folder)
        _give_up(store, broker, application, place, slot, actor, reason, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    known = _application(settings, application, database)
    standing = next(iter(standings(settings, broker, known, [place])), None)
    if standing is None:
        raise NotFoundError(f"{application} has no position in {place}", next_step="towpath positions list")
    decision = decide(standing, from_offset, actor=actor or user_name(), reason=reason)
    if not dry_run:
        output.ask(f"Let {application} go on from {decision.offset_after} of {place}, for good?", yes=yes)
        if known.database is None:
            from towpath.positions.group import accept_in_group

            accept_in_group(broker, decision, SystemClock())
        else:
            from towpath.positions.postgres import accept_in_database

            accept_in_database(
                decision, settings.postgres.database_url(known.database), settings.postgres.connection_options()
            )
    show_done({**decision.to_json(), "done": not dry_run}, as_json=as_json)
    if not dry_run:
        output.note(TAKEN_UP)


def rewrite(
    application: Application,
    topic: Annotated[str, typer.Argument(metavar="CHANGELOG", help="The changelog, as a hold names it.")],
    partition: Partition,
    reason: Reason,
    slot: Slot = "1",
    state_folder: StateFolder = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Write a worker's store back into a changelog that was made anew or lost its tail, and let the worker go on."""
    from towpath.clock import SystemClock
    from towpath.positions.rewriting import plan_rewriting
    from towpath.positions.rewriting import rewrite as write_back
    from towpath.stream.broker.record import TopicPartition

    settings = load_settings()
    require_reason(reason)
    broker, place = _broker(settings), TopicPartition(topic, partition)
    _require_partition(broker, place)
    store = _store(settings, application, place, slot, state_folder)
    try:
        plan = plan_rewriting(broker, place, store)
        done = {
            "application": application,
            "changelog": str(place),
            "store": str(store.folder),
            "found": plan.found,
            "keys": plan.keys,
            "records": len(plan.changes),
            "actor": actor or user_name(),
            "reason": reason,
        }
        if not dry_run:
            output.ask(f"Write {output.counted(len(plan.changes), 'record')} into {place}?", yes=yes)
            decision = json.dumps(done, separators=(",", ":")).encode()
            write_back(broker, plan, store, SystemClock(), application=application, decision=decision)
    finally:
        store.close()
    show_done({**done, "done": not dry_run}, as_json=as_json)
    if not dry_run:
        output.note(TAKEN_UP)


def _give_up(
    store: "RocksStore",
    broker: "KafkaBroker",
    application: str,
    place: "TopicPartition",
    slot: str,
    actor: str | None,
    reason: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from towpath.clock import SystemClock
    from towpath.positions.rewriting import give_up, keys_given_up

    try:
        require_reason(reason)
        done: dict[str, Any] = {
            "application": application,
            "changelog": str(place),
            "store": str(store.folder),
            "actor": actor or user_name(),
            "reason": reason,
        }
        if dry_run:
            done["keys"] = keys_given_up(broker, place, store)
        else:
            output.ask(f"Give up what the worker in slot {slot} has of {place}, for good?", yes=yes)
            decision = json.dumps(done, separators=(",", ":")).encode()
            done["keys"] = give_up(broker, place, store, SystemClock(), application=application, decision=decision)
    finally:
        store.close()
    show_done({**done, "done": not dry_run}, as_json=as_json)
    if not dry_run:
        output.note(TAKEN_UP)


# --- what is looked at ------------------------------------------------------------------------------------------------


def _application(settings: Settings, name: str, database: str | None) -> "GroupApplication":
    from towpath.stack.groups import Application as GroupApplication
    from towpath.stack.groups import applications

    if database is not None:
        return GroupApplication(name, name, database)
    return applications(settings).get(name) or GroupApplication(name, name)


def _is_changelog(settings: Settings, topic: str) -> bool:
    from towpath.contract.catalogue import Catalogue, TopicKind

    known = Catalogue.load(settings).topics.get(topic)
    return known is not None and known.kind is TopicKind.STATE


def _require_partition(broker: "KafkaBroker", place: "TopicPartition") -> None:
    count = broker.partition_counts([place.topic]).get(place.topic)
    if count is None or place.partition >= count:
        has = "there is no such topic" if count is None else f"it has {count} partitions, from 0 on"
        raise NotFoundError(f"{place} does not exist: {has}", next_step="towpath positions list")


def _store_paths(settings: Settings, application: str, place: "TopicPartition", slot: str) -> list[Path]:
    """Return where a worker's store lies: in a folder of the project for one run by hand, else in the stack's home."""
    from towpath.stream.state.rocks import store_folder

    folders = [settings.root / settings.stream.state_folder, settings.stack_home / "data" / "state"]
    found = (store_folder(folder.resolve(), application, slot, place.topic, place.partition) for folder in folders)
    return [path for path in dict.fromkeys(found) if path.is_dir()]


def _store(
    settings: Settings, application: str, place: "TopicPartition", slot: str, state_folder: Path | None
) -> "RocksStore":
    """Open a worker's store. Raises NotFoundError without one, RefusedError where it serves, or there are two."""
    from towpath.stream.state.rocks import store_folder

    paths = _store_paths(settings, application, place, slot)
    if state_folder is not None:
        path = store_folder(state_folder.resolve(), application, slot, place.topic, place.partition)
        paths = [path] if path.is_dir() else []
    if len(paths) > 1:
        raise RefusedError(
            f"there are {len(paths)} stores of {application}, slot {slot}, for {place}: {', '.join(map(str, paths))}",
            kept="all of them",
            next_step=f"say which worker's is meant: --state-folder {paths[0].parents[3]} (or {paths[1].parents[3]})",
        )
    if paths:
        return _opened(paths[0], f"{application}, slot {slot}, serves {place}")
    raise NotFoundError(
        f"there is no store of {application}, slot {slot}, for {place} on this machine",
        next_step="run it where that worker runs, with its --state-folder",
    )


def _opened(path: Path, serving: str) -> "RocksStore":
    """Open a store, which a worker that holds its partition lets go of between two tries."""
    from towpath.clock import SystemClock, retry
    from towpath.stream.state.rocks import RocksStore

    try:
        return retry(
            SystemClock(), lambda: RocksStore(path), on=WorldError, seconds=OPEN_SECONDS_MAX, every_seconds=0.05
        )
    except WorldError as error:
        raise RefusedError(
            f"{serving}: there is nothing to decide while it does",
            kept=f"the store, {path}",
            next_step="towpath positions list --held",
        ) from error


def _broker(settings: Settings) -> "KafkaBroker":
    from towpath.stream.broker.kafka import KafkaBroker

    return KafkaBroker(settings.kafka, settings.stream)
