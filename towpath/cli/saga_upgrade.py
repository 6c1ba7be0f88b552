"""`saga upgrade`: what becomes of the instances of a saga when its next version is deployed."""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from towpath.cli import output
from towpath.cli.saga_request_options import WAIT_SECONDS, Actor, Limit, Rate, Reason, Wait, Yes
from towpath.cli.saga_versions import Moving, apply, drain
from towpath.errors import ConfigurationError, ContractError, NotFoundError, RefusedError
from towpath.settings import Settings, load_settings

# Runs in a process of its own, because two versions of one saga are two modules of one name.
_OUTLINE_SCRIPT = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
from towpath.saga import Saga
from towpath.saga.definition_snapshot import definition_snapshot_of
found = runpy.run_path(sys.argv[2]).get("saga")
if not isinstance(found, Saga):
    sys.exit(f"{sys.argv[2]} has no Saga called 'saga'")
print(json.dumps(definition_snapshot_of(found.definition)))
"""
SECONDS_MAX = 60
WHOLE_STATES_MAX = 20_000
"""States walked without reductions: at 2,000 a second, 10 s. place_order has 733."""


def register(saga_app: typer.Typer) -> None:
    """Add the verb to `saga`."""
    saga_app.command(name="upgrade")(upgrade)


def upgrade(
    old: Annotated[str, typer.Argument(help="NAME@VERSION as recorded or in the project, a file, or GITREF:FILE.")],
    new: Annotated[str, typer.Argument(help="NAME (as the project defines it now), a file, or GITREF:FILE.")],
    instances: Annotated[
        Path | None,
        typer.Option("--instances", help="What `saga export` wrote of real instances, one a line; - for stdin."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Read the real instances from the saga's state topic.")] = False,
    do_apply: Annotated[
        bool, typer.Option("--apply", help="Move the real instances that can go on under NEW; needs --reason.")
    ] = False,
    do_drain: Annotated[bool, typer.Option("--drain", help="List the real instances that keep OLD alive.")] = False,
    reason: Reason = "",
    actor: Actor = None,
    limit: Limit = None,
    rate: Rate = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --apply: say which instances would be moved, and send nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Say for each state that OLD can reach whether it can go on under NEW, in words; then for real instances.

    With --apply, real instances are moved, each by an input of its saga: decided as it then stands, kept in history.
    """
    from towpath.saga.definition_snapshot import definition_of, differences
    from towpath.saga.upgrade import Outcome, comparable, report_on

    if sum((live, instances is not None, do_apply, do_drain)) > 1:
        raise ConfigurationError(
            "--live, --instances, --apply and --drain exclude each other", next_step="say one of them"
        )
    said = {"--reason": reason, "--actor": actor, "--limit": limit, "--rate": rate, "--dry-run": dry_run, "--yes": yes}
    if not do_apply:
        _refuse_alone(said)
    settings = load_settings()
    before, after = _outline(settings, old), _outline(settings, new)
    old_definition, new_definition = definition_of(before), definition_of(after)
    reasons = comparable(old_definition, new_definition)
    if reasons:
        raise ContractError(
            "; ".join(reasons),
            next_step="name two versions of one saga, the older one first; NAME alone is the newest in the project; "
            f"there are: {_known(settings, old_definition.name)}",
        )
    if do_drain:
        drain(settings, old_definition, new_definition, as_json=as_json)
        return
    if do_apply:
        moving = Moving(reason, actor, limit, rate, wait, yes, as_json, dry_run, said=(old, new))
        apply(settings, old_definition, new_definition, moving)
        return
    walked = _walked(old_definition)
    reachable = report_on(old_definition, new_definition, walked.states())
    real = None
    if live:
        real = _report_on_live(settings, old_definition, new_definition)
    elif instances is not None:
        real = report_on(old_definition, new_definition, _states(old_definition, instances))
    changes = differences(before, after)
    if as_json:
        output.emit_json(
            {
                "saga": old_definition.name,
                "old": old_definition.version,
                "new": new_definition.version,
                "changes": changes,
                "walked": {"states": len(walked.nodes), "reduced": walked.reduced},
                "reachable": _plain(reachable),
                "instances": None if real is None else _plain(real),
            }
        )
    else:
        output.styled_result(
            f"[bold]{old_definition.name}[/] version {old_definition.version} to {new_definition.version}"
        )
        for change in changes or ["nothing but the version differs"]:
            output.results.print(f"  {change}", highlight=False, soft_wrap=True)
        extent = "the reduced search, which leaves combinations out" if walked.reduced else "every one of them walked"
        _show(f"states that it can reach ({len(walked.nodes):,}, {extent})", reachable)
        if real is not None:
            _show("real instances", real)
    if real is not None and real.count(Outcome.REFUSE):
        raise RefusedError(
            f"{real.count(Outcome.REFUSE)} instances are not of the old version",
            kept="every instance stays where it is",
            next_step="compare each with its own version",
        )


def _refuse_alone(said: Mapping[str, object]) -> None:
    """Raise ConfigurationError where something was said of moving instances, and not that they are to be moved."""
    alone = [name for name, value in said.items() if value]
    if alone:
        raise ConfigurationError(
            f"{', '.join(alone)}: without --apply no instance is moved",
            kept="every instance, as it was",
            next_step="say --apply to move instances, or leave that out",
        )


def _plain(report: Any) -> dict[str, Any]:
    from towpath.saga.upgrade import Outcome

    return {
        **{outcome.value: report.count(outcome) for outcome in Outcome},
        "ended": report.ended,
        "already": report.already,
        "groups": [asdict(group) for group in report.groups.values()],
    }


