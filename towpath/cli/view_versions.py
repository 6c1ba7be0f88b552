"""How the verbs of `views` look at versions: what the project declares, what the database has, how far topics go."""

from typing import TYPE_CHECKING, Any

from towpath.cli.deciding import require_reason, user_name
from towpath.errors import NotFoundError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.stream.broker.kafka import KafkaBroker
    from towpath.view import View
    from towpath.view.versions.standing import Version, VersionDecision


BUILD_SLOT = "build"
"""The slot of `views build`: what was killed in it is a member until its session ends, and no worker."""


def versions_of(settings: Settings, name: str) -> "list[Version]":
    """Return how each version of a view stands. Raises NotFoundError where there is no such view."""
    from towpath.stream.engine.slot import holder_in
    from towpath.view.versions import postgres
    from towpath.view.versions.log import bounds_of, ends_of_records
    from towpath.view.versions.standing import Version
    from towpath.view.view import group_name, table_name

    broker = broker_of(settings)
    declared = declared_views(settings).get(name, {})
    found = []
    with postgres.views_connection(settings) as connection:
        built = postgres.built_versions(connection, name)
        published = postgres.published_version(connection, name)
        for number in sorted({*built, *declared}):
            application = group_name(settings.project.name, name, number)
            vector = postgres.vector_of_version(connection, settings.project.name, name, number)
            members = broker.group_members(application)
            builders = sum(holder_in(member, application, BUILD_SLOT) is not None for member in members)
            topics = set(declared[number].topics) if number in declared else {place.topic for place in vector}
            bounds = bounds_of(broker, topics)
            workers = len(members) - builders
            found.append(
                Version(
                    view=name,
                    number=number,
                    declared=number in declared,
                    built=number in built,
                    published=number == published,
                    vector=vector,
                    ends=ends_of_records(broker, vector, bounds.ends),
                    begins=bounds.begins,
                    rows=postgres.count_rows(connection, table_name(name, number)) if number in built else 0,
                    workers=workers,
                    builders=builders,
                    others_declared=bool(declared.keys() - {number}),
                    way_back=_way_back(settings, name, number) if number in declared and not workers else None,
                )
            )
    if not found:
        raise NotFoundError(f"there is no view {name}", next_step="towpath views list")
    return found


def _way_back(settings: Settings, name: str, number: int) -> str:
    """Return what brings the worker of a version back that the project has: as `doctor` says it."""
    from towpath.project import SAGAS_VIEW_WORKER, view_workers
    from towpath.stack.client import running
    from towpath.stack.home import Home
    from towpath.stack.workers import stalled_processes, way_back

    home = Home(settings.stack_home)
    statuses = running(home)
    workers = {(view.name, view.version): worker for worker, view in view_workers(settings).items()}
    worker = workers.get((name, number), SAGAS_VIEW_WORKER)
    return way_back(worker, statuses, stalled_processes(home, statuses))


def end_of_workers(settings: Settings, found: "Version") -> str:
    """Return what ends the workers of a version once the project no longer has it.

    Started again, the stack's process `view:NAME` is the worker of the version that is the oldest then. Where that one
    has a process already, or the process has the name of the version that goes, the stack's workers are others. The
    engine's own view never leaves the project: the stack goes on without workers.
    """
    from towpath.orchestrator.sagas_view import NAME
    from towpath.stack.client import running
    from towpath.stack.home import Home
    from towpath.stack.supervisor.spec import State
    from towpath.stack.workers import processes_of
    from towpath.view.view import group_name

    home, oldest = Home(settings.stack_home), f"view:{found.view}"
    statuses = running(home)
    processes = processes_of(home, statuses, group_name(settings.project.name, found.view, found.number))
    if not processes:
        return "stop its workers where they run (SIGTERM)"
    if found.declared and found.view == NAME:
        return "towpath down, then towpath up"
    beside = {name for name, one in statuses.items() if name.startswith(f"{oldest}@") and one.state != State.STOPPED}
    if found.others_declared and not beside and all(name.partition("/")[0] == oldest for name in processes):
        return ", then ".join(f"towpath restart {name}" for name in processes)
    return "towpath down, then towpath up --workers"


def version_of(settings: Settings, name: str, number: int) -> "Version":
    """Return how one version stands. Raises NotFoundError."""
    found = next((one for one in versions_of(settings, name) if one.number == number), None)
    if found is None:
        raise NotFoundError(f"view {name} has no version {number}", next_step=f"towpath views status {name}")
    return found


def published_of(settings: Settings, name: str) -> int | None:
    """Return the version that readers see, None where there is none."""
    from towpath.view.versions.postgres import published_version, views_connection

    with views_connection(settings) as connection:
        return published_version(connection, name)


def newest_of(settings: Settings, name: str, other_than: int | None) -> int:
    """Return the newest version but `other_than`. Raises NotFoundError where there is none."""
    from towpath.view.versions.standing import DECLARED_IN

    numbers = [one.number for one in versions_of(settings, name) if one.number != other_than]
    if not numbers:
        raise NotFoundError(
            f"view {name} has no version beside {other_than}",
            next_step=f"declare it with a higher version beside the other, both in {DECLARED_IN}",
        )
    return max(numbers)


def newest_in_project(settings: Settings, name: str) -> int:
    """Return the newest version that the project has, published or not. Raises NotFoundError where it has none."""
    numbers = [one.number for one in versions_of(settings, name) if one.declared]
    if not numbers:
        raise NotFoundError(
            f"this project has no version of view {name}",
            next_step=f"towpath views status {name} names those that are built; say --version VERSION",
        )
    return max(numbers)


def declared_views(settings: Settings) -> "dict[str, dict[int, View[Any]]]":
    """Return the project's views by name and version, the engine's own among them."""
    from towpath.orchestrator.sagas_view import own_views
    from towpath.project import load_sagas, load_views

    return {**load_views(settings), **{own.name: {own.version: own} for own in own_views(load_sagas(settings))}}


def declared_view(settings: Settings, name: str, version: int | None) -> "View[Any]":
    """Return a version that the project has, by default the newest. Raises NotFoundError."""
    versions = declared_views(settings).get(name, {})
    if not versions or (version is not None and version not in versions):
        raise NotFoundError(
            f"this project has no view {name}" + ("" if version is None else f" of version {version}"),
            next_step="towpath views list",
        )
    return versions[version or max(versions)]


def decided(
    name: str, action: str, before: int | None, after: int | None, actor: str | None, reason: str, detail: str = ""
) -> "VersionDecision":
    """Return what is done, by whom and why. Raises ConfigurationError for a reason that says nothing."""
    from towpath.view.versions.standing import VersionDecision

    return VersionDecision(name, action, before, after, actor or user_name(), require_reason(reason), detail)


def broker_of(settings: Settings) -> "KafkaBroker":
    """Return the cluster of the settings."""
    from towpath.stream.broker.kafka import KafkaBroker

    return KafkaBroker(settings.kafka, settings.stream)


def codec_of(settings: Settings, topics: Any) -> Any:
    """Return the codec for the records of `topics`."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import load_codec

    return load_codec(settings, Catalogue.load(settings), topics)
