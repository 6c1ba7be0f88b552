"""Does what `saga check` asks: imports the sagas, proves them, writes tests, and shows what was found."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.markup import escape

from towpath.cli import output
from towpath.cli.saga_check_modules import load, module_names
from towpath.cli.saga_elsewhere import Processes
from towpath.errors import ConfigurationError, ContractError, NotFoundError
from towpath.saga import Definition
from towpath.saga.check import ASSUMPTIONS, BOUNDS, EXHAUSTIVE, Check, Report, Samples, Violation
from towpath.saga.check.timing import words_for
from towpath.settings import Settings, find_project, load_settings

Tell: TypeAlias = Callable[[str, int, int], None]


def run(
    modules: Sequence[str] | None,
    saga: str | None,
    *,
    as_json: bool,
    tests: str,
    dry_run: bool,
    states_max: int,
    explain: bool,
    progress: bool,
) -> None:
    """Check sagas, write a test for each violation, show the report. Raises ContractError where a property is broken.

    The arguments are the options of `saga check`.
    """
    settings = _settings(modules)
    root = settings.root if settings is not None else Path.cwd()
    with contextlib.redirect_stdout(sys.stderr):  # what the project prints is no part of the report
        reports = _checked(modules, settings, saga, states_max, _tell_progress if progress else _tell_nothing)
    written = {} if dry_run else _write_tests(reports, root / tests)
    if as_json:
        output.emit_json([_with_tests(report, written) for report in reports])
    else:
        _show(reports, written, explain=explain)
    broken = sum(len(report.violations) for report in reports)
    if broken:
        raise ContractError(
            f"{broken} {'property is' if broken == 1 else 'properties are'} broken",
            next_step=f"fix the sagas; then pytest {tests} passes" if written else "fix the sagas",
        )


def _checked(
    modules: Sequence[str] | None, settings: Settings | None, saga: str | None, states_max: int, tell: Tell
) -> list[Report]:
    """Import the sagas and prove them."""
    found: dict[tuple[str, int], str] = {}
    definitions: list[Definition] = []
    reports: list[Report] = []
    for name in module_names(modules or ([settings.project.sagas] if settings is not None else []), settings):
        loaded = load(name)
        if isinstance(loaded, Report):
            reports.append(loaded)
            continue
        if (loaded.name, loaded.version) in found:
            raise ConfigurationError(
                f"{name}: saga {loaded.name} version {loaded.version} is defined twice",
                next_step="raise the version of the newer one",
            )
        definitions.append(loaded)
        found[loaded.name, loaded.version] = f"{name}:saga"
    with Processes(found) as elsewhere:
        samples = _samples(settings)
        reports += Check(definitions, time.perf_counter, samples, found, states_max, tell, elsewhere).run(saga)
    if saga is not None and not any(report.saga == saga for report in reports):
        raise NotFoundError(f"no saga {saga}", next_step=f"one of: {', '.join(each.name for each in definitions)}")
    return reports


def _tell_progress(saga: str, found: int, waiting: int) -> None:
    output.note(f"{saga}: {found:,} states so far, {waiting:,} of them to be looked at")


def _tell_nothing(_: str, __: int, ___: int) -> None:
    """Tell nothing."""


# --- what is checked --------------------------------------------------------------------------------------------------


def _settings(modules: Sequence[str] | None) -> Settings | None:
    """Return the project's settings; none are needed to check modules that are named."""
    try:
        find_project()
    except ConfigurationError:
        if modules:
            return None
        raise
    return load_settings()


def _samples(settings: Settings | None) -> Samples:
    """Return the contracts' examples and generated records; where there are no contracts, one record of each class."""
    if settings is None or not (settings.root / settings.project.schemas / "avro").is_dir():
        return Samples()
    from towpath.cli.saga_samples import contract_samples

    return contract_samples(settings)


# --- what is written and shown ----------------------------------------------------------------------------------------


def _write_tests(reports: Sequence[Report], folder: Path) -> dict[int, str]:
    """Write a test for each violation that can have one; return where, by the violation's identity."""
    written = {}
    for report in reports:
        for violation in report.violations:
            if violation.test:
                name = "_".join(filter(None, (report.saga, violation.rule.value, violation.subject)))
                safe = "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")
                path = folder / f"test_{safe}.py"
                folder.mkdir(parents=True, exist_ok=True)
                path.write_text(violation.test, encoding="utf-8")
                written[id(violation)] = _shown(path)
    return written


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _place(where: str) -> str:
    """Return file and line, the file as it is seen from here."""
    path, _, line = where.rpartition(":")
    return f"{_shown(Path(path))}:{line}"


