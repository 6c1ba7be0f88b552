"""The whole reference project in memory: sagas, services by declared answers, and views, with time that is told."""

from datetime import UTC, datetime, timedelta

import pytest

from sagas import cancel_order, place_order
from schemas.records.catalog import OutOfStock, ReleaseStock, ReserveStock, StockReserved
from schemas.records.identity import VerifyCustomer
from schemas.records.order import (
    ConfirmOrder,
    OrderApproved,
    OrderConfirmed,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    RejectOrder,
)
from schemas.records.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentDeclined,
    VoidAuthorisation,
)
from towpath.errors import ConfigurationError, NotFoundError, ProgrammerError
from towpath.saga.testing import sample
from towpath.settings import load_settings
from towpath.testing import InMemoryProject, ProjectParts

DAY = timedelta(days=1)


def order(order_id: str = "o-1", cents: int = 2_500) -> OrderPlaced:
    """Return an order of one line."""
    return OrderPlaced(
        order_id=order_id,
        customer_id="c-1",
        lines=(OrderLine(sku="mug", quantity=1, unit_price_cents=cents),),
        total_cents=cents,
        currency="EUR",
        card_token="card-1",
        placed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def project(towpath_project: InMemoryProject) -> InMemoryProject:
    """Return the project, in which everything is answered well, and what the order service says is published."""
    towpath_project.answers_by_example()
    towpath_project.answers(ConfirmOrder, OrderConfirmed, emits=[OrderConfirmed])
    towpath_project.answers(RejectOrder, OrderRejected, emits=[OrderRejected])
    return towpath_project


def test_an_order_goes_through_sagas_services_and_views(project: InMemoryProject) -> None:
    """From the event that starts it to the row that its customer reads, in one call and no time."""
    placed = project.start("place_order", order())
    project.run()
    assert placed.completed, placed.story()
    assert [type(command) for command in placed.commands] == [
        ReserveStock, VerifyCustomer, ConfirmOrder, AuthorisePayment, CapturePayment,
    ] or len(placed.commands) == 5  # fmt: skip
    row = project.row("order_status", "o-1")
    assert (row.status, row.total_cents) == ("confirmed", 2_500)
    assert project.now == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_reply_is_made_like_its_command(project: InMemoryProject) -> None:
    """Fields that both have are the command's; so the order's id finds its way."""
    project.start(place_order.saga, order("o-77"))
    project.run()
    assert project.records("place_order.replies")
    assert {getattr(reply, "order_id", None) for reply in project.records("place_order.replies")} == {"o-77"}


def test_a_refusal_is_compensated_in_order(project: InMemoryProject) -> None:
    """The declared answer is a business failure: what was done is undone, the start at last."""
    project.answers(AuthorisePayment, PaymentDeclined(order_id="o-1", reason="the card has expired"))
    placed = project.start("place_order", order())
    project.run()
    assert placed.compensated
    assert placed.reason == "authorise_payment: PaymentDeclined"
    undos = [type(command) for command in placed.commands if isinstance(command, ReleaseStock | RejectOrder)]
    assert undos == [ReleaseStock, RejectOrder] or set(undos) == {ReleaseStock, RejectOrder}
    assert project.row("order_status", "o-1").reason == "the card has expired"


def test_days_pass_at_once(project: InMemoryProject) -> None:
    """An approval that nobody gives times out after its 24 hours, and the order is rejected."""
    placed = project.start("place_order", order(cents=120_000))
    project.run()
    assert (placed.status, placed.waiting_for) == ("running", "approval")
    project.run_for(timedelta(hours=23))
    assert placed.status == "running"
    project.run_for(timedelta(hours=2))
    assert placed.compensated
    assert project.sent(VoidAuthorisation)


def test_a_person_decides(project: InMemoryProject) -> None:
    """By a signal; or by an operator's request, which the saga's history then tells."""
    approved = project.start("place_order", order("o-1", cents=120_000))
    cancelled = project.start("place_order", order("o-2", cents=120_000))
    project.run()
    approved.signal(OrderApproved(order_id="o-1", approver="grace"))
    cancelled.ask("cancel", by="ada", because="ordered twice")
    project.run()
    assert approved.completed
    assert cancelled.compensated
    assert "ada" in [entry.actor for entry in cancelled.history]


def test_what_is_away_is_asked_again_and_answers_once(project: InMemoryProject) -> None:
    """Retries run by virtual time; the service, back again, has one outcome however often it was asked."""
    asked: list[ReserveStock] = []

    def reserve(command: ReserveStock) -> StockReserved:
        asked.append(command)
        return StockReserved(order_id=command.order_id, reservation_id=f"r-{len(asked)}")

    project.answers(ReserveStock, reserve)
    placed = project.start("place_order", order())
    with project.away("catalog"):
        project.run_for(timedelta(seconds=15))
        assert len(project.sent(ReserveStock)) > 1
        assert placed.status == "running"
    project.run()
    assert placed.completed
    assert len(asked) == 1


def test_what_is_away_for_good_is_compensated(project: InMemoryProject) -> None:
    """Attempts are used up, and the rest is undone; nothing waits by the real clock."""
    placed = project.start("place_order", order())
    with project.away("service:payment"):
        project.run_until(lambda: placed.status == "compensating")
    project.run_to_the_end()
    assert placed.compensated
    assert len(project.sent(AuthorisePayment)) == 5


def test_a_command_that_comes_after_its_undo_is_passed_over(project: InMemoryProject) -> None:
    """A substitute keeps the participant's contract: the late command has no effect."""
    asked: list[AuthorisePayment] = []

    def authorise(command: AuthorisePayment) -> PaymentAuthorised:
        asked.append(command)
        return PaymentAuthorised(order_id=command.order_id, authorisation_id="a", amount_cents=command.amount_cents)

    project.answers(AuthorisePayment, authorise)
    placed = project.start("place_order", order())
    with project.away("payment"):
        project.run_until(lambda: placed.status == "compensating")
    project.run_to_the_end()
    assert placed.compensated
    assert len(asked) == 1  # five attempts, one outcome
    late = project.broker.records("payment.commands")[0]
    project.broker.append("payment.commands", late.value, key=late.key, headers=late.headers)
    project.run()
    assert len(asked) == 1


def test_without_an_answer_the_test_is_told_what_to_declare(towpath_project: InMemoryProject) -> None:
    """With the line to write, from the replies that the saga knows."""
    towpath_project.start("place_order", order())
    with pytest.raises(AssertionError, match=r"nobody answers ReserveStock|nobody answers VerifyCustomer") as error:
        towpath_project.run()
    assert "project.answers(" in str(error.value.__cause__)
    assert "pytest --towpath-postgres URL" in str(error.value.__cause__)


def test_an_answer_that_the_saga_does_not_know_is_told(project: InMemoryProject) -> None:
    """It would be refused in production, silently for the service; a test hears of it at once."""
    project.answers(ReserveStock, PaymentDeclined(order_id="o-1", reason="x"))
    project.start("place_order", order())
    with pytest.raises(
        AssertionError, match="is answered by PaymentDeclined; the saga knows OutOfStock, StockReserved"
    ):
        project.run()


def test_an_error_in_a_function_reaches_the_test(project: InMemoryProject) -> None:
    """As a dead letter, with the error itself as its cause and the place in its traceback."""

    def broken(_: ReserveStock) -> StockReserved:
        raise ZeroDivisionError("in a service")

    project.answers(ReserveStock, broken)
    project.start("place_order", order())
    with pytest.raises(
        AssertionError, match=r"ReserveStock in catalog.commands is a dead letter.*in a service"
    ) as error:
        project.run()
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_silence_is_an_answer_too(project: InMemoryProject) -> None:
    """None: nobody answers, and the saga's own deadlines decide."""
    project.answers(AuthorisePayment, None)
    placed = project.start("place_order", order())
    project.run_until_next_timer()
    assert project.now == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=30)
    project.answers(VoidAuthorisation, None)
    project.run_until(lambda: placed.status == "compensating")
    assert placed.reason == "authorise_payment: step_exhausted"


