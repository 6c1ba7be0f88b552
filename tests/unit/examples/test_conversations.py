"""The other sagas of the examples, each talked to once: as its original behaves."""

from datetime import UTC, datetime

from examples.sagas import box, cart, expense, freight, fulfilment, loan, parcel, shipments, stay, trip
from towpath.saga import days, hours
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted
from towpath.saga.state import Status
from towpath.saga.testing import given


def test_a_trip_goes_on_without_a_car() -> None:
    """The voucher says so; what it comes to is the receipt."""
    (
        given(trip.saga, trip.TripAsked())
        .expect(trip.HoldFlight("ada"))
        .expect(trip.HoldNight("mon"))
        .expect(trip.HoldNight("tue"))
        .expect(trip.HoldCar("ada"))
        .when(trip.FlightHeld())
        .when(trip.NoCarLeft())
        .when(trip.NightHeld(), step="hold_night", item="0")
        .when(trip.NightHeld(), step="hold_night", item="1")
        .expect(trip.PayTrip("ada", with_car=False))
        .when(trip.TripPaid(9))
        .expect_event(trip.TripBooked("ada", 9))
        .expect_completed()
    )


def test_a_trip_without_its_second_night_is_given_back() -> None:
    """All that was held, side by side; the night that was refused owes nothing."""
    (
        given(trip.saga, trip.TripAsked())
        .expect_anything()
        .when(trip.FlightHeld())
        .when(trip.CarHeld())
        .when(trip.NightHeld(), step="hold_night", item="0")
        .when(trip.HotelFull(), step="hold_night", item="1")
        .expect(trip.FreeFlight("ada"))
        .expect(trip.FreeCar("ada"))
        .expect(trip.FreeNight("mon"))
        .when(trip.FlightFreed())
        .when(trip.CarFreed())
        .when(trip.NightFreed(), step="hold_night", item="0")
        .expect_compensated()
    )


def test_a_large_loan_waits_for_an_officer_who_is_reminded() -> None:
    """The first bureau does not know the applicant, the second does."""
    (
        given(loan.saga, loan.LoanAsked())
        .expect(loan.RateApplicant("ada"), to=loan.bureau)
        .when(loan.NotOnFile())
        .expect(loan.RateApplicant("ada"), to=loan.other_bureau)
        .when(loan.Rated(650))
        .expect(loan.ReserveFunds("ada", 900_000, 650))
        .when(loan.FundsReserved())
        .when_time_passes(days(4))
        .expect_event(loan.DecisionOverdue("ada", 1))
        .when(loan.LoanApproved("grace"))
        .expect(loan.SignContract("ada", "grace"))
        .when(loan.ContractSigned(3))
        .expect(loan.PayOut(3))
        .when(loan.PaidOut())
        .expect_event(loan.LoanGranted("ada", 3))
        .expect_completed()
    )


def test_a_small_loan_passes_at_once() -> None:
    """By the rules: nobody is asked."""
    talk = given(loan.saga, loan.LoanAsked("ada", 1_000)).expect_anything().when(loan.Rated(700)).expect_anything()
    talk.when(loan.FundsReserved()).expect(loan.SignContract("ada", "the rules"))


def test_an_expense_goes_to_the_director_when_the_manager_is_silent() -> None:
    """Three reminders, then the next level; once prolonged, nothing is due for two weeks."""
    talk = (
        given(expense.saga, expense.ExpenseReported()).expect(expense.CheckReceipts("r-1")).when(expense.ReceiptsFine())
    )
    talk.when_time_passes(days(4))
    for number in (1, 2, 3):
        talk.expect_event(expense.ReportWaits("r-1", number))
    talk.when(expense.ManagerIsAway()).when_time_passes(days(14)).expect_nothing()
    talk.when_time_passes(days(2)).when(expense.DirectorApproved("edsger"))
    talk.expect(expense.Reimburse("r-1", "edsger")).when(expense.Reimbursed())
    talk.expect_event(expense.ExpensePaid("r-1", "edsger")).expect_completed()


def test_a_report_that_is_withdrawn_is_over() -> None:
    """Nothing was done that would have to be undone."""
    given(expense.saga, expense.ExpenseReported()).expect_anything().when(
        expense.ReportWithdrawn()
    ).expect_compensated()


def test_a_parcel_goes_by_the_first_carrier_that_takes_it() -> None:
    """By air, since road and rail are full; the customer is told by whom."""
    (
        given(parcel.saga, parcel.ParcelReady())
        .expect(parcel.PackParcel("p-1"))
        .when(parcel.ParcelPacked(900))
        .expect(parcel.BookRoad("p-1", 900))
        .when(parcel.CarrierFull())
        .expect(parcel.BookRail("p-1", 900))
        .when(parcel.CarrierFull())
        .expect(parcel.BookAir("p-1", 900))
        .when(parcel.AirBooked())
        .expect(parcel.HandOver("p-1", "AirBooked"))
        .when(parcel.HandedOver())
        .expect_event(parcel.ParcelOnItsWay("p-1", "AirBooked"))
        .expect_completed()
    )


