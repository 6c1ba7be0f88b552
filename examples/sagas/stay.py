"""A stay in a hotel: a deposit, a night before arrival from the data, check-in or a wish to stay away, an invoice."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from towpath.saga import COMPENSATE, Participant, Saga, Undo, days, hours, minutes, seconds

rooms, cards, desk = map(Participant, ("rooms", "cards", "desk"))


@dataclass(frozen=True, slots=True)
class StayBooked:
    guest: str = "ada"
    arrives: datetime = datetime(2026, 3, 1, 15, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StayCancelled:
    guest: str = "ada"


@dataclass(frozen=True, slots=True)
class HoldRoom:
    guest: str


@dataclass(frozen=True, slots=True)
class RoomHeld:
    room: int = 101


@dataclass(frozen=True, slots=True)
class HotelFull:
    pass


@dataclass(frozen=True, slots=True)
class FreeRoom:
    guest: str


@dataclass(frozen=True, slots=True)
class RoomFreed:
    pass


@dataclass(frozen=True, slots=True)
class TakeDeposit:
    guest: str


@dataclass(frozen=True, slots=True)
class DepositTaken:
    pass


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class ReturnDeposit:
    guest: str


@dataclass(frozen=True, slots=True)
class DepositReturned:
    pass


@dataclass(frozen=True, slots=True)
class GuestExpected:
    guest: str
    room: int


@dataclass(frozen=True, slots=True)
class GuestArrived:
    pass


@dataclass(frozen=True, slots=True)
class OpenBill:
    guest: str
    room: int


@dataclass(frozen=True, slots=True)
class BillOpened:
    bill: int = 1


@dataclass(frozen=True, slots=True)
class SendInvoice:
    bill: int


@dataclass(frozen=True, slots=True)
class InvoiceSent:
    pass


def hold_room(stay: StayBooked) -> HoldRoom:
    return HoldRoom(stay.guest)


def free_room(stay: StayBooked) -> FreeRoom:
    return FreeRoom(stay.guest)


def take_deposit(stay: StayBooked) -> TakeDeposit:
    return TakeDeposit(stay.guest)


def return_deposit(stay: StayBooked) -> ReturnDeposit:
    return ReturnDeposit(stay.guest)


def the_day_before(stay: StayBooked) -> datetime:
    return stay.arrives - timedelta(days=1)


def guest_expected(stay: StayBooked, room: RoomHeld) -> GuestExpected:
    return GuestExpected(stay.guest, room.room)


def open_bill(stay: StayBooked, room: RoomHeld) -> OpenBill:
    return OpenBill(stay.guest, room.room)


def send_invoice(stay: StayBooked, bill: BillOpened) -> SendInvoice:
    return SendInvoice(bill.bill)


saga = Saga("host_guest", version=1, starts_on=StayBooked, cancel_on=StayCancelled, deadline=days(420))
room = saga.step(
    rooms, hold_room, undo=Undo(free_room, succeeds=RoomFreed), succeeds=RoomHeld, fails=HotelFull, within=seconds(30)
)
deposit = saga.step(
    cards,
    take_deposit,
    after=room,
    undo=Undo(return_deposit, succeeds=DepositReturned),
    succeeds=DepositTaken,
    fails=CardRefused,
    within=minutes(1),
)
eve = saga.delay("eve", until=the_day_before, at_most=days(365), after=deposit)
expected = saga.publish(guest_expected, event=GuestExpected, needs=room, after=eve)
arrived = saga.wait("arrival", after=expected, succeeds=GuestArrived, within=days(2), on_timeout=COMPENSATE)
bill = saga.pivot(desk, open_bill, needs=room, after=arrived, succeeds=BillOpened, within=minutes(5))
saga.retriable(desk, send_invoice, needs=bill, succeeds=InvoiceSent, within=hours(1))
