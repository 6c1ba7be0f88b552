"""Faust's transport under the scheme `towpath://`: plain Faust agents above, the loop of units of work below.

The one rule: Faust moves messages to agents and back, and decides nothing. Offsets, transactions, rebalances, state
and failures are the loop's; every way in which Faust would decide about them is replaced here, or refused at start.
"""

import asyncio
import gc
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import faust.streams
import structlog
from faust.agents import agent as faust_agent
from faust.exceptions import DecodeError
from faust.sensors.base import Sensor
from faust.transport import base
from faust.transport.drivers import TRANSPORTS
from faust.types import TP, ConsumerMessage, RecordMetadata

from towpath import metrics
from towpath.errors import PeerError, ProgrammerError, TowpathError, WorldError
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import Batch, ConsumedRecord, Headers, TopicPartition
from towpath.stream.engine.detached_producer import DetachedProducer, Send
from towpath.stream.engine.failures import HandlerTooSlow, backoff_seconds, handler_exit, named_in
from towpath.stream.engine.loop import UnitLoop
from towpath.stream.engine.options import StreamOptions, check_options, session_seconds
from towpath.stream.engine.run import Run, current_unit
from towpath.stream.engine.slot import this_process, wait_for_slot
from towpath.stream.engine.unit import KafkaUnit, Unit
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.faust_app.unsupported import refuse_app, refuse_topics
from towpath.stream.faust_app.wiring import build_loop, check_counts, options_from_url

log = structlog.get_logger("towpath.stream.faust_app.transport")

# Faust's Cython iterator acknowledges by writing into the consumer's own books, past `Message.ack`; it is chosen
# by this name whenever a stream is iterated.
faust.streams._CStreamIterator = None  # type: ignore[attr-defined,unused-ignore]

GARBAGE_THRESHOLD = 20_000
"""New objects between two looks of the collector: about ten batches' worth. Python's default is 700, less than one."""
STOP_SECONDS_MAX = 4.0
"""How long a stopping worker lets its open unit finish before it is aborted."""


class Undecodable(PeerError):
    """A record's key or value is not what its topic's agents decode."""


class UnitMessage(ConsumerMessage):
    """A message that belongs to a run: one record, or a partition's list of them."""

    __slots__ = ("entered", "records", "run")
    use_tracking = False

    run: Run
    records: list[ConsumedRecord]
    entered: bool

    def on_final_ack(self, consumer: Any) -> bool:
        """Count it as handled, unless the stream only skipped it."""
        self.acked = True
        if self.entered:
            self.run.handled()
        return True


current_message: ContextVar[UnitMessage | None] = ContextVar("towpath_current_message", default=None)


class UnitSensor(Sensor):
    """Tells, in the agent's own task, which unit of work the record that it takes belongs to."""

    def on_stream_event_in(self, tp: TP, offset: int, stream: Any, event: Any) -> None:
        """Note that an agent takes a record."""
        message = event.message
        if isinstance(message, UnitMessage):
            message.entered = True
            message.run.taken(message.records)
            current_unit.set(message.run.unit)
            current_message.set(message)


async def execute_actor(agent: Any, coroutine: Any, actor: Any) -> None:
    """Run an agent for ever, in place of `Agent._execute_actor`.

    A failure is told to the run of the record that was being handled, and the agent begins anew at once on the same
    stream: Faust's supervisor would take up to five seconds for that, and stop the worker at 100 a second.
    """
    faust_agent._current_agent.set(agent)
    stream = actor.stream.get_active_stream()
    # Strong references, until `_begin_anew` has closed the iterators in order: one that the garbage collector closes
    # instead, some time later, would stop the stream which the agent by then iterates anew.
    stream._active_agens = set()
    while True:
        try:
            await coroutine
            if agent.should_stop or agent.app.should_stop or actor.stream.should_stop:
                return
            raise ProgrammerError(
                f"agent {agent.name} returned",
                next_step="let it iterate its stream for ever: `async for ... in stream`",
            )
        except BaseException as error:
            # Also what is no Exception: left to leave the task, it would close the stream, and closing acknowledges.
            await _after(error, agent, actor)
        current_message.set(None)
        coroutine = await _begin_anew(agent, actor, stream)


async def _after(error: BaseException, agent: Any, actor: Any) -> None:
    """Tell the run of the record that was being handled; raise where the agent is to end, with its worker or alone."""
    message = current_message.get()
    handling = message is not None and not message.acked
    if isinstance(error, asyncio.CancelledError):
        if agent.should_stop or agent.app.should_stop or actor.stream.should_stop:
            if handling:
                message.run.interrupt()  # type: ignore[union-attr]
            raise error
        # By the run's time limit, or by the handler itself: the task has to be whole again for the next record.
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        if message is not None and message.run.too_slow:
            return  # its run has failed already, for being too slow
    if handling:
        message.run.fail(*_culprit(error, message, agent.app.consumer.options))  # type: ignore[union-attr, arg-type]
        return
    ended = error if isinstance(error, Exception) else handler_exit(error, f"agent {agent.name}, outside any record")
    await agent.app.consumer.crash(ended)
    raise ended from error


