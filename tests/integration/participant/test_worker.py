"""A whole worker of a service, on a real database and the broker in memory: failures of every kind."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from pipelines.services.catalog import list_product, service
from schemas.records.catalog import OutOfStock, ReleaseStock, ReserveStock, StockLine, StockReleased, StockReserved
from tests.commands import CODEC, Asking
from tests.integration.service_fixture import Asked, NewService
from towpath import metrics
from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.errors import ConfigurationError
from towpath.outbox.handover import Handover
from towpath.outbox.message import OutboxMessage
from towpath.outbox.partitions import partition_name
from towpath.participant import Context, Service, agent, handle, handle_each, undo_each
from towpath.participant.agent import create_participant
from towpath.settings import ParticipantSettings, StreamSettings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.faust_app.agent import StreamApp

pytestmark = pytest.mark.stack
STREAM = StreamSettings(
    batch_records_max=50,
    batch_seconds_max=4.0,
    transaction_timeout_seconds=5.0,
    session_timeout_seconds=6.0,
    poll_interval_seconds_max=30.0,
    dead_letter_share_max=1.0,
)


class World:
    """A catalog service with one product, its commands in a broker, and its worker."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.handover: Handover | None = None
        self.settings = asked.settings.model_copy(update={"stream": STREAM})
        self.broker = MemoryBroker(STREAM)
        for topic in ("catalog.commands", "catalog.commands.dead"):
            self.broker.create_topic(topic, 4)
        with asked.connection.transaction():
            list_product(
                asked.connection, CODEC, sku="vase", name="Vase", unit_price_cents=900, on_hand=1000, event_id=uuid4()
            )

    def app(self, served: Service | None = None) -> StreamApp:
        """Return a worker."""
        return create_participant(
            self.settings,
            served or service,
            CODEC,
            Catalogue.load(self.settings),
            slot="a",
            broker=self.broker,
            handover=self.handover,
        )

    def send(self, asking: Asking, **changes: Any) -> None:
        """Append a command to its topic."""
        record = asking.arriving(0, **changes)
        self.broker.append("catalog.commands", record.value, key=record.key, headers=record.headers)

    def run(self, until: Callable[[], bool], served: Service | None = None, *, seconds: float = 30.0) -> None:
        """Run a worker until something holds."""

        async def main() -> None:
            app = self.app(served)
            await app.start()
            try:
                async with asyncio.timeout(seconds):
                    while not await asyncio.to_thread(until):
                        if app.crash_reason is not None:
                            raise app.crash_reason
                        await asyncio.sleep(0.02)
            finally:
                await app.stop()

        asyncio.run(main())

    def count(self, topic: str) -> int:
        """Return how many messages of a topic lie in the outbox."""
        return int(self.asked.rows(f"SELECT count(*) FROM outbox WHERE topic = '{topic}'")[0][0])

    def reserved(self) -> int:
        """Return how many vases are promised."""
        return int(self.asked.rows("SELECT reserved FROM product")[0][0])


@pytest.fixture
def world(new_service: NewService) -> World:
    """Return the service and its broker."""
    return World(new_service(service))


def reserve(order_id: str, quantity: int = 1, sku: str = "vase") -> Asking:
    """Return the command that reserves vases."""
    lines = (StockLine(sku=sku, quantity=quantity),)
    return Asking(ReserveStock(order_id=order_id, lines=lines), key=order_id, step="stock")


def test_commands_are_answered_once_over_restarts(world: World) -> None:
    """A second worker goes on where the first stopped; what is sent again is answered from the record."""
    for number in range(60):
        world.send(reserve(f"o-{number}"))
    world.run(lambda: world.count("place_order.replies") == 60)
    for number in range(60):
        world.send(reserve(f"o-{number}").again())
    world.run(lambda: world.count("place_order.replies") == 120)
    assert world.reserved() == 60


