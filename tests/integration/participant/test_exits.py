"""What ends a process, raised by a handler of a service: no effect is kept, and the worker says where it stands."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence

import pytest

from schemas.records.catalog import OutOfStock, ReserveStock, StockReserved
from tests.integration.participant.test_worker import STREAM, World, reserve, world
from tests.integration.stream.test_database_blocking import BLOCKS_SECONDS
from tests.unit.stream.test_blocking import BLOCKING
from tests.unit.stream.test_handler_exits import EXITS
from towpath.contract.record import Record
from towpath.participant import Context, Service, handle, handle_each
from towpath.stream.engine.failures import HandlerExit

__all__ = ["world"]

pytestmark = pytest.mark.stack


def reserve_one(context: Context[ReserveStock]) -> Record:
    context.connection.execute("UPDATE product SET reserved = reserved + 1")
    return StockReserved(order_id=context.key, reservation_id="r")


def one_by_one(error: BaseException) -> Service:
    """Return a service whose handler takes one command at a time, and may refuse: in a savepoint."""

    def handler(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        reply = reserve_one(context)
        if command.order_id == "BAD":
            raise error
        return reply

    return Service("catalog", handlers=[handle_each(ReserveStock, handler, succeeds=StockReserved, fails=OutOfStock)])


def batches(error: BaseException) -> Service:
    """Return a service whose handler takes all commands of a batch at once."""

    def handler(contexts: Sequence[Context[ReserveStock]]) -> Sequence[Record]:
        replies = [reserve_one(context) for context in contexts]
        if any(context.key == "BAD" for context in contexts):
            raise error
        return replies

    return Service("catalog", handlers=[handle(ReserveStock, handler, succeeds=StockReserved, fails=OutOfStock)])


FORMS = pytest.mark.parametrize("raising", [one_by_one, batches], ids=lambda form: form.__name__)
Raising = Callable[[BaseException], Service]


def ask_for_three(world: World) -> None:
    for order_id in ("o-1", "BAD", "o-2"):
        record = reserve(order_id).arriving(0)
        world.broker.append("catalog.commands", record.value, key=record.key, headers=record.headers, partition=0)


def offsets(world: World) -> int:
    return int(world.asked.rows("SELECT coalesce(sum(next_offset), 0)::int FROM towpath_offsets")[0][0])


@FORMS
@pytest.mark.parametrize("exit_", EXITS, ids=lambda kind: kind.__name__)
def test_what_ends_a_process_ends_a_services_worker_before_its_command(
    world: World, raising: Raising, exit_: type[BaseException]
) -> None:
    """No effect, reply, mark or letter of the unit stays, the error names the position; mended, each is answered."""
    ask_for_three(world)
    place = "@1" if raising is one_by_one else "@0 to 2"
    with pytest.raises(HandlerExit, match=rf"catalog\.commands\[0\]{place}: {exit_.__name__} "):
        world.run(lambda: False, raising(exit_(0)))
    kept = (world.count("place_order.replies"), world.count("catalog.commands.dead"), world.reserved(), offsets(world))
    assert kept == (0, 0, 0, 0)
    assert world.asked.rows("SELECT count(*) FROM inbox") == [(0,)]
    world.run(lambda: world.count("place_order.replies") == 3)
    assert (world.count("catalog.commands.dead"), world.reserved()) == (0, 3)


@FORMS
def test_a_cancellation_in_a_service_is_its_commands_failure_alone(world: World, raising: Raising) -> None:
    """CancelledError is no order to end: its command is dead after its attempts, all others are answered."""
    ask_for_three(world)
    world.run(
        lambda: world.count("place_order.replies") == 2 and world.count("catalog.commands.dead") == 1,
        raising(asyncio.CancelledError()),
    )
    assert (world.reserved(), offsets(world)) == (2, 3)
    ((key, letter),) = world.asked.rows("SELECT key, dead FROM outbox WHERE topic = 'catalog.commands.dead'")
    said = json.loads(letter)
    assert (key, said["error"], said["attempts"]) == ("BAD", "CancelledError", STREAM.handler_attempts_max)


@pytest.mark.parametrize("mode", ["one by one", "batches"])
def test_a_handler_that_blocks_is_its_commands_failure_alone(world: World, mode: str) -> None:
    """It holds the unit's own thread past the transaction's end; the others are answered, each once."""

    def one(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        reply = reserve_one(context)
        if command.order_id == "BAD":
            time.sleep(BLOCKS_SECONDS)
        return reply

    def several(contexts: Sequence[Context[ReserveStock]]) -> Sequence[Record]:
        return [one(context.command, context) for context in contexts]

    handling = (
        handle_each(ReserveStock, one, succeeds=StockReserved, fails=OutOfStock)
        if mode == "one by one"
        else handle(ReserveStock, several, succeeds=StockReserved, fails=OutOfStock)
    )
    world.settings = world.settings.model_copy(update={"stream": BLOCKING})
    ask_for_three(world)
    counted = ("place_order.replies", "catalog.commands.dead")
    world.run(lambda: [world.count(topic) for topic in counted] == [2, 1], Service("catalog", handlers=[handling]))
    ((key, dead),) = world.asked.rows("SELECT key, dead FROM outbox WHERE topic = 'catalog.commands.dead'")
    letter = json.loads(dead)
    assert (key, letter["error"], letter["attempts"]) == ("BAD", "HandlerTooSlow", BLOCKING.handler_attempts_max)
    assert (world.reserved(), offsets(world)) == (2, 3)
