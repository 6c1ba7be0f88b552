"""Verbs of `views`: the versions of a view beside each other, and which of them readers see."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.cli.deciding import Actor, DryRun, Reason, Yes, show_done, user_name
from towpath.cli.view_building import Source, Watched, begin, fold_until_caught_up, progress_of, rehearse, watch_workers
from towpath.cli.view_versions import (
    broker_of,
    codec_of,
    decided,
    declared_view,
    declared_views,
    end_of_workers,
    newest_in_project,
    newest_of,
    published_of,
    version_of,
    versions_of,
)
from towpath.clock import SystemClock, wait_until
from towpath.errors import NotFoundError, RefusedError, TowpathError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.view.versions.standing import Comparison, Version, VersionDecision

group = typer.Typer(
    name="views", help="The versions of views: built beside each other, compared, promoted.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="VIEW", help="The view.")]
Number = Annotated[int | None, typer.Option("--version", min=1, help="By default the newest that the project has.")]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="Longest wait, in seconds.")]

SWAP_SECONDS = 10.0
"""How long a swap is tried without `--when-ready`: what is that little behind is as good as there."""
LOOK_SECONDS = 1.0
FLUX_RECORDS_MAX = 20_000
"""How many records may lie between two versions that are compared: each is decoded to leave out its row."""
FLUX_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    group.command("list")(list_views)
    for verb in (status, build, diff, promote, rollback, drop):
        group.command()(verb)
    app.add_typer(group)


def list_views(as_json: AsJson = False) -> None:
    """List the views, their versions, and which of them readers see. Asks the database alone."""
    from towpath.view.versions.postgres import built_versions, known_views, published_version, views_connection

    settings = load_settings()
    declared = declared_views(settings)
    with views_connection(settings) as connection:
        names = sorted({*declared, *known_views(connection)})
        rows = [
            {
                "view": name,
                "published": published_version(connection, name),
                "built": built_versions(connection, name),
                "in_project": sorted(declared.get(name, {})),
            }
            for name in names
        ]
    if as_json:
        output.emit_json(rows)
    elif rows:
        output.show_rows(
            [{key: ", ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
        )
    else:
        output.note("this project has no views")


def status(
    name: Annotated[str | None, typer.Argument(metavar="[VIEW]", help="Only this view.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how each version stands: how far it has read, who folds it, and whether readers see it."""
    settings = load_settings()
    versions = [
        one for view in ([name] if name else sorted(declared_views(settings))) for one in versions_of(settings, view)
    ]
    if as_json:
        output.emit_json([one.to_json() for one in versions])
        return
    if not versions:
        output.note("this project has no views")
        return
    shown = ("view", "version", "state", "in_project", "workers", "rows", "lag")
    output.show_rows([{key: one.to_json()[key] for key in shown} for one in versions])
    for one in versions:
        _note_advice(one)


