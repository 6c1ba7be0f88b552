"""What an application does wrong with a client ends in a sentence that says what was kept and what to do."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from pydantic import SecretStr
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from schemas.records.order import OrderApproved
from tests.integration.client.test_client import INSTANCE, ORDER, instance, keep
from towpath.client import Action, AsyncClient, Client, Started
from towpath.errors import ConfigurationError, TowpathError, WorldError
from towpath.outbox.postgres import apply_outbox_schema
from towpath.settings import OutboxSettings, PostgresSettings

pytestmark = pytest.mark.stack
STARTED = Started.by("place_order", "o-1", UUID(int=1))
APPROVED = OrderApproved(order_id="o-1", approver="grace")
WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "start": lambda client, given: client.start(given, "place_order", "o-1", ORDER, event_id=uuid4()),
    "signal": lambda client, given: client.signal(given, "place_order", "o-1", APPROVED),
    "cancel": lambda client, given: client.cancel(given, STARTED, actor="grace", reason="twice"),
    "ask": lambda client, given: client.ask(given, STARTED, Action.RESUME, actor="grace", reason="it is back"),
}


@pytest.fixture(autouse=True)
def outbox(connection: psycopg.Connection) -> Iterator[None]:
    """See that each mistake left the outbox empty."""
    yield
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def told(error: TowpathError) -> str:
    """Return what an error says; it says what was kept and what to do."""
    assert error.kept
    assert error.next_step
    return error.cause


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_closed_connection_or_pool_is_told(client: Client, database_url: str, write: Callable[..., Any]) -> None:
    """And a pool that was never opened, or has nothing to give, a lost connection, a closed one of SQLAlchemy."""
    with psycopg.connect(database_url) as closed:
        pass
    with pytest.raises(ConfigurationError, match="is closed") as raised:
        write(client, closed)
    assert "psycopg" in told(raised.value)
    with psycopg.connect(database_url) as lost:
        lose(database_url, lost.info.backend_pid)
        with pytest.raises(WorldError, match="lost while writing") as raised_lost:
            write(client, lost)
        assert "once" in str(raised_lost.value.next_step)
        with pytest.raises(WorldError, match="was lost"):
            write(client, lost)
    pool = ConnectionPool(database_url, open=False, min_size=1, max_size=1, timeout=0.2)
    with pytest.raises(ConfigurationError, match="is not open"):
        write(client, pool)
    with pool:
        with pool.connection(), pytest.raises(WorldError, match="gave no connection") as raised_pool:
            write(client, pool)
        told(raised_pool.value)
    with pytest.raises(ConfigurationError, match="is not open"):
        write(client, pool)
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.connect() as alchemy:
        pass
    with pytest.raises(ConfigurationError, match="gives no connection: This Connection is closed"):
        write(client, alchemy)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_closed_asynchronous_connection_or_pool_is_told(
    async_client: AsyncClient, database_url: str, write: Callable[..., Any]
) -> None:
    """The same, awaited."""

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as closed:
            pass
        with pytest.raises(ConfigurationError, match="is closed") as raised:
            await write(async_client, closed)
        told(raised.value)
        async with await psycopg.AsyncConnection.connect(database_url) as lost:
            lose(database_url, lost.info.backend_pid)
            with pytest.raises(WorldError, match="lost while writing"):
                await write(async_client, lost)
            with pytest.raises(WorldError, match="was lost"):
                await write(async_client, lost)
        pool = AsyncConnectionPool(database_url, open=False, min_size=1, max_size=1, timeout=0.2)
        with pytest.raises(ConfigurationError, match="is not open"):
            await write(async_client, pool)
        async with pool, pool.connection():
            with pytest.raises(WorldError, match="gave no connection"):
                await write(async_client, pool)
        with pytest.raises(ConfigurationError, match="is not open"):
            await write(async_client, pool)
        engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
        async with engine.connect() as alchemy:
            pass
        with pytest.raises(ConfigurationError, match="gives no connection"):
            await write(async_client, alchemy)

    asyncio.run(run())


def lose(database_url: str, backend: int) -> None:
    """End a connection from the server's side."""
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))


