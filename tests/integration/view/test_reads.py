"""Reading a view: typed rows, pages, tags, and reads that wait for one's own write."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, cast

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from psycopg.errors import LockNotAvailable
from pydantic import SecretStr

from schemas.records.order import OrderConfirmed
from tests.integration.view.test_folding import NOW
from tests.integration.view.test_versions import TOPIC, Shop, Sum, shop, sum_view, until
from tests.unit.orchestrator.desktop import CODEC
from towpath.errors import ConfigurationError, ContractError, NotFoundError, WorldError
from towpath.orchestrator.envelope import headers_of
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view import RowSource, View
from towpath.view.postgres import ViewTable
from towpath.view.reads import Filter, NotYetRead, Seen
from towpath.view.reads import postgres as reads
from towpath.view.reads.postgres import ViewReader
from towpath.view.reads.reading import Comparing
from towpath.view.reads.router import view_router
from towpath.view.versions.postgres import publish, vector_of, views_connection

__all__ = ["shop"]
pytestmark = pytest.mark.stack
VIEW = sum_view(RowSource.ONE_KEY, 1)
NOBODY = SecretStr("postgresql://x@127.0.0.1:1/views")
"""Where no database listens."""


def confirm(shop: Shop, key: str, id_: str) -> str:
    """Append a confirmation; return its position."""
    record = OrderConfirmed(order_id=key, confirmed_at=NOW)
    headers = headers_of(id=id_, type=record.SCHEMA_NAME)
    return shop.broker.append(TOPIC, CODEC.encode(record), key=key.encode(), headers=headers).position


@pytest.fixture
def reader(shop: Shop) -> ViewReader[Sum]:
    """Return a reader of a view that has folded five rows: `k-0` once, `k-1` twice, and so on."""
    for number in range(5):
        for time in range(number + 1):
            confirm(shop, f"k-{number}", f"e-{number}-{time}")
    fold(shop)
    return ViewReader(shop.settings, VIEW)


def asked(app: FastAPI, path: str, params: dict[str, str] | None = None, etag: str = "") -> Response:
    """Ask an application, without a socket."""

    async def ask() -> Response:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
            return await client.get(path, params=params, headers={"If-None-Match": etag})

    return asyncio.run(ask())


def fold(shop: Shop) -> None:
    """Let a worker fold the whole log."""

    async def main() -> None:
        await shop.start(VIEW)
        await until(lambda: shop.caught_up(VIEW))
        await shop.stop_all()

    asyncio.run(main())


def test_a_row_comes_typed_with_a_tag_that_changes_with_the_offsets(shop: Shop, reader: ViewReader[Sum]) -> None:
    """The same tag means the same rows; a key without a row has none."""
    found = reader.get("k-2")
    assert found.row == Sum("k-2", 3, 6)
    assert reader.get("other").row is None
    assert reader.get("k-2").tag == found.tag
    confirm(shop, "k-2", "further")
    fold(shop)
    after = reader.get("k-2")
    assert (after.row, after.tag != found.tag) == (Sum("k-2", 4, 8), True)


def test_a_promotion_in_the_middle_of_a_read_shows_in_all_of_it_or_in_none(
    shop: Shop, reader: ViewReader[Sum], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, version and offsets are of one version, or the tag would not be that of the rows."""
    with views_connection(shop.settings) as connection:
        ViewTable(sum_view(RowSource.ONE_KEY, 2)).create(connection)

    def promoted_meanwhile(*arguments: Any) -> Any:
        with views_connection(shop.settings) as connection:
            connection.execute("SET lock_timeout = '1s'")
            with contextlib.suppress(LockNotAvailable):
                publish(connection, VIEW.name, 2)
        return vector_of(*arguments)

    monkeypatch.setattr(reads, "vector_of", promoted_meanwhile)
    found = reader.get("k-2")
    assert (found.row, found.tag[:2]) == (Sum("k-2", 3, 6), "v1")


def test_pages_follow_the_keys_and_filters_are_of_the_rows_own_fields(reader: ViewReader[Sum]) -> None:
    """Each page says where the next begins; a field that is not there is refused."""
    first = reader.page([Filter("confirmations", 2, Comparing.AT_LEAST)], limit=3)
    assert ([row.name for row in first.rows], first.after) == (["k-1", "k-2", "k-3"], "k-3")
    second = reader.page([Filter("confirmations", 2, Comparing.AT_LEAST)], limit=3, after=first.after)
    assert ([row.name for row in second.rows], second.after) == (["k-4"], None)
    for filters, limit in (([Filter("name; DROP", 1)], 3), ([], 0), ([], 1_001)):
        with pytest.raises(ConfigurationError):
            reader.page(filters, limit=limit)


def test_a_read_waits_for_ones_own_write(shop: Shop, reader: ViewReader[Sum]) -> None:
    """By position or by the event's id; what is not folded in time is said, and nothing older is given for it."""
    position = confirm(shop, "k-0", "mine")
    for seen in (Seen(position=position), Seen(event_id="mine")):
        with pytest.raises(NotYetRead, match="has not folded"):
            reader.get("k-0", seen=seen, timeout_seconds=0.1)
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.append(reader.get("k-0", seen=Seen(event_id="mine"), timeout_seconds=60).row)
    )
    waiting.start()
    fold(shop)
    waiting.join(60)
    assert found == [Sum("k-0", 2, 4)]
    assert reader.get("k-0", seen=Seen(position=position)).row == Sum("k-0", 2, 4)
    with pytest.raises(ConfigurationError, match="is no position"):
        reader.get("k-0", seen=Seen(position="order.events"))


def test_a_view_that_is_not_built_is_said(shop: Shop) -> None:
    """With what to run."""
    with pytest.raises(NotFoundError, match="not built yet"):
        ViewReader(shop.settings, VIEW).get("k")


