"""Verbs of `contracts`: what topics and schemas promise, checked before it ships."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from towpath.cli import output
from towpath.errors import ContractError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.contract.check import Report

contracts_app = typer.Typer(
    help="Schemas, topics and examples: generate records, test promises, register.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.add_typer(contracts_app, name="contracts")


@contracts_app.command()
def generate(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is stale.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Name the files as JSON.")] = False,
) -> None:
    """Write the record classes anew from the Avro files."""
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.write import stale_files, write_records

    contracts = load_contracts(schema_sets(load_settings()))
    changed = stale_files(contracts) if check else write_records(contracts)
    if as_json:
        output.emit_json({"stale" if check else "written": [str(path) for path in changed]})
    else:
        for path in changed:
            output.results.print(str(path), highlight=False, soft_wrap=True)
    if check and changed:
        raise ContractError(f"{len(changed)} generated files are stale", next_step="towpath contracts generate")
    output.note("the record classes are those of the Avro files")


@contracts_app.command(name="test")
def prove(as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False) -> None:
    """Prove, offline, that schemas, topics, examples and records agree and that no promise is broken."""
    settings = load_settings()
    report = _report(settings)
    if as_json:
        output.emit_json({"ok": report.ok, **asdict(report)})
    else:
        _show(report)
    if not report.ok:
        raise ContractError(f"{len(report.findings)} promises are broken", next_step="mend what the report names")


@contracts_app.command()
def release(
    records: Annotated[list[str] | None, typer.Argument(help="Full names of records; by default all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the files, write nothing.")] = False,
) -> None:
    """Keep the form of today as a released version, before records of it are written to a topic that matters."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.write import release as write_versions

    settings = load_settings()
    _require_kept_promises(settings)
    contracts = load_contracts(schema_sets(settings))
    values = Catalogue.load(settings).values()
    for name in records or ():
        if name not in values:
            raise ContractError(
                f"{name} travels in no topic by itself", next_step="name one of `towpath contracts test`"
            )
    own = [name for loaded in contracts.sets if loaded.source.is_package for name in loaded.services]
    for path in write_versions(contracts, records or [name for name in own if name in values], dry_run=dry_run):
        output.results.print(str(path), highlight=False, soft_wrap=True)


@contracts_app.command(name="register")
def register_schemas(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing, register nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The schemas and their ids as JSON.")] = False,
) -> None:
    """Register the schemas of all records that travel in topics; what is registered already keeps its id."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.registry import RegistryClient

    settings = load_settings()
    _require_kept_promises(settings)
    with RegistryClient(settings.registry) as client:
        done = client.register(load_contracts(schema_sets(settings)), Catalogue.load(settings), dry_run=dry_run)
    if as_json:
        output.emit_json([asdict(item) for item in done])
        return
    table = Table("record", "version", "id", "state")
    for item in done:
        state = ("would be registered" if dry_run else "registered") if item.is_new else "was there"
        table.add_row(item.subject, str(item.version or "today"), str(item.schema_id or ""), state)
    output.results.print(table)


def _report(settings: Settings) -> "Report":
    from towpath.contract.avro_readers import judges
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.check import check_contracts
    from towpath.contract.examples import load_examples
    from towpath.contract.files import load_contracts, schema_sets

    contracts = load_contracts(schema_sets(settings))
    examples = load_examples(contracts, settings.root / settings.project.schemas / "examples")
    views = [view.partition(":")[0].rpartition(".")[2] for view in settings.project.views]
    catalogue = Catalogue.load(settings)
    report = check_contracts(contracts, catalogue, examples, judges(), views=views)
    if not report.ok or not settings.root.joinpath(*settings.project.sagas.split(".")).is_dir():
        return report  # sagas import the records: what is broken there is told first
    from towpath.orchestrator.topics import topic_findings
    from towpath.project import load_sagas

    return replace(report, findings=topic_findings(load_sagas(settings), catalogue))


def _require_kept_promises(settings: Settings) -> None:
    """Refuse to publish what breaks a promise."""
    report = _report(settings)
    if not report.ok:
        _show(report)
        raise ContractError(
            f"{len(report.findings)} promises are broken",
            kept="the registry, as it was",
            next_step="towpath contracts test",
        )


def _show(report: "Report") -> None:
    for finding in report.findings:
        output.results.print(f"[bold red]{finding.rule}[/] {escape(finding.subject)}", highlight=False, soft_wrap=True)
        output.results.print(f"  {escape(finding.problem)}", highlight=False, soft_wrap=True)
        for who in finding.breaks:
            output.results.print(f"  [bold]breaks[/] {escape(who)}", highlight=False, soft_wrap=True)
        if finding.mend:
            output.results.print(f"  [bold]mend[/] {escape(finding.mend)}", highlight=False, soft_wrap=True)
    output.results.print(
        f"{report.records} records, {report.versions} released versions, {report.topics} topics, "
        f"{report.good_examples} good and {report.bad_examples} bad examples; "
        f"{report.decodings} decodings by the codec and {', '.join(report.judges)}: "
        + ("[green]every promise holds[/]" if report.ok else f"[red]{len(report.findings)} findings[/]"),
        highlight=False,
        soft_wrap=True,
    )
