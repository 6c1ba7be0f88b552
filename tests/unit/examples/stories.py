"""What each saga of the examples is about, told from its messages: the ground of the independent model."""

from examples.sagas import box, cart, expense, freight, fulfilment, loan, parcel, shipments, stay, trip
from examples.sagas import meal_order as meal
from tests.unit.examples.model import Story, ok

# Its parent alone is told what it came to, since it may be asked back: it publishes no result of its own.
PACKAGE = Story(
    fulfilment.package,
    fulfilment.PackageAsked(),
    does={
        fulfilment.ReserveItems: (ok(fulfilment.ItemsReserved), ok(fulfilment.ItemsMissing)),
        fulfilment.ChargePackage: (ok(fulfilment.PackageCharged), ok(fulfilment.CardRefused)),
    },
    undoes={
        fulfilment.PutItemsBack: (fulfilment.ReserveItems, fulfilment.ItemsPutBack()),
        fulfilment.RefundPackage: (fulfilment.ChargePackage, fulfilment.PackageRefunded()),
    },
)

STORIES: dict[str, Story] = {
    "order_meal": Story(
        meal.create,
        meal.MealOrdered(),
        does={
            meal.CheckConsumer: (ok(meal.ConsumerFine), ok(meal.ConsumerBlocked)),
            meal.OpenTicket: (ok(meal.TicketOpened), ok(meal.KitchenFull)),
            meal.AuthoriseCard: (ok(meal.CardAuthorised), ok(meal.CardRefused)),
            meal.AcceptOrder: (ok(meal.OrderAccepted), ()),
            meal.StartCooking: (ok(meal.CookingStarted), ()),
        },
        undoes={
            meal.DropTicket: (meal.OpenTicket, meal.TicketDropped()),
            meal.VoidCard: (meal.AuthoriseCard, meal.CardVoided()),
            meal.RejectOrder: (None, meal.OrderRejected()),
        },
        pivot=meal.AcceptOrder,
        result=meal.MealOnItsWay,
        signals=(meal.KitchenClosed(),),
    ),
    "revise_meal": Story(
        meal.revise,
        meal.RevisionAsked(),
        does={
            meal.BeginRevision: (ok(meal.RevisionBegun), ok(meal.TooLateToRevise)),
            meal.ChangeTicket: (ok(meal.TicketChanged), ok(meal.KitchenFull)),
            meal.AuthoriseCard: (ok(meal.CardAuthorised), ok(meal.CardRefused)),
            meal.ConfirmRevision: (ok(meal.RevisionConfirmed), ()),
        },
        undoes={
            meal.EndRevision: (meal.BeginRevision, meal.RevisionEnded()),
            meal.RestoreTicket: (meal.ChangeTicket, meal.TicketRestored()),
            meal.VoidCard: (meal.AuthoriseCard, meal.CardVoided()),
        },
        pivot=meal.ConfirmRevision,
    ),
    "cancel_meal": Story(
        meal.cancel,
        meal.CancellationAsked(),
        does={
            meal.StopTicket: (ok(meal.TicketStopped), ok(meal.AlreadyCooked)),
            meal.CloseOrder: (ok(meal.OrderClosed, meal.OrderGone), ()),
            meal.VoidCard: (ok(meal.CardVoided), ()),
        },
        undoes={meal.ResumeTicket: (meal.StopTicket, meal.TicketResumed())},
        pivot=meal.CloseOrder,
    ),
    "book_trip": Story(
        trip.saga,
        trip.TripAsked(),
        does={
            trip.HoldFlight: (ok(trip.FlightHeld), ok(trip.FlightFull)),
            trip.HoldNight: (ok(trip.NightHeld), ok(trip.HotelFull)),
            trip.HoldCar: (ok(trip.CarHeld), ok(trip.NoCarLeft)),
            trip.PayTrip: (ok(trip.TripPaid), ok(trip.CardRefused)),
        },
        undoes={
            trip.FreeFlight: (trip.HoldFlight, trip.FlightFreed()),
            trip.FreeNight: (trip.HoldNight, trip.NightFreed()),
            trip.FreeCar: (trip.HoldCar, trip.CarFreed()),
        },
        pivot=trip.PayTrip,
        result=trip.TripBooked,
    ),
    "grant_loan": Story(
        loan.saga,
        loan.LoanAsked(),
        does={
            loan.RateApplicant: (ok(loan.Rated), ok(loan.NotOnFile)),
            loan.ReserveFunds: (ok(loan.FundsReserved), ok(loan.FundsShort)),
            loan.SignContract: (ok(loan.ContractSigned), ()),
            loan.PayOut: (ok(loan.PaidOut), ()),
        },
        undoes={loan.ReleaseFunds: (loan.ReserveFunds, loan.FundsReleased())},
        pivot=loan.SignContract,
        result=loan.LoanGranted,
        signals=(loan.LoanApproved(), loan.LoanApproved("ada"), loan.LoanDenied()),
    ),
    "pay_expense": Story(
        expense.saga,
        expense.ExpenseReported(),
        does={
            expense.CheckReceipts: (ok(expense.ReceiptsFine), ok(expense.ReceiptsMissing)),
            expense.Reimburse: (ok(expense.Reimbursed), ()),
        },
        pivot=expense.Reimburse,
        result=expense.ExpensePaid,
        signals=(
            *ok(expense.ManagerApproved, expense.ManagerDeclined, expense.ManagerIsAway),
            *ok(expense.DirectorApproved, expense.DirectorDeclined, expense.ReportWithdrawn),
        ),
    ),
    "send_parcel": Story(
        parcel.saga,
        parcel.ParcelReady(),
        does={
            parcel.PackParcel: (ok(parcel.ParcelPacked), ()),
            parcel.BookRoad: (ok(parcel.RoadBooked), ok(parcel.CarrierFull)),
            parcel.BookRail: (ok(parcel.RailBooked), ok(parcel.CarrierFull)),
            parcel.BookAir: (ok(parcel.AirBooked), ok(parcel.CarrierFull)),
            parcel.HandOver: (ok(parcel.HandedOver), ()),
        },
        undoes={
            parcel.UnpackParcel: (parcel.PackParcel, parcel.ParcelUnpacked()),
            # One undo for three bookings: what it takes back, its key says.
            parcel.CancelBooking: ((parcel.BookRoad, parcel.BookRail, parcel.BookAir), parcel.BookingCancelled()),
        },
        pivot=parcel.HandOver,
        only_one_of=(parcel.BookRoad, parcel.BookRail, parcel.BookAir),
        result=parcel.ParcelOnItsWay,
    ),
    "check_out_cart": Story(
        cart.saga,
        cart.CartFilled(),
        does={
            cart.SetAside: (ok(cart.SetAsideDone), ok(cart.SoldOut)),
            cart.ChargeCart: (ok(cart.CartCharged), ok(cart.CardRefused)),
            cart.PlaceCart: (ok(cart.CartPlaced), ()),
        },
        undoes={
            cart.PutBack: (cart.SetAside, cart.PutBackDone()),
            cart.RefundCart: (cart.ChargeCart, cart.CartRefunded()),
        },
        pivot=cart.PlaceCart,
        result=cart.CartOrdered,
        signals=ok(cart.CheckedOut, cart.StillLooking, cart.CartEmptied),
    ),
    "host_guest": Story(
        stay.saga,
        stay.StayBooked(),
        does={
            stay.HoldRoom: (ok(stay.RoomHeld), ok(stay.HotelFull)),
            stay.TakeDeposit: (ok(stay.DepositTaken), ok(stay.CardRefused)),
            stay.OpenBill: (ok(stay.BillOpened), ()),
            stay.SendInvoice: (ok(stay.InvoiceSent), ()),
        },
        undoes={
            stay.FreeRoom: (stay.HoldRoom, stay.RoomFreed()),
            stay.ReturnDeposit: (stay.TakeDeposit, stay.DepositReturned()),
        },
        pivot=stay.OpenBill,
        signals=ok(stay.GuestArrived, stay.StayCancelled),
    ),
    "ship_parts": Story(
        shipments.saga,
        shipments.PartsOrdered(),
        does={
            shipments.AuthoriseParts: (ok(shipments.PartsAuthorised), ok(shipments.CardRefused)),
            shipments.PickLine: (ok(shipments.LinePicked), ok(shipments.LineMissing)),
            shipments.AnyLineThere: (ok(shipments.SomethingThere), ok(shipments.NothingThere)),
            shipments.CaptureParts: (ok(shipments.PartsCaptured), ()),
            shipments.ShipLine: (ok(shipments.LineShipped), ()),
            shipments.RefundMissing: (ok(shipments.MissingRefunded), ()),
        },
        undoes={
            shipments.VoidParts: (shipments.AuthoriseParts, shipments.PartsVoided()),
            shipments.ReturnLine: (shipments.PickLine, shipments.LineReturned()),
        },
        pivot=shipments.CaptureParts,
        result=shipments.PartsShipped,
    ),
    "send_freight": Story(
        freight.saga,
        freight.FreightOrdered(),
        does={
            freight.SetAside: (ok(freight.PalletsSetAside), ok(freight.NothingThere)),
            freight.OfferFreight: (ok(freight.FreightTaken), ok(freight.NoTruck)),
            freight.LoadTruck: (ok(freight.TruckLoaded), ()),
        },
        undoes={
            freight.PutBack: (freight.SetAside, freight.PalletsPutBack()),
            freight.WithdrawOffer: (freight.OfferFreight, freight.OfferWithdrawn()),
        },
        pivot=freight.LoadTruck,
        result=freight.FreightSent,
        signals=(freight.ManagerAgreed("ada"), freight.ManagerAgreed("grace"), freight.ManagerObjected("hilda")),
        only_one_of=(freight.OfferFreight,),
        not_needed=(freight.WithdrawOffer,),
    ),
    "weekly_box": Story(
        box.saga,
        box.BoxSubscribed(),
        does={
            box.PackBox: (ok(box.BoxPacked), ok(box.HarvestFailed)),
            box.ChargeWeek: (ok(box.WeekCharged), ok(box.CardRefused)),
            box.SendBox: (ok(box.BoxSent), ()),
        },
        undoes={box.UnpackBox: (box.PackBox, box.BoxUnpacked())},
        pivot=box.ChargeWeek,
        signals=(box.ItemAdded("kale"), box.ItemRemoved("beet"), box.SubscriptionEnded()),
        next=box.BoxSubscribed,
    ),
    "fulfil_order": Story(
        fulfilment.saga,
        fulfilment.OrderTaken(),
        does={
            fulfilment.ConfirmPackages: (ok(fulfilment.PackagesConfirmed), ok(fulfilment.NothingToSend)),
            fulfilment.SendPackage: (ok(fulfilment.PackageSent), ()),
        },
        pivot=fulfilment.ConfirmPackages,
        result=fulfilment.OrderFulfilled,
        child=PACKAGE,
        for_each_child=fulfilment.SendPackage,
    ),
}
