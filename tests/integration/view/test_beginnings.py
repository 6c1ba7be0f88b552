"""How a version begins where a person's function, a row's check or another build is in the way: said, nothing begun."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest

from tests.integration.view.test_folding import HOUR_MILLISECONDS, LIMITED, MILLISECONDS, VIEW, Limited, confirmed
from tests.integration.view.test_versions import PROJECT, TOPIC, Shop, shop
from tests.unit.orchestrator.desktop import CODEC
from towpath.errors import ConfigurationError, RefusedError, WorldError
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view import View
from towpath.view.agent import Folding
from towpath.view.postgres import ViewTable, create_table
from towpath.view.versions.building.postgres import begin_at_topics, begin_with_records, begin_with_rows
from towpath.view.versions.log import bounds_of
from towpath.view.versions.postgres import built_versions, create_decisions, drop, published_version
from towpath.view.versions.standing import VersionDecision

__all__ = ["shop"]

pytestmark = pytest.mark.stack

Connection = psycopg.Connection[Any]
DECISION = VersionDecision("limited", "build", 1, 2, "test", "a test")
TWO: View[Any] = replace(LIMITED, version=2, from_row=lambda row: Limited(row["order_id"], row["confirmations"]))


@pytest.fixture
def first(shop: Shop) -> Shop:
    """Return a shop with two rows of the first version, which has begun."""
    with shop.connected() as own:
        create_stream_tables(own)
        ViewTable(LIMITED).create(own)
        ViewTable(LIMITED).store(own, {key: Limited(key, number) for number, key in ((1, "a"), (2, "b"))})
        for place in bounds_of(shop.broker, [TOPIC]).ends:
            own.execute(
                "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset)"
                " VALUES (%s, %s, %s, 'x', 0)", (f"{PROJECT}-view-limited-v1", *place)
            )  # fmt: skip
    return shop


@pytest.mark.parametrize(
    ("from_row", "says"),
    [
        (lambda row: Limited(row["order_id"], row["count"]), "row of 'a' of version 1 .*KeyError: 'count'"),
        (lambda row: Limited(row["order_id"], row["confirmations"] + 1), "row of 'b' .*check_confirmations_2"),
        (lambda row: Limited(row["order_id"], 2**70), "row of 'a' .*out of range"),
        (lambda row: Limited(row["order_id"], cast("Any", "many")), "row of 'a' .*invalid input"),
        (lambda row: row, "row of 'a' of version 1 .*AttributeError"),
    ],
)
def test_a_from_row_that_cannot_make_a_row_is_said_with_the_key(
    first: Shop, from_row: Callable[[Any], Any], says: str
) -> None:
    """And what to do; no value of a row is told, and the new version has not begun."""
    with pytest.raises(ConfigurationError, match=says) as told, first.connected() as own:
        begin_with_rows(own, PROJECT, replace(TWO, from_row=from_row), DECISION, CODEC)
    assert "Failing row" not in str(told.value)
    with first.connected() as own:
        assert built_versions(own, "limited") == [1]


def test_a_message_of_an_outbox_that_breaks_a_check_is_said_with_its_id(shop: Shop) -> None:
    """As one that cannot be folded, whichever it is of those that are folded together."""
    folding = Folding("limited", LIMITED, CODEC, HOUR_MILLISECONDS)
    records = [confirmed(number) for number in range(4)]  # the third is one too many
    says = r"cannot fold event-2, .*check_confirmations_2"
    with pytest.raises(RefusedError, match=says) as told, shop.connected() as own:
        begin_with_records(
            own, PROJECT, LIMITED, folding, records, bounds_of(shop.broker, [TOPIC]),
            replace(DECISION, version_before=None, version_after=1), now_milliseconds=MILLISECONDS,
        )  # fmt: skip
    assert "Failing row" not in str(told.value)


def begin(first: Shop, own: Connection, source: str) -> None:
    """Let the second version begin, in a transaction that stays open."""
    if source == "rows":
        begin_with_rows(own, PROJECT, TWO, DECISION, CODEC)
    else:
        begin_at_topics(own, PROJECT, TWO, bounds_of(first.broker, [TOPIC]), DECISION)


def beside(do: Callable[[], Any], commit: Callable[[], Any], seconds: float = 4.0) -> tuple[list[BaseException], bool]:
    """Do something while a transaction is open; return what it raised, and whether it ended before the commit."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            do()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(seconds)
    ended = not thread.is_alive()
    commit()
    thread.join()
    return errors, ended


@pytest.mark.parametrize("second", ["rows", "topics"])
@pytest.mark.parametrize("earlier", ["rows", "topics"])
@pytest.mark.parametrize("is_there", [False, True], ids=["no table", "a worker has made its table"])
def test_the_second_of_two_builds_at_once_is_told_of_the_first(
    first: Shop, earlier: str, second: str, is_there: bool
) -> None:
    """Whatever each of them begins with, and without waiting for the end of the other."""
    if is_there:
        create_table(first.settings, TWO)

    def build() -> None:
        with first.connected() as own:
            begin(first, own, second)

    with first.connected() as own:
        begin(first, own, earlier)
        errors, ended = beside(build, own.commit)
    assert [type(error) for error in errors] == [RefusedError], errors
    assert ended
    with pytest.raises(RefusedError, match="has begun"):
        build()


@pytest.mark.parametrize("source", ["rows", "topics"])
def test_a_build_beside_the_worker_of_a_dropped_version_is_told_of_it(first: Shop, source: str) -> None:
    """Which has noted again where it stands, though its table is gone."""

    def build() -> None:
        with first.connected() as own:
            begin(first, own, source)

    with first.connected() as worker:
        worker.execute(
            "INSERT INTO towpath_offsets (application, topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, 0, 'x', 0)", (f"{PROJECT}-view-limited-v2", TOPIC)
        )  # fmt: skip
        errors, _ = beside(build, worker.commit, 1.5)
    assert [type(error) for error in errors] == [RefusedError], errors
    build()


