"""Numbered migrations: each once, in order, never changed afterwards."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from towpath.errors import ConfigurationError
from towpath.participant.migrations import Migration, migrations_of, pending


def put(root: Path, name: str, sql: str = "SELECT 1", folder: str = "infra/postgres/order") -> Path:
    """Write a migration."""
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sql, encoding="utf-8")
    return path


def test_they_are_read_in_the_order_of_their_numbers_from_both_places(tmp_path: Path) -> None:
    """Beside the service, or among the SQL of all of them."""
    put(tmp_path, "0002_totals.sql")
    put(tmp_path, "0001_orders.sql", folder="pipelines/services/order/migrations")
    found = migrations_of(tmp_path, "order")
    assert [(one.number, one.name) for one in found] == [(1, "orders"), (2, "totals")]
    assert [one.number for one in pending(found, {1: found[0].digest}, "order")] == [2]
    assert migrations_of(tmp_path, "payment") == ()


def test_after_9999_comes_10000(tmp_path: Path) -> None:
    """By number, not by letter; a leading zero too many is another name for a number that has one already."""
    for name in ("10000_more.sql", "9999_orders.sql"):
        put(tmp_path, name)
    assert [one.number for one in migrations_of(tmp_path, "order")] == [9999, 10000]
    put(tmp_path, "00001_a.sql")
    with pytest.raises(ConfigurationError) as raised:
        migrations_of(tmp_path, "order")
    assert raised.value.next_step == "call it 10001_a.sql"


def test_two_files_with_one_number_are_refused(tmp_path: Path) -> None:
    """Two people wrote the next one at the same time: the later of them takes the next number."""
    put(tmp_path, "0001_orders.sql")
    for name in ("0001_other.sql", "0002_more.sql"):
        put(tmp_path, name, folder="pipelines/services/order/migrations")
    with pytest.raises(ConfigurationError, match="has the number 1 already") as caught:
        migrations_of(tmp_path, "order")
    assert "0003" in (caught.value.next_step or "")


def test_a_file_called_otherwise_is_refused(tmp_path: Path) -> None:
    """It would silently never be applied."""
    put(tmp_path, "totals.sql")
    with pytest.raises(ConfigurationError, match=r"NNNN_name\.sql"):
        migrations_of(tmp_path, "order")


@pytest.mark.parametrize(
    ("others", "name", "advised"),
    [
        ([], "add-index.sql", "0001_add_index.sql"),
        (["0001_a.sql", "0003_b.sql"], "more.sql", "0004_more.sql"),
        (["0001_a.sql"], "2_Orders by day.sql", "0002_orders_by_day.sql"),
        (["more/0007_a.sql"], "0001-a.sql", "0008_a.sql"),
        ([], "2024.sql", "0001_2024.sql"),
        ([], "Größe!.sql", "0001_gr_e.sql"),
        ([], "é.sql", "0001_migration.sql"),
    ],
)
def test_the_name_that_is_advised_is_taken(tmp_path: Path, others: list[str], name: str, advised: str) -> None:
    """After the highest number in either folder, of what a name may have."""
    for other in others:
        folder = "pipelines/services/order/migrations" if "/" in other else "infra/postgres/order"
        put(tmp_path, other.removeprefix("more/"), folder=folder)
    path = put(tmp_path, name)
    with pytest.raises(ConfigurationError) as raised:
        migrations_of(tmp_path, "order")
    assert raised.value.next_step == f"call it {advised}"
    path.rename(path.with_name(advised))
    assert migrations_of(tmp_path, "order")[-1].path.name == advised


def test_an_applied_migration_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    """Another database would get something else under the same number."""
    path = put(tmp_path, "0001_orders.sql")
    applied = {1: migrations_of(tmp_path, "order")[0].digest}
    put(tmp_path, "0001_orders.sql", "SELECT 2")
    with pytest.raises(ConfigurationError, match="has changed since it was applied"):
        pending(migrations_of(tmp_path, "order"), applied, "order")
    path.unlink()
    with pytest.raises(ConfigurationError, match="is not there any more"):
        pending(migrations_of(tmp_path, "order"), applied, "order")


def test_a_number_before_one_that_is_applied_is_refused(tmp_path: Path) -> None:
    """It was written against tables that are not there any more as it knew them."""
    for name in ("0001_a.sql", "0003_c.sql"):
        put(tmp_path, name)
    applied = {one.number: one.digest for one in migrations_of(tmp_path, "order")}
    put(tmp_path, "0002_b.sql")
    with pytest.raises(ConfigurationError, match="comes before 0003") as caught:
        pending(migrations_of(tmp_path, "order"), applied, "order")
    assert "0004" in (caught.value.next_step or "")


@pytest.mark.parametrize("noted", [b"a;\nb;\n", b"a;\r\nb;\r\n"])
@pytest.mark.parametrize("now", [b"a;\nb;\n", b"a;\r\nb;\r\n"])
def test_other_line_ends_are_no_change(tmp_path: Path, noted: bytes, now: bytes) -> None:
    """git writes them as the machine has them; the digest of an older note is that of the file's bytes."""
    one = Migration(1, "orders", tmp_path / "0001_orders.sql", now)
    assert pending([one], {1: hashlib.sha256(noted).hexdigest()}, "order") == ()
    assert pending([one], {1: replace(one, sql=noted).digest}, "order") == ()
    with pytest.raises(ConfigurationError, match="has changed"):
        pending([one], {1: hashlib.sha256(b"c").hexdigest()}, "order")
