"""How a version begins where a person's function, a row's check or another build is in the way: said, nothing begun."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest

from tests.integration.view.test_folding import HOUR_MILLISECONDS, LIMITED, MILLISECONDS, Limited, confirmed
from tests.integration.view.test_versions import PROJECT, TOPIC, Shop, shop
from tests.unit.orchestrator.desktop import CODEC
from towpath.errors import ConfigurationError, RefusedError
from towpath.stream.engine.postgres import create_stream_tables
from towpath.view import View
from towpath.view.agent import Folding
from towpath.view.postgres import ViewTable
from towpath.view.versions.building.postgres import begin_at_topics, begin_with_records, begin_with_rows
from towpath.view.versions.log import bounds_of
from towpath.view.versions.postgres import built_versions
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


@pytest.mark.parametrize("second", ["rows", "topics"])
@pytest.mark.parametrize("earlier", ["rows", "topics"])
def test_the_second_of_two_builds_at_once_is_told_that_the_version_has_begun(
    first: Shop, earlier: str, second: str
) -> None:
    """Whatever each of them begins with."""
    errors: list[BaseException] = []

    def begin(own: Connection, source: str) -> None:
        if source == "rows":
            begin_with_rows(own, PROJECT, TWO, DECISION, CODEC)
        else:
            begin_at_topics(own, PROJECT, TWO, bounds_of(first.broker, [TOPIC]), DECISION)

    def beside() -> None:
        try:
            with first.connected() as own:
                begin(own, second)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=beside)
    with first.connected() as own:
        begin(own, earlier)
        thread.start()
        thread.join(1.5)
    thread.join()
    assert [type(error) for error in errors] == [RefusedError], errors