def test_a_cart_is_ordered_without_what_is_sold_out() -> None:
    """After a reminder, and a little more time."""
    (
        given(cart.saga, cart.CartFilled())
        .expect(cart.SetAside("chair"))
        .expect(cart.SetAside("lamp"))
        .when(cart.SetAsideDone(), step="set_aside", item="0")
        .when(cart.SoldOut(), step="set_aside", item="1")
        .when_time_passes(hours(21))
        .expect_event(cart.CartWaits("c-1", 1))
        .when(cart.StillLooking())
        .when(cart.CheckedOut())
        .expect(cart.ChargeCart("c-1", 1))
        .when(cart.CartCharged())
        .expect(cart.PlaceCart("c-1"))
        .when(cart.CartPlaced("o-9"))
        .expect_event(cart.CartOrdered("c-1", "o-9", 1))
        .expect_completed()
    )


def test_a_cart_that_nobody_comes_back_to_is_given_up() -> None:
    """Only what was set aside is put back; an imported cart is one, too."""
    talk = given(cart.saga, cart.CartImported()).expect(cart.SetAside("chair"))
    talk.when(cart.SetAsideDone(), step="set_aside", item="0").when_time_passes(days(2))
    talk.expect_event(cart.CartWaits("c-1", 1)).expect_event(cart.CartWaits("c-1", 2)).expect(cart.PutBack("chair"))
    talk.when(cart.PutBackDone(), step="set_aside", item="0").expect_compensated()


def test_a_guest_is_expected_on_the_day_before() -> None:
    """The time stands in the booking; before it, whoever cancels gets the deposit back."""
    booked = stay.StayBooked("ada", datetime(2026, 3, 1, 15, tzinfo=UTC))
    talk = given(stay.saga, booked).expect(stay.HoldRoom("ada")).when(stay.RoomHeld(7)).expect(stay.TakeDeposit("ada"))
    talk.when(stay.DepositTaken()).when_next_timer_fires().expect_event(stay.GuestExpected("ada", 7))
    assert talk.now_milliseconds == datetime(2026, 2, 28, 15, tzinfo=UTC).timestamp() * 1000
    talk.when(stay.StayCancelled()).expect(stay.ReturnDeposit("ada")).when(stay.DepositReturned())
    talk.expect(stay.FreeRoom("ada")).when(stay.RoomFreed()).expect_compensated()


def test_what_is_missing_is_paid_back_beside_what_is_shipped() -> None:
    """Two of three lines go out."""
    talk = given(shipments.saga, shipments.PartsOrdered()).expect(shipments.AuthoriseParts("o-1", 3))
    talk.when(shipments.PartsAuthorised()).expect_anything()
    talk.when(shipments.LinePicked("desk"), step="pick_line", item="0")
    talk.when(shipments.LinePicked("chair"), step="pick_line", item="1")
    talk.when(shipments.LineMissing("lamp"), step="pick_line", item="2")
    talk.expect(shipments.AnyLineThere("o-1", 2)).when(shipments.SomethingThere())
    talk.expect(shipments.CaptureParts("o-1", 2)).when(shipments.PartsCaptured())
    talk.expect(shipments.ShipLine("desk")).expect(shipments.ShipLine("chair")).expect(
        shipments.RefundMissing("o-1", 1)
    )
    talk.when(shipments.MissingRefunded()).when(shipments.LineShipped(), step="ship_line", item="0")
    talk.expect_status(Status.RUNNING).when(shipments.LineShipped(), step="ship_line", item="1")
    talk.expect_event(shipments.PartsShipped("o-1", 2, 1)).expect_completed()


def test_freight_goes_with_the_first_carrier_that_takes_it() -> None:
    """Two of three managers agree, one of them twice; the carriers that were not first are told, while it is loaded."""
    (
        given(freight.saga, freight.FreightOrdered())
        .expect(freight.SetAside("f-1"))
        .when(freight.ManagerAgreed("ada"))
        .when(freight.PalletsSetAside(4))
        .when_time_passes(hours(9))
        .expect_event(freight.AgreementMissing("f-1", 1))
        .when(freight.ManagerAgreed("ada"))
        .expect_nothing()
        .when(freight.ManagerAgreed("grace"))
        .expect(freight.OfferFreight("f-1", "north"))
        .expect(freight.OfferFreight("f-1", "south"))
        .expect(freight.OfferFreight("f-1", "west"))
        .when(freight.NoTruck("north"), item="0")
        .when(freight.FreightTaken("west"), item="2")
        .expect(freight.WithdrawOffer("f-1", "south"))
        .expect(freight.LoadTruck("f-1", 4, "west"))
        .when(freight.TruckLoaded())
        .expect_event(freight.FreightSent("f-1", "west", ("ada", "grace")))
        .when(freight.OfferWithdrawn(), item="1")
        .expect_completed()
    )


