"""How `views build` lets a version begin, and how it folds or watches it until it has caught up."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from enum import StrEnum
from heapq import merge
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from towpath.cli import output
from towpath.cli.deciding import require_reason
from towpath.cli.replay_planning import outbox_records, writers_of
from towpath.cli.view_versions import BUILD_SLOT, broker_of, codec_of, decided, published_of, version_of
from towpath.clock import Clock, SystemClock, epoch_milliseconds
from towpath.errors import RefusedError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.stream.broker.record import ConsumedRecord
    from towpath.view import View
    from towpath.view.versions.standing import Version, VersionDecision

LOOK_SECONDS = 1.0
FOLDED_SECONDS = 15.0


class Source(StrEnum):
    """What a version begins with."""

    TOPIC = "topic"
    OUTBOX = "outbox"
    SNAPSHOT = "snapshot"


def rehearse(settings: Settings, view: "View[Any]", source: Source) -> dict[str, int]:
    """Return what a beginning would take over beside what its topics have; raise what `begin` would raise before."""
    from towpath.view.versions.building.postgres import require_not_begun, require_rows
    from towpath.view.versions.postgres import views_connection

    before = _version_before(settings, view, source)
    if source is Source.OUTBOX:
        _writers(settings, view)
    with views_connection(settings) as connection:
        if before is None:
            require_not_begun(connection, settings.project.name, view)
        else:
            require_rows(connection, settings.project.name, view, before)
        connection.rollback()
    if before is None:
        return {}
    found = version_of(settings, view.name, before)
    return {"rows": found.rows, "records": found.lag}


def _version_before(settings: Settings, view: "View[Any]", source: Source) -> int | None:
    """Return the version whose rows a snapshot takes; None for another source. Raises RefusedError if there is none."""
    if source is not Source.SNAPSHOT:
        return None
    before = published_of(settings, view.name)
    if before in (None, view.version):
        raise RefusedError(
            f"view {view.name} has no other version to begin with",
            kept="everything",
            next_step=f"towpath views build {view.name} --version {view.version}",
        )
    return before


def begin(
    settings: Settings, view: "View[Any]", source: Source, bounds: Any, lacking: Any, actor: str, reason: str | None
) -> int:
    """Let the version begin as asked, and return with how many rows."""
    from towpath.view.versions.building.postgres import begin_at_topics, begin_with_rows
    from towpath.view.versions.postgres import views_connection

    why = require_reason(reason)
    before = _version_before(settings, view, source)
    decision = decided(
        view.name,
        "build",
        before,
        view.version,
        actor,
        why,
        detail=f"from {source.value}" + (f"; expired before {lacking}" if lacking and before is None else ""),
    )
    if source is Source.OUTBOX:
        return _begin_with_outboxes(settings, view, bounds, decision)
    with views_connection(settings) as connection:
        if source is Source.TOPIC:
            begin_at_topics(connection, settings.project.name, view, bounds, decision)
            return 0
        return begin_with_rows(connection, settings.project.name, view, decision, codec_of(settings, view.codec_topics))


def _begin_with_outboxes(settings: Settings, view: "View[Any]", bounds: Any, decision: "VersionDecision") -> int:
    """Let the version begin with what the services' outboxes hold from before its topics, in the order of time."""
    from towpath.view.agent import Folding
    from towpath.view.versions.building.before_topics import InTopics, before_topics
    from towpath.view.versions.building.postgres import begin_with_records
    from towpath.view.versions.log import records_between
    from towpath.view.versions.postgres import views_connection
    from towpath.view.view import group_name

    writers = _writers(settings, view)
    application = group_name(settings.project.name, view.name, view.version)
    horizon_milliseconds = int(settings.stream.dedup_horizon_days * 86_400_000)
    folding = Folding(application, view, codec_of(settings, view.codec_topics), horizon_milliseconds)
    with ExitStack() as open_, views_connection(settings) as connection:
        streams = [
            open_.enter_context(closing(outbox_records(settings, service, topics)))
            for service, topics in writers.items()
        ]
        heads = [list(islice(stream, 1)) for stream in streams]
        oldest = min((record.timestamp_milliseconds for head in heads for record in head), default=0)
        ranges = {place: (begin, bounds.ends[place]) for place, begin in bounds.begins.items()}
        topics = InTopics(records_between(broker_of(settings), ranges), oldest)
        records: Iterator[ConsumedRecord] = merge(
            *(before_topics(chain(head, stream), topics) for head, stream in zip(heads, streams, strict=True)),
            key=lambda record: record.timestamp_milliseconds,
        )
        now = epoch_milliseconds(SystemClock())
        return begin_with_records(
            connection, settings.project.name, view, folding, records, bounds, decision, now_milliseconds=now
        )