def test_a_lost_database_connection_loses_and_repeats_nothing(world: World) -> None:
    """However often it is lost, no command is to blame: the batch is rolled back, and tried again."""
    cuts: list[int] = []

    def cut(contexts: Sequence[Context[ReserveStock]]) -> Sequence[Record]:
        replies = service.handlings[ReserveStock].handler(contexts)
        if len(cuts) <= STREAM.handler_attempts_max:
            cuts.append(contexts[0].connection.info.backend_pid)
            world.asked.rows(f"SELECT pg_terminate_backend({cuts[-1]})")
            contexts[0].connection.execute("SELECT 1")
        return replies

    world.send(reserve("o-1"))
    cutting = Service("catalog", handlers=[handle(ReserveStock, cut, succeeds=StockReserved, fails=OutOfStock)])
    world.run(lambda: world.count("place_order.replies") == 1, cutting)
    assert len(set(cuts)) == STREAM.handler_attempts_max + 1
    assert world.count("catalog.commands.dead") == 0
    assert world.reserved() == 1


def test_an_attempt_past_32_bits_is_dead_among_others_too(world: World) -> None:
    """It was so alone only: of a batch, its reply was written under what was left of the number, and it was applied."""
    for number in range(10):
        world.send(reserve(f"o-{number}"), **({"attempt": "99999999999"} if number == 4 else {}))
    world.run(lambda: world.count("place_order.replies") + world.count("catalog.commands.dead") == 10)
    assert world.asked.rows("SELECT key FROM outbox WHERE topic = 'catalog.commands.dead'") == [("o-4",)]
    assert world.asked.rows("SELECT DISTINCT attempt FROM outbox WHERE topic = 'place_order.replies'") == [(1,)]


def test_what_cannot_be_read_is_dead_and_the_rest_is_answered(world: World) -> None:
    """It leaves through the service's own outbox, untouched, with its cause."""
    for number in range(10):
        world.send(reserve(f"o-{number}"), **({"idempotency_key": "nonsense"} if number == 4 else {}))
    world.run(lambda: world.count("place_order.replies") == 9)
    assert world.count("catalog.commands.dead") == 1
    ((key, payload, letter, type_),) = world.asked.rows(
        "SELECT key, payload, dead, type FROM outbox WHERE topic = 'catalog.commands.dead'"
    )
    assert (key, payload, type_) == ("o-4", reserve("o-4").arriving().value, ReserveStock.SCHEMA_NAME)
    assert json.loads(letter)["kind"] == "peer"
    assert world.reserved() == 9


