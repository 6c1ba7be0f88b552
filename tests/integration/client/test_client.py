"""The client on a real database: starts commit with the caller, endings are heard at once."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from schemas.records.order import ConfirmOrder, OrderCancellationRequested, OrderLine, OrderPlaced
from tests.commands import CODEC
from tests.integration.client.conftest import TABLE
from towpath.client import AsyncClient, Client, NotEnded, Started
from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError, WorldError
from towpath.orchestrator.sagas_view import SagaInstance
from towpath.outbox.postgres import apply_outbox_schema, write
from towpath.settings import OutboxSettings, PostgresSettings, Settings

pytestmark = pytest.mark.stack
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = OrderPlaced(
    order_id="o-1",
    customer_id="c-1",
    lines=(OrderLine(sku="vase", quantity=1, unit_price_cents=900),),
    total_cents=900,
    currency="EUR",
    card_token="card-1",
    placed_at=NOW,
)
INSTANCE = SagaInstance(
    saga_id="",
    saga="place_order",
    version=1,
    key="o-1",
    status="running",
    reason=None,
    waiting_for=None,
    inputs=1,
    refused=0,
    started_at=NOW,
    updated_at=NOW,
    ended_at=None,
)


def keep(views: psycopg.Connection, *rows: SagaInstance) -> None:
    """Write rows as the view's worker does."""
    TABLE.store(views, {row.saga_id: row for row in rows})
    views.commit()


def instance(started: Started, **changes: object) -> SagaInstance:
    """Return the row of an instance."""
    return replace(INSTANCE, **{"saga_id": started.saga_id, "key": started.key, **changes})  # type: ignore[arg-type]


def test_a_saga_starts_with_the_callers_commit(client: Client, connection: psycopg.Connection) -> None:
    """The event lies in the outbox, under the id that the caller chose."""
    event_id = uuid4()
    started = client.start(connection, "place_order", "o-1", ORDER, event_id=event_id, tenant="t")
    connection.commit()
    (row,) = connection.execute("SELECT id, topic, key, payload, tenant FROM outbox").fetchall()
    assert row[:3] == (event_id, "order.events", "o-1")
    assert CODEC.decode(row[3]) == ORDER
    assert row[4] == "t"
    assert started == Started.by("place_order", "o-1", event_id)


def test_a_saga_does_not_start_where_the_caller_rolls_back(client: Client, connection: psycopg.Connection) -> None:
    """Business change and start are one."""
    client.start(connection, "place_order", "o-1", ORDER, event_id=uuid4())
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_what_does_not_start_the_saga_is_not_written(client: Client, connection: psycopg.Connection) -> None:
    """A record of another kind, for one."""
    with pytest.raises(ConfigurationError):
        client.start(connection, "place_order", "o-1", ConfirmOrder(order_id="o-1"), event_id=uuid4())
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


CANCELLATION = OrderCancellationRequested(
    order_id="o-1",
    customer_id="c-1",
    reason="changed my mind",
    requested_by="customer",
    lines=ORDER.lines,
    total_cents=900,
    refund_cents=900,
    currency="EUR",
    authorisation_id="a-1",
)


@pytest.mark.parametrize("commits", [True, False])
def test_a_saga_starts_from_an_asynchronous_application_too(
    async_client: AsyncClient, connection: psycopg.Connection, database_url: str, commits: bool
) -> None:
    """The same call, awaited: the event lies in the outbox once the caller commits, and not before."""
    event_id = uuid4()

    async def start() -> Started:
        async with await psycopg.AsyncConnection.connect(database_url) as own:
            started = await async_client.start(own, "place_order", "o-1", ORDER, event_id=event_id, tenant="t")
            if not commits:
                await own.rollback()
        return started

    assert asyncio.run(start()) == Started.by("place_order", "o-1", event_id)
    rows = connection.execute("SELECT id, topic, key, tenant FROM outbox").fetchall()
    assert rows == ([(event_id, "order.events", "o-1", "t")] if commits else [])


