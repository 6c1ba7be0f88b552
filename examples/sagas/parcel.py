"""A parcel goes by the first carrier that takes it, is announced, and is told of by the carrier that took it."""

from dataclasses import dataclass

from towpath.saga import Participant, Saga, Undo, hours, minutes, seconds

road, rail, air, depot = map(Participant, ("road", "rail", "air", "depot"))


@dataclass(frozen=True, slots=True)
class ParcelReady:
    parcel: str = "p-1"


@dataclass(frozen=True, slots=True)
class PackParcel:
    parcel: str


@dataclass(frozen=True, slots=True)
class ParcelPacked:
    grams: int = 900


@dataclass(frozen=True, slots=True)
class UnpackParcel:
    parcel: str


@dataclass(frozen=True, slots=True)
class ParcelUnpacked:
    pass


@dataclass(frozen=True, slots=True)
class BookRoad:
    parcel: str
    grams: int


@dataclass(frozen=True, slots=True)
class RoadBooked:
    tour: int = 4


@dataclass(frozen=True, slots=True)
class BookRail:
    parcel: str
    grams: int


@dataclass(frozen=True, slots=True)
class RailBooked:
    train: int = 5


@dataclass(frozen=True, slots=True)
class BookAir:
    parcel: str
    grams: int


@dataclass(frozen=True, slots=True)
class AirBooked:
    flight: int = 6


@dataclass(frozen=True, slots=True)
class CarrierFull:
    pass


@dataclass(frozen=True, slots=True)
class CancelBooking:
    parcel: str
    carrier: str


@dataclass(frozen=True, slots=True)
class BookingCancelled:
    pass


@dataclass(frozen=True, slots=True)
class HandOver:
    parcel: str
    to: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    pass


@dataclass(frozen=True, slots=True)
class ParcelOnItsWay:
    parcel: str
    by: str


Booked = RoadBooked | RailBooked | AirBooked


def pack_parcel(ready: ParcelReady) -> PackParcel:
    return PackParcel(ready.parcel)


def unpack_parcel(ready: ParcelReady) -> UnpackParcel:
    return UnpackParcel(ready.parcel)


def book_road(ready: ParcelReady, packed: ParcelPacked) -> BookRoad:
    return BookRoad(ready.parcel, packed.grams)


def book_rail(ready: ParcelReady, packed: ParcelPacked) -> BookRail:
    return BookRail(ready.parcel, packed.grams)


def book_air(ready: ParcelReady, packed: ParcelPacked) -> BookAir:
    return BookAir(ready.parcel, packed.grams)


def cancel_road(ready: ParcelReady) -> CancelBooking:
    return CancelBooking(ready.parcel, "road")


def cancel_rail(ready: ParcelReady) -> CancelBooking:
    return CancelBooking(ready.parcel, "rail")


def cancel_air(ready: ParcelReady) -> CancelBooking:
    return CancelBooking(ready.parcel, "air")


def hand_over(ready: ParcelReady, booked: Booked) -> HandOver:
    return HandOver(ready.parcel, type(booked).__name__)


def on_its_way(ready: ParcelReady, booked: Booked) -> ParcelOnItsWay:
    return ParcelOnItsWay(ready.parcel, type(booked).__name__)


saga = Saga("send_parcel", version=1, starts_on=ParcelReady, deadline=hours(48))
packed = saga.step(
    depot, pack_parcel, undo=Undo(unpack_parcel, succeeds=ParcelUnpacked), succeeds=ParcelPacked, within=minutes(5)
)
by_road = saga.step(
    road,
    book_road,
    needs=packed,
    undo=Undo(cancel_road, succeeds=BookingCancelled),
    succeeds=RoadBooked,
    fails=CarrierFull,
    within=seconds(30),
)
by_rail = saga.step(
    rail,
    book_rail,
    needs=packed,
    instead_of=by_road,
    undo=Undo(cancel_rail, succeeds=BookingCancelled),
    succeeds=RailBooked,
    fails=CarrierFull,
    within=seconds(30),
)
booked = saga.step(
    air,
    book_air,
    needs=packed,
    instead_of=by_rail,
    undo=Undo(cancel_air, succeeds=BookingCancelled),
    succeeds=AirBooked,
    fails=CarrierFull,
    within=seconds(30),
)
handed = saga.pivot(depot, hand_over, needs=booked, succeeds=HandedOver, within=minutes(5))
saga.publish(on_its_way, event=ParcelOnItsWay, needs=booked, after=handed)
