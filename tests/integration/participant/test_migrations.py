"""Numbered migrations on a real database: applied once, together with their note, whoever comes at the same time."""

import threading
from functools import partial
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from tests.integration.service_fixture import ROOT
from towpath.errors import ConfigurationError, WorldError
from towpath.participant.postgres import _apply_file, apply_migrations, apply_service_schema, migrate
from towpath.settings import load_settings


def put(root: Path, name: str, sql: str) -> None:
    """Write a migration of the service `order`."""
    folder = root / "infra" / "postgres" / "order"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(sql, encoding="utf-8")


def names(connection: psycopg.Connection) -> list[str]:
    """Return what is noted as applied, in order."""
    found = connection.execute("SELECT name FROM towpath_migration ORDER BY number").fetchall()
    connection.commit()
    return [name for (name,) in found]


def test_each_is_applied_once_and_a_broken_one_leaves_no_trace(tmp_path: Path, database_url: str) -> None:
    """What came before a broken one stays; the broken one is named with its line, and is applied once it is fixed."""
    put(tmp_path, "0001_orders.sql", "CREATE TABLE orders (id int)")
    put(tmp_path, "0002_totals.sql", "ALTER TABLE orders ADD total int;\nALTER TABLE nobody ADD total int")
    with psycopg.connect(database_url) as connection:
        with pytest.raises(ConfigurationError, match=r"0002_totals\.sql") as caught:
            migrate(connection, tmp_path, "order")
        assert caught.value.next_step == "fix infra/postgres/order/0002_totals.sql"
        assert names(connection) == ["orders"]
        assert connection.execute("SELECT count(*) FROM pg_attribute WHERE attname = 'total'").fetchone() == (0,)
        connection.commit()
        put(tmp_path, "0002_totals.sql", "ALTER TABLE orders ADD total int")
        assert [one.number for one in migrate(connection, tmp_path, "order")] == [2]
        assert migrate(connection, tmp_path, "order") == ()


@pytest.mark.parametrize(
    "lost", ["SELECT pg_terminate_backend(pg_backend_pid())", "SET lock_timeout = 1; LOCK TABLE held"]
)
@pytest.mark.parametrize("folder", [True, False], ids=["migration", "the service's own SQL"])
def test_what_the_server_does_is_not_the_files_fault(
    tmp_path: Path, database_url: str, lost: str, folder: bool
) -> None:
    """It restarts, or somebody holds a lock: nothing in the file is to be fixed, and the next run applies it."""
    put(tmp_path, "0001_orders.sql" if folder else "../order.sql", f"CREATE TABLE orders (id int); {lost}")
    with psycopg.connect(database_url) as holder:
        holder.execute("CREATE TABLE held (id int)")
        holder.commit()
        holder.execute("LOCK TABLE held")
        with psycopg.connect(database_url) as connection:
            own = partial(_apply_file, connection, tmp_path / "infra" / "postgres" / "order.sql", tmp_path)
            apply = partial(migrate, connection, tmp_path, "order") if folder else own
            with pytest.raises(WorldError, match=r"or.*\.sql: ") as raised:
                apply()
        assert "fix" not in (raised.value.next_step or "")
        assert holder.execute("SELECT to_regclass('orders')").fetchone() == (None,)


OWN_DOING = {
    "a table whose deferred triggers wait": "CREATE TABLE p (id int PRIMARY KEY);\n"
    "CREATE TABLE c (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED);\n"
    "INSERT INTO c VALUES (1);\nALTER TABLE c ADD COLUMN more int;",
    "no right to write": "SET TRANSACTION READ ONLY;\nCREATE TABLE p (id int);",
}


@pytest.mark.parametrize("what", sorted(OWN_DOING))
def test_what_would_be_refused_again_is_the_files_fault(tmp_path: Path, database_url: str, what: str) -> None:
    """What the file itself has done before stands in its way: the same command again would meet it again."""
    put(tmp_path, "0001_orders.sql", OWN_DOING[what])
    with (
        psycopg.connect(database_url) as connection,
        pytest.raises(ConfigurationError, match=r"0001_orders\.sql") as raised,
    ):
        migrate(connection, tmp_path, "order")
    assert raised.value.next_step == "fix infra/postgres/order/0001_orders.sql"