def test_another_sagas_event_starts_nothing(client: Client, connection: psycopg.Connection) -> None:
    """Both come by the same topic, which both sagas read: the id would be that of an instance that never begins."""
    with pytest.raises(ConfigurationError, match=r"place_order starts on OrderPlaced.*it starts cancel_order"):
        client.start(connection, "place_order", "o-1", CANCELLATION, event_id=uuid4())
    with pytest.raises(ConfigurationError, match="no saga 'place_odrer'"):
        client.start(connection, "place_odrer", "o-1", ORDER, event_id=uuid4())
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    assert client.start(connection, "cancel_order", "o-1", CANCELLATION, event_id=uuid4()).saga == "cancel_order"


def test_another_sagas_event_starts_nothing_from_an_asynchronous_application(
    async_client: AsyncClient, connection: psycopg.Connection, database_url: str
) -> None:
    """The same, awaited; the caller's transaction goes on, and starts what the event does start."""

    async def start() -> Started:
        async with await psycopg.AsyncConnection.connect(database_url) as own:
            with pytest.raises(ConfigurationError, match=r"place_order starts on OrderPlaced.*it starts cancel_order"):
                await async_client.start(own, "place_order", "o-1", CANCELLATION, event_id=uuid4())
            with pytest.raises(ConfigurationError, match="no saga 'place_odrer'"):
                await async_client.start(own, "place_odrer", "o-1", ORDER, event_id=uuid4())
            return await async_client.start(own, "cancel_order", "o-1", CANCELLATION, event_id=UUID(int=7))

    assert asyncio.run(start()).saga == "cancel_order"
    assert connection.execute("SELECT id FROM outbox").fetchall() == [(UUID(int=7),)]


WRONG_DATABASES = {"another service's": {"payment.events": 1_000_000}, "one without an outbox": None}


@pytest.mark.parametrize("topics", WRONG_DATABASES.values(), ids=WRONG_DATABASES.keys())
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_start_in_the_wrong_database_is_refused(
    client: Client,
    async_client: AsyncClient,
    connection: psycopg.Connection,
    database_url: str,
    topics: dict[str, int] | None,
    kind: str,
) -> None:
    """Before anything is written; the caller's transaction may go on."""
    if topics is None:
        connection.execute("DROP TABLE outbox, outbox_topics")
        connection.commit()
    else:
        apply_outbox_schema(connection, PostgresSettings(), OutboxSettings(), topics=topics)

    async def start() -> int:
        async with await psycopg.AsyncConnection.connect(database_url) as other:
            with pytest.raises(ConfigurationError, match=r"may write order\.events"):
                await async_client.start(other, "place_order", "o-1", ORDER, event_id=uuid4())
            return int(other.info.transaction_status)

    if kind == "async":
        assert asyncio.run(start()) != TransactionStatus.INERROR
    else:
        with pytest.raises(ConfigurationError, match=r"may write order\.events"):
            client.start(connection, "place_order", "o-1", ORDER, event_id=uuid4())
        assert connection.info.transaction_status != TransactionStatus.INERROR
    if topics is not None:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_the_right_database_is_asked_once(client: Client, connection: psycopg.Connection) -> None:
    """Whatever rows the caller's connection returns; the second start costs its insert alone."""
    apply_outbox_schema(connection, PostgresSettings(), OutboxSettings(), topics={"order.events": 1_000_000})
    connection.row_factory = dict_row  # type: ignore[assignment]
    client.start(connection, "place_order", "o-1", ORDER, event_id=uuid4())
    connection.execute("DELETE FROM outbox_topics")
    client.start(connection, "place_order", "o-2", ORDER, event_id=uuid4())
    rows: list[Any] = connection.execute("SELECT count(*) FROM outbox").fetchall()
    assert rows == [{"count": 2}]


class ForeignConnection:
    """Another library's connection: its `execute` returns, and has written nothing."""

    def execute(self, *_: object) -> None:
        """Do nothing."""


