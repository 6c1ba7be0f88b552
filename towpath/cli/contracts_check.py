"""Verbs of `contracts` that compare two moments: `check --against`, `diff`, `snapshot`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towpath.cli import output
from towpath.cli.contracts_report import ContractsProject, FormatOption, JsonOption, emit, format_of, show
from towpath.errors import ContractError
from towpath.settings import load_settings

if TYPE_CHECKING:
    from towpath.contract.finding import Finding
    from towpath.contract.snapshot import Snapshot

REGISTRY = "registry"
HERE = "."
_SOURCE = "A commit, branch or tag; `registry`; a file that `contracts snapshot` wrote; `.` is this folder."


def register(contracts_app: typer.Typer) -> None:
    """Add the verbs to `contracts`."""
    contracts_app.command()(check)
    contracts_app.command()(diff)
    contracts_app.command()(snapshot)


def check(
    against: Annotated[str | None, typer.Option("--against", help=_SOURCE)] = None,
    from_topic: Annotated[
        list[str] | None, typer.Option("--from-topic", help="Read this topic's records as each of its readers does.")
    ] = None,
    from_file: Annotated[
        list[Path] | None, typer.Option("--from-file", help="Read the records in this file as each reader does.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Records of a topic or file, the newest.")] = 10_000,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Say what this folder's contracts would break: against another moment, or against records that exist.

    Exit code 3 where somebody would break.
    """
    format_of(form)
    if against is None and not from_topic and not from_file:
        raise typer.BadParameter("say --against, --from-topic or --from-file")
    from towpath.contract.changes import compare
    from towpath.contract.finding import in_order

    project = ContractsProject.load(load_settings())
    parties = project.parties()
    findings: list[Finding] = []
    titles: list[str] = []
    if against is not None:
        old = _load(project, against)
        findings += compare(old, _here(project), parties)
        titles.append(f"against {old.label}")
        if against == REGISTRY:
            titles.append(f"which holds {len(old.records)} of {len(project.catalogue.own_values())} records")
    if from_topic or from_file:
        from towpath.cli.contracts_records import check_records

        found, counted = check_records(project, parties, from_topic or (), from_file or (), limit)
        findings += found
        titles.append(counted)
    emit("json" if as_json else form, f"contracts check {', '.join(titles)}", project.finish(in_order(findings)))


def diff(
    old: Annotated[str, typer.Argument(help=_SOURCE)],
    new: Annotated[str, typer.Argument(help="As the first; by default this folder.")] = HERE,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two moments, whether it breaks somebody or not. The exit code is 0 in either case."""
    chosen = format_of("json" if as_json else form)
    from towpath.contract.changes import compare
    from towpath.contract.differences import differences
    from towpath.contract.finding import in_order
    from towpath.contract.parties import Parties
    from towpath.contract.report_formats import Format, write

    project = ContractsProject.load(load_settings())
    before, after = _load(project, old), _load(project, new)
    if after.catalogue is None:
        turned = f"towpath contracts diff {new}" if old == HERE else f"towpath contracts diff {new} {old}"
        raise ContractError(f"{new} holds no topics", next_step=turned)
    parties = project.parties() if new == HERE else Parties.of((), after.catalogue)
    label = "the form of today" if new == HERE else after.label
    found = in_order((*compare(before, after, parties, new_label=label), *differences(before, after)))
    title = f"contracts diff {before.label} {after.label}"
    if chosen is Format.TEXT:
        show(found)
        output.note(title)
    else:
        typer.echo(write(chosen, title, found), nl=False)


def snapshot(file: Annotated[Path, typer.Argument(help="Where to write it.")]) -> None:
    """Write topics and schemas as they are now into one file, for `check --against` where there is no git."""
    project = ContractsProject.load(load_settings())
    text = json.dumps(_here(project).to_json(), indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    output.note(f"written: {file}")


def _here(project: ContractsProject) -> "Snapshot":
    from towpath.contract.snapshot import Snapshot

    return Snapshot.of("this folder", project.contracts, project.catalogue)


def _load(project: ContractsProject, source: str) -> "Snapshot":
    from towpath.contract.git import snapshot_at
    from towpath.contract.registry import RegistryClient
    from towpath.contract.snapshot import Snapshot

    if source == HERE:
        return _here(project)
    if source == REGISTRY:
        with RegistryClient(project.settings.registry) as client:
            return client.snapshot(project.catalogue)
    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ContractError(f"{path}: {error}", next_step=f"towpath contracts snapshot {path}") from error
        return Snapshot.from_json(source, content)
    return snapshot_at(project.settings, source)