def test_where_a_database_takes_no_writes_no_file_is_at_fault(tmp_path: Path, database_url: str) -> None:
    """As a standby: the server is named, before any migration runs."""
    put(tmp_path, "0001_orders.sql", "CREATE TABLE orders (id int)")
    read_only = psycopg.connect(database_url, options="-c default_transaction_read_only=on")
    with read_only as connection, pytest.raises(WorldError, match="takes no writes"):
        migrate(connection, tmp_path, "order")


def test_two_that_migrate_at_once_take_turns(tmp_path: Path, database_url: str) -> None:
    """Two workers of a new version start together: each migration is applied by one of them."""
    for number in range(1, 9):
        put(tmp_path, f"{number:04}_t{number}.sql", f"CREATE TABLE t{number} (id int)")
    done: list[int] = []

    def work() -> None:
        with psycopg.connect(database_url) as own:
            done.extend(one.number for one in migrate(own, tmp_path, "order"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(done) == list(range(1, 9))


DUMPED = """\\restrict a1B
SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.orders (id int);
\\unrestrict a1B
"""


def test_what_pg_dump_wrote_is_a_migration(tmp_path: Path, database_url: str) -> None:
    """How one begins who has a database; what it sets for its session ends with it."""
    put(tmp_path, "0001_baseline.sql", DUMPED)
    put(tmp_path, "0002_more.sql", "SET ROLE pg_monitor")
    put(tmp_path, "0003_more.sql", "CREATE TABLE more (id int)")
    with psycopg.connect(database_url) as connection:
        assert [one.number for one in migrate(connection, tmp_path, "order")] == [1, 2, 3]
        assert names(connection) == ["baseline", "more", "more"]
        assert connection.execute("SELECT to_regclass('more') IS NOT NULL").fetchone() == (True,)


def test_what_the_services_own_sql_sets_hides_no_note(tmp_path: Path, database_url: str) -> None:
    """A migration that `towpath up` has applied is not applied again by `towpath migrate`."""
    loaded = load_settings(ROOT, environment=False)
    postgres = loaded.postgres.model_copy(update={"urls": {"order": SecretStr(database_url)}})
    settings = loaded.model_copy(update={"postgres": postgres, "root": tmp_path})
    put(tmp_path, "0001_seed.sql", "CREATE TABLE IF NOT EXISTS seed (n int)")
    own = tmp_path / "infra" / "postgres" / "order.sql"
    own.write_text("CREATE SCHEMA IF NOT EXISTS app;\nSET search_path TO app, public;\n", encoding="utf-8")
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    apply_service_schema(settings, "order", capture=False)
    assert apply_migrations(settings, "order") == ()


def test_nothing_runs_of_files_of_which_one_cannot_be_applied_whole(tmp_path: Path, database_url: str) -> None:
    """A COMMIT of its own, as many tools write it, would keep half of a file; half is read where a zero byte is."""
    put(tmp_path, "0001_orders.sql", "CREATE TABLE orders (id int)")
    for broken in ("BEGIN;\nCREATE TABLE more (id int);\nCOMMIT;", "CREATE TABLE more (id int);\n\0SELECT 1;"):
        put(tmp_path, "0002_more.sql", broken)
        with psycopg.connect(database_url) as connection:
            with pytest.raises(ConfigurationError, match=r"0002_more\.sql"):
                migrate(connection, tmp_path, "order")
            assert connection.execute("SELECT to_regclass('orders'), to_regclass('more')").fetchone() == (None, None)


def test_an_error_names_its_line_also_where_lines_end_as_in_windows(tmp_path: Path, database_url: str) -> None:
    """And an empty file is applied like any other."""
    put(tmp_path, "0001_empty.sql", "-- nothing")
    long = "SELECT 1;\r\n" * 50 + "ALTR TABLE nobody ADD n int;\r\n" + "SELECT 1;\r\n" * 50
    (tmp_path / "infra" / "postgres" / "order" / "0002_more.sql").write_bytes(long.encode())
    with psycopg.connect(database_url) as connection:
        with pytest.raises(ConfigurationError, match=r"0002_more\.sql:51: "):
            migrate(connection, tmp_path, "order")
        assert names(connection) == ["empty"]