def _culprit(
    error: BaseException, message: UnitMessage, options: StreamOptions
) -> tuple[BaseException, list[ConsumedRecord]]:
    named = named_in(error, options.world_errors)
    return (error, message.records) if named is None else (named.cause, [named.record])


async def _begin_anew(agent: Any, actor: Any, stream: Any) -> Any:
    iterators, stream._active_agens = stream._active_agens, set()
    for iterator in iterators:
        await iterator.aclose()
    result = agent.fun(actor.stream)
    actor.it = result
    return agent._slurp(actor, aiter(actor)) if isinstance(result, AsyncIterable) else actor


class Producer(base.Producer):
    """Sends into the unit of work of the record that is being handled; from elsewhere, a transaction of its own."""

    def __init__(self, transport: Any, **options: Any) -> None:
        super().__init__(transport, **options)
        stream: StreamOptions = transport.options
        self._aside = DetachedProducer(
            lambda: stream.broker.producer(f"{stream.transactional_id}-aside"), name=f"{stream.application}-aside"
        )

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Any:
        """Send a record; the future is done at once inside a unit, since its commit is what makes it true."""
        return self._send(topic, key, value, partition, timestamp, headers)

    def _send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
    ) -> "asyncio.Future[RecordMetadata]":
        flat: Headers = tuple(headers.items() if isinstance(headers, Mapping) else headers or ())
        milliseconds = None if timestamp is None else int(timestamp * 1000)
        unit = current_unit.get()
        place = -1 if partition is None else partition
        metadata = RecordMetadata(topic, place, TP(topic, place), -1)
        answer: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        if unit is None:
            done = self._aside.send(Send(topic, value, key, flat, partition, milliseconds))
            done.add_done_callback(partial(_pass_on, answer, metadata))
            return answer
        if not isinstance(unit, KafkaUnit):
            raise ProgrammerError(
                f"an agent of a database unit sends to {topic}: that record would not stand or fall with the database",
                next_step="write it into the database's outbox: towpath.outbox.postgres.write(connection, ...)",
            )
        unit.send(topic, value, key=key, headers=flat, partition=partition, timestamp_milliseconds=milliseconds)
        answer.set_result(metadata)
        return answer

    async def send_and_wait(self, *arguments: Any, **options: Any) -> RecordMetadata:
        """Send, and wait until it is in its unit, or committed where it has none."""
        future: asyncio.Future[RecordMetadata] = await self.send(*arguments, **options)
        return await future

    def send_soon(self, fut: Any) -> None:
        """Send in the caller's own unit, now: Faust would send from a task of its own, later."""
        message = fut.message
        topic = message.topic or message.channel.get_topic_name()
        sent = self._send(topic, message.key, message.value, message.partition, message.timestamp, message.headers)
        sent.add_done_callback(partial(_pass_on, fut, None))

    async def flush(self) -> None:
        """Do nothing: a commit flushes."""

    async def create_topic(self, *arguments: Any, **options: Any) -> None:
        """Create nothing: topics are declared in `schemas/topics`."""

    def supports_headers(self) -> bool:
        """Return True."""
        return True

    async def on_stop(self) -> None:
        """Finish what was sent aside."""
        await self._aside.close()


def _pass_on(answer: Any, result: Any, done: "asyncio.Future[Any]") -> None:
    if answer.done() or done.cancelled():
        return
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result() if result is None else result)


