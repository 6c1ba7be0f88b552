"""Verbs of `contracts`: what topics and schemas promise, checked before it ships."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from towpath.cli import contracts_check, contracts_deploy, output
from towpath.cli.collecting import few_collections
from towpath.cli.contracts_report import (
    ContractsProject,
    FormatOption,
    JsonOption,
    emit,
    fail_on,
    format_of,
    report_of,
    require_kept_promises,
    show,
    summary_of,
)
from towpath.errors import ContractError, ProgrammerError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.contract.check import Report
    from towpath.contract.files import Contracts

contracts_app = typer.Typer(
    help="Schemas, topics and examples: generate records, test promises, register.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.add_typer(contracts_app, name="contracts")


contracts_check.register(contracts_app)
contracts_deploy.register(contracts_app)


@contracts_app.command()
def generate(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is stale.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Name the files as JSON.")] = False,
) -> None:
    """Write anew what follows: the record classes from the Avro files, a saga's own topics and others from the code."""
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.write import stale_files, write_records

    settings = load_settings()
    contracts = load_contracts(schema_sets(settings))
    changed = list(stale_files(contracts) if check else write_records(contracts))
    if not (check and changed):  # the project's code imports the record classes
        changed += _topics_that_follow(settings, contracts, check=check)
    if as_json:
        output.emit_json({"stale" if check else "written": [str(path) for path in changed]})
    else:
        for path in changed:
            output.results.print(str(path), highlight=False, soft_wrap=True)
    if check and changed:
        raise ContractError(f"{len(changed)} generated files are stale", next_step="towpath contracts generate")
    output.note("the record classes are those of the Avro files, and the derived topics those of the code")


def _topics_that_follow(settings: Settings, contracts: "Contracts", *, check: bool) -> list[Path]:
    """Write the topics that follow from the project's code; return the file if it changed, or with `check` would."""
    from towpath.derived_topics import derived_file, derived_is_stale, derived_text, write_derived

    try:
        text = derived_text(settings, contracts)
    except ProgrammerError as error:
        kept = "the record classes were written; the derived topics are as they were"
        raise type(error)(error.cause, kept=error.kept or kept, next_step=error.next_step) from error
    if check:
        return [derived_file(settings)] if derived_is_stale(settings, text) else []
    written = write_derived(settings, text)
    return [written] if written else []


@contracts_app.command(name="test")
def prove(form: FormatOption = "text", as_json: JsonOption = False) -> None:
    """Prove, offline, that schemas, topics, examples, records and code agree and that no promise is broken."""
    from towpath.contract.report_formats import as_json as as_json_of

    with few_collections():
        report = report_of(ContractsProject.load(load_settings()))
    if as_json or format_of(form) == "json":
        findings = [as_json_of(finding) for finding in report.findings]
        output.emit_json({"ok": report.ok, **asdict(report), "findings": findings})
    elif form != "text":
        emit(form, "towpath contracts test", report.findings)
    else:
        _show(report)
    fail_on(report.findings)


@contracts_app.command()
def release(
    records: Annotated[list[str] | None, typer.Argument(help="Full names of records; by default all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the files, write nothing.")] = False,
) -> None:
    """Keep the form of today as a released version, before records of it are written to a topic that matters."""
    project = ContractsProject.load(load_settings())
    values = project.catalogue.values()
    for name in records or ():
        if name not in values:
            raise ContractError(
                f"{name} travels in no topic by itself", next_step="name one of `towpath contracts test`"
            )
    for path in _release(project, records, dry_run=dry_run):
        output.results.print(str(path), highlight=False, soft_wrap=True)


def _release(project: ContractsProject, records: list[str] | None, *, dry_run: bool = False) -> tuple[Path, ...]:
    """Write the released versions that are missing, of `records` or of all of the project's own."""
    from towpath.contract.write import release as write_versions

    require_kept_promises(project)
    values = project.catalogue.values()
    own = [name for loaded in project.contracts.sets if loaded.source.is_package for name in loaded.services]
    return write_versions(project.contracts, records or [name for name in own if name in values], dry_run=dry_run)


