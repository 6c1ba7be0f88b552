"""What the verbs of `contracts` share: the project loaded once, its whole report, and findings written in any form."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from towpath.cli import output
from towpath.errors import ContractError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.check import Report
    from towpath.contract.files import Contracts
    from towpath.contract.finding import Finding
    from towpath.contract.parties import Parties
    from towpath.contract.report_formats import Format

FormatOption = Annotated[
    str, typer.Option("--format", help="text, json, junit, sarif, github or markdown.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


@dataclass(frozen=True, slots=True)
class ContractsProject:
    """A project's contracts as they are in its folder."""

    settings: Settings
    contracts: "Contracts"
    catalogue: "Catalogue"

    @classmethod
    def load(cls, settings: Settings) -> "ContractsProject":
        """Read the files. Raises ContractError naming what is wrong in one."""
        from towpath.contract.catalogue import Catalogue
        from towpath.contract.files import load_contracts, schema_sets

        return cls(settings, load_contracts(schema_sets(settings)), Catalogue.load(settings))

    @property
    def schemas_folder(self) -> Path:
        """Return the folder of topics, Avro files and examples."""
        return self.settings.root / self.settings.project.schemas

    def parties(self) -> "Parties":
        """Import the project's code, and return who writes and reads what."""
        from towpath.parties import load_parties

        return load_parties(self.settings, self.catalogue)

    def finish(self, findings: Iterable["Finding"], *, whole: bool = False) -> tuple["Finding", ...]:
        """Add files and lines to `findings`, and apply the project's waivers.

        `whole`: these are all that the project has, so that a waiver of none of them is told.
        """
        from towpath.contract.locate import locate
        from towpath.contract.waivers import FILE, apply_waivers, load_waivers

        waivers = load_waivers(self.schemas_folder / FILE)
        waived = apply_waivers(findings, waivers, datetime.now(UTC).date(), whole=whole).findings
        return locate(waived, self.contracts, self.settings.root, self.settings.project.schemas)


def report_of(project: ContractsProject) -> "Report":
    """Return the report of `towpath contracts test`."""
    from towpath.contract.avro_readers import judges
    from towpath.contract.changes import meaning_since_release
    from towpath.contract.check import check_contracts
    from towpath.contract.closed_set import closed_set_findings
    from towpath.contract.examples import load_examples
    from towpath.contract.field_rules import annotation_findings
    from towpath.contract.finding import in_order
    from towpath.contract.parties import Parties
    from towpath.contract.write import stale_files

    settings, catalogue = project.settings, project.catalogue
    examples = load_examples(project.contracts, project.schemas_folder / "examples")
    # Sagas and services import the records: while those are stale, only the files can be judged.
    stale = stale_files(project.contracts)
    fresh = not stale
    parties = project.parties() if fresh else Parties.of((), catalogue)
    outsiders = settings.project.outsiders if fresh else {*settings.project.outsiders, *parties.by_name}
    report = check_contracts(
        project.contracts, catalogue, examples, judges(), parties=parties, outsiders=outsiders, stale=stale
    )
    findings = list(report.findings)
    if fresh and settings.root.joinpath(*settings.project.sagas.split(".")).is_dir():
        from towpath.contract.retention import all_sums, retention_findings
        from towpath.orchestrator.topics import topic_findings
        from towpath.project import load_sagas, load_services

        sagas = load_sagas(settings)
        findings += topic_findings(sagas, catalogue)
        commands = {name: service.commands_topic for name, service in load_services(settings).items()}
        starts = {
            saga: [kind.SCHEMA_NAME for one in versions.values() for kind in one.starts if hasattr(kind, "SCHEMA_NAME")]
            for saga, versions in sagas.items()
        }
        findings += retention_findings(all_sums(catalogue, settings, commands, starts))
    if fresh:
        findings += closed_set_findings(parties, catalogue)
        findings += _stale_topics(project)
    findings += annotation_findings(project.contracts.schemas, parties.reader_schemas, datetime.now(UTC).date())
    findings += meaning_since_release(project.contracts, catalogue.values())
    return replace(report, findings=project.finish(in_order(findings), whole=True))


def _stale_topics(project: ContractsProject) -> list["Finding"]:
    """Return a finding where the derived topics are not those of the project's code."""
    from towpath.contract.finding import Finding
    from towpath.derived_topics import derived_file, derived_is_stale, derived_text

    if not derived_is_stale(project.settings, derived_text(project.settings, project.contracts)):
        return []
    place = derived_file(project.settings).relative_to(project.settings.root).as_posix()
    words = "it is not what follows from the project's sagas, services and views"
    return [Finding("derived-topics", place, words, fix="towpath contracts generate", file=place)]


def require_kept_promises(project: ContractsProject) -> None:
    """Refuse to publish what breaks a promise."""
    report = report_of(project)
    if not report.ok:
        show(report.findings)
        raise ContractError(
            f"{_count(report.findings)} promises are broken",
            kept="the registry and the released versions, as they were",
            next_step="towpath contracts test",
        )


def emit(form: str, title: str, findings: Sequence["Finding"]) -> None:
    """Write `findings` on stdout in `form`. Raises ContractError where one of them fails, after it was written."""
    from towpath.contract.report_formats import Format, write

    chosen = format_of(form)
    if chosen is Format.TEXT:
        show(findings)
        output.note(f"{title}: {summary_of(findings)}")
    else:
        typer.echo(write(chosen, title, findings), nl=False)
    fail_on(findings)


def summary_of(findings: Sequence["Finding"]) -> str:
    """Return how many findings there are, in words."""
    from towpath.contract.report_formats import summary

    return summary(findings)


def fail_on(findings: Sequence["Finding"]) -> None:
    """Raise ContractError where one of `findings` fails the check."""
    if broken := _count(findings):
        what = "promise is" if broken == 1 else "promises are"
        raise ContractError(
            f"{broken} {what} broken",
            next_step="fix what the report names, or live with it until a day: towpath contracts waive --help",
        )


def format_of(form: str) -> "Format":
    """Return the format called `form`. Raises typer.BadParameter with the names that there are."""
    from towpath.contract.report_formats import Format

    try:
        return Format(form)
    except ValueError as error:
        raise typer.BadParameter(f"{form!r} is none of {', '.join(Format)}", param_hint="--format") from error


def show(findings: Sequence["Finding"]) -> None:
    """Print findings for a person."""
    colours = {"error": "red", "warning": "yellow", "waived": "blue", "note": "dim"}

    def line(text: str) -> None:
        output.styled_result(text)

    for finding in findings:
        line(f"[bold {colours[finding.severity.value]}]{finding.rule}[/] {escape(finding.subject)}")
        line(f"  {escape(finding.problem)}")
        for who in finding.breaks:
            line(f"  [bold]breaks[/] {escape(who)}")
        if finding.unaffected:
            line(f"  [bold]not affected[/] {escape(', '.join(finding.unaffected))}")
        if finding.sample:
            line(f"  [bold]for example[/] {escape(finding.sample)}")
        if finding.fix:
            line(f"  [bold]fix[/] {escape(finding.fix)}")
        if finding.file:
            line(f"  [bold]at[/] {escape(finding.file)}:{finding.line}")
        if finding.waived_because:
            line(f"  [bold]waived[/] {escape(finding.waived_because)}")


def _count(findings: Iterable["Finding"]) -> int:
    return sum(1 for finding in findings if finding.fails)