def test_freight_that_a_manager_objects_to_stays() -> None:
    """Whatever the others say."""
    (
        given(freight.saga, freight.FreightOrdered())
        .expect(freight.SetAside("f-1"))
        .when(freight.PalletsSetAside(4))
        .when(freight.ManagerAgreed("ada"))
        .when(freight.ManagerObjected("hilda"))
        .expect(freight.PutBack("f-1"))
        .when(freight.PalletsPutBack())
        .expect_compensated()
    )


def test_a_weekly_box_is_what_the_customer_made_of_it() -> None:
    """Changed until it is packed; the next week begins with what was subscribed, under the customer's key."""
    (
        given(box.saga, box.BoxSubscribed())
        .when(box.ItemAdded("kale"))
        .when(box.ItemRemoved("beet"))
        .when_time_passes(days(6))
        .expect(box.PackBox("s-1", ("leek", "kale")))
        .when(box.BoxPacked(5_000))
        .expect(box.ChargeWeek("ada", 5_000))
        .when(box.WeekCharged())
        .expect(box.SendBox("s-1"))
        .when(box.BoxSent())
        .expect_next(box.BoxSubscribed(weeks_left=2), key="ada")
        .expect_completed()
    )


def test_a_box_that_nobody_changes_is_packed_as_subscribed_and_the_last_week_is_the_last() -> None:
    """The chain ends by itself."""
    (
        given(box.saga, box.BoxSubscribed(weeks_left=1))
        .when_time_passes(days(6))
        .expect(box.PackBox("s-1", ("leek", "beet")))
        .when(box.BoxPacked(5_000))
        .expect(box.ChargeWeek("ada", 5_000))
        .when(box.WeekCharged())
        .expect(box.SendBox("s-1"))
        .when(box.BoxSent())
        .expect_completed()
    )


def test_a_subscription_that_is_ended_is_followed_by_nothing() -> None:
    """In the middle of a week there is nothing to undo."""
    given(box.saga, box.BoxSubscribed()).when(box.SubscriptionEnded()).expect_compensated()


def test_an_order_is_fulfilled_by_the_packages_that_there_are() -> None:
    """A saga for each warehouse; one of them has nothing, and the order says so."""
    there = SubsagaCompleted("prepare_package", "its id", fulfilment.PackageReady("berlin", 7))
    (
        given(fulfilment.saga, fulfilment.OrderTaken())
        .expect(fulfilment.PackageAsked("o-1", "berlin"))
        .expect(fulfilment.PackageAsked("o-1", "lyon"))
        .when(SubsagaCompensated("prepare_package", "its id"), item="1")
        .when(there, item="0")
        .expect(fulfilment.ConfirmPackages("o-1", (7,)), to=fulfilment.orders)
        .when(fulfilment.PackagesConfirmed())
        .expect(fulfilment.SendPackage("o-1", "berlin"))
        .when(fulfilment.PackageSent(), item="0")
        .expect_event(fulfilment.OrderFulfilled("o-1", 1, 1))
        .expect_completed()
    )


def test_packages_are_given_back_when_there_is_nothing_to_send() -> None:
    """Each is a saga, so each is asked back; it puts its items back and refunds what it charged."""
    (
        given(fulfilment.saga, fulfilment.OrderTaken(warehouses=("berlin",)))
        .expect(fulfilment.PackageAsked("o-1", "berlin"))
        .when(SubsagaCompleted("prepare_package", "its id", fulfilment.PackageReady()), item="0")
        .expect(fulfilment.ConfirmPackages)
        .when(fulfilment.NothingToSend())
        .expect_anything()
        .when(SubsagaCompensated("prepare_package", "its id"), item="0")
        .expect_compensated()
    )
    (
        given(fulfilment.package, fulfilment.PackageAsked())
        .expect(fulfilment.ReserveItems("o-1", "berlin"))
        .when(fulfilment.ItemsReserved(4_000))
        .expect(fulfilment.ChargePackage("o-1", 4_000))
        .when(fulfilment.CardRefused())
        .expect(fulfilment.PutItemsBack("o-1", "berlin"))
        .when(fulfilment.ItemsPutBack())
        .expect_compensated()
    )
