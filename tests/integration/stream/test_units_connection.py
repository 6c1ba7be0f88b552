"""What a function may do with its unit's connection: its settings hold until its commit is over, and no further."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.stream.test_database_faults import TABLES, Act, run_with
from tests.integration.stream.test_database_unit import TABLE, applied_values, apply_all, fill, options, until
from tests.unit.stream.support import memory_broker, working
from towpath.errors import ConfigurationError
from towpath.stream.engine.options import StreamOptions

Connection = psycopg.Connection[Any]
DEFERRED = """
CREATE TABLE noted (what text);
CREATE SCHEMA tenant_a;
CREATE TABLE tenant_a.noted (what text);
CREATE TABLE watched (id int);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO noted VALUES (current_setting('own.tenant', true)); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION note_it();
"""


@pytest.fixture(autouse=True)
def tables(connection: Connection) -> None:
    connection.execute(TABLE.replace("applied", "public.applied") + ";" + TABLES)
    connection.commit()


def apply_until(total: int, connection: Connection, options_: StreamOptions) -> None:
    """Have a worker apply what there is."""

    async def main() -> None:
        async with working(apply_all, options_, ["in"]) as worker:
            await until(worker, connection, total)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["SET LOCAL", "SET"])
def test_a_deferred_trigger_meets_what_the_function_has_set(
    connection: Connection, database_url: str, how: str
) -> None:
    """It runs within COMMIT."""
    connection.execute(DEFERRED)
    connection.commit()

    def act(mine: Connection) -> None:
        mine.execute(f"{how} own.tenant = 'a'")
        mine.execute("INSERT INTO public.watched VALUES (1)")
        mine.execute(f"{how} search_path = tenant_a, public")

    assert run_with(connection, database_url, act, named=False) == []
    assert connection.execute("SELECT what FROM public.noted").fetchall() == []
    assert connection.execute("SELECT what FROM tenant_a.noted").fetchall() == [("a",)]


def test_a_function_may_work_in_a_schema_of_its_own(connection: Connection, database_url: str) -> None:
    """The engine's tables are found all the same."""
    connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (id int)")
    connection.commit()

    def act(mine: Connection) -> None:
        mine.execute("SET search_path = shop")
        mine.execute("INSERT INTO orders VALUES (1)")

    assert run_with(connection, database_url, act, named=False) == []
    assert connection.execute("SELECT count(*) FROM shop.orders").fetchone() == (1,)


def test_a_schema_of_the_users_name_is_no_new_beginning(connection: Connection, database_url: str) -> None:
    """PostgreSQL looks there first: offsets that began anew there would have all applied once more."""
    broker = memory_broker(partitions=1)
    fill(broker, 20)
    apply_until(20, connection, options(broker, database_url))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(connection.info.user)))
    connection.commit()
    broker.append("in", b"20", key=b"k")
    apply_until(21, connection, options(broker, database_url))
    assert len(applied_values(connection)) == 21


def test_what_an_older_version_keeps_elsewhere_is_not_begun_anew(connection: Connection, database_url: str) -> None:
    """The worker ends, and says what to run; what it says is run, and it goes on from there."""
    broker = memory_broker(partitions=1)
    fill(broker, 20)
    apply_until(20, connection, options(broker, database_url))
    kept = ("towpath_offsets", "towpath_parked", "towpath_seen", "towpath_horizon", "towpath_position_decisions")
    user = sql.Identifier(connection.info.user)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(user))
    for table in kept:
        connection.execute(sql.SQL("ALTER TABLE public.{} SET SCHEMA {}").format(sql.Identifier(table), user))
    connection.commit()
    broker.append("in", b"20", key=b"k")
    with pytest.raises(ConfigurationError) as refused:
        apply_until(21, connection, options(broker, database_url))
    statements = (refused.value.next_step or "").partition("then run there: ")[2]
    connection.execute(statements.encode())
    connection.commit()
    apply_until(21, connection, options(broker, database_url))
    assert len(applied_values(connection)) == 21