def _with_tests(report: Report, written: dict[int, str]) -> dict[str, Any]:
    content = report.to_json()
    for violation, plain in zip(report.violations, content["violations"], strict=True):
        plain["test"] = written.get(id(violation), "")
    return content


def _show(reports: Sequence[Report], written: dict[int, str], *, explain: bool) -> None:
    for report in reports:
        if explain:
            _show_report(report)
        else:
            _show_line(report)
        for violation in report.violations:
            _show_violation(violation, written.get(id(violation), ""))
        if explain:
            _show_halts(report)
    if not explain:
        output.note("what was proved, how each saga can halt, bounds and assumptions: towpath saga check --explain")
        return
    _say("\n[bold]explored whole[/]")
    for line in EXHAUSTIVE:
        _say(f"  {line}")
    _say("[bold]bounds[/]")
    for name, bound in BOUNDS.items():
        _say(f"  {name.replace('_', ' ')}: {f'{bound:,}' if isinstance(bound, int) else bound}")
    _say("[bold]assumptions[/]")
    for line in ASSUMPTIONS:
        _say(f"  {line}")


def _show_line(report: Report) -> None:
    """Say in one line how a saga stands: the same for the same definition, on every machine."""
    name = _name(report)
    if report.duration is None or not report.ok:
        _say(f"{name}: [red]{len(report.violations)} broken[/]")
        return
    halts = f"{len(report.stuck)} {'way' if len(report.stuck) == 1 else 'ways'} to halt"
    longest = words_for(report.duration.worst_milliseconds)
    _say(f"{name}: [green]every property holds[/], {report.states:,} states, at most {longest}, {halts}")


def _name(report: Report) -> str:
    """Return name and version; the module's name alone where its saga could not be defined."""
    return f"[bold]{report.saga}[/]" + (f" version {report.version}" if report.version else "")


def _say(text: str) -> None:
    output.styled_result(text)


def _show_report(report: Report) -> None:
    verdict = "[green]every property holds[/]" if report.ok else f"[red]{len(report.violations)} broken[/]"
    _say(f"\n{_name(report)}: {verdict}")
    if report.duration is None:
        return
    role = ", as a sub-saga" if report.as_child else ""
    _say(
        f"  {report.states:,} states, {report.transitions:,} transitions, {report.refusals:,} inputs refused as they "
        f"must be{role}"
    )
    longest = report.duration
    _say(
        f"  at most {words_for(longest.worst_milliseconds)} to an ending or a halt without a person "
        f"({words_for(longest.forward_milliseconds)} forward; it can start compensating until "
        f"{words_for(longest.turning_milliseconds)}, and undoes in {words_for(longest.undo_milliseconds)})"
    )
    sampled = f"  sampled: {report.functions} functions of the definition on {report.calls} sets of data"
    sampled += f", {report.elsewhere} of them in other processes too"
    missing = f"; no data for {', '.join(report.without_data)}" if report.without_data else ""
    _say(sampled + missing)


def _show_violation(violation: Violation, test: str) -> None:
    _say(
        f"\n  [bold red]{violation.rule.value}[/]{escape(f' {violation.subject}'.rstrip())}: {escape(violation.words)}"
    )
    if violation.where:
        _say(f"  at {escape(_place(violation.where))}")
    _say(f"  must hold: {escape(violation.sentence)}")
    for number, sentence in enumerate(violation.path, start=1):
        _say(f"    {number}. {escape(sentence)}")
    if violation.diagram:
        _say(f"\n```mermaid\n{escape(violation.diagram)}\n```")
    if test:
        _say(f"  test: {escape(test)}")


def _show_halts(report: Report) -> None:
    """Say every way in which the saga comes to need a person, the shortest path to it, and the ways out."""
    if report.stuck:
        _say(f"  it can halt in {len(report.stuck)} ways:")
    for stuck in report.stuck:
        _say(f"    [bold]{stuck.step}[/]: {escape(stuck.reason)}")
        _say(f"      as when: {escape('; '.join(stuck.path))}")
        _say(f"      a person can: {'; '.join(stuck.person_can) or 'do nothing under this version of the saga'}")