def test_a_version_is_neither_dropped_nor_published_while_it_begins(first: Shop) -> None:
    """A build that begins is no member of a group yet: its lock tells of it, and nobody waits for its end."""
    create_table(first.settings, TWO)

    def drop_it() -> None:
        with first.connected() as own:
            drop(own, PROJECT, VersionDecision("limited", "drop", 2, None, "test", "a test"))

    with first.connected() as own:
        begin(first, own, "rows")
        assert "being built" in (first.swap(TWO, 2) or "")
        errors, ended = beside(drop_it, own.commit)
    assert ended
    assert [type(error) for error in errors] == [RefusedError], errors
    assert "is being built" in str(errors[0])
    drop_it()


@pytest.mark.parametrize("view", [VIEW, LIMITED], ids=["of another view", "of the version that readers see"])
@pytest.mark.parametrize("is_there", [False, True], ids=["no table", "a worker has made its table"])
def test_workers_start_and_fold_while_a_version_begins(first: Shop, view: View[Any], is_there: bool) -> None:
    """Outboxes or many rows take hours."""
    if is_there:
        create_table(first.settings, TWO)

    def work() -> None:
        create_table(first.settings, view)
        with first.connected() as worker:
            worker.execute("SET lock_timeout = '2s'")
            create_stream_tables(worker)
            worker.execute(
                "INSERT INTO towpath_seen (application, topic, partition, id, timestamp_milliseconds)"
                " VALUES ('another', 't', 0, 'x', 0)"
            )

    with first.connected() as own:
        begin(first, own, "rows")
        errors, ended = beside(work, own.commit)
    assert (errors, ended) == ([], True)


def test_a_worker_of_a_version_that_begins_is_told_for_what_it_waits(first: Shop) -> None:
    """`towpath run` tries again, and says so meanwhile."""
    with first.connected() as own:
        begin(first, own, "rows")
        errors, ended = beside(lambda: create_table(first.settings, TWO), own.commit)
    assert ended
    assert [type(error) for error in errors] == [WorldError], errors
    create_table(first.settings, TWO)


def test_another_version_starts_while_the_first_of_a_view_begins(shop: Shop) -> None:
    """What outboxes hold may take hours: no version is published yet, and whichever is ready first is."""
    other = threading.Thread(target=create_table, args=(shop.settings, TWO))
    ended = []

    def records() -> Iterator[ConsumedRecord]:
        yield confirmed(0)
        other.start()
        other.join(4.0)
        ended.append(not other.is_alive())

    folding = Folding("limited", LIMITED, CODEC, HOUR_MILLISECONDS)
    with shop.connected() as own:
        begin_with_records(
            own, PROJECT, LIMITED, folding, records(), bounds_of(shop.broker, [TOPIC]),
            replace(DECISION, version_before=None, version_after=1), now_milliseconds=MILLISECONDS,
        )  # fmt: skip
    other.join()
    assert ended == [True]
    with shop.connected() as own:
        assert (published_version(own, "limited"), built_versions(own, "limited")) == (2, [1, 2])


def test_the_first_version_of_a_view_is_published_once_it_has_begun(shop: Shop) -> None:
    """With all that it begins with."""
    folding = Folding("limited", LIMITED, CODEC, HOUR_MILLISECONDS)
    with shop.connected() as own:
        begin_with_records(
            own, PROJECT, LIMITED, folding, [confirmed(0)], bounds_of(shop.broker, [TOPIC]),
            replace(DECISION, version_before=None, version_after=1), now_milliseconds=MILLISECONDS,
        )  # fmt: skip
    with shop.connected() as own:
        assert published_version(own, "limited") == 1
        assert own.execute("SELECT count(*) FROM limited").fetchall() == [(1,)]


@pytest.fixture
def plain_role(database_url: str) -> Iterator[str]:
    """Return a role that may use the database's `public`, and make nothing in it."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        role = f"plain_{owner.info.dbname}"
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'".encode())
        yield role
        owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("what", ["nothing", "the decisions"])
def test_a_role_that_may_make_no_tables_is_told_what_to_grant(database_url: str, plain_role: str, what: str) -> None:
    """Whatever is there already; what it is told is run, and with that the version is made."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        if what == "the decisions":
            create_decisions(owner)
        as_role = psycopg.conninfo.make_conninfo(database_url, user=plain_role, password="plain")
        with psycopg.connect(as_role) as own, pytest.raises(ConfigurationError, match="permission denied") as refused:
            ViewTable(LIMITED).create(own)
        granted = (refused.value.next_step or "").partition("run: ")[2].partition("; then run")[0]
        owner.execute(granted.encode())
        with psycopg.connect(as_role) as own:
            assert ViewTable(LIMITED).create(own) == LIMITED.version


def test_a_role_that_does_not_own_a_table_is_told_where_it_lacks_an_index(database_url: str, plain_role: str) -> None:
    """The one that made it is to run the command."""
    with psycopg.connect(database_url) as owner:
        ViewTable(LIMITED).create(owner)
    indexed = replace(LIMITED, indexes=(("confirmations",),))
    as_role = psycopg.conninfo.make_conninfo(database_url, user=plain_role, password="plain")
    with psycopg.connect(as_role) as own, pytest.raises(ConfigurationError, match="must be owner of") as refused:
        ViewTable(indexed).create(own)
    assert "the one that owns what is there already" in (refused.value.next_step or "")