def build(
    name: Name,
    version: Number = None,
    source: Annotated[
        Source | None,
        typer.Option("--from", help="What it begins with: what its topics have, outboxes too, or the published rows."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Only watch the workers that build it.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; needed with --from.")] = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Build a version beside the published one until it has caught up, showing how far it is.

    Where a worker folds the version already, this only watches it; else this process folds it until it has caught up.
    Interrupted or killed anywhere, it goes on where it was.
    """
    from towpath.view.versions.building.shortfall import expired, require_whole
    from towpath.view.versions.log import bounds_of

    settings = load_settings()
    view = declared_view(settings, name, version)
    found = version_of(settings, name, view.version)
    bounds = bounds_of(broker_of(settings), view.topics)
    lacking = expired(view, bounds, found.vector)
    plan: dict[str, Any] = {
        "view": name,
        "version": view.version,
        "from": "where it stands" if found.vector else (source or Source.TOPIC).value,
        "records": found.lag,
        "expired": {str(place): begin for place, begin in sorted(lacking.items())},
        "workers": found.workers,
    }
    if source is None:
        require_whole(view, lacking)
    if dry_run:
        taken = rehearse(settings, view, source) if source is not None and not watch else {}
        show_done({**plan, **taken, "done": False}, as_json=as_json)
        return
    if source is not None and not watch:
        plan["rows"] = begin(settings, view, source, bounds, lacking, actor or user_name(), reason)
    # A worker that was killed is a member until its session ends: if nobody is left to watch, this one folds.
    if not watch and not watch_workers(settings, view):
        fold_until_caught_up(settings, view)
    elif watch:
        for _, told in progress_of(settings, name, view.version):
            output.note(told)
    found = version_of(settings, name, view.version)
    show_done({**plan, "done": True, "rows": found.rows}, as_json=as_json)
    if not found.published:
        publish = f"towpath views promote {name} --version {view.version} --reason REASON"
        output.note(f"compare it: towpath views diff {name}; publish it: {publish}")


def diff(
    name: Name,
    old: Annotated[int | None, typer.Option("--old", min=1, help="By default the published version.")] = None,
    new: Annotated[int | None, typer.Option("--new", min=1, help="By default the newest other version.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="How many rows to show.")] = 10,
    timeout: Timeout = FLUX_SECONDS,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 1 where a row differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two versions row by row, at one offset vector, while both fold on.

    Rows of which only one version has read something further are left out, and counted.
    """
    settings = load_settings()
    compared = _compared(settings, name, old, new, samples, timeout or 0.0)
    if as_json:
        output.emit_json(compared.to_json())
    else:
        _show(compared)
    if fail and not compared.same:
        raise TowpathError(
            f"versions {compared.old} and {compared.new} of view {name} differ",
            kept="both",
            next_step=f"towpath views diff {name} --samples 100",
        )


def promote(
    name: Name,
    reason: Reason,
    version: Number = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even where it lacks records that the published one has.")
    ] = False,
    when_ready: Annotated[bool, typer.Option("--when-ready", help="Wait until it has caught up.")] = False,
    timeout: Timeout = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let readers see a version, in one transaction, once it has folded at least what the published one has."""
    settings = load_settings()
    target = version or newest_in_project(settings, name)
    decision = decided(name, "promote", published_of(settings, name), target, actor, reason)
    _swap(
        settings,
        decision,
        force=force,
        when_ready=when_ready,
        timeout=timeout,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )


def rollback(
    name: Name,
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Even to rows that nobody has folded further.")] = False,
    timeout: Timeout = None,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let readers see again the version that the last promotion took from them; it has gone on folding since."""
    from towpath.view.versions.postgres import last_swap, views_connection

    settings = load_settings()
    with views_connection(settings) as connection:
        last = last_swap(connection, name)
    published = published_of(settings, name)
    if last is None or last.action != "promote" or last.version_before is None or last.version_after != published:
        raise RefusedError(
            f"view {name} has no promotion to take back",
            kept=f"version {published}, which is published",
            next_step=f"towpath views promote {name} --version VERSION --reason REASON",
        )
    decision = decided(name, "rollback", published, last.version_before, actor, reason)
    _swap(settings, decision, force=force, when_ready=False, timeout=timeout, dry_run=dry_run, yes=yes, as_json=as_json)


def drop(
    name: Name,
    reason: Reason,
    version: Annotated[int, typer.Option("--version", min=1, help="Which; never the published one.")],
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Drop a version that nobody reads: its rows, its offsets and its ids."""
    from towpath.orchestrator.sagas_view import NAME
    from towpath.view.versions import postgres
    from towpath.view.versions.standing import DECLARED_IN, published_kept

    settings = load_settings()
    found = version_of(settings, name, version)
    if found.published:  # before its workers, which readers need
        others = [one.number for one in versions_of(settings, name) if one.built and one.number != version]
        raise published_kept(name, version, others, declarable=name != NAME)
    if found.workers:
        declared_there = found.declared and name != NAME
        raise RefusedError(
            f"version {version} of view {name} would be built anew by its {output.counted(found.workers, 'worker')}",
            kept="every version",
            next_step=(f"take it out of {DECLARED_IN}, then " if declared_there else "")
            + f"{end_of_workers(settings, found)}, then drop it",
        )
    if found.builders:
        raise RefusedError(
            f"version {version} of view {name} is being built",
            kept="every version",
            next_step="end that build, then drop it; one that was killed counts until its session ends, for "
            f"{settings.stream.session_timeout_seconds:g} s",
        )
    decision = decided(name, "drop", version, None, actor, reason)
    if not dry_run:
        output.ask(f"Drop version {version} of {name} with {output.counted(found.rows, 'row')}, for good?", yes=yes)
    with postgres.views_connection(settings) as connection, connection.transaction(force_rollback=dry_run):
        postgres.drop(connection, settings.project.name, decision)
    show_done({**decision.to_json(), "rows": found.rows, "done": not dry_run}, as_json=as_json)
    if found.declared and not dry_run:
        output.note(f"the project still has version {version}: its worker would build it anew")


# --- what they do -----------------------------------------------------------------------------------------------------


def _swap(
    settings: Settings,
    decision: "VersionDecision",
    *,
    when_ready: bool,
    timeout: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    force: bool = False,
) -> None:
    from towpath.view.versions.log import any_between, bounds_of
    from towpath.view.versions.postgres import RETRY_SECONDS, swap, views_connection

    name, target = decision.view, decision.version_after
    assert target is not None
    found = version_of(settings, name, target)
    if not found.built:
        raise NotFoundError(
            f"view {name} has no version {target}",
            next_step=f"towpath views build {name} --version {target}",
        )
    if found.published:
        raise RefusedError(
            f"version {target} of view {name} is published already",
            kept="what is published",
            next_step=f"towpath views status {name}",
        )
    if not dry_run:
        output.ask(f"Let readers of {name} see version {target} instead of {decision.version_before}?", yes=yes)
    broker = broker_of(settings)
    seconds = timeout if timeout is not None else (float("inf") if when_ready else SWAP_SECONDS)
    ends = bounds_of(broker, {place.topic for place in found.ends}).ends
    told = ""

    watched = Watched(settings, name, target, SystemClock())

    def try_it() -> str | None:
        nonlocal told
        # A dry run does it too, and rolls it back: what the run refuses it refuses as well.
        with views_connection(settings) as connection, connection.transaction(force_rollback=dry_run):
            reason = swap(
                connection,
                settings.project.name,
                decision,
                ends=ends,
                has_records=partial(any_between, broker),
                force=force,
            )
        if reason is not None and reason != told:
            output.note(f"waiting: {reason}")
            told = reason
        if reason is not None and when_ready and not dry_run:
            watched.look()
        return reason

    if dry_run and when_ready:
        if try_it() is not None:
            watched.rehearse()  # what is left to be read is waited for by the run, for as long as somebody folds it
        reason = None
    else:
        reason = wait_until(
            SystemClock(), try_it, holds=lambda found: found is None, seconds=seconds, every_seconds=RETRY_SECONDS
        )
    if reason is not None:
        raise _not_ready(decision, reason, version_of(settings, name, target))
    if dry_run:
        show_done({**decision.to_json(), "lag": found.lag, "workers": found.workers, "done": False}, as_json=as_json)
        _note_advice(replace(found, published=True))
        return
    found = version_of(settings, name, target)
    show_done({**decision.to_json(), "workers": found.workers, "done": True}, as_json=as_json)
    _note_advice(replace(found, published=True))
    if decision.action == "promote" and decision.version_before is not None:
        output.note(
            f"version {decision.version_before} folds on; back to it: towpath views rollback {name} --reason REASON"
        )


def _note_advice(found: "Version") -> None:
    if found.advice:
        output.note(f"{found.view}: {found.advice}")


def _not_ready(decision: "VersionDecision", reason: str, found: "Version") -> RefusedError:
    name, target = decision.view, decision.version_after
    again = f"towpath views promote {name} --version {target} --when-ready --reason REASON"
    if decision.action == "rollback":
        again = f"towpath views rollback {name} --force --reason REASON shows its rows as they stand"
    folded = f"see whether it is folded (towpath views status {name})" if found.workers else found.to_fold
    return RefusedError(
        f"version {target} of view {name} is not published: {reason}" + ("" if found.workers else "; nobody folds it"),
        kept=f"version {decision.version_before}, which readers see",
        next_step=f"{folded}, then: {again}",
    )


def _compared(
    settings: Settings, name: str, old: int | None, new: int | None, samples: int, seconds: float
) -> "Comparison":
    from towpath.view.versions.compare.in_flux import keys_between
    from towpath.view.versions.compare.postgres import begin_snapshot, compare
    from towpath.view.versions.postgres import vector_of, views_connection
    from towpath.view.versions.standing import between
    from towpath.view.view import group_name

    before = old or published_of(settings, name)
    if before is None:
        raise NotFoundError(f"view {name} has no published version", next_step=f"towpath views status {name}")
    after = new or newest_of(settings, name, before)
    declared = declared_views(settings).get(name, {})
    views = [view for number, view in declared.items() if number in (before, after)]
    project = settings.project.name

    def look() -> "Comparison | tuple[int, int]":
        """Return how they differ, or by how many records they are too far apart to tell, and which is behind."""
        with views_connection(settings) as connection:
            begin_snapshot(connection)
            vectors = [vector_of(connection, group_name(project, name, number)) for number in (before, after)]
            topics = {topic for view in views for topic in view.topics} or {place.topic for place in vectors[0]}
            ranges = between(vectors[0], vectors[1], topics & {place.topic for place in vectors[0]})
            records = sum(high - low for low, high in ranges.values())
            if records <= FLUX_RECORDS_MAX:
                keys = keys_between(broker_of(settings), ranges, views, codec_of(settings, topics)) if ranges else set()
                return compare(connection, name, before, after, left_out=keys, samples=samples)
            come = [sum(vector.get(place, 0) for place in ranges) for vector in vectors]
            return records, before if come[0] < come[1] else after

    found = wait_until(
        SystemClock(),
        look,
        holds=lambda compared: not isinstance(compared, tuple),
        seconds=seconds,
        every_seconds=LOOK_SECONDS,
    )
    if isinstance(found, tuple):
        records, behind = found
        raise RefusedError(
            f"versions {before} and {after} of view {name} are {records} records apart: too many to leave out",
            kept="both",
            next_step=f"towpath views build {name} --version {behind}, then compare again",
        )
    return found


def _show(compared: "Comparison") -> None:
    output.results.print(
        f"{compared.view}: version {compared.old} against {compared.new}: "
        f"{output.counted(compared.equal, 'row')} equal, {compared.different} different, "
        f"{compared.only_old} only in {compared.old}, {compared.only_new} only in {compared.new}",
        highlight=False,
    )
    for version, columns in ((compared.old, compared.columns_only_old), (compared.new, compared.columns_only_new)):
        if columns:
            output.note(f"only version {version} has the columns {', '.join(columns)}")
    if compared.left_out:
        output.note(
            f"left out: {output.counted(compared.left_out, 'key')} of which only one version has read something further"
        )
    if compared.by_column:
        output.show_rows([{"column": name, "rows": count} for name, count in compared.by_column.items()])
    if compared.samples:
        output.show_rows(
            [
                {
                    "key": one.key,
                    "difference": ", ".join(f"{n}: {a} -> {b}" for n, (a, b) in one.columns.items()) or one.kind,
                }
                for one in compared.samples
            ]
        )
