"""Versions of a saga side by side: move instances to a newer one, see what keeps an old one alive, and which may go."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.cli.deciding import require_reason, user_name
from towpath.cli.saga_request_report import show_outcomes
from towpath.cli.saga_room import Room
from towpath.clock import SystemClock
from towpath.errors import NotFoundError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.orchestrator.instance_status import KeptInstance
    from towpath.saga.definition import Definition
    from towpath.saga.state import SagaState

SHOWN_MAX = 200
"""Instances in a table that a person reads; JSON has them all."""


def register(saga_app: typer.Typer) -> None:
    """Add the verb to `saga`."""
    saga_app.command()(versions)


@dataclass(frozen=True, slots=True)
class Moving:
    """How instances are moved to a newer version. `wait` in seconds, `rate` in requests a second.

    `said` are the old version and the new one, as the person named them.
    """

    reason: str
    actor: str | None
    limit: int | None
    rate: float | None
    wait: float
    yes: bool
    as_json: bool
    dry_run: bool
    said: tuple[str, str]


def apply(settings: Settings, old: "Definition", new: "Definition", moving: Moving) -> None:
    """Ask each live instance of `old` that can go on under `new` to do so, and say what became of it.

    The saga's worker decides again, by the instance as it stands then; a dry run only says which would be moved now.
    Raises ConfigurationError, NotFoundError, PartlyDoneError.
    """
    from towpath.orchestrator.asking import ask
    from towpath.orchestrator.requests import upgrade_of

    if not moving.dry_run:
        require_reason(moving.reason, "moving instances")
    room, actor = Room(settings, old.name), moving.actor or user_name()
    kept = _kept_by(old, new, room.instances(opened=False))
    going = [one.state for one, outcome, _ in kept if outcome == "migrate"]
    if not kept:
        raise NotFoundError(
            f"no live instance of {old.name} is of version {old.version}: nothing is left to move",
            next_step=f"towpath saga versions {old.name} says whether the version may be removed from the project",
        )
    if not going:
        raise NotFoundError(
            f"none of {len(kept)} instances of {old.name} version {old.version} can go on under {new.version}",
            next_step=f"towpath saga upgrade {moving.said[0]} {moving.said[1]} --drain says why each stays",
        )
    chosen = going if moving.limit is None else going[: moving.limit]
    if moving.dry_run:
        _show_moves(chosen, old, new, stay=len(kept) - len(going), as_json=moving.as_json)
        return
    output.ask(
        f"move {len(chosen)} of {len(kept)} instances of {old.name} from version {old.version} to {new.version} "
        f"({len(kept) - len(going)} cannot, and stay)?",
        yes=moving.yes,
    )
    requests = [upgrade_of(state, new.version, actor=actor, reason=moving.reason) for state in chosen]
    answers = ask(
        room.broker,
        room.codec,
        SystemClock(),
        requests,
        transactional_id=room.transactional_id(actor, "upgrade", None),
        wait_seconds=moving.wait,
        rate_per_second=moving.rate,
        sleep=time.sleep,
        progress=lambda sent: output.note(f"{sent} of {len(requests)} sent"),
    )
    show_outcomes(
        old.name,
        requests,
        answers,
        waited=moving.wait > 0,
        as_json=moving.as_json,
        next_step="towpath status to see whether the saga's worker runs, with version "
        f"{new.version}; the same command again moves what is left",
    )


def _show_moves(
    chosen: Sequence["SagaState"], old: "Definition", new: "Definition", *, stay: int, as_json: bool
) -> None:
    """Say which instances would be moved."""
    rows = [
        {"saga_id": state.saga_id, "key": state.key, "status": state.status.value, "version": new.version}
        for state in chosen
    ]
    if as_json:
        output.emit_json(rows)
        return
    output.show_rows(rows[:SHOWN_MAX])
    output.note(
        f"{output.counted(len(rows), 'instance')} of {old.name} would be moved from version {old.version} to "
        f"{new.version}, {stay} cannot, and stay; nothing was sent"
    )


def drain(settings: Settings, old: "Definition", new: "Definition", *, as_json: bool) -> None:
    """List the live instances that keep `old` alive: what each waits for, and whether it could go on under `new`."""
    from towpath.cli.saga_instances import read_instances

    rows = [
        {
            "saga_id": one.state.saga_id,
            "key": one.state.key,
            "status": one.state.status.value,
            "waits_for": "\n".join(one.under_way),
            "under_new": outcome,
            "because": "\n".join(reasons),
        }
        for one, outcome, reasons in _kept_by(old, new, read_instances(settings, old.name))
    ]
    if as_json:
        output.emit_json(rows)
        return
    if rows:
        output.show_rows(rows[:SHOWN_MAX])
    output.note(f"{len(rows)} instances keep version {old.version} of {old.name} alive")


def _kept_by(
    old: "Definition", new: "Definition", instances: Iterable["KeptInstance"]
) -> list[tuple["KeptInstance", str, tuple[str, ...]]]:
    """Return the instances of `old` that may still change, with what becomes of each under `new`, and why."""
    from towpath.saga.upgrade import judge

    kept = []
    for one in instances:
        if one.needed and one.state.version == old.version:
            verdict = judge(old, new, one.state)
            kept.append((one, verdict.outcome.value, verdict.reasons))
    return kept


def versions(
    name: Annotated[str | None, typer.Argument(help="The saga; by default all.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Say of each version of a saga how many instances need it, and whether it may be removed from the project."""
    from towpath.cli.saga_instances import read_instances
    from towpath.project import load_sagas

    settings = load_settings()
    sagas = load_sagas(settings)
    if name is not None and name not in sagas:
        raise NotFoundError(f"no saga {name}", next_step=f"one of: {', '.join(sorted(sagas))}")
    rows: list[dict[str, Any]] = []
    for saga in sorted(sagas) if name is None else [name]:
        rows += rows_of(saga, sagas[saga], read_instances(settings, saga))
    if as_json:
        output.emit_json(rows)
    else:
        output.show_rows([{**row, "may_be_removed": "yes" if row["may_be_removed"] else "no"} for row in rows])


def rows_of(
    saga: str, deployed: "Mapping[int, Definition]", instances: Sequence["KeptInstance"]
) -> list[dict[str, Any]]:
    """Return one row a version that the project has or that an instance is of."""
    needed = Counter(one.state.version for one in instances if one.needed)
    ended = Counter(one.state.version for one in instances if not one.needed)
    rows = []
    for version in sorted({*deployed, *needed, *ended}):
        because = _kept_because(version, deployed, needed[version])
        rows.append(
            {
                "saga": saga,
                "version": version,
                "in_project": version in deployed,
                "need_it": needed[version],
                "ended": ended[version],
                "may_be_removed": because is None and version in deployed,
                "because": because or ("" if version in deployed else "it is removed already"),
            }
        )
    return rows


def _kept_because(version: int, deployed: "Mapping[int, Definition]", needed: int) -> str | None:
    """Say why a version must stay; an instance that has ended needs it no more."""
    if needed:
        return f"{needed} instances go on under it" + ("" if version in deployed else ": their partitions wait for it")
    if version not in deployed:
        return None
    if version == max(deployed):
        return "it is the newest"
    newer = {kind for other, definition in deployed.items() if other > version for kind in definition.starts}
    alone = sorted(kind.__name__ for kind in deployed[version].starts if kind not in newer)
    return f"it alone starts on {', '.join(alone)}" if alone else None
