"""A partition whose store cannot be opened at once is served once it can."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from tests.unit.stream.support import memory_broker
from towpath.clock import SystemClock
from towpath.errors import WorldError
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.recovery import Recovery
from towpath.stream.state.partition_state import MemoryStore, Store
from towpath.stream.state.stores import PartitionStores


def test_a_store_that_another_process_holds_is_opened_once_it_lets_go() -> None:
    """Nothing gives the partition up meanwhile, and nothing has to be restarted."""
    attempts = 0

    def open_store(changelog: TopicPartition) -> Store:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise WorldError(f"{changelog} is held by another process")
        return MemoryStore()

    async def main() -> None:
        stores = PartitionStores(("counts",), parks=False)
        restoring = Recovery(memory_broker(), stores, open_store, SystemClock(), application="app")
        restoring.begin([0])
        async with asyncio.timeout(10):
            while restoring.finished() != ({0}, {}):
                await asyncio.sleep(0.01)
        await restoring.close()

    asyncio.run(main())
    assert attempts == 3


def test_a_partition_that_is_given_away_is_waited_for_no_longer() -> None:
    """A rebalance is not held up by a store that cannot be opened."""

    def open_store(changelog: TopicPartition) -> Store:
        raise WorldError(f"{changelog} is held by another process")

    async def main() -> None:
        stores = PartitionStores(("counts",), parks=False)
        restoring = Recovery(memory_broker(), stores, open_store, SystemClock(), application="app")
        restoring.begin([0])
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            await restoring.withdraw([0])
        assert restoring.finished() == (set(), {})

    asyncio.run(main())


def test_catch_ups_leave_the_loop_its_threads() -> None:
    """What the loop asks in a thread is answered beside them: they took all there were, and a turn lasted as long."""
    going_on = Event()

    def open_store(changelog: TopicPartition) -> Store:
        going_on.wait(30)
        return MemoryStore()

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        stores = PartitionStores(("counts",), parks=False)
        restoring = Recovery(memory_broker(partitions=8), stores, open_store, SystemClock(), application="app")
        restoring.begin(range(8))
        await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(int, "7") == 7
        finally:
            going_on.set()
            await restoring.close()

    asyncio.run(main())