def test_a_transaction_that_cannot_write_is_told(client: Client, connection: psycopg.Connection) -> None:
    """One that failed already, one that may only read, a role without the right."""
    with pytest.raises(errors.UndefinedTable):
        connection.execute("SELECT * FROM nowhere")
    with pytest.raises(ConfigurationError, match="has failed already"):
        WRITES["start"](client, connection)
    connection.rollback()
    connection.execute("SET TRANSACTION READ ONLY")
    with pytest.raises(ConfigurationError, match="is read-only"):
        WRITES["start"](client, connection)
    connection.rollback()
    role = sql.Identifier(f"nobody_{uuid4().hex[:8]}")
    connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
    with pytest.raises(ConfigurationError, match="may not write here: permission denied"):
        WRITES["start"](client, connection)


def test_what_belongs_to_the_callers_transaction_passes_as_it_is(
    client: Client, connection: psycopg.Connection, database_url: str
) -> None:
    """Whoever retries a transaction after a timeout or a deadlock looks for psycopg's own error."""
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        connection.execute("SET LOCAL statement_timeout = '200ms'")
        with pytest.raises(errors.QueryCanceled):
            WRITES["start"](client, connection)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_the_other_kind_of_object_is_sent_to_the_other_client(
    client: Client, async_client: AsyncClient, connection: psycopg.Connection, database_url: str, write: Any
) -> None:
    """A pool and a session as well as a connection, open as it is: a call that nobody awaits would write nothing."""

    async def run() -> None:
        with Session() as session:
            for given in (connection, ConnectionPool(database_url, open=False), session):
                with pytest.raises(ConfigurationError) as raised:
                    await write(async_client, given)
                assert raised.value.next_step == "pass it to Client"
        engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
        async with (
            await psycopg.AsyncConnection.connect(database_url) as own,
            engine.connect() as alchemy,
            AsyncSession(engine) as session_,
        ):
            for theirs in (own, AsyncConnectionPool(database_url, open=False), alchemy, session_):
                with pytest.raises(ConfigurationError) as raised:
                    write(client, theirs)
                assert raised.value.next_step == "pass it to AsyncClient"
            assert own.info.transaction_status == TransactionStatus.IDLE

    asyncio.run(run())