@contracts_app.command(name="import")
def import_schemas(
    source: Annotated[
        str, typer.Argument(help="A file, a folder, or the URL of a registry (`registry`: the project's).")
    ],
    subject: Annotated[
        list[str] | None,
        typer.Option("--subject", help="Of a registry, only such subjects: `shop.*`; may be repeated."),
    ] = None,
    service: Annotated[str | None, typer.Option("--service", help="The subfolder for all; else by namespace.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the files, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What was done as JSON.")] = False,
) -> None:
    """Bring schemas that exist already into the project; what it has is never changed."""
    from towpath.cli.contracts_import import import_into

    import_into(load_settings(), source, subjects=subject or (), service=service, dry_run=dry_run, as_json=as_json)


@contracts_app.command(name="register")
def register_schemas(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing, register nothing.")] = False,
    no_release: Annotated[
        bool, typer.Option("--no-release", help="Keep no version file: for a registry that nobody else reads.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The schemas and their ids as JSON.")] = False,
) -> None:
    """Register the schemas of all records that travel in topics, and release them: what is registered may run.

    What is registered already keeps its id; what is released already gets no new version.
    """
    from towpath.contract.registry import RegistryClient

    settings = load_settings()
    project = ContractsProject.load(settings)
    if no_release:
        require_kept_promises(project)
    else:
        for path in _release(project, None, dry_run=dry_run):
            output.note(f"{'would be released' if dry_run else 'released'}: {path}")
        project = ContractsProject.load(settings)
    with RegistryClient(settings.registry) as client:
        done = client.register(project.contracts, project.catalogue, dry_run=dry_run)
    if as_json:
        output.emit_json([asdict(item) for item in done])
        return
    table = Table("record", "version", "id", "state")
    for item in done:
        state = ("would be registered" if dry_run else "registered") if item.is_new else "was there"
        table.add_row(item.subject, str(item.version or "today"), str(item.schema_id or ""), state)
    output.show_table(table)


@contracts_app.command()
def waive(
    rule: Annotated[str, typer.Argument(help="The rule of the finding.")],
    subject: Annotated[str, typer.Argument(help="Its subject: a record's full name, or a topic.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it may be.")],
    actor: Annotated[str, typer.Option("--actor", help="Who decided it.")],
    until: Annotated[datetime, typer.Option("--until", formats=["%Y-%m-%d"], help="Its last day.")],
    place: Annotated[str, typer.Option("--place", help="The field's path; by default the whole subject.")] = "",
) -> None:
    """Live with a finding until a day: it is reported as waived, with who decided it and why."""
    from pydantic import ValidationError

    from towpath.contract.waivers import FILE, Waiver, add_waiver

    settings = load_settings()
    path = settings.root / settings.project.schemas / FILE
    if until.date() < datetime.now(UTC).date():
        raise typer.BadParameter(f"{until.date()} is over: name the last day on which it may be", param_hint="--until")
    try:
        waiver = Waiver(rule=rule, subject=subject, place=place, reason=reason, actor=actor, until=until.date())
    except ValidationError as error:
        (first, *_) = error.errors()
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}") from error
    add_waiver(path, waiver)
    output.results.print(str(path), highlight=False, soft_wrap=True)


def _show(report: "Report") -> None:
    show(report.findings)
    output.styled_result(
        f"{output.counted(report.records, 'record')}, {output.counted(report.versions, 'released version')}, "
        f"{output.counted(report.topics, 'topic')}, "
        f"{report.good_examples} good and {report.bad_examples} bad examples; "
        f"{report.decodings} decodings by the codec and {', '.join(report.judges)}: "
        + ("[green]every promise holds[/]" if report.ok else f"[red]{summary_of(report.findings)}[/]")
    )
