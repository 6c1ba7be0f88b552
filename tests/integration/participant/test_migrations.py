"""Numbered migrations on a real database: applied once, together with their note, whoever comes at the same time."""

import threading
from pathlib import Path

import psycopg
import pytest

from towpath.errors import ConfigurationError
from towpath.participant.postgres import migrate


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