BAD: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "a number as key": ("key is a text", lambda c, g: c.start(g, "place_order", 7, ORDER, event_id=uuid4())),
    "a list as saga": ("saga is a text", lambda c, g: c.start(g, ["x"], "o", ORDER, event_id=uuid4())),
    "a list as saga of a signal": ("saga is a text", lambda c, g: c.signal(g, ["x"], "o", APPROVED)),
    "an empty key": ("an empty one", lambda c, g: c.signal(g, "place_order", "", APPROVED)),
    "no UUID as event_id": ("event_id is a UUID", lambda c, g: c.start(g, "place_order", "o", ORDER, event_id="o")),
    "no UUID as signal_id": (
        "signal_id is a UUID",
        lambda c, g: c.signal(g, "place_order", "o", APPROVED, signal_id=1),
    ),
    "no UUID as saga_id": ("saga_id is a UUID", lambda c, g: c.signal(g, "place_order", "o", APPROVED, saga_id="o")),
    "a start as saga_id": (
        "saga_id is a UUID, not a Started",
        lambda c, g: c.signal(g, "place_order", "o", APPROVED, saga_id=STARTED),
    ),
    "an id as instance": (
        "about an instance, and a str is none",
        lambda c, g: c.cancel(g, STARTED.saga_id, actor="grace", reason="twice"),
    ),
    "an unknown action": (
        "cannot be asked to 'undo'",
        lambda c, g: c.ask(g, STARTED, "undo", actor="grace", reason="twice"),
    ),
    "no UUID as request_id": (
        "request_id is a UUID",
        lambda c, g: c.cancel(g, STARTED, actor="grace", reason="twice", request_id="r"),
    ),
    "an instance without an id": (
        "saga_id is a UUID",
        lambda c, g: c.cancel(
            g, SimpleNamespace(saga="place_order", saga_id="o", key="o"), actor="grace", reason="twice"
        ),
    ),
    "a user as actor": ("actor is a text", lambda c, g: c.cancel(g, STARTED, actor=SimpleNamespace(), reason="twice")),
    "a number as reason": ("reason is a text", lambda c, g: c.cancel(g, STARTED, actor="grace", reason=7)),
    "a zero byte in a key": ("zero byte", lambda c, g: c.signal(g, "place_order", "o\0", APPROVED)),
    "half a letter in a key": ("half a character", lambda c, g: c.signal(g, "place_order", "o\ud83d", APPROVED)),
    "a number as tenant": ("tenant is a text", lambda c, g: c.signal(g, "place_order", "o", APPROVED, tenant=7)),
    "a zero byte in a header": ("zero byte", lambda c, g: c.signal(g, "place_order", "o", APPROVED, tenant="t\0")),
    "an instance with a zero byte": (
        "zero byte",
        lambda c, g: c.cancel(g, Started.by("place_order", "o\0", UUID(int=1)), actor="grace", reason="twice"),
    ),
    "a number as item": (
        "item is a text",
        lambda c, g: c.ask(g, STARTED, Action.RETRY, actor="grace", reason="again", step="reserve_stock", item=7),
    ),
    "too much for the outbox": (
        "too large for place_order.signals",
        lambda c, g: c.signal(g, "place_order", "o-1", OrderApproved(order_id="o-1", approver="g" * 1_000_001)),
    ),
    "too much of a key": ("too large", lambda c, g: c.signal(g, "place_order", "o" * 1_000_001, APPROVED)),
    "a key to find that is a number": ("key is a text", lambda c, _: c.find("place_order", 7)),
    "a key to find with a zero byte": ("zero byte", lambda c, _: c.find("place_order", "o\0")),
    "a saga to find that is a class": ("saga is a text", lambda c, _: c.find(Started, "o-1")),
    "a key as an id": ("saga_id is a UUID", lambda c, _: c.await_ending("o-1", timeout_seconds=1)),
    "a blank reason": ("who asks and why", lambda c, g: c.cancel(g, STARTED, actor="grace", reason="  ")),
    "a start to stand": ("not by a Started", lambda c, _: c.standing(STARTED)),
    "a start to await": ("not by a Started", lambda c, _: c.await_ending(STARTED, timeout_seconds=1)),
    "a start for a result": ("not by a Started", lambda c, _: c.result(STARTED, type(ORDER), timeout_seconds=1)),
    "a start to be answered": ("not a Started", lambda c, _: c.await_answer(STARTED, timeout_seconds=1)),
    "no timeout": ("number of seconds", lambda c, _: c.await_ending(STARTED.saga_id, timeout_seconds=None)),
    "a timeout that never ends": (
        "number of seconds",
        lambda c, _: c.await_ending(STARTED.saga_id, timeout_seconds=float("nan")),
    ),
}


