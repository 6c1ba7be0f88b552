"""What a function may do with its unit's connection: its settings hold until its commit is over, and no further."""

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.integration.stream.test_database_faults import TABLES, Act, run_with
from tests.integration.stream.test_database_unit import TABLE, applied_values, apply_all, fill, options, until
from tests.unit.stream.support import memory_broker, working
from towpath.errors import ConfigurationError
from towpath.settings import load_settings
from towpath.stack import groups
from towpath.stack.groups import Application
from towpath.stream.engine.elsewhere.postgres import require_in_public
from towpath.stream.engine.options import StreamOptions
from towpath.stream.engine.postgres import create_stream_tables

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


KEPT = ("towpath_offsets", "towpath_parked", "towpath_seen", "towpath_horizon", "towpath_position_decisions")
SEEN = "INSERT INTO {}.towpath_seen VALUES ('app', 'in', 0, 'an id', 1)"


def move_elsewhere(connection: Connection, schema: str) -> None:
    """Have what workers keep in another schema."""
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    for table in KEPT:
        names = sql.Identifier(table), sql.Identifier(schema)
        connection.execute(sql.SQL("ALTER TABLE public.{} SET SCHEMA {}").format(*names))
    connection.execute(sql.SQL(SEEN).format(sql.Identifier(schema)))
    connection.commit()


def advised(error: ConfigurationError) -> bytes:
    """Return the statements that move what lies elsewhere, nothing where none are named."""
    return (error.next_step or "").partition("then run there: ")[2].encode()


@pytest.mark.parametrize("public", ["has no tables", "has empty tables", "has those of others"])
@pytest.mark.parametrize("schema", ["the user's own", "Another One"])
def test_what_an_older_version_keeps_elsewhere_is_not_begun_anew(
    connection: Connection, database_url: str, public: str, schema: str
) -> None:
    """The worker ends, and says what to run; what it says is run, and it goes on from there."""
    broker = memory_broker(partitions=1)
    fill(broker, 20)
    apply_until(20, connection, options(broker, database_url))
    move_elsewhere(connection, connection.info.user if schema == "the user's own" else schema)
    if public != "has no tables":  # somebody's whose search path is another
        create_stream_tables(connection)
    if public == "has those of others":
        connection.execute("INSERT INTO public.towpath_offsets VALUES ('other', 'in', 0, 'id', 0)")
    connection.commit()
    broker.append("in", b"20", key=b"k")
    with pytest.raises(ConfigurationError) as refused:
        apply_until(21, connection, options(broker, database_url))
    connection.execute(advised(refused.value))
    connection.commit()
    apply_until(21, connection, options(broker, database_url))
    assert len(applied_values(connection)) == 21
    assert connection.execute("SELECT id FROM public.towpath_seen").fetchall() == [("an id",)]


@pytest.mark.parametrize("schema", ["100%", "a%b", "%s", "{x}"])
def test_a_schema_may_have_any_name(connection: Connection, schema: str) -> None:
    """What lies there is told, and moved by what is told, as of any other."""
    create_stream_tables(connection)
    connection.execute("INSERT INTO towpath_offsets VALUES ('app', 'in', 0, 'id', 8)")
    move_elsewhere(connection, schema)
    create_stream_tables(connection)
    with pytest.raises(ConfigurationError, match=r"in\[0\]@8, last moved") as refused:
        require_in_public(connection, "app")
    connection.execute(advised(refused.value))
    require_in_public(connection, "app")
    assert connection.execute("SELECT next_offset FROM public.towpath_offsets").fetchall() == [(8,)]


@pytest.mark.parametrize("public", ["has no tables", "has empty tables", "has those of others"])
def test_positions_that_lie_elsewhere_are_told_by_who_lists_them(
    connection: Connection, database_url: str, public: str
) -> None:
    """Not that nothing has been read yet; who looks at all groups looks at the others too."""
    create_stream_tables(connection)
    connection.execute("INSERT INTO towpath_offsets VALUES ('app', 'in', 0, 'id', 8)")
    move_elsewhere(connection, "svc")
    if public != "has no tables":
        create_stream_tables(connection)
    if public == "has those of others":
        connection.execute("INSERT INTO public.towpath_offsets VALUES ('other', 'in', 0, 'id', 0)")
    connection.commit()
    broker, settings = memory_broker(), load_settings(environment=False)
    postgres = settings.postgres.model_copy(update={"urls": {"svc": SecretStr(database_url)}})
    settings = settings.model_copy(update={"postgres": postgres})
    with pytest.raises(ConfigurationError, match=r"in schema svc .*, not in public"):
        groups.standings(settings, broker, Application("app", "service:svc", "svc"))
    assert groups.standings(settings, broker, Application("new", "service:svc", "svc")) == []
    known = {name: Application(name, "service:svc", "svc") for name in ("app", "new")}
    with patch.object(groups, "applications", lambda _: known):
        away = {report.application.name: report.away for report in groups.group_reports(settings, broker)}
    assert (type(away["app"]), away["new"]) == (ConfigurationError, None)


