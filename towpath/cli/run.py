"""The verb `run`: one worker process, until it is told to stop."""

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.cli.run_metrics import serve_metrics
from towpath.errors import ContractError, NotFoundError, WorldError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.contract.registry import SchemaLearner
    from towpath.stream.engine.worker_status import WorkerStatus


ENGINE = (
    "uvloop",
    "faust.app.router",
    "faust.assignor.leader_assignor",
    "faust.tables.objects",
    "faust.tables.sets",
    "faust.transport.utils",
    "httpcore",
    "towpath.capture.kafka",
    "towpath.client.saga",
    "towpath.contract.registry",
    "towpath.deadletter.watch.kafka",
    "towpath.logs",
    "towpath.orchestrator.agent",
    "towpath.orchestrator.sagas_view",
    "towpath.orchestrator.topics",
    "towpath.outbox.kafka",
    "towpath.participant.agent",
    "towpath.project",
    "towpath.saga",
    "towpath.service",
    "towpath.stack.workers",
    "towpath.view",
    "towpath.view.agent",
)
"""What workers are made of, beside the project, and what that imports late: it takes most of the time of a start."""

WAIT_TO_BEGIN = "--wait-to-begin"

Tell = Callable[["WorkerStatus"], None]
"""Tells whoever supervises this process how its worker stands."""


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("run")(run)


def run(
    name: Annotated[
        str | None,
        typer.Argument(help="service:NAME, saga:NAME or view:NAME; without it, the names of this project's workers."),
    ] = None,
    slot: Annotated[
        str, typer.Option(help="Tells this worker from its siblings: stable over restarts, unique among live ones.")
    ] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="List the workers as JSON.")] = False,
    wait: Annotated[bool, typer.Option(WAIT_TO_BEGIN, hidden=True)] = False,
) -> None:
    """Run one worker of this project, until SIGTERM or SIGINT."""
    if wait:
        _wait_to_begin()
    settings = load_settings()
    if name is None:
        from towpath.project import worker_names

        names = worker_names(settings)
        if as_json:
            output.emit_json(names)
        else:
            output.results.print("\n".join(names), highlight=False)
        return
    _run_worker(settings, name, slot)


def _wait_to_begin() -> None:
    """Import the engine, and nothing of the project, which may change meanwhile; go on once a line is told.

    Ends the process where nobody is left to tell one; begins it anew where a file that it has imported was replaced
    meanwhile, as pip does: else it would run half of the old package and half of the new one.
    """
    for name in ENGINE:
        importlib.import_module(name)
    imported = _imported_files()
    if not sys.stdin.buffer.readline():
        sys.exit()
    if _imported_files() != imported:
        os.execv(sys.executable, [one for one in sys.orig_argv if one != WAIT_TO_BEGIN])  # noqa: S606 - itself


def _imported_files() -> dict[str, tuple[int, int, int] | None]:
    """Return for each file that is imported what tells that it was replaced, None where it is gone."""
    found: dict[str, tuple[int, int, int] | None] = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            try:
                seen = os.stat(path)
            except OSError:
                found[path] = None
            else:
                found[path] = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


def _run_worker(settings: Settings, name: str, slot: str) -> None:
    import uvloop

    from towpath.logs import configure_logs
    from towpath.tracing import configure_tracing

    configure_logs(settings, worker=f"{name}/{slot}")
    configure_tracing(settings, service=name)
    uvloop.install()
    served = serve_metrics(settings, name)
    worker = _build_when_possible(settings, name, slot, partial(_tell_status, None if served is None else served[0]))
    worker.run_worker(loglevel=settings.log_level)


def _build_when_possible(settings: Settings, name: str, slot: str, tell: Tell) -> Any:
    """Return the worker, once every part that it needs has answered: it may start before them."""
    import structlog

    from towpath.metrics import waits_for_dependency
    from towpath.stream.engine.failures import backoff_seconds
    from towpath.stream.engine.worker_status import WorkerStatus

    failures = 0
    while True:
        try:
            worker = build_worker(settings, name, slot, tell)
        except WorldError as error:
            failures += 1
            seconds = backoff_seconds(failures)
            application = _application(settings, name)
            structlog.get_logger("towpath.cli.run").warning("waiting to start", seconds=seconds, reason=error.cause)
            waits_for_dependency(application, True)
            tell(WorkerStatus(application=application, slot=slot, is_member=False, waiting_for=error.cause))
            time.sleep(seconds)
        else:
            if failures:
                waits_for_dependency(_application(settings, name), False)
            return worker


def _application(settings: Settings, name: str) -> str:
    """Return the consumer group of a worker that the project has, by the project alone."""
    from towpath.orchestrator.agent import application_name as of_saga
    from towpath.participant.agent import application_name as of_service
    from towpath.view.agent import application_name as of_view

    kind, _, which = name.partition(":")
    if kind == "service":
        return of_service(settings, which)
    return of_saga(settings, which) if kind == "saga" else of_view(settings, _view_and_siblings(settings, which)[0])


