"""Verbs of `replay` that send: plan first, then run the plan, look at runs, stop one."""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.cli.collecting import few_collections
from towpath.cli.deciding import require_reason, user_name
from towpath.cli.files import read_text, require_writable, write_text
from towpath.cli.replay_planning import (
    Asked,
    chooser,
    codec_of_topics,
    headers_in,
    ids_in,
    make_plan,
    milliseconds,
    problems_since,
    source_of_plan,
    target_broker,
    translation,
)
from towpath.errors import ConfigurationError, ContractError, PartlyDoneError, RefusedError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.replay.plan import Plan, Ranges, Target
    from towpath.replay.progress import KeepOn, Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ReplayId = Annotated[str, typer.Argument(metavar="REPLAY", help="The replay, as `replay list` names it.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A file that `replay plan --output` wrote.")]
Force = Annotated[bool, typer.Option("--force", help="Even where something may be done twice.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the replay.")]
TELL_SECONDS = 1.0


def register(group: typer.Typer) -> None:
    """Add the verbs to the group `replay`."""
    group.command()(plan)
    group.command()(run)
    group.command("list")(list_replays)
    group.command()(show)
    group.command()(stop)


def plan(
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="Repeat it; with --decode by default all.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A captured file in place of the topics.")] = None,
    outbox: Annotated[
        str | None, typer.Option("--outbox", metavar="SERVICE", help="The outbox of a service in place of the topics.")
    ] = None,
    since: Annotated[datetime | None, typer.Option("--since", help="Records of this time (UTC) or later.")] = None,
    until: Annotated[datetime | None, typer.Option("--until", help="Records before this time (UTC).")] = None,
    from_offset: Annotated[int | None, typer.Option("--from-offset", min=0)] = None,
    to_offset: Annotated[int | None, typer.Option("--to-offset", min=0, help="Exclusive.")] = None,
    partitions: Annotated[list[int] | None, typer.Option("--partition", min=0, help="Repeat it.")] = None,
    keys: Annotated[list[str] | None, typer.Option("--key", help="Repeat it.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="In full or by its last part; repeat it.")] = None,
    headers: Annotated[list[str] | None, typer.Option("--header", help="NAME=VALUE; repeat it.")] = None,
    ids: Annotated[Path | None, typer.Option("--ids", help="A file with one event id a line.")] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="An expression in CEL about record, key, type and topic.")
    ] = None,
    function: Annotated[
        str | None,
        typer.Option("--where-function", metavar="MODULE:FUNCTION", help="Of a decoded record and how it lies."),
    ] = None,
    to_topic: Annotated[str | None, typer.Option("--to-topic", help="Send to this topic instead.")] = None,
    to_cluster: Annotated[
        Path | None, typer.Option("--to-cluster", help="To another cluster: a file with [kafka] and [registry].")
    ] = None,
    to_file: Annotated[
        Path | None, typer.Option("--to-file", help="Write to this file instead: lines, or Avro if named .avro.")
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Send nothing: would this release decode all of it? Else exit 3.")
    ] = False,
    by_time: Annotated[bool, typer.Option("--by-time", help="Across partitions in the order of their time.")] = False,
    rate: Annotated[float | None, typer.Option("--rate", min=0.1, help="Most records a second.")] = None,
    to: Annotated[Path | None, typer.Option("--output", help="Write the plan, for `replay run`.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Look at what a replay would read and send, and who would recognise it. Sends nothing.

    Without --to-topic, --to-cluster or --to-file the records go to their own topics, to the same consumers. Exit 6
    where one of them cannot tell that it has done them before.
    """
    from towpath.replay.plan import Target
    from towpath.replay.selection import Selection

    settings = load_settings()
    _require_one(("--from", source), ("--outbox", outbox))
    _require_one(("--to-file", to_file), ("--to-topic", to_topic))
    _require_one(("--to-file", to_file), ("--to-cluster", to_cluster))
    _require_one(("--by-time", by_time or None), ("--from", source))
    _require_one(("--decode", decode or None), ("--output", to))
    require_writable(to)
    selection = Selection(
        topics=tuple(topics or ()),
        partitions=frozenset(partitions or ()),
        since_milliseconds=milliseconds(since),
        until_milliseconds=milliseconds(until),
        from_offset=from_offset,
        to_offset=to_offset,
        keys=frozenset(keys or ()),
        types=frozenset(types or ()),
        headers=headers_in(headers or ()),
        ids=ids_in(ids),
        where=where,
        function=function,
    )
    target = Target(to_topic, _whole(to_file), _whole(to_cluster))
    _require_new(target)
    asked = Asked(selection, target, file=source, outbox=outbox, by_time=by_time, rate=rate, decode=decode)
    made = make_plan(settings, asked)
    if as_json:
        output.emit_json(made.to_json())
    else:
        _show(made)
    if decode:
        _require_decodable(made)
        return
    if not made.records:
        output.note("no record is chosen: there is nothing to send")
    if made.problems and not force:
        raise RefusedError(
            "; ".join(made.problems),
            kept="everything: nothing was sent",
            next_step="choose less, or say --force and, when it is run, --reason",
        )
    if to is not None:
        write_text(to, json.dumps(made.to_json(), indent=2) + "\n")
        output.note(f"run it: towpath replay run {to} --reason REASON")


def run(
    file: PlanFile,
    reason: Reason = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Who; by default the user of this machine.")] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left to be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a plan: each record once, its progress in the transaction that sends it.

    Interrupted, stopped or killed anywhere, the same command goes on where it stood.
    """
    from towpath.replay import postgres
    from towpath.replay.progress import left_of
    from towpath.view.versions.postgres import views_connection

    settings = load_settings()
    made = _plan_in(file)
    if dry_run:
        left = _left(settings, made)
        output.emit_json(_done(made, 0, left, done=False)) if as_json else _show(made)
        return
    why = require_reason(reason, "a replay")
    if made.problems and not force:
        raise RefusedError(
            "; ".join(made.problems), kept="everything: nothing was sent", next_step="say --force, with the reason"
        )
    since = () if force else problems_since(settings, made)
    if since:
        raise RefusedError(
            "; ".join(since),
            kept="everything: nothing was sent now",
            next_step="plan anew, which says of how many; or say --force, with the reason",
        )
    output.ask(f"Send {output.counted(made.records, 'record')} again?", yes=yes)
    with views_connection(settings) as connection:
        if not postgres.is_known(connection, made.replay_id):
            _require_new(made.target)
        begun = postgres.begin(connection, made, actor=actor or user_name(), reason=why, forced=force)
        watch = _Watch(made, begun.sent, lambda sent: postgres.note(connection, begun, sent=sent))
        state = "interrupted"
        try:
            progress = _carry_out(settings, made, watch.keep_on)
            state = "stopped" if watch.stopped else "done"
        finally:
            postgres.end(connection, begun, sent=watch.sent, state=state)
    left = left_of(made, progress.offsets)
    if as_json:
        output.emit_json(_done(made, progress.sent, left, done=state == "done"))
    else:
        output.note(f"{output.counted(progress.sent, 'record')} sent in {progress.seconds:.1f} s, {watch.sent} in all")
    if state == "stopped":
        raise PartlyDoneError(
            f"replay {made.replay_id} was asked to stop",
            kept="where it stands",
            next_step=f"towpath replay run {file} --reason REASON",
        )


def list_replays(as_json: AsJson = False) -> None:
    """List the replays that were run: who, why, how far."""
    from towpath.replay.postgres import known
    from towpath.view.versions.postgres import views_connection

    with views_connection(load_settings()) as connection:
        rows = [one.to_json() for one in known(connection)]
    if as_json:
        output.emit_json(rows)
    elif rows:
        output.show_rows(rows)
    else:
        output.note("nothing was replayed yet")


def show(replay: ReplayId, as_json: AsJson = False) -> None:
    """Show one replay: its plan, who ran it, and what is left."""
    from towpath.replay.plan import Plan
    from towpath.replay.postgres import show as find
    from towpath.view.versions.postgres import views_connection

    settings = load_settings()
    with views_connection(settings) as connection:
        found = find(connection, replay)
    made = Plan.from_text(replay, json.dumps(found.plan))
    unread = None if made.target.file else _offsets(_left(settings, made))
    if made.target.file and found.state == "done":
        unread = 0
    if as_json:
        output.emit_json({**found.to_json(), "offsets_left": unread, "plan": found.plan})
        return
    output.show_facts(found.to_json())
    if unread is None:
        output.note(f"what is left to be written into {made.target.file} is known once the plan is run again")
    else:
        output.note(f"{unread} offsets are left to be read")


def stop(replay: ReplayId) -> None:
    """Ask the run of a replay to stop after its transaction; run its plan again to go on."""
    from towpath.replay.postgres import ask_to_stop
    from towpath.view.versions.postgres import views_connection

    with views_connection(load_settings()) as connection:
        found = ask_to_stop(connection, replay)
    if found.state == "running":
        output.note(f"replay {replay} stops after its transaction")
    else:
        output.note(f"no run of replay {replay} is under way: it is {found.state}")


# --- what they do -----------------------------------------------------------------------------------------------------


def _require_one(*options: tuple[str, Any]) -> None:
    """Raise ConfigurationError where options are given that exclude each other."""
    given = [name for name, value in options if value is not None]
    if len(given) > 1:
        raise ConfigurationError(
            f"{' and '.join(given)} exclude each other", next_step=f"say one of {', '.join(given)}"
        )


def _whole(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _require_new(target: "Target") -> None:
    """Raise RefusedError where the file that is to be written holds something, which no run of this plan wrote."""
    if target.file is not None and Path(target.file).is_file() and Path(target.file).stat().st_size:
        raise RefusedError(
            f"{target.file} holds something already",
            kept="the file, as it is",
            next_step="name another file: towpath replay plan --to-file FILE",
        )


def _left(settings: Settings, made: "Plan") -> "Ranges":
    """Return what is left to be read of a plan; of one that writes a file that is not known before it is opened."""
    from towpath.replay.progress import left_of
    from towpath.replay.sending import standing_of

    if made.target.file is not None:
        return left_of(made, {})
    return left_of(made, standing_of(target_broker(settings, made.target), settings.project.name, made))


def _carry_out(settings: Settings, made: "Plan", keep_on: "KeepOn") -> "Progress":
    """Send what is left of a plan, or write it."""
    from towpath.replay.sending import Sending
    from towpath.replay.writing import write_file

    asks_fields = made.selection.where is not None or made.selection.function is not None
    topics = sorted({place.topic for place in made.ranges})
    choose = chooser(settings, made.selection, codec_of_topics(settings, topics) if asks_fields else None)
    source = source_of_plan(settings, made)
    with few_collections():
        if made.target.file is not None:
            return write_file(source, made, Path(made.target.file), choose, keep_on)
        with translation(settings, made) as translate:
            broker = target_broker(settings, made.target)
            return Sending(broker, settings.project.name, made, choose, source, translate).run(keep_on)


class _Watch:
    """Tells how a run gets on, and whether it is to go on."""

    def __init__(self, made: "Plan", before: int, note: Callable[[int], bool]) -> None:
        self._made = made
        self._before = before
        self._note = note
        self._told_at = 0.0
        self.sent = before
        self.stopped = False

    def keep_on(self, progress: "Progress") -> bool:
        """Take note of a transaction; return False where the run is to stop."""
        self.sent = self._before + progress.sent
        # After each transaction: whoever is killed leaves the record at most one behind.
        self.stopped = self._note(self.sent)
        now = time.monotonic()
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            rate = progress.sent / progress.seconds if progress.seconds else 0.0
            left = max(self._made.records - self.sent, 0)
            estimate = f", about {timedelta(seconds=int(left / rate))} left" if rate else ""
            output.note(f"{self.sent} of {self._made.records} records, {rate:,.0f} a second{estimate}")
        return not self.stopped


def _require_decodable(made: "Plan") -> None:
    unreadable = made.counted["unreadable"]
    if unreadable:
        first = unreadable[0]
        raise ContractError(
            f"{sum(one['records'] for one in unreadable)} of {made.records} records cannot be decoded by this release; "
            f"the first is {first['first']}: {first['problem']}",
            kept="everything: nothing was sent",
            next_step=_who_cannot_read(made, first["first"].partition("[")[0]),
        )
    output.note(f"this release decodes all of {made.records} records")


def _who_cannot_read(made: "Plan", topic: str) -> str:
    """Return the command that names who breaks: over the topic's records, or where they lie elsewhere, over schemas."""
    if made.source is None and made.outbox is None and topic in {place.topic for place in made.ranges}:
        return f"towpath contracts check --from-topic {topic} names its readers that cannot read them"
    return "towpath contracts check --against registry names what this release changed"


def _show(made: "Plan") -> None:
    counted = made.counted
    where = made.target.file or made.target.topic or "the same topics"
    where += f" of the cluster in {made.target.cluster}" if made.target.cluster else ""
    output.results.print(
        f"replay {made.replay_id}: {counted['records']} records, {counted['bytes']:,} bytes, {counted['keys']} keys, "
        f"to {where}; {made.order}",
        highlight=False,
    )
    if counted["types"]:
        output.show_rows([{"type": type_, "records": count} for type_, count in counted["types"].items()])
        output.show_rows([{"key": key, "records": count} for key, count in counted["top_keys"].items()])
        output.show_rows([dict(one) for one in counted["schemas"]] or [{"schemas": "none"}])
    if made.recognitions:
        output.show_rows(
            [
                {
                    "consumer": one.consumer,
                    "topic": one.topic,
                    "records": one.records,
                    "recognises them by": one.recognises or "nothing: it would do them twice",
                    "beyond": one.beyond,
                }
                for one in made.recognitions
            ]
        )
    for one in counted["unreadable"]:
        output.note(f"{one['records']} records cannot be decoded ({one['first']} first): {one['problem']}")
    if made.seconds is not None:
        output.note(f"about {timedelta(seconds=int(made.seconds))} at {made.rate:g} records a second")


def _offsets(left: "Ranges") -> int:
    return sum(max(end - begin, 0) for begin, end in left.values())


def _done(made: "Plan", sent: int, left: "Ranges", *, done: bool) -> dict[str, Any]:
    return {
        "replay_id": made.replay_id,
        "records": made.records,
        "sent": sent,
        "offsets_left": _offsets(left),
        "done": done,
    }


def _plan_in(file: Path) -> "Plan":
    from towpath.replay.plan import Plan

    return Plan.from_text(
        str(file), read_text(file, next_step="make one: towpath replay plan --topic TOPIC --output FILE")
    )
