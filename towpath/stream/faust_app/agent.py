"""A Faust application on this transport: what a user's file imports.

The one rule: everything idiomatic in Faust stays as it is; what is new is `app.batch_topic` and `app.unit`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Literal

import faust
from faust.serializers.schemas import Schema
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.topics import Topic
from faust.types import TP, RecordMetadata
from faust.worker import Worker

from towpath.clock import Clock, SystemClock
from towpath.errors import ConfigurationError, TowpathError
from towpath.settings import Settings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import Batch, ConsumedRecord
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.batch_size import Gathering
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.options import DatabaseOptions, StreamOptions, check_options
from towpath.stream.engine.run import current_unit
from towpath.stream.engine.stalled import StallWatch, watching
from towpath.stream.engine.unit import KafkaUnit, Unit
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.faust_app import transport
from towpath.stream.faust_app.unsupported import refused_stream_method

DATA_FOLDER = Path("/tmp")  # noqa: S108 - Faust wants a folder; nothing of ours is written there
STREAM_BUFFER_RECORDS = 65_536


class StreamTables(TableManager):
    """Faust's place for tables, of which there are none: flow resumes at once after a rebalance."""

    resumes_at_once = True

    async def on_start(self) -> None:
        """Wait for nothing."""
        self._tables_finalized.set()
        self._tables_registered.set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Do nothing: there is nothing to flush."""

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:
        """Let records flow: the loop holds back partitions that are not served yet."""
        app = self.app
        await app.on_rebalance_complete.send()
        app.flow_control.resume()
        app.consumer.resume_flow()
        self.on_actives_ready()
        self.on_standbys_ready()

    async def wait_until_recovery_completed(self) -> bool:
        """Return at once."""
        return False

    async def on_stop(self) -> None:
        """Do nothing."""


class StreamStream(Stream[Any]):
    """A Faust stream without what would acknowledge out of order, or send from a task of its own."""

    def noack(self) -> Any:
        """Refuse."""
        raise refused_stream_method("noack", "let the stream acknowledge: the unit of work waits for it")

    def take(self, max_: int, within: Any) -> Any:
        """Refuse."""
        raise refused_stream_method("take", "take batches: `@app.agent(app.batch_topic(name))`")

    def take_events(self, max_: int, within: Any) -> Any:
        """Refuse."""
        raise refused_stream_method("take_events", "take batches: `@app.agent(app.batch_topic(name))`")

    def take_with_timestamp(self, max_: int, within: Any, timestamp_field_name: str) -> Any:
        """Refuse."""
        raise refused_stream_method("take_with_timestamp", "take batches: `@app.agent(app.batch_topic(name))`")

    def group_by(self, *arguments: Any, **options: Any) -> Any:
        """Refuse."""
        raise refused_stream_method("group_by", "send to a declared topic under the new key, and take that one")

    def through(self, channel: Any) -> Any:
        """Refuse."""
        raise refused_stream_method("through", "send to the topic, and take it with an agent of its own")


class _Sent:
    """What `await topic.send(...)` gives inside a unit: awaited once more, the record's place, so far unknown."""

    __slots__ = ("_metadata",)

    def __init__(self, metadata: RecordMetadata) -> None:
        self._metadata = metadata

    def __await__(self) -> Generator[None, None, RecordMetadata]:
        yield from ()
        return self._metadata


class StreamTopic(Topic):
    """A topic that takes the short way for raw bytes inside a unit of work: half of what Faust's own way costs."""

    def _is_raw(self) -> bool:
        conf = self.app.conf
        serializers = {self.key_serializer or conf.key_serializer, self.value_serializer or conf.value_serializer}
        return serializers == {"raw"} and self.key_type is self.value_type is None and type(self.schema) is Schema

    def _compile_decode(self) -> None:
        self._raw = self._is_raw()
        if not self._raw:
            super()._compile_decode()
            return
        app = self.app

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(message.key, message.value, message.headers, message)

        self.decode = decode  # type: ignore[method-assign]

    async def send(self, **options: Any) -> Any:
        """Send as Faust does; raw bytes from inside a Kafka unit go straight into it, unless a sensor watches."""
        unit = current_unit.get()
        if isinstance(unit, KafkaUnit) and self._raw and self._may_go_straight(options):
            return self._send_straight(unit, **options)
        return await super().send(**options)

    def _may_go_straight(self, options: dict[str, Any]) -> bool:
        sensors: Any = self.app.sensors
        return (
            options.keys() <= _PLAIN_OPTIONS
            and isinstance(options.get("key"), bytes | None)
            and isinstance(options.get("value"), bytes | None)
            # Faust's own monitor and ours.
            and len(sensors._sensors) <= 2
        )

    def _send_straight(
        self,
        unit: KafkaUnit,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> _Sent:
        topic = self.get_topic_name()
        unit.send(
            topic,
            value,
            key=key,
            headers=tuple(headers.items() if isinstance(headers, dict) else headers or ()),
            partition=partition,
            timestamp_milliseconds=None if timestamp is None else int(timestamp * 1000),
        )
        place = -1 if partition is None else partition
        return _Sent(RecordMetadata(topic, place, TP(topic, place), -1))


_PLAIN_OPTIONS = {"key", "value", "headers", "partition", "timestamp"}


class BatchTopic(StreamTopic):
    """A topic whose agents get `Batch` objects: one list of records per partition and unit of work."""

    takes_batches = True

    def _compile_decode(self) -> None:
        self._raw = self._is_raw()
        app = self.app

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, None, message)

        self.decode = decode  # type: ignore[method-assign]


