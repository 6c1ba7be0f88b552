"""What `towpath dev` does with each save, in a process of its own: it imports the project as its files are now.

The process is a fork of one that has imported the engine and no project, so each costs the project's imports alone.
"""

import pkgutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

# Imported here, and not in the functions, for the process that others are forked from to have it all.
from towpath.cli import output
from towpath.cli.contracts_report import ContractsProject, report_of
from towpath.cli.follow import write_what_follows
from towpath.cli.saga_samples import contract_samples
from towpath.contract.catalogue import Catalogue
from towpath.contract.snapshot import topic_to_json
from towpath.errors import TowpathError
from towpath.project import SAGAS_VIEW_WORKER, load_object, load_sagas, load_services, view_workers
from towpath.saga.check import Check
from towpath.settings import Settings, load_settings
from towpath.view import View

FINDINGS_MAX = 8
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Loaded:
    """How the project stands after a save: what was generated, and its workers; or why it cannot be imported.

    `workers` has the modules that each worker is made of; `topics` what the catalogue says of each worker's topics.
    `was_cut` where it was given up, since something else was saved: what was generated stands, and nothing else.
    """

    problem: str = ""
    written: tuple[str, ...] = ()
    workers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    was_cut: bool = False


def load(root: str, tell: Callable[[Loaded], None]) -> None:
    """Generate what follows from the files in `root`, import the project, and tell its workers. Raises nothing.

    What was generated is told as it is written: however the import ends, the next save writes these files no more, and
    those who import them must restart.
    """
    written: list[str] = []

    def wrote(path: Path) -> None:
        written.append(path.as_posix())
        tell(Loaded(written=tuple(written)))

    def work() -> Loaded:
        settings = load_settings(Path(root))
        write_what_follows(settings, wrote)
        return _imported(settings)

    tell(replace(_told(work, Loaded), written=tuple(written)))


def _imported(settings: Settings) -> Loaded:
    catalogue = Catalogue.load(settings)
    workers = _workers(settings)
    return Loaded(
        workers=workers,
        topics={
            name: repr([topic_to_json(catalogue.topics[one]) for one in catalogue.topics_of(_party(name))])
            for name in workers
        },
    )


def _party(worker: str) -> str:
    """Return the name that topics use of a worker: all versions of a view have one."""
    return worker.partition(":")[2].partition("@")[0]


def _workers(settings: Settings) -> dict[str, tuple[str, ...]]:
    services = {path.partition(":")[0].rpartition(".")[2]: path for path in settings.project.services}
    modules_of = {id(load_object(settings, path, View)): path.partition(":")[0] for path in settings.project.views}
    views = {name: modules_of[id(view)] for name, view in view_workers(settings).items() if id(view) in modules_of}
    load_services(settings)
    load_sagas(settings)
    sagas: dict[str, tuple[str, ...]] = {}
    package = __import__(settings.project.sagas, fromlist=["saga"])
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            name = __import__(module.name, fromlist=["saga"]).saga.name
            sagas[name] = (*sagas.get(name, ()), module.name)
    return {
        **{f"service:{name}": (path.partition(":")[0],) for name, path in services.items()},
        **{f"saga:{name}": modules for name, modules in sagas.items()},
        **{name: (module,) for name, module in views.items()},
        **({SAGAS_VIEW_WORKER: tuple(module for modules in sagas.values() for module in modules)} if sagas else {}),
    }


def prove(root: str, tell: Callable[[tuple[str, ...]], None]) -> None:
    """Tell what is wrong with contracts and sagas, a line each, the lines of what is well last. Raises nothing."""
    tell(_told(lambda: _prove(Path(root)), lambda problem: (f"! {problem}",)))


def _prove(root: Path) -> tuple[str, ...]:
    settings = load_settings(root)
    report = report_of(ContractsProject.load(settings))
    failing = [finding for finding in report.findings if finding.fails]
    lines = [
        f"! {one.file or one.subject}{f':{one.line}' if one.line else ''}: {one.subject}: {one.problem}; fix: {one.fix}"
        for one in failing[:FINDINGS_MAX]
    ]
    if len(failing) > FINDINGS_MAX:
        lines.append(f"! and {len(failing) - FINDINGS_MAX} more: towpath contracts test")
    definitions = [one for versions in load_sagas(settings).values() for one in versions.values()]
    held = f"{output.counted(report.records, 'record')}, {output.counted(report.topics, 'topic')}"
    well = [] if failing else [f"contracts hold: {held}"]
    for one in Check(definitions, time.perf_counter, contract_samples(settings)).run(None):
        lines += [f"! saga {one.saga}: {violation.words}" for violation in one.violations]
        if one.ok:
            well.append(f"saga {one.saga}: every property holds, {one.states:,} states")
    return (*lines, *well)


def _told(work: Callable[[], Told], failed: Callable[[str], Told]) -> Told:
    try:
        return work()
    except Exception as error:  # whatever a project's code raises while it is imported
        return failed(_words(error))


def _words(error: Exception) -> str:
    if isinstance(error, TowpathError):
        return error.cause + (f"; {error.next_step}" if error.next_step else "")
    return f"{type(error).__name__}: {error}"