def _writers(settings: Settings, view: "View[Any]") -> Any:
    """Return whose outboxes write the view's topics. Raises RefusedError where none does."""
    writers = writers_of(settings, view.topics)
    if not writers:
        raise RefusedError(
            f"view {view.name} folds no topic that an outbox writes: {', '.join(view.topics)}",
            kept="every version that is there; nothing was read",
            next_step=f"towpath views build {view.name} --version {view.version}; where it follows another version: "
            f"towpath views build {view.name} --version {view.version} --from snapshot --reason REASON",
        )
    return writers


def fold_until_caught_up(settings: Settings, view: "View[Any]") -> None:
    """Be a worker of the version in this process, until it has caught up."""
    import asyncio

    from towpath.cli.run import build_worker
    from towpath.logs import configure_logs

    configure_logs(settings, worker=f"{_worker(view)}/{BUILD_SLOT}")
    app = build_worker(settings, _worker(view), BUILD_SLOT)

    async def fold() -> None:
        await app.start()
        try:
            progress = progress_of(settings, view.name, view.version)
            while (found := await asyncio.to_thread(next, progress, None)) is not None:
                output.note(found[1])
                if app.crash_reason is not None:
                    raise app.crash_reason
        finally:
            await app.stop()

    asyncio.run(fold())


def watch_workers(settings: Settings, view: "View[Any]") -> bool:
    """Watch the workers that fold a version; return whether it has caught up before the last of them was gone."""
    for found, told in progress_of(settings, view.name, view.version):
        if _is_there(found):
            output.note(told)
            return True
        if not found.workers:
            return False
        output.note(told)
    return True


class Watched:
    """A version that is waited for: that it has workers is looked at now and then.

    Twice in a row it must have none to be given up: a worker that restarts is gone for a moment.
    """

    def __init__(self, settings: Settings, name: str, version: int, clock: Clock) -> None:
        self._settings, self._name, self._version, self._clock = settings, name, version, clock
        self._unfolded = False
        self._next_seconds = 0.0

    def look(self) -> None:
        """Raise RefusedError where nobody folds the version."""
        now = self._clock.monotonic_seconds()
        if now < self._next_seconds:
            return
        self._next_seconds = now + FOLDED_SECONDS
        found = version_of(self._settings, self._name, self._version)
        if not found.workers and self._unfolded:
            raise RefusedError(
                f"nobody folds version {self._version} of view {self._name}, which is {found.lag} offsets behind",
                kept="the published version; readers go on with it",
                next_step=f"{found.to_fold}, then promote it again",
            )
        self._unfolded = not found.workers

    def rehearse(self) -> None:
        """Raise RefusedError where waiting would be given up: nobody folds the version at two looks in a row."""
        self.look()
        if self._unfolded:
            self._clock.sleep(FOLDED_SECONDS)
            self.look()


def _is_there(found: "Version") -> bool:
    return bool(found.vector) and not found.lag and not found.ends.keys() - found.vector.keys()


def _worker(view: "View[Any]") -> str:
    from towpath.orchestrator.sagas_view import NAME
    from towpath.project import SAGAS_VIEW_WORKER

    return SAGAS_VIEW_WORKER if view.name == NAME else f"view:{view.name}@{view.version}"


def progress_of(settings: Settings, name: str, version: int) -> "Iterator[tuple[Version, str]]":
    """Yield how a version gets on, and that in words, until it has caught up. Raises RefusedError if it is dropped."""
    began = time.monotonic()
    first: int | None = None
    built = False
    while True:
        found = version_of(settings, name, version)
        if built and not found.built:
            raise RefusedError(
                f"version {version} of view {name} was dropped while it was built",
                kept="every other version",
                next_step=f"begin it anew: towpath views build {name} --version {version}",
            )
        built = found.built
        first = found.read if first is None else first
        seconds = time.monotonic() - began
        rate = (found.read - first) / seconds if seconds > 0 else 0.0
        total = found.read + found.lag
        if _is_there(found):
            yield found, f"caught up: {output.counted(found.read, 'offset')} read, {output.counted(found.rows, 'row')}"
            return
        left = f", about {timedelta(seconds=int(found.lag / rate))} left" if rate else ""
        yield found, f"{found.read} of {total} offsets, {rate:,.0f} a second{left}"
        time.sleep(LOOK_SECONDS)
