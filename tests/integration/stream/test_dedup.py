"""Applied ids on a real PostgreSQL."""

from importlib import resources
from typing import Any

import psycopg
import pytest

from towpath.view.dedup.horizon import Sighting
from towpath.view.dedup.postgres import forget, sort_and_remember


@pytest.fixture(autouse=True)
def tables(connection: psycopg.Connection[Any]) -> None:
    connection.execute(resources.files("towpath.stream.engine").joinpath("stream.sql").read_bytes())
    connection.commit()


def fresh(connection: psycopg.Connection[Any], *pairs: tuple[str, int]) -> tuple[list[str], list[str]]:
    result, _ = sort_and_remember(connection, "app", "in", 0, [Sighting(name, time) for name, time in pairs])
    return [each.id for each in result.fresh], [each.id for each in result.beyond]


def test_ids_stand_or_fall_with_the_transaction(connection: psycopg.Connection[Any]) -> None:
    """A rolled back effect leaves no id, a committed one does."""
    assert fresh(connection, ("a", 1)) == (["a"], [])
    connection.rollback()
    assert fresh(connection, ("a", 1)) == (["a"], [])
    connection.commit()
    assert fresh(connection, ("a", 1), ("b", 2)) == (["b"], [])


def test_what_is_forgotten_leaves_a_horizon(connection: psycopg.Connection[Any]) -> None:
    """By stream time: after it, older unknown ids are beyond, newer ones fresh, known ones repetitions."""
    fresh(connection, ("a", 1_000), ("b", 2_000), ("c", 9_000))
    assert forget(connection, "app", "in", 0, 7_500) == 1
    assert forget(connection, "app", "in", 0, 7_500) == 0
    assert fresh(connection, ("a", 1_000), ("x", 999), ("y", 1_001), ("b", 2_000)) == (["y"], ["a", "x"])


def test_partitions_and_applications_do_not_share_ids(connection: psycopg.Connection[Any]) -> None:
    """The same id in another partition, or for another application, is its own."""
    fresh(connection, ("a", 1))
    result, _ = sort_and_remember(connection, "app", "in", 1, [Sighting("a", 1)])
    assert len(result.fresh) == 1
    result, _ = sort_and_remember(connection, "other", "in", 0, [Sighting("a", 1)])
    assert len(result.fresh) == 1