def _show(what: str, report: Any) -> None:
    from towpath.saga.upgrade import Outcome

    counts = ", ".join(f"{report.count(outcome)} {outcome.value}" for outcome in Outcome)
    already = f", {report.already} are of version {report.new_version} already" if report.already else ""
    output.styled_result(f"\n[bold]{what}[/]: {counts}; {report.ended} have ended{already}")
    table = Table("states", "outcome", "because", "for example")
    for group in sorted(report.groups.values(), key=lambda group: (group.outcome.value, -group.count)):
        table.add_row(str(group.count), group.outcome.value, "\n".join(group.reasons), group.example)
    output.show_table(table)


# --- where definitions and instances come from ------------------------------------------------------------------------


def _outline(settings: Settings, source: str) -> dict[str, Any]:
    """Return the outline of a definition: recorded, of the project now, in a file, or in a file of a git ref.

    What was recorded comes first: it is how the version was when its instances began.
    """
    from towpath.cli.saga_definitions import HISTORIES_FOLDER, find_definition, read_recorded, recorded_path
    from towpath.project import load_sagas
    from towpath.saga.definition_snapshot import definition_snapshot_of

    if source.endswith(".py"):
        ref, colon, path = source.rpartition(":")
        if colon:
            return _outline_at(settings, ref, path)
        file = (settings.root / source).resolve()
        return _outline_in(settings.root, file, source)
    name, at, version = source.partition("@")
    if not at:
        plain: dict[str, Any] = json.loads(json.dumps(definition_snapshot_of(find_definition(settings, name))))
        return plain
    number = int(version) if version.isdecimal() else 0
    recorded = recorded_path(settings, HISTORIES_FOLDER, name, number)
    deployed = load_sagas(settings).get(name, {}).get(number)
    if not recorded.exists() and deployed is not None:
        beside: dict[str, Any] = json.loads(json.dumps(definition_snapshot_of(deployed)))
        return beside
    if not recorded.exists():
        raise NotFoundError(
            f"{source} is neither in the project nor recorded",
            next_step=f"name a file, GITREF:FILE, or one of: {_known(settings, name)}",
        )
    return read_recorded(recorded)


def _known(settings: Settings, name: str) -> str:
    """Return the versions of a saga that can be named: of the project, and recorded; of all sagas for one unknown."""
    from towpath.cli.saga_definitions import HISTORIES_FOLDER
    from towpath.project import load_sagas

    known = {saga: set(versions) for saga, versions in load_sagas(settings).items()}
    for path in (settings.root / HISTORIES_FOLDER).glob("*/v*/definition.json"):
        if (number := path.parent.name.removeprefix("v")).isdecimal():
            known.setdefault(path.parents[1].name, set()).add(int(number))
    shown = {name: known[name]} if name in known else known
    return ", ".join(f"{saga}@{number}" for saga in sorted(shown) for number in sorted(shown[saga])) or "none"


def _outline_in(root: Path, file: Path, source: str) -> dict[str, Any]:
    if not file.is_file():
        raise NotFoundError(f"there is no file {source}", next_step="name a file with a saga")
    ran = subprocess.run(
        [sys.executable, "-c", _OUTLINE_SCRIPT, str(root), str(file)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if ran.returncode != 0:
        last = ran.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise ConfigurationError(f"{source} cannot be imported: {last[0]}", next_step="fix the file")
    outline: dict[str, Any] = json.loads(ran.stdout)
    return outline


def _outline_at(settings: Settings, ref: str, path: str) -> dict[str, Any]:
    """Return the outline in a file as it was at a git ref, with the project's other files of that time around it."""
    top = _git(settings.root, "ls-tree", "-z", "--name-only", ref, text=True).split("\0")[:-1]
    # The engine is the installed one, even where its source lies in the same repository.
    paths = [name for name in top if name != "towpath"]
    archive = _git(settings.root, "archive", "--format=zip", ref, "--", *paths)
    with tempfile.TemporaryDirectory(prefix="towpath-upgrade-") as folder:
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(folder)
        return _outline_in(Path(folder), Path(folder) / path, f"{ref}:{path}")


def _git(root: Path, *arguments: str, text: bool = False) -> Any:
    ran = subprocess.run(["git", *arguments], cwd=root, capture_output=True, timeout=SECONDS_MAX, check=False)
    if ran.returncode != 0:
        raise NotFoundError(f"git {' '.join(arguments[:2])}: {ran.stderr.decode(errors='replace').strip()}")
    return ran.stdout.decode() if text else ran.stdout


def _walked(definition: Any) -> Any:
    """Return every state that a definition can reach; where these are too many, those of the reduced search."""
    from towpath.saga.check import explore

    whole = explore(definition, reduced=False, states_max=WHOLE_STATES_MAX)
    return whole if whole.whole else explore(definition)


def _report_on_live(settings: Settings, old: Any, new: Any) -> Any:
    """Return what becomes of the instances in the saga's state topic."""
    from towpath.cli.saga_instances import read_instances
    from towpath.saga.upgrade import report_on

    found = read_instances(settings, old.name)
    report = report_on(old, new, (instance.state for instance in found if instance.needed))
    report.ended += sum(not instance.needed for instance in found)
    return report


def _states(old: Any, path: Path) -> Iterator[Any]:
    """Yield the states in a file: one tree a line, as `towpath.saga.state_snapshot` writes it in JSON."""
    from towpath.saga.state_snapshot import state_from_tree, tree_from_json

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}", next_step="name what `towpath saga export NAME --output FILE` wrote"
        ) from error
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        try:
            tree = tree_from_json(json.loads(line))
            ours = (tree["saga"], tree["version"]) == (old.name, old.version)
            yield state_from_tree(old if ours else None, tree)
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise ConfigurationError(
                f"{path}, line {number}: not a state of this saga: {error}", next_step="fix the file"
            ) from error
