"""The whole reference project on scratch databases: real services, real views, one outbox a database."""

from typing import Any
from uuid import UUID

import pytest

from pipelines.services.order import place_order, request_cancellation
from pipelines.services.payment.card_network.postgres import unbalanced
from schemas.records.catalog import ReserveStock
from schemas.records.order import OrderLine, OrderPlaced
from schemas.records.payment import AuthorisePayment, PaymentDeclined
from tests.integration.services import cases
from towpath.client.postgres import Client
from towpath.clock import ManualClock
from towpath.testing import InMemoryProject, Instance

pytestmark = pytest.mark.stack


def order(card: str = "card-1") -> OrderPlaced:
    """Return an order of two mugs."""
    return OrderPlaced(
        order_id="o-1",
        customer_id="c-1",
        lines=(OrderLine(sku="mug", quantity=2, unit_price_cents=450),),
        total_cents=900,
        currency="EUR",
        card_token=card,
        placed_at=ManualClock().now(),
    )


def placed(project: InMemoryProject, card: str = "card-1") -> Instance:
    """Let customer and shelves be there, and the order be placed through the order service's own door."""
    for service, prepare in (("identity", cases.customers), ("catalog", cases.shelves)):
        with project.database(service) as connection:
            prepare(connection)
    with project.database("order") as connection:
        place_order(connection, project.codec, order(card), event_id=UUID(int=7))
    return project.instance("place_order", "o-1", UUID(int=7))


def rows(project: InMemoryProject, service: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a service's database."""
    with project.database(service) as connection:
        return connection.execute(query).fetchall()  # type: ignore[no-any-return]


def test_an_order_is_placed_and_cancelled(towpath_project: InMemoryProject) -> None:
    """Two sagas, four services and two views; money and stock come back, and an application's client is told."""
    project = towpath_project
    first = placed(project)
    project.run()
    assert first.completed, first.story()
    assert rows(project, "catalog", cases.PROMISED) == [("mug", 10, 2), ("vase", 3, 0)]
    with project.database("order") as connection:
        request_cancellation(
            connection, project.codec, "o-1", reason="ordered twice", requested_by="customer",
            authorisation_id=rows(project, "payment", "SELECT authorisation_id FROM authorisation")[0][0],
            event_id=UUID(int=8),
        )  # fmt: skip
    project.run()
    (second,) = project.instances("cancel_order")
    assert second.completed, second.story()
    assert rows(project, "catalog", cases.PROMISED) == [("mug", 10, 0), ("vase", 3, 0)]
    assert rows(project, "payment", "SELECT captured_cents, refunded_cents FROM authorisation") == [(900, 900)]
    with project.database("payment") as connection:
        assert unbalanced(connection) == []
    assert project.row("order_status", "o-1").status == "cancelled"
    client = Client(project.settings, project.parts.catalogue, project.codec)
    standing = client.standing(first.saga_id)
    assert standing is not None
    assert standing.status == "completed"


def test_one_command_is_answered_as_declared_and_the_rest_by_the_services(towpath_project: InMemoryProject) -> None:
    """The declared refusal is recorded in payment's own inbox; catalog gives back what it had set aside."""
    project = towpath_project
    project.answers(AuthorisePayment, PaymentDeclined(order_id="o-1", reason="the network is on strike"))
    instance = placed(project)
    project.run()
    assert instance.compensated, instance.story()
    assert rows(project, "payment", "SELECT refused FROM inbox WHERE direction = 'do'") == [(True,)]
    assert rows(project, "catalog", cases.PROMISED) == [("mug", 10, 0), ("vase", 3, 0)]
    assert project.row("order_status", "o-1").reason == "the network is on strike"


def test_an_error_in_a_handler_reaches_the_test(towpath_project: InMemoryProject) -> None:
    """Through the outbox of the service, as its dead letters go, and with the error as its cause."""

    def broken(_: ReserveStock) -> None:
        raise ZeroDivisionError("in a service")

    towpath_project.answers(ReserveStock, broken)
    placed(towpath_project)
    with pytest.raises(AssertionError, match=r"ReserveStock in catalog\.commands is a dead letter") as error:
        towpath_project.run()
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_each_test_begins_with_empty_databases(towpath_project: InMemoryProject) -> None:
    """What the tests before this one have left is gone, offsets and inbox included."""
    assert towpath_project.run().instances() == []
    assert rows(towpath_project, "catalog", "SELECT count(*) FROM inbox") == [(0,)]
    assert towpath_project.rows("order_status") == []
