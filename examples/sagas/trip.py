"""A trip of a flight, a hotel and a car, booked side by side and given back in any order until it is paid for."""

from dataclasses import dataclass

from towpath.saga import Participant, Saga, Undo, UndoEach, hours, minutes, one_of, seconds, tolerated

airline, hotels, cars, cards = map(Participant, ("airline", "hotels", "cars", "cards"))


@dataclass(frozen=True, slots=True)
class TripAsked:
    traveller: str = "ada"
    nights: tuple[str, ...] = ("mon", "tue")


@dataclass(frozen=True, slots=True)
class HoldFlight:
    traveller: str


@dataclass(frozen=True, slots=True)
class FlightHeld:
    seat: str = "12A"


@dataclass(frozen=True, slots=True)
class FlightFull:
    pass


@dataclass(frozen=True, slots=True)
class FreeFlight:
    traveller: str


@dataclass(frozen=True, slots=True)
class FlightFreed:
    pass


@dataclass(frozen=True, slots=True)
class HoldNight:
    night: str


@dataclass(frozen=True, slots=True)
class NightHeld:
    pass


@dataclass(frozen=True, slots=True)
class HotelFull:
    pass


@dataclass(frozen=True, slots=True)
class FreeNight:
    night: str


@dataclass(frozen=True, slots=True)
class NightFreed:
    pass


@dataclass(frozen=True, slots=True)
class HoldCar:
    traveller: str


@dataclass(frozen=True, slots=True)
class CarHeld:
    plate: str = "C 1"


@dataclass(frozen=True, slots=True)
class NoCarLeft:
    pass


@dataclass(frozen=True, slots=True)
class FreeCar:
    traveller: str


@dataclass(frozen=True, slots=True)
class CarFreed:
    pass


@dataclass(frozen=True, slots=True)
class PayTrip:
    traveller: str
    with_car: bool


@dataclass(frozen=True, slots=True)
class TripPaid:
    receipt: int = 1


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class TripBooked:
    traveller: str
    receipt: int


def hold_flight(trip: TripAsked) -> HoldFlight:
    return HoldFlight(trip.traveller)


def free_flight(trip: TripAsked) -> FreeFlight:
    return FreeFlight(trip.traveller)


def nights(trip: TripAsked) -> tuple[str, ...]:
    return trip.nights


def hold_night(trip: TripAsked, night: str) -> HoldNight:
    return HoldNight(night)


def free_night(trip: TripAsked, night: str) -> FreeNight:
    return FreeNight(night)


def hold_car(trip: TripAsked) -> HoldCar:
    return HoldCar(trip.traveller)


def free_car(trip: TripAsked) -> FreeCar:
    return FreeCar(trip.traveller)


def pay_trip(trip: TripAsked, car: CarHeld | NoCarLeft) -> PayTrip:
    return PayTrip(trip.traveller, with_car=isinstance(car, CarHeld))


def trip_booked(trip: TripAsked, paid: TripPaid) -> TripBooked:
    return TripBooked(trip.traveller, paid.receipt)


saga = Saga("book_trip", version=1, starts_on=TripAsked, deadline=hours(1))
flight = saga.step(
    airline,
    hold_flight,
    undo=Undo(free_flight, succeeds=FlightFreed),
    succeeds=FlightHeld,
    fails=FlightFull,
    within=seconds(30),
)
rooms = saga.each(
    hotels,
    hold_night,
    over=nights,
    limit=30,
    undo=UndoEach(free_night, succeeds=NightFreed),
    succeeds=NightHeld,
    fails=HotelFull,
    within=seconds(30),
)
car = saga.step(
    cars,
    hold_car,
    undo=Undo(free_car, succeeds=CarFreed),
    succeeds=one_of(CarHeld, tolerated(NoCarLeft)),
    within=minutes(1),
)
paid = saga.pivot(
    cards, pay_trip, needs=car, after=flight & rooms, succeeds=TripPaid, fails=CardRefused, within=minutes(1)
)
saga.result(trip_booked, event=TripBooked, needs=paid)
