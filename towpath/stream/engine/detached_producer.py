"""Sends from outside a record's processing (a timer, a task, a web request): in a transaction of their own.

The one rule: they never slip into a unit of work that happens to be open. Sends that wait together share a transaction.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog

from towpath.errors import TowpathError
from towpath.stream.broker.port import OutcomeUnknown, OutputRefused, Producer, ProducerFenced
from towpath.stream.broker.record import Headers

log = structlog.get_logger("towpath.stream.engine.detached_producer")

SENDS_PER_TRANSACTION_MAX = 500


@dataclass(frozen=True, slots=True)
class Send:
    """A record to send."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None
    timestamp_milliseconds: int | None


class DetachedProducer:
    """A second producer of the worker, started with the first send."""

    def __init__(self, new_producer: Callable[[], Producer], *, name: str) -> None:
        self._new_producer = new_producer
        self._producer: Producer | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Send, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    def send(self, send: Send) -> asyncio.Future[None]:
        """Return a future that is done once the record is committed; it raises what kept it from that."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((send, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return future

    async def _work(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting[:SENDS_PER_TRANSACTION_MAX], self._waiting[SENDS_PER_TRANSACTION_MAX:]
            try:
                await self._in_thread(self._transact, [send for send, _ in now])
            except OutputRefused as error:
                # One of them is at fault, and the others are not made to pay for it.
                await self._one_by_one(now, error)
            except TowpathError as error:
                log.warning("sends outside a unit of work failed", records=len(now), reason=error.cause)
                for _, future in now:
                    if not future.done():
                        future.set_exception(error)
            else:
                for _, future in now:
                    if not future.done():
                        future.set_result(None)

    async def _one_by_one(self, sends: list[tuple[Send, "asyncio.Future[None]"]], refused: OutputRefused) -> None:
        for send, future in sends:
            error: TowpathError | None = refused
            if len(sends) > 1:
                try:
                    await self._in_thread(self._transact, [send])
                    error = None
                except TowpathError as own:
                    error = own
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _transact(self, sends: list[Send]) -> None:
        if self._producer is None:
            producer = self._new_producer()
            producer.start()
            self._producer = producer
        producer = self._producer
        try:
            producer.begin()
            for send in sends:
                producer.produce(
                    send.topic,
                    send.value,
                    key=send.key,
                    headers=send.headers,
                    partition=send.partition,
                    timestamp_milliseconds=send.timestamp_milliseconds,
                )
            producer.commit({}, None)
        except (OutcomeUnknown, ProducerFenced):
            # The next one settles what this one left.
            producer.close()
            self._producer = None
            raise
        except TowpathError:
            producer.abort()
            raise

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    async def close(self) -> None:
        """Send what waits, then close."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._producer is not None:
            await self._in_thread(self._producer.close)
        self._executor.shutdown(wait=False)
