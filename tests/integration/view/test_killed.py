"""SIGKILL at every stage of building, promoting, taking back and dropping a version, on a real database."""

import multiprocessing
import random
import signal
import sys
import time
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.view import killed
from tests.integration.view.sums import ONE, PROJECT, THREE, TWO, Further, Sum, ends
from towpath.errors import RefusedError, TowpathError
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view.postgres import ViewTable
from towpath.view.versions.postgres import publish as publish_version
from towpath.view.versions.postgres import published_version, shape_of, vector_of
from towpath.view.view import View, group_name

pytestmark = pytest.mark.stack
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.integration.view.killed"])
ROWS = 30
STRIDES = pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.crash)])
"""Every stage in the long form of the crash tests (`make test-crash`), every fourth else, beginning with any."""


def stages_of(stride: int) -> range:
    """Return the calls at which a process is killed."""
    begin = random.randrange(stride)
    sys.stdout.write(f"calls {begin}, {begin + stride}, ...\n")
    return range(begin, 1_000, stride)


def kill(call: int, action: str, database_url: str, *, after: bool) -> bool:
    """Do something in a process that is killed at its n-th call; return whether it came that far."""
    process = PROCESSES.Process(target=killed.killed_at, args=(call, action, database_url), kwargs={"after": after})
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), f"{action}, call {call}: {process.exitcode}"
    return process.exitcode != 0


def fill(connection: psycopg.Connection[Any]) -> None:
    """Let versions 1 and 2 have folded the whole topic, 1 be published, and a reader's role have been given it."""
    create_stream_tables(connection)
    for view, rows in (
        (ONE, {f"o-{n}": Sum(f"o-{n}", n) for n in range(ROWS)}),
        (TWO, {f"o-{n}": Further(f"o-{n}", n, 2 * n) for n in range(ROWS)}),
    ):
        table: ViewTable[Any] = ViewTable(view)
        table.create(connection)
        table.store(connection, rows)
        for place, end in ends().items():
            connection.execute(
                "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset)"
                " VALUES (%s, %s, %s, 'topic-id', %s)",
                (group_name(PROJECT, view.name, view.version), *place, end),
            )
    connection.execute("GRANT SELECT ON sums TO PUBLIC")
    connection.commit()


def settle(connection: psycopg.Connection[Any]) -> None:
    """Wait until the server has noticed that who was killed is gone."""
    deadline = time.monotonic() + 60
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    while connection.execute(query).fetchall() != [(0,)]:
        connection.rollback()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    connection.rollback()


def decisions(connection: psycopg.Connection[Any], action: str) -> int:
    """Return how many decisions of a kind were written down."""
    query = "SELECT count(*) FROM towpath_view_decisions WHERE action = %s"
    ((count,),) = connection.execute(query, (action,)).fetchall()
    return int(count)


def rows_of(connection: psycopg.Connection[Any], view: View[Any]) -> list[Any]:
    """Return a version's rows."""
    return ViewTable(view).all_rows(connection)


@STRIDES
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_swap_killed_at_every_stage_is_whole_or_has_not_been(
    connection: psycopg.Connection[Any], database_url: str, action: str, stride: int
) -> None:
    """Readers see the one or the other, with every row and their rights; done again, it ends the same."""
    fill(connection)
    before, wanted = (1, 2) if action == "promote" else (2, 1)
    stages = 0
    for after in (False, True) if stride == 1 else (True,):
        for call in stages_of(stride):
            with connection.transaction():
                publish_version(connection, "sums", before)
                connection.execute("TRUNCATE towpath_view_decisions")
            connection.commit()
            reached = kill(call, action, database_url, after=after)
            settle(connection)
            published = published_version(connection, "sums")
            assert published in (before, wanted), call
            assert decisions(connection, action) == (published == wanted), call
            assert connection.execute("SELECT count(*) FROM sums").fetchall() == [(ROWS,)], call
            connection.rollback()
            try:
                killed.do(action, database_url)
            except RefusedError:  # it was swapped meanwhile
                assert published == wanted, call
            assert published_version(connection, "sums") == wanted
            assert decisions(connection, action) == 1
            granted = "SELECT has_table_privilege('pg_monitor', 'sums', 'SELECT')"
            assert connection.execute(granted).fetchall() == [(True,)], call
            connection.rollback()
            if not reached:
                break
            stages += 1
    assert stages * stride >= 20, "a swap asks the database more often than that"


@STRIDES
@pytest.mark.parametrize("action", ["build from snapshot", "build from topic"])
def test_a_build_killed_at_every_stage_has_begun_whole_or_not_at_all(
    connection: psycopg.Connection[Any], database_url: str, action: str, stride: int
) -> None:
    """Its rows and the offsets that they stand for, or neither; dropped as well, at every stage, with all of it."""
    fill(connection)
    application = group_name(PROJECT, THREE.name, THREE.version)
    rows = [Further(row.name, row.confirmations, 2 * row.confirmations) for row in rows_of(connection, ONE)]
    wanted: list[Any] = rows if action == "build from snapshot" else []
    stages = {"build": 0, "drop": 0}
    begun = dict.fromkeys(ends(), 0) if action == "build from topic" else ends()
    for after in (False, True) if stride == 1 else (True,):
        for verb in ("build", "drop"):
            for call in stages_of(stride):
                _make(connection, database_url, action, there=verb == "drop")
                reached = kill(call, action if verb == "build" else "drop", database_url, after=after)
                settle(connection)
                there = shape_of(connection, "sums_v3") is not None
                vector = vector_of(connection, application)
                assert vector == (begun if there else {}), (verb, call)
                assert not there or rows_of(connection, THREE) == wanted, (verb, call)
                connection.rollback()
                try:
                    killed.do(action if verb == "build" else "drop", database_url)
                except TowpathError:
                    assert there == (verb == "build"), (verb, call)
                assert (shape_of(connection, "sums_v3") is not None) == (verb == "build"), (verb, call)
                connection.rollback()
                if not reached:
                    break
                stages[verb] += 1
    assert min(stages.values()) * stride > 10, stages


def _make(connection: psycopg.Connection[Any], database_url: str, action: str, *, there: bool) -> None:
    """Let version 3 be there, or not."""
    found = shape_of(connection, "sums_v3") is not None
    if found != there:
        connection.rollback()
        killed.do(action if there else "drop", database_url)
    connection.execute(sql.SQL("DELETE FROM towpath_view_decisions"))
    connection.commit()