def test_a_mistake_in_a_handler_is_dead_after_its_attempts_and_holds_back_its_order_alone(world: World) -> None:
    """Later commands of that order follow it; all others are answered."""
    runs: list[str] = []

    def stumble(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        runs.append(command.order_id)
        context.connection.execute("UPDATE product SET reserved = reserved + 1")
        if command.order_id == "o-3":
            raise ZeroDivisionError("the handler's own mistake")
        return StockReserved(order_id=command.order_id, reservation_id="r")

    for number in range(8):
        world.send(reserve(f"o-{number}"))
    world.send(reserve("o-3").again())
    stumbling = Service(
        "catalog", handlers=[handle_each(ReserveStock, stumble, succeeds=StockReserved, fails=OutOfStock)]
    )
    world.run(lambda: world.count("place_order.replies") == 7 and world.count("catalog.commands.dead") == 2, stumbling)
    letters = [
        json.loads(letter)
        for (letter,) in world.asked.rows("SELECT dead FROM outbox WHERE dead IS NOT NULL ORDER BY tableoid, ctid")
    ]
    assert [letter["kind"] for letter in letters] == ["handler", "follower"]
    assert letters[0]["error"] == "ZeroDivisionError"
    assert runs.count("o-3") == STREAM.handler_attempts_max
    assert world.reserved() == 7


def test_a_reply_past_the_outboxs_limit_is_its_commands_fault(world: World) -> None:
    """The outbox refuses its whole batch; the command is found, dead after its attempts, and others are answered."""

    def swell(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        context.connection.execute("UPDATE product SET reserved = reserved + 1")
        return StockReserved(
            order_id=command.order_id, reservation_id="r" * (1_000_001 if command.order_id == "o-3" else 1)
        )

    for number in range(6):
        world.send(reserve(f"o-{number}"))
    swelling = Service("catalog", handlers=[handle_each(ReserveStock, swell, succeeds=StockReserved)])
    world.run(lambda: world.count("place_order.replies") == 5 and world.count("catalog.commands.dead") == 1, swelling)
    ((key, letter),) = world.asked.rows("SELECT key, dead FROM outbox WHERE topic = 'catalog.commands.dead'")
    told = json.loads(letter)
    assert (key, told["kind"], told["attempts"]) == ("o-3", "handler", STREAM.handler_attempts_max)
    assert told["error"] == "CheckViolation"
    assert world.reserved() == 5


def test_what_a_refusing_handler_wrote_is_taken_back(world: World) -> None:
    """A refusal says that nothing was done, and the savepoint sees to it; its events go too."""

    def write_then_refuse(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        context.connection.execute("UPDATE product SET reserved = reserved + 1")
        if command.order_id == "o-1":
            context.emit(StockReserved(order_id="o-1", reservation_id="r"), key="o-1")
            return OutOfStock(order_id=command.order_id, sku="vase", requested=1, available=0)
        return StockReserved(order_id=command.order_id, reservation_id="r")

    for number in range(3):
        world.send(reserve(f"o-{number}"))
    refusing = Service(
        "catalog", handlers=[handle_each(ReserveStock, write_then_refuse, succeeds=StockReserved, fails=OutOfStock)]
    )
    world.run(lambda: world.count("place_order.replies") == 3, refusing)
    assert world.reserved() == 2
    assert world.asked.rows("SELECT key FROM inbox WHERE refused") == [("o-1",)]
    # One event of the product itself, none of the refused command.
    assert world.count("catalog.events") == 1


def test_an_undeclared_reply_is_dead_with_its_cause(world: World) -> None:
    """The saga could do nothing with it."""

    def wrong(command: ReserveStock, _: Context[ReserveStock]) -> Record:
        return ReserveStock(order_id=command.order_id, lines=())

    world.send(reserve("o-1"))
    mistaken = Service("catalog", handlers=[handle_each(ReserveStock, wrong, succeeds=StockReserved)])
    world.run(lambda: world.count("catalog.commands.dead") == 1, mistaken)
    ((letter,),) = world.asked.rows("SELECT dead FROM outbox WHERE dead IS NOT NULL")
    assert "its declaration does not name" in json.loads(letter)["cause"]
    assert world.count("place_order.replies") == 0


def test_a_worker_whose_inbox_forgets_too_early_does_not_start(world: World) -> None:
    """A dead letter could be redriven after its undo's mark was gone."""
    world.settings = world.settings.model_copy(update={"participant": ParticipantSettings(inbox_keep_days=100)})
    with pytest.raises(ConfigurationError, match=r"inbox_keep_days 100 must be more than 30 .* = 150 days"):
        world.app()


@pytest.mark.parametrize("fails", [(), OutOfStock], ids=["", "in a savepoint"])
@pytest.mark.parametrize("end", ["commit", "rollback", "COMMIT"])
def test_a_handler_that_ends_its_transaction_is_dead_and_takes_nothing_with_it(
    world: World, end: str, fails: Any
) -> None:
    """Effects of others in its batch were lost, or done twice, and nobody was told."""

    def handler(command: ReserveStock, context: Context[ReserveStock]) -> Record:
        context.connection.execute("UPDATE product SET reserved = reserved + 1")
        if command.order_id == "BAD":
            context.connection.execute(end) if end.isupper() else getattr(context.connection, end)()
        return StockReserved(order_id=command.order_id, reservation_id="r")

    for order_id in ("o-1", "BAD", "o-2"):
        record = reserve(order_id).arriving(0)
        world.broker.append("catalog.commands", record.value, key=record.key, headers=record.headers, partition=0)
    ending = Service("catalog", handlers=[handle_each(ReserveStock, handler, succeeds=StockReserved, fails=fails)])
    world.run(lambda: world.count("place_order.replies") + world.count("catalog.commands.dead") == 3, ending)
    assert world.asked.rows("SELECT key FROM outbox WHERE topic = 'catalog.commands.dead'") == [("BAD",)]
    assert world.reserved() == 2


def test_what_rows_a_handler_makes_of_its_connection_is_its_own_affair(world: World) -> None:
    """Neither the engine meets it, nor the handler of another command in the same batch."""

    def as_dicts(contexts: Sequence[Context[ReserveStock]]) -> Sequence[Record]:
        connection = contexts[0].connection
        connection.row_factory, connection.cursor_factory = dict_row, psycopg.ClientCursor
        assert connection.execute("SELECT on_hand FROM product").fetchone() == {"on_hand": 1000}
        return [StockReserved(order_id=context.key, reservation_id="r") for context in contexts]

    def as_tuples(_: ReleaseStock, context: Context[ReleaseStock]) -> Record:
        assert context.connection.execute("SELECT on_hand FROM product").fetchone() == (1000,)
        return StockReleased(order_id=context.key)

    dicts = Service(
        "catalog",
        handlers=[
            handle(ReserveStock, as_dicts, succeeds=StockReserved),
            undo_each(ReleaseStock, as_tuples, of=ReserveStock, succeeds=StockReleased),
        ],
    )
    for number in range(3):
        world.send(reserve(f"o-{number}"))
        world.send(reserve(f"o-{number}").undoing(ReleaseStock(order_id=f"o-{number}")))
    world.run(lambda: world.count("place_order.replies") + world.count("catalog.commands.dead") == 6, dicts)
    assert world.count("catalog.commands.dead") == 0


REFUSED_UPKEEP = {
    "a table that is not there yet": (
        "DROP TABLE inbox_forgotten",
        """INSERT INTO inbox VALUES (gen_random_uuid(), gen_random_uuid(), 's', 's', '', 'do', 1, 'k', true,
           false, NULL, NULL, now() - interval '300 days')""",
    ),
    "a day that somebody detached": (
        f"ALTER TABLE outbox DETACH PARTITION {partition_name(datetime.now(UTC).date() + timedelta(days=3))}",
    ),
}


@pytest.mark.parametrize("statements", REFUSED_UPKEEP.values(), ids=REFUSED_UPKEEP.keys())
def test_upkeep_that_is_refused_ends_no_worker(
    world: World, monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    """It is counted and tried again; commands are answered meanwhile. It ended the worker, an hour after each start."""
    monkeypatch.setattr(agent, "UPKEEP_SECONDS", 0.3)
    counted = metrics.UPKEEP_FAILED.labels("catalog")
    before = counted._value.get()
    with psycopg.connect(world.settings.postgres.database_url("catalog"), autocommit=True) as other:
        for statement in statements:
            other.execute(statement)
    world.send(reserve("o-1"))
    world.run(lambda: world.count("place_order.replies") == 1 and counted._value.get() >= before + 2)


class Notes:
    """A hand-over that notes what it is given, and how many replies were committed at that moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.given: list[tuple[UUID, int]] = []

    def hand_over(self, messages: tuple[OutboxMessage, ...]) -> int:
        """Note it."""
        committed = self.world.count("place_order.replies")
        self.given += [(message.id, committed) for message in messages]
        return len(messages)

    def close(self) -> None:
        """Do nothing."""


def test_replies_are_handed_over_once_they_are_committed(world: World) -> None:
    """With the id of their row; only those to first attempts, of which the saga knows the twin."""
    notes = Notes(world)
    world.handover = notes
    world.send(reserve("o-1"))
    world.run(lambda: world.count("place_order.replies") == 1)
    ((id_,),) = world.asked.rows("SELECT id FROM outbox WHERE topic = 'place_order.replies'")
    assert notes.given == [(id_, 1)]
    world.send(reserve("o-1").again())
    world.run(lambda: world.count("place_order.replies") == 2)
    assert len(notes.given) == 1


def test_what_is_rolled_back_is_never_handed_over(world: World) -> None:
    """A batch that fails has answered nothing, whatever its handler returned first."""
    notes = Notes(world)
    world.handover = notes
    failed: list[str] = []

    def fail_once(contexts: Sequence[Context[ReserveStock]]) -> Sequence[Record]:
        replies = service.handlings[ReserveStock].handler(contexts)
        if not failed:
            failed.append(contexts[0].key)
            world.asked.rows(f"SELECT pg_terminate_backend({contexts[0].connection.info.backend_pid})")
        return replies

    world.send(reserve("o-1"))
    failing = Service("catalog", handlers=[handle(ReserveStock, fail_once, succeeds=StockReserved, fails=OutOfStock)])
    world.run(lambda: world.count("place_order.replies") == 1, failing)
    assert failed
    assert [committed for _, committed in notes.given] == [1]
