"""The Faust agent of one service: a batch of commands, answered in one database transaction with its offsets.

The one rule: nothing is done outside the unit of work but upkeep, which has a connection of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from towpath import metrics, tracing
from towpath.clock import Clock, SystemClock
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.retention import inbox_sum, re_emit_sum, require_sums
from towpath.errors import WorldError, first_line
from towpath.outbox.handover import Handover
from towpath.outbox.postgres import UPKEEP_SECONDS
from towpath.participant.execution import Answered, Answerer
from towpath.participant.postgres import keep_up
from towpath.participant.service import Service
from towpath.settings import Settings
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.postgres import DatabaseUnit
from towpath.stream.engine.record_spans import handling_all
from towpath.stream.faust_app.agent import DatabaseOptions, StreamApp, create_app

log = structlog.get_logger("towpath.participant")


def application_name(settings: Settings, service: str) -> str:
    """Return the consumer group of the workers of `service`."""
    return f"{settings.project.name}-service-{service}"


def create_participant(
    settings: Settings,
    service: Service,
    codec: Codec,
    catalogue: Catalogue,
    *,
    slot: str,
    clock: Clock | None = None,
    on_ready: Callable[[], Awaitable[None]] | None = None,
    handover: Handover | None = None,
    **stream_options: Any,
) -> StreamApp:
    """Return the application that answers the commands of `service`.

    `slot` tells this worker from its siblings. `handover` takes replies to Kafka after their commit, ahead of capture;
    without one, capture alone does. Raises ConfigurationError where the inbox would forget a command
    that can still come back, NotFoundError where the catalogue lacks the topic of its commands.
    """
    commands = catalogue.topic(service.commands_topic)
    require_sums([inbox_sum(catalogue, settings, service.name, commands.name), re_emit_sum(settings)])
    clock = clock or SystemClock()
    outside = service.opens(settings) if service.opens is not None else None
    answerer = Answerer(service, codec, outside=outside)
    app = create_app(
        application_name(settings, service.name),
        settings,
        slot=slot,
        unit_of_work="database",
        database=DatabaseOptions(
            url=settings.postgres.database_url(service.name),
            connection_options=settings.postgres.connection_options(),
            outbox=True,
        ),
        clock=clock,
        on_ready=on_ready,
        **stream_options,
    )

    @app.agent(app.batch_topic(commands.name))
    async def answer_commands(batches: Any) -> None:
        async for batch in batches:
            unit: DatabaseUnit = app.unit
            answered = await _answer(unit, answerer, batch.records, clock.now(), service.name)
            if known := answered.replayed + answered.ignored:
                metrics.RECORDS_RECOGNISED.labels(app.conf.id, commands.name).inc(known)
            if handover is not None and answered.replies:
                unit.after_commit(partial(handover.hand_over, answered.replies))

    @app.timer(interval=UPKEEP_SECONDS, on_leader=False)  # type: ignore[untyped-decorator]
    async def upkeep() -> None:
        try:
            done = await asyncio.to_thread(keep_up, settings, service.name)
        except WorldError as error:
            log.warning("upkeep has to wait", service=service.name, cause=error.cause)
            return
        except Exception as error:  # whatever it is, commands do not wait for upkeep
            metrics.UPKEEP_FAILED.labels(service.name).inc()
            log.exception("upkeep failed, and is tried again in an hour", service=service.name, cause=first_line(error))
            return
        log.info(
            "upkeep",
            service=service.name,
            partitions_made=len(done.outbox.created),
            partitions_dropped=len(done.outbox.dropped),
            held_back=done.outbox.held_back,
            inbox_rows_removed=done.inbox_rows_removed,
        )

    @app.on_before_shutdown.connect
    async def close_outside(*_: Any, **__: Any) -> None:
        close = getattr(outside, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
        if handover is not None:
            await asyncio.to_thread(handover.close)

    return app


async def _answer(
    unit: DatabaseUnit, answerer: Answerer, records: list[ConsumedRecord], now: datetime, service: str
) -> Answered:
    """Answer `records` in `unit`; where spans are recorded, replies and events are below those of their commands."""
    if not tracing.is_on():
        return await unit.run(partial(answerer.answer, records=records, now=now))
    with handling_all(records, service) as linked:
        try:
            return await unit.run(partial(answerer.answer, records=linked, now=now))
        except RecordFailed as error:
            # A dead letter is the record as it lies in its topic, without our header.
            own = {record.position: record for record in records}
            raise RecordFailed(own[error.record.position], error.cause) from error