def by_cursors_of_its_own(mine: Connection) -> None:
    mine.cursor_factory = psycopg.ClientCursor
    mine.execute("COMMIT")


ENDING: dict[str, Act] = {
    "composed": lambda mine: mine.execute(sql.SQL("COMMIT")),
    "composed of parts": lambda mine: mine.execute(sql.SQL("{} {}").format(sql.SQL("COMMIT"), sql.SQL("WORK"))),
    "composed of nothing first": lambda mine: mine.execute(sql.SQL("{}{}").format(sql.SQL(""), sql.SQL("COMMIT"))),
    "composed behind a comment": lambda mine: mine.execute(sql.SQL("/* t */ {}").format(sql.SQL("COMMIT"))),
    "bytes": lambda mine: mine.execute(b"COMMIT"),
    "behind a comment": lambda mine: mine.execute("-- all is well\n /* and\nso on */ COMMIT"),
    "behind a comment in a comment": lambda mine: mine.execute("/* a /* -- b */ c */ COMMIT"),
    "behind nothing": lambda mine: mine.execute("; COMMIT"),
    "for many": lambda mine: mine.cursor().executemany("COMMIT", [()]),
    "row by row": lambda mine: list(mine.cursor().stream("COMMIT")),
    "as a copy": lambda mine: mine.cursor().copy("COMMIT").__enter__(),
    "among others": lambda mine: mine.execute("SELECT 'it''s; so'; /* ; */ COMMIT; SELECT 1"),
    "behind a body": lambda mine: mine.execute("DO $do$ BEGIN PERFORM 1; END $do$; COMMIT"),
    "by cursors of its own": by_cursors_of_its_own,
}


@pytest.mark.parametrize("how", sorted(ENDING))
def test_nothing_stays_of_what_a_function_would_commit(connection: Connection, database_url: str, how: str) -> None:
    """It is refused before it is sent, in each form that psycopg takes."""

    def act(mine: Connection) -> None:
        mine.execute("INSERT INTO parent SELECT count(*) FROM parent")
        ENDING[how](mine)

    assert run_with(connection, database_url, act, named=False) == [(b"BAD",)]
    assert connection.execute("SELECT count(*) FROM parent").fetchone() == (0,)


def test_what_ends_nothing_is_not_refused(connection: Connection, database_url: str) -> None:
    """Semicolons and words in quotes, names, comments and bodies are no statements."""

    def act(mine: Connection) -> None:
        mine.execute(
            "SELECT '; COMMIT', E'\\'; COMMIT', $$; COMMIT $$, $a$ $$; COMMIT; $a$ AS \"; COMMIT\" -- ; COMMIT\n"
        )
        mine.execute("CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END")
        mine.execute(
            "/* ; COMMIT /* ; */ ; COMMIT */ SELECT CASE WHEN true THEN 1 END; INSERT INTO parent VALUES (one())"
        )

    assert run_with(connection, database_url, act, named=False) == []
    assert connection.execute("SELECT id FROM parent").fetchall() == [(2,)]


@pytest.mark.parametrize("goes_on", [False, True])
def test_what_a_function_commits_past_the_connection_is_not_done_again(
    connection: Connection, database_url: str, capsys: pytest.CaptureFixture[str], *, goes_on: bool
) -> None:
    """Nor is what its neighbours in the unit did: the rest is committed too, and the log says so."""

    def act(mine: Connection) -> None:
        mine.execute("INSERT INTO parent SELECT count(*) FROM parent")
        psycopg.Cursor(mine).execute("COMMIT")
        if goes_on:
            mine.execute("INSERT INTO parent SELECT count(*) FROM parent")

    assert run_with(connection, database_url, act, named=False) == []
    assert connection.execute("SELECT count(*) FROM parent").fetchone() == (1 + goes_on,)
    assert applied_values(connection) == ["1", "2"]
    assert "transaction ended by a handler" in capsys.readouterr().out