@pytest.mark.parametrize(("cause", "call"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_argument_of_the_wrong_kind_is_told(
    client: Client,
    async_client: AsyncClient,
    connection: psycopg.Connection,
    database_url: str,
    kind: str,
    cause: str,
    call: Callable[..., Any],
) -> None:
    """By its name, before anything is written or waited for."""

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as own:
            await call(async_client, own)

    with pytest.raises(ConfigurationError, match=cause) as raised:
        asyncio.run(run()) if kind == "async" else call(client, connection)
    told(raised.value)


def test_an_id_that_is_written_otherwise_is_the_same(client: Client, connection: psycopg.Connection) -> None:
    """As text, in capitals: the instance that begins is the one that is awaited."""
    event_id = uuid4()
    text: Any = str(event_id).upper()
    assert client.start(connection, "place_order", "o-1", ORDER, event_id=text) == Started.by(
        "place_order", "o-1", event_id
    )
    retry: Any = "resume"
    about: dict[str, Any] = {"actor": "grace", "reason": "it is back", "request_id": uuid4()}
    asked = client.ask(connection, STARTED, retry, **about)
    assert asked == client.ask(connection, STARTED, Action.RESUME, **about)
    shouted = Started(STARTED.saga, STARTED.saga_id.upper(), STARTED.key, STARTED.event_id)
    assert asked == client.ask(connection, shouted, Action.RESUME, **about)
    connection.rollback()


def test_an_instance_is_found_however_its_id_is_written(client: Client, views: psycopg.Connection) -> None:
    """In capitals, in braces or without hyphens, as PostgreSQL and other languages write it."""
    keep(views, instance(STARTED, status="completed"))
    for written in (STARTED.saga_id.upper(), f"{{{STARTED.saga_id}}}", STARTED.saga_id.replace("-", "")):
        found = client.standing(written)
        assert found == client.await_ending(written, timeout_seconds=0)
        assert found is not None


def test_nothing_is_found_in_silence_of_a_saga_that_there_is_not(
    client: Client, async_client: AsyncClient, views: psycopg.Connection
) -> None:
    """A misspelt name is told; one whose definition is gone is found as long as the view has it."""
    keep(views, instance(STARTED, saga="gone"))
    assert client.find("place_order", "o-1") == []
    assert [one.saga for one in client.find("gone", "o-1")] == ["gone"]
    for find in (client.find, lambda *given: asyncio.run(async_client.find(*given))):
        with pytest.raises(ConfigurationError, match="there is no saga 'place_odrer'") as raised:
            find("place_odrer", "o-1")
        assert "place_order" in told(raised.value) + str(raised.value.next_step)


def test_a_second_question_about_a_start_is_another_one(client: Client, connection: psycopg.Connection) -> None:
    """Nobody looked how it stands: a retry after the step has failed again is no repetition that is dropped."""
    about: dict[str, Any] = {"step": "reserve_stock", "actor": "grace", "reason": "it is back"}
    first, second = (client.ask(connection, STARTED, Action.RETRY, **about) for _ in range(2))
    assert first.id != second.id
    connection.rollback()


# At the commit, as a fail-over or an administrator does it: the answer of the commit is lost.
LOSE_IN_COMMIT = """
CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE TABLE losing (n int);
CREATE CONSTRAINT TRIGGER lose AFTER INSERT ON losing DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION lose();
CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO losing VALUES (1); RETURN NULL; END $$;
CREATE TRIGGER also AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION also();
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_pool_whose_connection_is_lost_in_the_commit_is_told(
    client: Client, async_client: AsyncClient, connection: psycopg.Connection, database_url: str, kind: str
) -> None:
    """That it may stand, and that doing it again with the same id takes effect once."""
    connection.execute(LOSE_IN_COMMIT)
    connection.commit()
    write = WRITES["start"]

    def run() -> None:
        with ConnectionPool(database_url, min_size=1, max_size=1) as pool:
            write(client, pool)

    async def run_async() -> None:
        async with AsyncConnectionPool(database_url, min_size=1, max_size=1, open=False) as pool:
            await write(async_client, pool)

    with pytest.raises(WorldError, match="lost while committing") as raised:
        asyncio.run(run_async()) if kind == "async" else run()
    told(raised.value)
    assert "once" in str(raised.value.next_step)
    assert "or not at all" in str(raised.value.kept)


@pytest.mark.parametrize("factory", [psycopg.RawCursor, psycopg.ClientCursor])
def test_a_connection_with_other_cursors_is_written_through(
    client: Client,
    async_client: AsyncClient,
    database_url: str,
    connection: psycopg.Connection,
    factory: type[psycopg.Cursor],
) -> None:
    """Whatever placeholders the application writes itself; the outbox knows its topics."""
    apply_outbox_schema(connection, PostgresSettings(), OutboxSettings(), topics={"order.events": 1_000_000})
    with psycopg.connect(database_url, cursor_factory=factory) as own:
        WRITES["start"](client, own)
        assert own.execute("SELECT count(*) FROM outbox").fetchone() == (1,)
        own.rollback()

    async def run() -> None:
        factory = psycopg.AsyncRawCursor
        async with await psycopg.AsyncConnection.connect(database_url, cursor_factory=factory) as own:
            await WRITES["start"](async_client, own)
            await own.rollback()

    asyncio.run(run())


def test_views_that_may_not_be_read_are_told(client: Client, views: psycopg.Connection) -> None:
    """Not as psycopg says it."""
    keep(views, INSTANCE)
    role = f"nobody_{uuid4().hex[:8]}"
    views.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    views.commit()
    owner = views.info
    url = f"postgresql://{role}@{owner.host}:{owner.port}/{owner.dbname}"
    postgres = client.settings.postgres
    forbidden = client.settings.model_copy(
        update={"postgres": postgres.model_copy(update={"urls": {"views": SecretStr(url)}})}
    )
    client.settings = forbidden
    with pytest.raises(ConfigurationError, match="may not be read: permission denied") as raised:
        client.standing(STARTED.saga_id)
    told(raised.value)