def test_the_router_answers_rows_pages_and_what_has_not_changed(shop: Shop, reader: ViewReader[Sum]) -> None:
    """200 with an ETag, 304 to a known one, 404, 422, and 503 where a write is not folded in time."""
    app = FastAPI()
    app.include_router(view_router(reader, VIEW), prefix="/sums")
    one = asked(app, "/sums/k-1")
    assert (one.status_code, one.json()) == (200, {"name": "k-1", "confirmations": 2, "twice": 4})
    assert asked(app, "/sums/k-1", etag=one.headers["ETag"]).status_code == 304
    page = asked(app, "/sums/", {"confirmations.gt": "2", "limit": "2"}).json()
    assert ([row["name"] for row in page["rows"]], page["after"]) == (["k-2", "k-3"], "k-3")
    assert asked(app, "/sums/", {"confirmations": "5"}).json()["after"] is None
    assert asked(app, "/sums/other").status_code == 404
    for wrong in ({"nothing": "1"}, {"confirmations.like": "1"}, {"confirmations": "many"}):
        assert asked(app, "/sums/", wrong).status_code == 422
    for weak in (f"W/{one.headers['ETag']}", f'"other", W/{one.headers["ETag"]}', "*"):
        assert asked(app, "/sums/k-1", etag=weak).status_code == 304
    for odd in (
        {"name": "a\0b"},
        {"after": "\0"},
        {"confirmations": "1e5"},
        {"min_position": "payment.events[0]@1"},
        {"min_event": "a\0b"},
    ):
        assert asked(app, "/sums/", odd).status_code == 422, odd
    assert asked(app, "/sums/a%00b").status_code == 422
    assert asked(app, "/sums/", {"confirmations": "9" * 40}).json()["rows"] == []
    late = asked(app, "/sums/k-1", {"min_event": "never", "timeout_seconds": "0"})
    assert (late.status_code, late.headers["Retry-After"]) == (503, "1")


@dataclass(frozen=True, slots=True)
class Odd:
    """Whatever a column may hold."""

    key: bytes
    amount: Decimal
    share: float


def test_the_router_tells_whatever_a_row_may_hold(shop: Shop) -> None:
    """Bytes as base64, which it also takes; decimals exactly; a share of nothing as null."""
    view: View[Odd] = replace(cast("Any", VIEW), name="odd", row=Odd, key="key", indexes=())
    rows = [
        Odd(b"\xff\xd8", Decimal("12345678901234567.89"), float("nan")),
        Odd(b"\xff\xd9", Decimal(1), float("-inf")),
    ]
    with shop.connected() as own:
        create_stream_tables(own)
        ViewTable(view).create(own)
        ViewTable(view).store(own, {cast("Any", row.key): row for row in rows})
    app = FastAPI()
    app.include_router(view_router(ViewReader(shop.settings, view), view), prefix="/odd")
    told = [
        {"key": "/9g=", "amount": "12345678901234567.89", "share": None},
        {"key": "/9k=", "amount": "1", "share": None},
    ]
    assert asked(app, "/odd/", {"limit": "1"}).json() == {"rows": told[:1], "after": "/9g="}
    assert asked(app, "/odd/", {"after": "/9g="}).json() == {"rows": told[1:], "after": None}
    assert asked(app, "/odd/", {"key": "/9k=", "amount.le": "1.0"}).json()["rows"] == told[1:]
    assert asked(app, "/odd/", {"key": "no base64"}).status_code == 422


def test_what_a_view_can_never_answer_is_said_at_once(shop: Shop, reader: ViewReader[Sum]) -> None:
    """A value of another type, None compared, a topic that it does not fold, and a column that it does not have."""
    for wrong in (Filter("confirmations", "many"), Filter("name", 5), Filter("name", "a\0b"), Filter("name", "\ud800")):
        with pytest.raises(ConfigurationError, match="does not fit"):
            reader.page([wrong])
    with pytest.raises(ConfigurationError, match="compared with None"):
        reader.page([Filter("confirmations", None, Comparing.MORE)])
    with pytest.raises(ConfigurationError, match="does not fold"):
        reader.get("k-1", seen=Seen(position="elsewhere.events[0]@1"), timeout_seconds=60.0)
    with views_connection(shop.settings) as connection:
        connection.execute(
            "DROP VIEW sums; ALTER TABLE sums_v1 RENAME twice TO double; CREATE VIEW sums AS TABLE sums_v1"
        )
    with pytest.raises(ContractError, match="version 1 of view sums, which is published, lacks"):
        reader.get("k-1")


def test_a_database_that_is_away_is_told_to_a_client_that_may_ask_again(shop: Shop) -> None:
    """503, as for a write that is not folded yet: nothing is wrong with what was asked."""
    away = shop.settings.model_copy(
        update={"postgres": shop.settings.postgres.model_copy(update={"urls": {"views": NOBODY}})}
    )
    app = FastAPI()
    app.include_router(view_router(ViewReader(away, VIEW), VIEW), prefix="/sums")
    found = asked(app, "/sums/k-1")
    assert (found.status_code, found.headers["Retry-After"]) == (503, "1")


def test_a_database_that_goes_away_on_the_way_is_said_as_one_that_is_away(shop: Shop) -> None:
    """A server that is restarted ends a long replay or build with what to run next, not with a traceback."""
    with pytest.raises(WorldError, match="the database views went away"), views_connection(shop.settings) as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with views_connection(shop.settings) as connection:
        connection.execute("CREATE TABLE held ()")
        connection.commit()
        connection.execute("LOCK held")
        with pytest.raises(LockNotAvailable), views_connection(shop.settings) as other:
            other.execute("LOCK held NOWAIT")
