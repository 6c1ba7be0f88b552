"""The Faust agent that runs one saga: a list of records per partition and unit of work goes through `Orchestrator`.

The one rule: a failure names its record, so that the rest of the batch is not made to pay for it.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from towpath import tracing
from towpath.contract.codec import Codec
from towpath.orchestrator import envelope
from towpath.orchestrator.core import Orchestrator
from towpath.orchestrator.saga_metrics import Tally
from towpath.saga.definition import Definition
from towpath.settings import Settings
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.record_spans import handling
from towpath.stream.faust_app.agent import RecordFailed, StreamApp, create_app


def application_name(settings: Settings, saga: str) -> str:
    """Return the consumer group of the workers that run `saga`."""
    return f"{settings.project.name}-saga-{saga}"


def create_orchestrator(
    settings: Settings,
    definitions: Mapping[int, Definition],
    codec: Codec,
    *,
    slot: str,
    start_topic: str | tuple[str, ...] | None,
    declared_topics: Collection[str],
    hold_deadlines: Callable[[], bool] | None = None,
    on_ready: Callable[[], Awaitable[None]] | None = None,
    limits: RecordLimits | None = None,
    **stream_options: Any,
) -> StreamApp:
    """Return the application that runs all versions of one saga.

    `slot` tells this worker from its siblings. `start_topic` is None for a saga that only other sagas start, and
    several topics where its start events lie in several.
    `declared_topics` are the catalogue's: a saga without waits needs no signals topic; `limits` are what its topics
    take (None: Kafka's default). `hold_deadlines` says whether
    capture is behind, so that deadlines must not fire. Raises ConfigurationError where the stream's settings
    contradict each other.
    """
    tally = Tally(definitions[max(definitions)].name)
    orchestrator = Orchestrator(
        definitions,
        codec,
        start_topic=start_topic,
        finished_retention_milliseconds=int(settings.saga.finished_retention_days * 86_400_000),
        observe=tally.note,
        limits=limits,
    )
    app = create_app(
        application_name(settings, orchestrator.name),
        settings,
        slot=slot,
        states=(envelope.topic_of(orchestrator.name, envelope.STATE),),
        timers_topic=envelope.topic_of(orchestrator.name, envelope.TIMERS),
        hold_deadlines=hold_deadlines,
        on_ready=on_ready,
        limits=limits or RecordLimits(),
        **stream_options,
    )
    topics = [topic for topic in orchestrator.topics if topic in declared_topics]

    @app.agent(app.batch_topic(*topics))
    async def run_saga(batches: Any) -> None:
        async for batch in batches:
            unit = app.unit
            tally.clear()
            with_spans = tracing.is_on()
            for record in batch:
                try:
                    if with_spans:
                        with handling(record, orchestrator.name):
                            orchestrator.handle(record, unit)
                    else:
                        orchestrator.handle(record, unit)
                except BaseException as error:  # whatever it is, the record's position goes with it
                    raise RecordFailed(record, error) from error
            tell = tally.take()
            if tell is not None:
                unit.after_commit(tell)

    return app