def test_a_foreign_connection_is_refused(client: Client) -> None:
    """By the client, and by the outbox itself."""
    foreign: Any = ForeignConnection()
    with pytest.raises(ConfigurationError, match="ForeignConnection"):
        client.start(foreign, "place_order", "o-1", ORDER, event_id=uuid4())
    with pytest.raises(ConfigurationError, match="ForeignConnection"):
        write(foreign, [])


def test_how_a_saga_stands_can_be_asked_from_anywhere(client: Client, views: psycopg.Connection) -> None:
    """By its id, or by the business key."""
    first, second = (Started.by("place_order", "o-1", UUID(int=n)) for n in (1, 2))
    assert client.standing(first.saga_id) is None
    keep(
        views,
        instance(first, status="compensated", reason="vase is out of stock"),
        instance(second, started_at=NOW.replace(hour=1)),
    )
    standing = client.standing(first.saga_id)
    assert standing is not None
    assert (standing.status, standing.reason, standing.ended) == ("compensated", "vase is out of stock", True)
    assert (
        client.standing(UUID(first.saga_id)) == client.await_ending(UUID(first.saga_id), timeout_seconds=1) == standing
    )
    assert [one.saga_id for one in client.find("place_order", "o-1")] == [second.saga_id, first.saga_id]
    assert client.find("place_order", "o-2") == []
    assert client.standing("never") is client.standing("s\0") is None  # what a visitor may have typed


def test_before_the_view_is_kept_nothing_is_known(client: Client) -> None:
    """A client may be there before the first worker."""
    assert client.standing(UUID(int=1)) is None
    assert client.find("place_order", "o-1") == []


@pytest.mark.parametrize("status", ["completed", "compensated", "stuck"])
def test_an_ending_is_heard_at_once(client: Client, views: psycopg.Connection, status: str) -> None:
    """Not at the next look: the view's worker notifies. Changes on the way, and other sagas, end nothing."""
    started, other = (Started.by("place_order", key, uuid4()) for key in ("o-1", "o-2"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.await_ending, started.saga_id, timeout_seconds=30)
        time.sleep(0.3)
        keep(views, instance(started), instance(other, status="completed"))
        time.sleep(0.3)
        assert not waiting.done()
        written = time.monotonic()
        keep(views, instance(started, status=status))
        assert waiting.result(30).status == status
    assert time.monotonic() - written < 4.0


def test_an_ending_that_came_before_is_found(client: Client, views: psycopg.Connection) -> None:
    """Whoever asks late waits no more than a query."""
    started = Started.by("place_order", "o-1", uuid4())
    keep(views, instance(started, status="completed", ended_at=NOW))
    assert client.await_ending(started.saga_id, timeout_seconds=0).ended_at == NOW


def test_who_waits_in_vain_learns_how_it_stands(client: Client, views: psycopg.Connection) -> None:
    """The saga goes on."""
    started = Started.by("place_order", "o-1", uuid4())
    keep(views, instance(started, waiting_for="approval"))
    with pytest.raises(NotEnded, match="waiting for approval") as raised:
        client.await_ending(started.saga_id, timeout_seconds=0.2)
    assert raised.value.standing is not None


def test_many_wait_at_once(client: Client, views: psycopg.Connection) -> None:
    """One client serves the threads of a web server."""
    sagas = [Started.by("place_order", f"o-{n}", uuid4()) for n in range(8)]
    begun = threading.Barrier(9)

    def wait(started: Started) -> str:
        begun.wait()
        return client.await_ending(started.saga_id, timeout_seconds=30).key

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(wait, started) for started in sagas]
        begun.wait()
        keep(views, *(instance(started, status="completed") for started in sagas))
        assert [one.result(30) for one in waiting] == [started.key for started in sagas]


def test_views_that_cannot_be_read_are_the_worlds_fault(settings: Settings, client: Client) -> None:
    """The sagas do not depend on them."""
    away = settings.model_copy(update={"postgres": PostgresSettings(url="postgresql://nobody@127.0.0.1:1")})
    with pytest.raises(WorldError, match="views' database"):
        Client(away, Catalogue.load(settings), CODEC).standing(UUID(int=1))