class StreamWorker(Worker):
    """Faust's worker for logs: no spinner, and no two seconds at its end for tasks that might still run."""

    def __init__(self, app: "StreamApp", **options: Any) -> None:
        super().__init__(app, quiet=True, override_logging=False, redirect_stdouts=False, **options)
        self.spinner = None

    async def _sentinel_task(self) -> None:
        """Wait for nothing: `StreamApp.on_stop` has waited for the unit of work, and nothing else counts."""

    def _gather_all(self) -> None:
        for task in asyncio.all_tasks(loop=self.loop):
            task.cancel()


class StreamApp(faust.App):
    """A `faust.App` on the transport `towpath://`."""

    stream_options: StreamOptions
    ended_by: TowpathError | None = None
    """What ended the worker, where it was neither a signal nor a defect."""

    def batch_topic(self, *names: str) -> BatchTopic:
        """Return a topic for `@app.agent(...)` whose stream yields `Batch` objects."""
        return BatchTopic(self, topics=list(names))

    @property
    def unit(self) -> Any:
        """Return the unit of work of the record that is being handled.

        A `KafkaUnit` (send, state, timers, dead_letter) or a `DatabaseUnit` (run, dead_letter), as the application
        was created. Raises ConfigurationError outside an agent.
        """
        unit = current_unit.get()
        if unit is None:
            raise ConfigurationError(
                "there is no unit of work here",
                next_step="use app.unit inside an agent; elsewhere a send has a transaction of its own",
            )
        return unit

    def run_worker(self, *, loglevel: str = "warning") -> None:
        """Run a worker until SIGTERM or SIGINT; exits the process with 0, or 1 after a crash.

        Raises what ended the worker where that is an error of ours: its exit code says who must act. One that stalls in
        a handler that never comes back ends the process with 1, and waits for nothing. Logs go where the process has
        set them up (`towpath.logs.configure_logs`); `loglevel` is for Faust's own.
        """
        for name in ("faust", "mode"):
            logging.getLogger(name).setLevel(loglevel.upper())
        try:
            with watching(self._stall_watch, self.stream_options.settings):
                StreamWorker(self).execute_from_commandline()
        finally:
            if self.ended_by is not None:
                raise self.ended_by

    def _stall_watch(self) -> StallWatch | None:
        consumer: Any = self._consumer
        units = None if consumer is None else consumer.loop_of_units
        return None if units is None else units.stall_watch()

    def _refuse_table(self, *arguments: Any, **options: Any) -> Any:
        raise ConfigurationError(
            "tables are not served by this transport",
            next_step="keep state with app.unit.state(changelog, partition): its changelog is part of the transaction",
        )

    Table = GlobalTable = SetTable = SetGlobalTable = _refuse_table

    async def on_stop(self) -> None:
        """Let the open unit of work finish before agents are stopped."""
        consumer: Any = self._consumer
        if consumer is not None:
            await consumer.finish()
        await super().on_stop()


def create_app(
    name: str,
    settings: Settings,
    *,
    slot: str,
    unit_of_work: Literal["kafka", "database"] = "kafka",
    database: DatabaseOptions | None = None,
    states: Sequence[str] = (),
    timers_topic: str | None = None,
    parks_keys: bool = True,
    limits: RecordLimits | None = None,
    memory_stores: bool = False,
    hold_deadlines: Callable[[], bool] | None = None,
    hold_timer: Callable[[bytes], bool] | None = None,
    world_errors: tuple[type[BaseException], ...] = (),
    learn: Callable[[BaseException], BaseException] | None = None,
    on_ready: Callable[[], Awaitable[None]] | None = None,
    gathering: Gathering | None = None,
    on_status: Callable[[WorkerStatus], None] | None = None,
    broker: Broker | None = None,
    clock: Clock | None = None,
    **faust_options: Any,
) -> StreamApp:
    """Return an application whose agents are exactly once.

    `name` is the consumer group and the prefix of the transactional id. `slot` tells this worker from its siblings:
    stable over restarts, unique among live workers. `states` are changelog topics, the first of which also keeps
    timers and parked keys; `timers_topic` is where the records of due timers go. `hold_deadlines` is asked before
    timers fire, and holds them while it returns True; `hold_timer` is asked about each by its key. `limits` says how
    large a record each topic takes, where that is not Kafka's default. `gathering` says how long records may gather
    under load. `on_status` is told how the worker stands, whenever that changes; it must not block for long. `broker`
    is the real one unless a test gives its memory broker.
    Raises ConfigurationError where these contradict each other.
    """
    folder = settings.stream.state_folder
    options = StreamOptions(
        application=name,
        slot=slot,
        broker=broker or KafkaBroker(settings.kafka, settings.stream, limits),
        limits=limits or RecordLimits(),
        settings=settings.stream,
        clock=clock or SystemClock(),
        unit_of_work=unit_of_work,
        database=database,
        states=tuple(states),
        timers_topic=timers_topic,
        parks_keys=parks_keys,
        state_folder=None if memory_stores else (settings.root / folder).resolve(),
        hold_deadlines=hold_deadlines,
        hold_timer=hold_timer,
        world_errors=world_errors,
        learn=learn,
        on_ready=on_ready,
        gathering=gathering,
        on_status=on_status,
    )
    check_options(options)
    app = StreamApp(
        name,
        broker="towpath://",
        store="memory://",
        datadir=DATA_FOLDER / f"towpath-faust-{name}",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_buffer_maxsize=STREAM_BUFFER_RECORDS,
        stream_wait_empty=False,
        key_serializer="raw",
        value_serializer="raw",
        TableManager=StreamTables,
        Stream=StreamStream,
        Topic=StreamTopic,
        **faust_options,
    )
    app.stream_options = options
    return app


__all__ = [
    "Batch",
    "BatchTopic",
    "ConsumedRecord",
    "DatabaseOptions",
    "RecordFailed",
    "StreamApp",
    "Unit",
    "create_app",
    "transport",
]
