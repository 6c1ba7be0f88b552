"""What becomes of a version whose offsets an older worker has kept in another schema than `public`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.integration.stream.test_units_connection import advised, move_elsewhere
from tests.integration.view.test_folding import VIEW
from tests.integration.view.test_versions import PROJECT, Shop, shop
from towpath.errors import ConfigurationError
from towpath.stream.engine.elsewhere.postgres import require_in_public
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view.postgres import ViewTable
from towpath.view.versions.building.postgres import require_not_begun, require_rows
from towpath.view.versions.postgres import built_versions, drop
from towpath.view.versions.standing import VersionDecision
from towpath.view.view import View, group_name

__all__ = ["shop"]
pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]
TWO = replace(VIEW, version=2, from_row=lambda row: VIEW.row(**row))
DROP_TWO = VersionDecision("counts", "drop", 2, None, "test", "a test")


def folded_elsewhere(shop: Shop, view: View[Any], *, tables: bool = True) -> None:
    """Have a version whose offsets lie in another schema, and maybe the tables of now in `public`."""
    with shop.connected() as own:
        create_stream_tables(own)
        own.execute(
            "INSERT INTO towpath_offsets VALUES (%s, %s, 0, 'id', 8)",
            (group_name(PROJECT, view.name, view.version), view.topics[0]),
        )
        move_elsewhere(own, "svc")
        if tables:
            create_stream_tables(own)


def refused(shop: Shop, look: Callable[[Connection], object]) -> ConfigurationError:
    """Return what is said of what lies elsewhere."""
    with (
        shop.connected() as own,
        pytest.raises(ConfigurationError, match=r"in schema svc \(.*\), not in public") as said,
    ):
        look(own)
    return said.value


@pytest.mark.parametrize("begins_anew", [True, False])
def test_a_version_is_dropped_once_its_offsets_lie_where_its_workers_look(shop: Shop, begins_anew: bool) -> None:
    """They would stay, and be told to whoever begins it anew as how far its rows are, which are gone."""
    with shop.connected() as own:
        for view in (VIEW, TWO):
            ViewTable(view).create(own)
    folded_elsewhere(shop, TWO)
    error = refused(shop, lambda own: drop(own, PROJECT, DROP_TWO))
    with shop.connected() as own:
        assert built_versions(own, "counts") == [1, 2]
        assert "rename svc.towpath_offsets" in (error.next_step or "")
        own.execute(b"ALTER TABLE svc.towpath_offsets RENAME TO of_then" if begins_anew else advised(error))
    with shop.connected() as own:
        drop(own, PROJECT, DROP_TWO)
    with shop.connected() as own:
        require_in_public(own, group_name(PROJECT, TWO.name, 2))
        assert built_versions(own, "counts") == [1]
        assert own.execute("SELECT * FROM public.towpath_offsets").fetchall() == []


def test_a_snapshot_of_a_version_whose_offsets_lie_elsewhere_says_so(shop: Shop) -> None:
    """Not that the version has not folded what it has; and so where the new one's do, rehearsed or not."""
    with shop.connected() as own:
        ViewTable(VIEW).create(own)
    folded_elsewhere(shop, VIEW)
    error = refused(shop, lambda own: require_rows(own, PROJECT, TWO, 1))
    with shop.connected() as own:
        own.execute(advised(error))
    with shop.connected() as own:
        require_rows(own, PROJECT, TWO, 1)


@pytest.mark.parametrize("tables", [True, False])
def test_a_rehearsal_refuses_a_version_that_has_begun_elsewhere(shop: Shop, tables: bool) -> None:
    """As the run does; where there are no tables to move its offsets to, it names what makes them."""
    folded_elsewhere(shop, TWO, tables=tables)
    error = refused(shop, lambda own: require_not_begun(own, PROJECT, TWO))
    assert (advised(error) != b"") == tables
    assert (f"start {group_name(PROJECT, 'counts', 2)} again" in (error.next_step or "")) != tables