def test_instances_are_found_by_saga_and_key(project: InMemoryProject) -> None:
    """Also those that a test did not start itself."""
    project.start("place_order", order("o-1"))
    project.start("place_order", order("o-2"))
    project.run()
    assert [each.key for each in project.instances("place_order")] == ["o-1", "o-2"]
    (found,) = project.instances(key="o-2")
    assert (found.saga, found.status) == ("place_order", "completed")
    assert repr(found) == "<place_order o-2: completed>"


def test_before_it_runs_nothing_has_begun(project: InMemoryProject) -> None:
    """And what is not there is named."""
    placed = project.start("place_order", order())
    assert (placed.status, placed.reason, placed.waiting_for, placed.result) == ("not begun", None, None, None)
    with pytest.raises(AssertionError, match=r"project.run\(\) comes first"):
        _ = placed.state
    with pytest.raises(NotFoundError, match="no view 'orders'"):
        project.rows("orders")
    with pytest.raises(ProgrammerError, match="no worker 'katalog'"), project.away("katalog"):
        pass
    with pytest.raises(ConfigurationError, match="run without PostgreSQL"), project.database("order"):
        pass
    with pytest.raises(ConfigurationError, match="starts on OrderPlaced, not on OrderApproved"):
        project.start("place_order", OrderApproved(order_id="o-1", approver="grace"))


def test_what_is_not_reached_is_told_with_how_the_sagas_stand(project: InMemoryProject) -> None:
    """The message names each."""
    project.start("place_order", order(cents=120_000))
    with pytest.raises(AssertionError, match="<place_order o-1: running, waiting for approval>"):
        project.run_until(lambda: False, within=timedelta(hours=1))


def test_the_same_test_runs_in_the_same_order_each_time() -> None:
    """Every record of every topic, headers included, is the same in two runs."""
    runs = []
    for _ in range(2):
        project = InMemoryProject(ProjectParts.load(load_settings()))
        try:
            project.answers_by_example().answers(ReserveStock, OutOfStock)
            for number in range(3):
                project.start("place_order", order(f"o-{number}"))
            project.run_to_the_end()
            runs.append({name: project.broker.records(name) for name in project.parts.catalogue.topics})
        finally:
            project.close()
    assert runs[0] == runs[1]


def test_in_an_event_loop_the_next_command_is_named(project: InMemoryProject) -> None:
    """A project has an event loop of its own."""
    import asyncio

    async def inside() -> None:
        with pytest.raises(ProgrammerError, match="an event loop of its own") as error:
            project.run()
        assert "asyncio.to_thread(project.run)" in str(error.value)
        await asyncio.to_thread(project.run)

    asyncio.run(inside())


def test_samples_stand_in_where_a_contract_has_no_example(project: InMemoryProject) -> None:
    """A record that nobody has shown is made, always the same."""
    assert project.parts.example(OrderApproved) == project.parts.example(OrderApproved)
    assert isinstance(sample(OrderApproved), OrderApproved)
    assert cancel_order.saga.name in project.parts.sagas