class Consumer(base.Consumer):
    """Stands between Faust and the loop: the `Agents` of the loop, and the consumer of Faust."""

    consumer_stopped_errors = ()

    def __init__(self, transport: Any, **options: Any) -> None:
        super().__init__(transport, **options)
        self.options: StreamOptions = transport.options
        self.loop_of_units: UnitLoop | None = None
        self._run: Run | None = None
        self._settled = False
        self._finishing: asyncio.Task[None] | None = None
        self._worker: asyncio.Future[None] | None = None

    async def on_start(self) -> None:
        """Check, and build the loop; it begins with the subscription, once agents have started."""
        check_options(self.options)
        refuse_app(self.app)
        for agent in self.app.agents.values():
            agent._execute_actor = partial(execute_actor, agent)
        self.loop_of_units = build_loop(self.options, self)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Check the topics, then join the group for them."""
        names = sorted(topics)
        refuse_topics(self.app, names)
        if not names:
            return
        try:
            await self._wait_for_kafka(names)
        except TowpathError as error:
            cast("Any", self.app).ended_by = error
            raise
        assert self.loop_of_units is not None
        await self.loop_of_units.subscribe(names)
        if self._worker is None:
            self._worker = self.add_future(self._work())

    async def _wait_for_kafka(self, names: list[str]) -> None:
        """Return once Kafka has answered that the topics fit each other, and nobody else holds this worker's slot.

        A worker may start before its broker. Raises ConfigurationError, SlotTaken.
        """
        failures = 0
        while True:
            try:
                await asyncio.to_thread(check_counts, self.options, names)
                await wait_for_slot(
                    self.options.broker,
                    self.options.application,
                    self.options.slot,
                    this_process(),
                    session_seconds(self.options.settings),
                    self.options.clock,
                )
                metrics.waits_for_dependency(self.options.application, False)
                return
            except WorldError as error:
                failures += 1
                seconds = backoff_seconds(failures)
                log.warning("waiting for Kafka to start", seconds=seconds, reason=error.cause)
                self._tell_waiting(error.cause)
                await asyncio.sleep(seconds)

    def _tell_waiting(self, reason: str) -> None:
        metrics.waits_for_dependency(self.options.application, True)
        if self.options.on_status is not None:
            status = WorkerStatus(
                application=self.options.application, slot=self.options.slot, is_member=False, waiting_for=reason
            )
            self.options.on_status(status)

    async def _work(self) -> None:
        assert self.loop_of_units is not None
        try:
            await self.loop_of_units.run()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.critical("worker stops", error=type(error).__qualname__, reason=str(error))
            if isinstance(error, TowpathError):
                cast("Any", self.app).ended_by = error
            await self.crash(error)

    # What the loop asks of the agents

    async def handle(self, unit: Unit, groups: Groups, seconds: float) -> None:
        """Give a unit's records to the agents and wait until they are done with them."""
        await self.can_resume_flow.wait()
        run = self._run = Run(unit)
        # Streams skip messages of any other generation: what an aborted run left in their queues is not handled.
        self.app.consumer_generation_id = unit.number
        try:
            async with asyncio.timeout(seconds):
                for partition, records in groups.items():
                    await self._give(run, partition, records)
                run.handled()
                await asyncio.shield(run.finished)
        except TimeoutError:
            # An agent that blocked may have been done with everything by the time that anybody could look.
            if not run.finished.done():
                self._cut_off(run, seconds)
            await run.finished
        finally:
            self._run = None

    def _cut_off(self, run: Run, seconds: float) -> None:
        slow = [records for task, records in run.tasks.items() if not task.done()]
        run.too_slow = True
        run.fail(
            HandlerTooSlow(
                f"agents were not done with a unit of work after {seconds} s",
                next_step="make the handler faster, or stream.batch_seconds_max (and the limits after it) longer",
            ),
            slow[0] if len(slow) == 1 else None,
        )
        for task in run.tasks:
            task.cancel()

    async def _give(self, run: Run, partition: TopicPartition, records: list[ConsumedRecord]) -> None:
        """Put a partition's records into the queues of the agents that take it, as Faust's conductor does."""
        await self.app.flow_control.acquire()
        place = TP(partition.topic, partition.partition)
        conductor: Any = self.app.topics
        channels = list(conductor._tp_index[place])
        if any(getattr(channel, "takes_batches", False) for channel in channels):
            batch = Batch(partition.topic, partition.partition, records)
            await self._deliver(run, place, channels, records, batch)
            return
        for record in records:
            if run.finished.done():
                return
            await self._deliver(run, place, channels, [record], record.value)

    async def _deliver(
        self, run: Run, place: TP, channels: list[Any], records: list[ConsumedRecord], value: Any
    ) -> None:
        last = records[-1]
        message = UnitMessage(
            place.topic,
            place.partition,
            last.offset,
            last.timestamp_milliseconds / 1000,
            0,
            cast("Any", last.headers),
            last.key,
            value,
            None,
            tp=place,
            generation_id=run.unit.number,
        )
        message.run, message.records, message.entered = run, records, False
        message.refcount = len(channels)
        run.given()
        for channel in channels:
            try:
                event = await channel.decode(message, propagate=True)
            except DecodeError as error:
                run.fail(Undecodable(f"{last.position}: {type(error).__name__}"), records)
                return
            if channel.queue.full():
                await channel.queue.put(event)
            else:
                channel.queue.put_nowait(event)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Tell Faust what is owned now."""
        if not self.app.rebalancing:
            self.app.on_rebalance_start()
        await self._tell_assigned({TP(*place) for place in partitions})

    async def _tell_assigned(self, places: set[TP]) -> None:
        await self.on_partitions_assigned(places, self.app.consumer_generation_id)
        # Faust's own tables end the rebalance by themselves, some time later.
        if getattr(self.app.tables, "resumes_at_once", False):
            self.app.on_rebalance_end()

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Tell Faust what was given away; what is left goes on."""
        if not self.app.rebalancing:
            self.app.on_rebalance_start()
        await self.on_partitions_revoked({TP(*place) for place in partitions})
        left = self.assignment()
        if left:
            await self._tell_assigned(left)

    async def ready(self) -> None:
        """Tell who asked to know that every owned partition is served."""
        assert self.loop_of_units is not None
        log.info("worker ready", partitions=sorted(map(str, self.loop_of_units.ownership.partitions)))
        if not self._settled:
            # What was made up to now stays: the collector need not look at it again for every few batches.
            self._settled = True
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
        if self.options.on_ready is not None:
            await self.options.on_ready()

    # Stopping

    async def finish(self) -> None:
        """Let the open unit finish, or abort it after a while; then leave the group."""
        if self._finishing is None:
            self._finishing = asyncio.create_task(self._finish())
        await asyncio.shield(self._finishing)

    async def _finish(self) -> None:
        units = self.loop_of_units
        if units is None:
            return
        units.stop()
        if self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker], timeout=STOP_SECONDS_MAX)
            if self._run is not None:
                self._run.interrupt()
            await asyncio.wait([self._worker], timeout=STOP_SECONDS_MAX)
        self.loop_of_units = None
        await units.close()

    def stop_flow(self) -> None:
        """End the open run: from here on Faust's streams skip what they are given."""
        super().stop_flow()
        if self._run is not None:
            self._run.interrupt()

    async def on_stop(self) -> None:
        """Finish."""
        await self.finish()

    # What Faust asks of a consumer

    def assignment(self) -> set[TP]:
        """Return what is owned."""
        if self.loop_of_units is None:
            return set()
        return {TP(*place) for place in self.loop_of_units.ownership.partitions}

    async def _drain_messages(self, fetcher: Any) -> None:
        await fetcher._stopped.wait()

    async def wait_empty(self) -> None:
        """Return at once: between units nothing is outstanding."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: units of work do."""
        return False

    async def on_task_error(self, exc: BaseException) -> None:
        """Do nothing: `execute_actor` has told the run."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek nothing: positions are the loop's."""
        return {}

    async def perform_seek(self) -> None:
        """Seek nothing: positions are the loop's."""

    async def _seek(self, partition: TP, offset: int) -> None:
        raise ProgrammerError("positions are moved by `towpath replay`, not by a seek in an agent")

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Refuse."""
        raise ProgrammerError("positions are moved by `towpath replay`, not by a seek in an agent")

    async def seek_to_beginning(self, *partitions: TP) -> None:
        """Refuse."""
        raise ProgrammerError("positions are moved by `towpath replay`, not by a seek in an agent")

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the oldest offsets."""
        found = await asyncio.to_thread(self.options.broker.begin_offsets, [TopicPartition(*p) for p in partitions])
        return {TP(*place): offset for place, offset in found.items()}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the high watermarks."""
        found = await asyncio.to_thread(self.options.broker.end_offsets, [TopicPartition(*p) for p in partitions])
        return {TP(*place): offset for place, offset in found.items()}

    def highwater(self, tp: TP) -> int:
        """Return the end last seen."""
        place = TopicPartition(*tp)
        units = self.loop_of_units
        return units.ownership.read_to(place, waiting=False) if units and place in units.ownership else 0

    async def position(self, tp: TP) -> int | None:
        """Return the next offset to process."""
        place = TopicPartition(*tp)
        units = self.loop_of_units
        return units.ownership.processed(place) if units and place in units.ownership else None

    def topic_partitions(self, topic: str) -> int | None:
        """Return None: Faust asks only for what it would declare itself."""
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Return the named partition: without one, the producer's partitioner decides."""
        return partition

    async def create_topic(self, *arguments: Any, **options: Any) -> None:
        """Create nothing: topics are declared in `schemas/topics`."""

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Mapping[TP, list[Any]]:
        return {}

    async def _commit(self, offsets: Any) -> bool:
        return False

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise NotImplementedError("messages are made by _deliver")


class Transport(base.Transport):
    """What Faust's registry finds under `towpath://`."""

    Consumer = Consumer
    Producer = Producer
    driver_version = "towpath"
    default_port = 9092

    def __init__(self, url: Any, app: Any, loop: Any = None) -> None:
        super().__init__(url, app, loop)
        given: StreamOptions | None = getattr(app, "stream_options", None)
        self.options = given or options_from_url(app.conf.id, url)
        app.conf.topic_disable_leader = True
        app.sensors.add(UnitSensor())


TRANSPORTS.aliases["towpath"] = "towpath.stream.faust_app.transport:Transport"
