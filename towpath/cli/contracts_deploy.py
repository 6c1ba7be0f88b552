"""Verbs of `contracts` about what runs where: `can-deploy`, `deployed`, `deploy-order`."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towpath.cli import output
from towpath.cli.contracts_report import ContractsProject, FormatOption, JsonOption, emit, format_of
from towpath.cli.deciding import user_name
from towpath.errors import ContractError, NotFoundError
from towpath.settings import load_settings

if TYPE_CHECKING:
    from towpath.contract.deploy import Deployment, Environment

_WHAT = "A service, saga or view and its version, as in payment@1.4.0."
_WHERE = "The environment, by the name that the project gives it."


def register(contracts_app: typer.Typer) -> None:
    """Add the verbs to `contracts`."""
    contracts_app.command(name="can-deploy")(can_deploy)
    contracts_app.command()(deployed)
    contracts_app.command(name="deploy-order")(deploy_order)


def can_deploy(
    what: Annotated[str, typer.Argument(help=_WHAT)],
    to: Annotated[str, typer.Option("--to", help=_WHERE)],
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Say whether a version can join what runs in an environment; exit code 3 where it would break somebody.

    A version that was recorded in any environment is judged as it was recorded; else by what this folder holds.
    """
    format_of(form)
    from towpath.contract.deploy import can_deploy as judge
    from towpath.contract.deploy import with_outsiders

    project = ContractsProject.load(load_settings())
    now = datetime.now(UTC)
    here = _here(project, now)
    new = _chosen(project, what, here, now)
    environment = with_outsiders(_environment(project, to), project.parties(), now)
    found = judge(new, environment, project.catalogue, here=here, now=now)
    title = f"can-deploy {new.label} to {to}, beside {_words(environment)}"
    emit("json" if as_json else form, title, project.finish(found))


def deployed(
    what: Annotated[str, typer.Argument(help=_WHAT)],
    to: Annotated[str, typer.Option("--to", help=_WHERE)],
    beside: Annotated[bool, typer.Option("--beside", help="The versions before it go on running.")] = False,
    actor: Annotated[str | None, typer.Option("--actor", help="Who deployed it; by default this user.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be recorded.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Record that a version runs in an environment, in a file of the project: commit it with the deployment."""
    from contextlib import nullcontext

    from towpath.contract.deploy import forgotten
    from towpath.contract.deployments import recording, save_party

    project = ContractsProject.load(load_settings())
    now = datetime.now(UTC).replace(microsecond=0)
    here = _here(project, now)
    new = replace(_chosen(project, what, here, now), at=now, until=None, actor=actor or user_name())
    deadline = max((one.party.deadline_days or 0 for one in here.values()), default=0)
    name = new.party.name
    with nullcontext() if dry_run else recording(_folder(project)):
        environment = _environment(project, to).deployed(new, beside=beside)
        kept = tuple(
            one
            for one in environment.retired
            if not forgotten(one, project.catalogue, now, deadline, environment.outbox_days)
        )
        environment = replace(environment, retired=kept)
        if not dry_run:
            path = save_party(_folder(project), environment, name)
            output.note(f"recorded in {path}")
    running = [one.label for one in environment.of(name)]
    retired = [one.label for one in kept if one.party.name == name]
    if as_json:
        output.emit_json({"environment": to, "running": running, "still_met": retired})
    else:
        met = f"; records of {', '.join(retired)} may still be met" if retired else ""
        output.results.print(f"{to}: {', '.join(running)} runs{met}", highlight=False, soft_wrap=True)


def deploy_order(
    to: Annotated[str, typer.Option("--to", help=_WHERE)],
    as_json: JsonOption = False,
) -> None:
    """Say in which order what this folder holds can be deployed; exit code 3 where there is none."""
    from towpath.contract.deploy import deploy_order as plan
    from towpath.contract.deploy import with_outsiders

    project = ContractsProject.load(load_settings())
    now = datetime.now(UTC)
    environment = with_outsiders(_environment(project, to), project.parties(), now)
    changed = [one for one in _here(project, now).values() if not _runs(one, environment)]
    done, left = plan(changed, environment, project.catalogue, now)
    names, stuck = [one.party.name for one in done], [one.party.name for one in left]
    if as_json:
        output.emit_json({"environment": to, "order": names, "no_order": stuck})
    else:
        for name in names:
            output.results.print(name, highlight=False)
        output.note(f"{len(names)} to deploy to {to}, in this order" if names else f"nothing changed since {to}")
    if stuck:
        raise ContractError(
            f"no order is safe for {', '.join(stuck)}",
            next_step=f"towpath contracts can-deploy {stuck[0]}@new --to {to} says why: change it in two steps",
        )


def _folder(project: ContractsProject) -> Path:
    from towpath.contract.deployments import FOLDER

    return project.schemas_folder / FOLDER


def _environment(project: ContractsProject, name: str) -> "Environment":
    """Return what is recorded of an environment, with the time for which its outboxes hold what was written."""
    from towpath.contract.deployments import load_environment
    from towpath.contract.retention import OUTBOX_DAY

    days = project.settings.outbox.keep_days + OUTBOX_DAY
    return replace(load_environment(_folder(project), name), outbox_days=days)


def _here(project: ContractsProject, now: datetime) -> "dict[str, Deployment]":
    """Return the parties of this folder's code, outsiders aside, each with the schemas that it uses."""
    from towpath.contract.deploy import Deployment
    from towpath.contract.parties import PartyKind
    from towpath.contract.snapshot import whole

    schemas = project.contracts.schemas
    found: dict[str, Deployment] = {}
    for name, party in project.parties().by_name.items():
        if party.kind is not PartyKind.OUTSIDE:
            used = sorted({use.record for use in (*party.reads, *party.writes) if use.record in schemas})
            found[name] = Deployment(party, "this folder", {one: whole(schemas, one) for one in used}, now)
    return found


def _chosen(project: ContractsProject, what: str, here: "dict[str, Deployment]", now: datetime) -> "Deployment":
    """Return the version that `what` names: as it was recorded, or as it is here."""
    from towpath.contract.deployments import environments, load_environment, require_name
    from towpath.contract.parse import misspelt

    name, _, version = what.partition("@")
    if not version:
        raise typer.BadParameter(f"{what!r} has no version: write it as {name}@1.0.0")
    require_name(version, "a version")
    folder = _folder(project)
    for environment in environments(folder):
        recorded = load_environment(folder, environment)
        for one in (*recorded.running, *recorded.retired):
            if one.label == what:
                output.note(f"{what} as it was recorded in {environment}")
                return replace(one, until=None)
    if name not in here:
        raise NotFoundError(
            f"{name!r} is no service, saga or view of this project{misspelt(name, here)}",
            next_step=f"one of: {', '.join(sorted(here))}",
        )
    output.note(f"{what} as it is in this folder")
    return replace(here[name], version=version, at=now)


def _runs(one: "Deployment", environment: "Environment") -> bool:
    """Return whether exactly this runs already: the same records, read and written under the same schemas."""
    mine = {name: schemas.fingerprint(name) for name, schemas in one.schemas.items()}
    return any(
        {name: schemas.fingerprint(name) for name, schemas in other.schemas.items()} == mine
        and other.party.to_json() == one.party.to_json()
        for other in environment.of(one.party.name)
    )


def _words(environment: "Environment") -> str:
    return ", ".join(one.label for one in environment.running) or "nothing that was recorded"