@pytest.mark.parametrize("of", ["the same application", "another application"])
def test_a_copy_that_lies_in_another_schema_stops_nobody(connection: Connection, database_url: str, of: str) -> None:
    """Of an application that is in `public` too, or of one that is not this one."""
    broker = memory_broker(partitions=1)
    create_stream_tables(connection)
    connection.execute("CREATE SCHEMA copy; CREATE TABLE copy.towpath_offsets (LIKE public.towpath_offsets)")
    connection.commit()
    fill(broker, 20)
    apply_until(20, connection, options(broker, database_url))
    connection.execute("INSERT INTO copy.towpath_offsets SELECT * FROM public.towpath_offsets")
    if of == "another application":
        connection.execute("UPDATE copy.towpath_offsets SET application = 'other'")
    connection.commit()
    broker.append("in", b"20", key=b"k")
    apply_until(21, connection, options(broker, database_url))
    assert len(applied_values(connection)) == 21


def test_which_of_several_schemas_counts_is_for_a_person_to_say(connection: Connection, database_url: str) -> None:
    """A copy of half-way would have the rest applied once more. It is renamed, and the other one moved."""
    broker = memory_broker(partitions=1)
    fill(broker, 10)
    own = options(broker, database_url)
    apply_until(10, connection, own)
    connection.execute("CREATE SCHEMA backup")
    connection.execute("CREATE TABLE backup.towpath_offsets (LIKE public.towpath_offsets INCLUDING ALL)")
    connection.execute("INSERT INTO backup.towpath_offsets TABLE public.towpath_offsets")
    connection.commit()
    for index in range(10, 20):
        broker.append("in", str(index).encode(), key=b"k")
    apply_until(20, connection, own)
    move_elsewhere(connection, "svc")
    broker.append("in", b"20", key=b"k")
    with pytest.raises(ConfigurationError) as refused:
        apply_until(21, connection, own)
    assert "backup (in[0]@10, last moved" in refused.value.cause
    assert "svc (in[0]@20, last moved" in refused.value.cause
    assert advised(refused.value) == b""
    connection.execute("ALTER TABLE backup.towpath_offsets RENAME TO offsets_of_then")
    connection.commit()
    with pytest.raises(ConfigurationError) as refused:
        apply_until(21, connection, own)
    connection.execute(advised(refused.value))
    connection.commit()
    apply_until(21, connection, own)
    assert len(applied_values(connection)) == 21


def test_a_copy_without_its_key_goes_on_where_it_stands(connection: Connection, database_url: str) -> None:
    """Its rows are moved into a table that has key and defaults; other tables of our names beside it stay."""
    broker = memory_broker(partitions=1)
    fill(broker, 10)
    own = options(broker, database_url)
    apply_until(10, connection, own)
    connection.execute("CREATE SCHEMA backup; CREATE TABLE backup.towpath_offsets AS TABLE public.towpath_offsets")
    connection.execute(
        "CREATE TABLE backup.towpath_seen (id int); CREATE TABLE backup.towpath_parked (application int)"
    )
    for table in KEPT:
        connection.execute(sql.SQL("DROP TABLE public.{}").format(sql.Identifier(table)))
    connection.commit()
    broker.append("in", b"10", key=b"k")
    with pytest.raises(ConfigurationError) as refused:
        apply_until(11, connection, own)
    connection.execute(advised(refused.value))
    connection.commit()
    apply_until(11, connection, own)
    assert len(applied_values(connection)) == 11


