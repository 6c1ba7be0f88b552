"""What a role is told that may not promote or drop a version: what it lacks, in statements that are run as printed."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.integration.view.test_folding import VIEW
from tests.integration.view.test_versions import PROJECT, Shop, shop
from towpath.errors import RefusedError
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view.postgres import ViewTable
from towpath.view.versions.postgres import built_versions, drop, published_version, swap
from towpath.view.versions.standing import VersionDecision

__all__ = ["shop"]
pytestmark = pytest.mark.stack
Connection = psycopg.Connection[Any]
PROMOTE_TWO = VersionDecision("counts", "promote", 1, 2, "test", "a test")
DROP_TWO = VersionDecision("counts", "drop", 2, None, "test", "a test")
MAKES = "GRANT ALL ON SCHEMA public TO {0};"
WRITES = "GRANT ALL ON ALL TABLES IN SCHEMA public TO {0};"


def two_of_another(shop: Shop, notify: str | None) -> None:
    """Have two versions of a role that is not the one of `told_in_turn`, the first published."""
    with shop.connected() as own:
        create_stream_tables(own)
        for version in (1, 2):
            ViewTable(replace(VIEW, version=version, notify_field=notify)).create(own)


def told_in_turn(shop: Shop, database_url: str, rights: str, done: Callable[[Connection], object]) -> list[str]:
    """Have a role of some rights do something, running what each refusal tells to run; return that."""
    role = f"other_{uuid4().hex}"
    of_role = sql.Identifier(role)
    told: list[str] = []
    with psycopg.connect(database_url) as own:
        own.execute(sql.SQL("CREATE ROLE {0}; " + rights).format(of_role))
    try:
        while len(told) < 6:
            try:
                with shop.connected() as own:
                    own.execute(sql.SQL("SET LOCAL ROLE {}").format(of_role))
                    done(own)
                    return told
            except RefusedError as refused:
                (found,) = re.findall(r"run: (.*?); then", refused.next_step or "")
                with psycopg.connect(database_url) as admin:
                    # Named is the one who has connected; this role was set after that.
                    user = sql.Identifier(admin.info.user).as_string(admin)
                    told.append(found.replace(f" TO {user}", ""))
                    admin.execute(found.replace(f" TO {user}", f" TO {role}").encode())
        raise AssertionError(told)
    finally:
        with psycopg.connect(database_url) as own:
            drops = "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}"
            own.execute(sql.SQL(drops).format(of_role))


def test_a_version_that_another_role_owns_goes_once_its_owner_has_given_all_of_it(
    shop: Shop, database_url: str
) -> None:
    """By the statements that are named, one after the other: its table, and the functions of its triggers."""
    two_of_another(shop, VIEW.key)
    given = told_in_turn(shop, database_url, MAKES + WRITES, lambda own: drop(own, PROJECT, DROP_TWO))
    with shop.connected() as own:
        assert built_versions(own, "counts") == [1]
    functions = ["ALTER FUNCTION counts_v2_notify() OWNER", "ALTER FUNCTION counts_v2_is_published() OWNER"]
    assert given == ["ALTER TABLE counts_v2 OWNER", *functions]


GRANT_MAKES = "GRANT USAGE, CREATE ON SCHEMA public"
FOLLOWS = "GRANT SELECT, UPDATE ON public.towpath_offsets; GRANT SELECT ON public.towpath_parked"
DECIDES = "GRANT SELECT, INSERT ON towpath_view_decisions"
KEPT = "public.towpath_offsets, public.towpath_seen, public.towpath_horizon, public.towpath_parked"
OWNS = f"{GRANT_MAKES}; GRANT SELECT ON counts_v1, counts_v2; ALTER VIEW counts OWNER"
FLAGS = [f"{GRANT_MAKES}; ALTER FUNCTION counts_v{version}_is_published() OWNER" for version in (1, 2)]


@pytest.mark.parametrize(
    ("rights", "notify", "told"),
    [
        (MAKES + WRITES, VIEW.key, [OWNS, *FLAGS]),
        (WRITES, None, [OWNS]),
        (MAKES, None, [FOLLOWS, OWNS, DECIDES]),
        ("", VIEW.key, [FOLLOWS, OWNS, *FLAGS, DECIDES]),
    ],
    ids=["owns nothing", "makes nothing either", "may not write", "has no right"],
)
def test_a_role_that_may_not_promote_is_told_all_that_it_lacks(
    shop: Shop, database_url: str, rights: str, notify: str | None, told: list[str]
) -> None:
    """By statements that are run as printed: for the name, the functions beside it, the offsets and the decisions."""
    two_of_another(shop, notify)

    def promote(own: Connection) -> None:
        assert swap(own, PROJECT, PROMOTE_TWO, ends={}, has_records=lambda _: False) is None
        own.execute("SELECT FROM counts")  # by the rights of whoever owns the name now

    assert told_in_turn(shop, database_url, rights, promote) == told
    with shop.connected() as own:
        assert published_version(own, "counts") == 2


def test_a_role_that_may_not_forget_or_decide_is_told_so_by_its_drop(shop: Shop, database_url: str) -> None:
    """It owns the version, and not what all versions share."""
    two_of_another(shop, None)
    told = told_in_turn(shop, database_url, MAKES, lambda own: drop(own, PROJECT, DROP_TWO))
    forgets = f"GRANT SELECT, UPDATE, DELETE ON {KEPT}"
    assert told == [FOLLOWS, "ALTER TABLE counts_v2 OWNER", forgets, DECIDES]
