"""A meal is ordered, revised, cancelled."""

from examples.sagas import meal_order as meal
from towpath.saga import hours
from towpath.saga.testing import given


def test_a_meal_is_ordered() -> None:
    """Consumer and kitchen are asked side by side; what it comes to is the ticket."""
    (
        given(meal.create, meal.MealOrdered())
        .expect(meal.CheckConsumer("o-1", 1_800))
        .expect(meal.OpenTicket("o-1"))
        .when(meal.ConsumerFine())
        .when(meal.TicketOpened(7))
        .expect(meal.AuthoriseCard("o-1", 1_800))
        .when(meal.CardAuthorised())
        .expect(meal.AcceptOrder("o-1"))
        .when(meal.OrderAccepted())
        .expect(meal.StartCooking(7))
        .when(meal.CookingStarted())
        .expect_event(meal.MealOnItsWay("o-1", 7))
        .expect_completed()
    )


def test_the_kitchen_closes_in_between() -> None:
    """An event cancels: the ticket is dropped, the order rejected."""
    (
        given(meal.create, meal.MealOrdered())
        .expect_anything()
        .when(meal.TicketOpened(7))
        .when(meal.ConsumerFine())
        .expect_anything()
        .when(meal.KitchenClosed())
        .expect(meal.VoidCard("o-1"))
        .when(meal.CardVoided())
        .expect(meal.DropTicket("o-1"))
        .when(meal.TicketDropped())
        .expect(meal.RejectOrder("o-1", "cancelled by KitchenClosed"))
        .when(meal.OrderRejected())
        .expect_compensated()
    )


def test_a_revision_that_the_card_does_not_cover_leaves_all_as_it_was() -> None:
    """The ticket is restored beside the order, not after it."""
    (
        given(meal.revise, meal.RevisionAsked())
        .expect(meal.BeginRevision("o-1"))
        .when(meal.RevisionBegun())
        .expect(meal.ChangeTicket("o-1", 2_400))
        .when(meal.TicketChanged())
        .expect(meal.AuthoriseCard("o-1", 2_400))
        .when(meal.CardRefused())
        .expect(meal.RestoreTicket("o-1"))
        .expect(meal.EndRevision("o-1"))
        .when(meal.RevisionEnded())
        .when(meal.TicketRestored())
        .expect_compensated()
    )


def test_what_is_cooked_is_not_cancelled() -> None:
    """The kitchen refuses, and nothing was done."""
    given(meal.cancel, meal.CancellationAsked()).expect(meal.StopTicket("o-1")).when(
        meal.AlreadyCooked()
    ).expect_compensated()


def test_money_is_paid_back_until_it_is_there() -> None:
    """Once the order is closed."""
    talk = given(meal.cancel, meal.CancellationAsked()).expect_anything().when(meal.TicketStopped())
    talk.expect(meal.CloseOrder("o-1")).when(meal.OrderGone()).expect(meal.VoidCard("o-1"))
    talk.when_time_passes(hours(0.5)).when(meal.CardVoided()).expect_completed()