@pytest.mark.parametrize("columns", ["id int", "application int, topic text", "application text, topic text"])
def test_another_table_of_that_name_stops_nobody(connection: Connection, database_url: str, columns: str) -> None:
    """Somebody else's in another schema: without our columns, or with other types."""
    connection.execute(f"CREATE SCHEMA theirs; CREATE TABLE theirs.towpath_offsets ({columns})".encode())
    connection.commit()
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    apply_until(1, connection, options(broker, database_url))


def test_another_table_of_that_name_in_public_is_left_as_it_is(connection: Connection, database_url: str) -> None:
    """And told of."""
    connection.execute("CREATE TABLE public.towpath_offsets (id int)")
    with pytest.raises(ConfigurationError, match=r"public\.towpath_offsets of its own"):
        create_stream_tables(connection)
    described = connection.execute("SELECT * FROM public.towpath_offsets").description or []
    assert [column.name for column in described] == ["id"]


@pytest.fixture
def plain_role(connection: Connection) -> Iterator[str]:
    """Return a role that may use `public`, and make nothing in it."""
    role = f"plain_{connection.info.dbname}"
    connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT SELECT, INSERT ON applied TO {role}".encode())
    connection.commit()
    yield role
    connection.rollback()
    connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    connection.commit()


def as_role(database_url: str, role: str) -> str:
    """Return the URL of the same database for another role."""
    return psycopg.conninfo.make_conninfo(database_url, user=role, password="plain")


def test_a_role_that_may_make_no_tables_is_told_what_to_grant(
    connection: Connection, database_url: str, plain_role: str
) -> None:
    """As often as it is told, and what it is told is run; with that it works."""
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    own = options(broker, as_role(database_url, plain_role))
    with pytest.raises(ConfigurationError) as refused:
        apply_until(1, connection, own)
    connection.execute(granted_by(refused.value))
    connection.commit()
    apply_until(1, connection, own)


def test_where_the_tables_are_there_no_right_to_make_one_is_needed(
    connection: Connection, database_url: str, plain_role: str
) -> None:
    """The rights on the tables are, and it is told those."""
    broker = memory_broker(partitions=1)
    fill(broker, 1)
    create_stream_tables(connection)
    connection.commit()
    own = options(broker, as_role(database_url, plain_role))
    with pytest.raises(ConfigurationError) as refused:
        apply_until(1, connection, own)
    assert b"CREATE" not in granted_by(refused.value)
    connection.execute(granted_by(refused.value))
    connection.commit()
    apply_until(1, connection, own)


def granted_by(error: ConfigurationError) -> bytes:
    """Return the statements that an error names."""
    return (error.next_step or "").partition("run: ")[2].partition("; then run")[0].encode()


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
    connection: Connection, database_url: str, *, goes_on: bool
) -> None:
    """Nor is what its neighbours in the unit did: the rest is committed too, and the log says so."""

    def act(mine: Connection) -> None:
        mine.execute("INSERT INTO parent SELECT count(*) FROM parent")
        psycopg.Cursor(mine).execute("COMMIT")
        if goes_on:
            mine.execute("INSERT INTO parent SELECT count(*) FROM parent")

    with capture_logs() as told:
        assert run_with(connection, database_url, act, named=False) == []
    assert connection.execute("SELECT count(*) FROM parent").fetchone() == (1 + goes_on,)
    assert applied_values(connection) == ["1", "2"]
    assert "transaction ended by a handler" in {one["event"] for one in told}


def test_what_a_function_commits_past_the_connection_is_told_where_its_unit_fails(
    connection: Connection, database_url: str
) -> None:
    """What a failed unit had committed runs once more: that nobody can prevent, so the log says it."""

    def act(mine: Connection) -> None:
        psycopg.Cursor(mine).execute("INSERT INTO parent SELECT count(*) FROM parent; COMMIT")
        mine.execute("SELECT 1/0")

    with capture_logs() as told:
        assert run_with(connection, database_url, act, named=True) == [(b"BAD",)]
    said = [one["reason"] for one in told if one["event"] == "transaction ended by a handler"]
    assert said
    assert all("its records run once more" in reason for reason in said)


def test_a_session_that_a_function_left_read_only_is_replaced(connection: Connection, database_url: str) -> None:
    """Else its worker would wait for a database that is sound."""
    act: Act = lambda mine: psycopg.Cursor(mine).execute("COMMIT; SET default_transaction_read_only = on")  # noqa: E731
    assert run_with(connection, database_url, act, named=True, attempts=1) == []
    assert set(applied_values(connection)) == {"1", "2", "BAD"}
