"""The outbox in a real PostgreSQL: what commits, and who may read it."""

import contextlib
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors

from towpath.errors import ConfigurationError
from towpath.outbox.message import OutboxMessage
from towpath.outbox.postgres import COPY_FROM_ROWS, apply_outbox_schema, ensure_capture_role, write
from towpath.settings import OutboxSettings, PostgresSettings

pytestmark = pytest.mark.stack
Connection = psycopg.Connection


def message(number: int = 0, **fields: object) -> OutboxMessage:
    """Return a message that differs from others by its number."""
    content = {"id": UUID(int=number), "topic": "order.events", "key": f"o-{number}", "type": "T", "payload": b"\0p"}
    return OutboxMessage(**{**content, **fields})  # type: ignore[arg-type]


def written(connection: Connection) -> list[int]:
    """Return the numbers of the messages, in the order in which they lie in the table."""
    return [id.int for (id,) in connection.execute("SELECT id FROM outbox ORDER BY tableoid, ctid").fetchall()]  # noqa: A001


@pytest.mark.parametrize("count", [1, COPY_FROM_ROWS - 1, COPY_FROM_ROWS, 1000])
def test_messages_are_written_whole_and_in_order(connection: Connection, count: int) -> None:
    """Debezium carries rows in the order in which they were written, so this is the order per key."""
    sent = [message(n, saga_id=uuid4(), attempt=n, round=1, step="s", dead='{"a":1}', tenant="ü") for n in range(count)]
    write(connection, sent)
    assert written(connection) == list(range(count))
    row = connection.execute(
        "SELECT saga_id, attempt, round, step, dead, tenant, payload, item FROM outbox WHERE id = %s", (sent[-1].id,)
    ).fetchone()
    last = sent[-1]
    assert row == (last.saga_id, last.attempt, 1, "s", '{"a":1}', "ü", b"\0p", None)


def test_messages_can_be_written_inside_a_pipeline(connection: Connection) -> None:
    """A batch of commands runs pipelined, and COPY does not."""
    with connection.pipeline():
        write(connection, [message(n) for n in range(COPY_FROM_ROWS * 2)])
    assert written(connection) == list(range(COPY_FROM_ROWS * 2))


def test_a_message_and_its_business_change_commit_together_or_not_at_all(connection: Connection) -> None:
    """`write` commits nothing by itself."""
    connection.execute("CREATE TABLE business (n int)")
    connection.commit()
    with contextlib.suppress(ZeroDivisionError), connection.transaction():
        connection.execute("INSERT INTO business VALUES (1)")
        write(connection, [message(n) for n in range(COPY_FROM_ROWS)])
        raise ZeroDivisionError
    assert connection.execute("SELECT count(*) FROM business").fetchone() == (0,)
    assert written(connection) == []


def test_a_record_too_large_for_kafka_fails_its_own_transaction_only(connection: Connection) -> None:
    """In Kafka it would stop the connector, and with it every message behind it."""
    with pytest.raises(errors.CheckViolation):
        write(connection, [message(payload=b"x" * 900_001)])


def test_applying_the_schema_again_changes_nothing(connection: Connection) -> None:
    """Every start of the stack and of a worker applies it."""
    write(connection, [message(1)])
    connection.commit()
    apply_outbox_schema(connection, PostgresSettings(), OutboxSettings())
    assert written(connection) == [1]


def test_the_publication_covers_inserts_into_the_root_alone(connection: Connection) -> None:
    """Dropping a partition or cleaning the default one is no event."""
    publication = connection.execute(
        "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot"
        " FROM pg_publication WHERE pubname = 'towpath_outbox'"
    ).fetchone()
    assert publication == (True, False, False, False, True)
    tables = connection.execute("SELECT tablename FROM pg_publication_tables ORDER BY 1").fetchall()
    assert tables == [("outbox",), ("outbox_heartbeat",)]


ALLOWED: dict[str, str] = {
    "read the outbox": "SELECT count(*) FROM outbox",
    "beat the heartbeat": "INSERT INTO outbox_heartbeat DEFAULT VALUES",
}
FORBIDDEN: dict[str, str] = {
    "write the outbox": "INSERT INTO outbox SELECT gen_random_uuid(), 't', 'k', 'T', ''",
    "delete from the outbox": "DELETE FROM outbox",
    "read the heartbeat": "SELECT count(*) FROM outbox_heartbeat",
    "read the business": "SELECT * FROM business",
    "create a table": "CREATE TABLE mine (n int)",
}


@pytest.fixture
def as_capture(connection: Connection) -> Callable[[str], None]:
    """Return a function that runs a statement with the capture role's rights."""
    connection.execute("CREATE TABLE business (n int)")
    connection.commit()

    def run(statement: str) -> None:
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL ROLE towpath_capture")
            connection.execute(statement)

    return run


@pytest.mark.parametrize("statement", ALLOWED.values(), ids=ALLOWED.keys())
def test_the_capture_role_may(as_capture: Callable[[str], None], statement: str) -> None:
    """Debezium has what it needs."""
    as_capture(statement)


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_capture_role_may_not(as_capture: Callable[[str], None], statement: str) -> None:
    """A leaked password of Debezium shows no customer and changes no order."""
    with pytest.raises(errors.InsufficientPrivilege):
        as_capture(statement)


def test_the_capture_role_may_replicate_and_nothing_more_on_the_server(connection: Connection) -> None:
    """It is neither superuser nor may it make roles or databases."""
    role = connection.execute(
        "SELECT rolcanlogin, rolreplication, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls"
        " FROM pg_roles WHERE rolname = 'towpath_capture'"
    ).fetchone()
    assert role == (True, True, False, False, False, False)


def test_who_may_not_create_the_role_learns_what_an_administrator_has_to_run(connection: Connection) -> None:
    """On somebody else's server the application's user is no administrator."""
    connection.execute("DROP ROLE IF EXISTS modest; CREATE ROLE modest LOGIN")
    connection.commit()
    connection.execute("SET ROLE modest")
    connection.commit()
    with pytest.raises(ConfigurationError) as raised:
        ensure_capture_role(connection, PostgresSettings(capture_username="never_made"))
    assert "CREATE ROLE never_made LOGIN REPLICATION" in str(raised.value)