def build_worker(settings: Settings, name: str, slot: str, tell: Tell | None = None) -> Any:
    """Return the stream application called `name`. Raises NotFoundError where the project has none of that name."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.registry import SchemaLearner, load_codec

    builders = {"service": _service, "saga": _saga, "view": _view}
    kind, _, which = name.partition(":")
    if kind not in builders or not which:
        raise NotFoundError(
            f"{name!r} is no worker: a worker is service:NAME, saga:NAME or view:NAME",
            next_step="towpath run lists this project's workers",
        )
    catalogue = Catalogue.load(settings)
    topics, build = builders[kind](settings, catalogue, which, slot)
    codec = load_codec(settings, catalogue, topics)
    return build(codec, tell or partial(_tell_status, None), SchemaLearner(codec, settings.registry))


# The topics whose records the worker writes or reads, and what makes it of their codec.
Build = tuple[Iterable[str], Callable[[Any, Callable[["WorkerStatus"], None], "SchemaLearner"], Any]]


def _service(settings: Settings, catalogue: Any, name: str, slot: str) -> Build:
    from towpath.outbox.kafka import KafkaHandover
    from towpath.participant.agent import application_name, create_participant
    from towpath.project import load_services

    service = _find(load_services(settings), f"service:{name}", name)
    per_second = settings.participant.direct_replies_per_second
    application = application_name(settings, name)
    handover = KafkaHandover(settings.kafka, per_second=per_second, name=application) if per_second else None
    return catalogue.topics_of(name), lambda codec, on_status, learn: create_participant(
        settings, service, codec, catalogue, slot=slot, on_status=on_status, handover=handover, learn=learn
    )


def _saga(settings: Settings, catalogue: Any, name: str, slot: str) -> Build:
    from towpath.capture.kafka import CaptureWatch
    from towpath.client.saga import start_topic
    from towpath.contract.retention import require_sums, saga_sums
    from towpath.deadletter.watch.kafka import DeadCommandWatch
    from towpath.orchestrator.agent import create_orchestrator
    from towpath.orchestrator.core import participants_of
    from towpath.orchestrator.performer import attempt_timer
    from towpath.orchestrator.topics import started_by_events, topic_findings
    from towpath.project import load_sagas
    from towpath.stream.broker.record_limits import RecordLimits

    sagas = load_sagas(settings)
    definitions = _find(sagas, f"saga:{name}", name)
    for finding in topic_findings({name: definitions}, catalogue):
        raise ContractError(
            f"saga {name} cannot run: {finding.subject}: {finding.problem}",
            next_step=f"{finding.fix}; towpath contracts test names all that is missing",
        )
    by_events = started_by_events(name, sagas, catalogue)
    topics = dict.fromkeys(start_topic(catalogue, name, kind) for kind in by_events)
    require_sums(saga_sums(catalogue, settings, name, [kind.SCHEMA_NAME for kind in by_events]))
    services = participants_of(definitions)
    watch, dead = CaptureWatch(settings, services), None
    if settings.saga.dead_commands_hold_attempts:
        letters = (catalogue.dead_letter(f"{service}.commands") for service in services)
        topics_of_dead = [topic.name for topic in letters if topic is not None]
        dead = DeadCommandWatch(settings, topics_of_dead, partial(attempt_timer, name))
    return catalogue.topics_of(name), lambda codec, on_status, learn: create_orchestrator(
        settings,
        definitions,
        codec,
        slot=slot,
        start_topic=tuple(topics) or None,
        declared_topics=catalogue.topics,
        limits=RecordLimits(catalogue.message_bytes_max()),
        hold_deadlines=watch.behind if dead is None else lambda: watch.behind() or dead.reading(),
        hold_timer=None if dead is None else dead.holds,
        on_status=on_status,
        learn=learn,
    )


def _view(settings: Settings, catalogue: Any, name: str, slot: str) -> Build:
    from towpath.contract.retention import re_emit_sum, require_sums
    from towpath.project import SAGAS_VIEW_WORKER
    from towpath.stream.broker.kafka import KafkaBroker
    from towpath.view.agent import create_view
    from towpath.view.versions.replacing import require_topics

    view, siblings = _view_and_siblings(settings, name)
    if f"view:{name}" != SAGAS_VIEW_WORKER and not view.many_keys:
        catalogue.require_equal_partitions(view.topics)
    require_sums([re_emit_sum(settings)])
    require_topics(settings, view, KafkaBroker(settings.kafka, settings.stream))
    return view.codec_topics, lambda codec, on_status, learn: create_view(
        settings, view, codec, slot=slot, siblings=siblings, on_status=on_status, learn=learn
    )


def _view_and_siblings(settings: Settings, name: str) -> tuple[Any, frozenset[int]]:
    """Return the view of a worker, and which versions of it the project has."""
    from towpath.orchestrator.sagas_view import own_views
    from towpath.project import SAGAS_VIEW_WORKER, load_sagas, load_views, view_workers

    if f"view:{name}" == SAGAS_VIEW_WORKER and (own := own_views(load_sagas(settings))):
        return own[0], frozenset({own[0].version})
    found = _find_view(view_workers(settings), name)
    return found, frozenset(load_views(settings)[found.name])


def _find_view(workers: dict[str, Any], name: str) -> Any:
    """Return the view of a worker; `NAME@VERSION` names each version, the oldest one too."""
    exact = {f"{view.name}@{view.version}": view for view in workers.values()}
    return exact.get(name) or _find(
        {worker.partition(":")[2]: view for worker, view in workers.items()}, f"view:{name}", name
    )


def _find(found: dict[str, Any], worker: str, name: str) -> Any:
    if name not in found:
        known = ", ".join(sorted(found))
        next_step = f"use one of {known}" if known else "name it in towpath.toml, under [project]"
        raise NotFoundError(f"this project has no {worker}", next_step=next_step)
    return found[name]


def _tell_status(metrics_port: int | None, status: "WorkerStatus") -> None:
    """Tell whoever supervises this process how it stands, and where it serves its metrics."""
    from towpath.stack.workers import READY_FILE, tell_status

    path = os.environ.get(READY_FILE)
    if path:
        tell_status(Path(path), replace(status, metrics_port=metrics_port))
