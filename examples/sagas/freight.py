"""Freight is offered to several carriers; the first that takes it gets it, once two of three managers have agreed."""

from dataclasses import dataclass

from towpath.saga import COMPENSATE, Participant, Remind, Saga, Undo, UndoEach, days, hours, minutes, seconds

carriers, warehouse, desk = map(Participant, ("carriers", "warehouse", "desk"))


@dataclass(frozen=True, slots=True)
class FreightOrdered:
    freight: str = "f-1"
    carriers: tuple[str, ...] = ("north", "south", "west")


@dataclass(frozen=True, slots=True)
class SetAside:
    freight: str


@dataclass(frozen=True, slots=True)
class PalletsSetAside:
    dock: int = 4


@dataclass(frozen=True, slots=True)
class NothingThere:
    pass


@dataclass(frozen=True, slots=True)
class PutBack:
    freight: str


@dataclass(frozen=True, slots=True)
class PalletsPutBack:
    pass


@dataclass(frozen=True, slots=True)
class ManagerAgreed:
    manager: str = "ada"


@dataclass(frozen=True, slots=True)
class ManagerObjected:
    manager: str = "ada"


@dataclass(frozen=True, slots=True)
class Agreements:
    managers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgreementMissing:
    freight: str
    reminder: int


@dataclass(frozen=True, slots=True)
class OfferFreight:
    freight: str
    carrier: str


@dataclass(frozen=True, slots=True)
class FreightTaken:
    carrier: str = "north"
    cents: int = 90_000


@dataclass(frozen=True, slots=True)
class NoTruck:
    carrier: str = "north"


@dataclass(frozen=True, slots=True)
class WithdrawOffer:
    freight: str
    carrier: str


@dataclass(frozen=True, slots=True)
class OfferWithdrawn:
    pass


@dataclass(frozen=True, slots=True)
class LoadTruck:
    freight: str
    dock: int
    carrier: str


@dataclass(frozen=True, slots=True)
class TruckLoaded:
    pass


@dataclass(frozen=True, slots=True)
class FreightSent:
    freight: str
    carrier: str
    agreed_by: tuple[str, ...]


Taken = tuple[FreightTaken, ...]


def set_aside(ordered: FreightOrdered) -> SetAside:
    return SetAside(ordered.freight)


def put_back(ordered: FreightOrdered) -> PutBack:
    return PutBack(ordered.freight)


def count_agreement(ordered: FreightOrdered, so_far: Agreements | None, one: ManagerAgreed) -> Agreements:
    before = so_far.managers if so_far else ()
    return Agreements(before if one.manager in before else (*before, one.manager))


def two_agree(ordered: FreightOrdered, agreements: Agreements) -> bool:
    return len(agreements.managers) >= 2


def agreement_missing(ordered: FreightOrdered, number: int) -> AgreementMissing:
    return AgreementMissing(ordered.freight, number)


def invited(ordered: FreightOrdered) -> tuple[str, ...]:
    return ordered.carriers


def offer_freight(ordered: FreightOrdered, carrier: str) -> OfferFreight:
    return OfferFreight(ordered.freight, carrier)


def withdraw_offer(ordered: FreightOrdered, carrier: str) -> WithdrawOffer:
    return WithdrawOffer(ordered.freight, carrier)


def load_truck(ordered: FreightOrdered, pallets: PalletsSetAside, taken: Taken) -> LoadTruck:
    return LoadTruck(ordered.freight, pallets.dock, taken[0].carrier)


def freight_sent(ordered: FreightOrdered, taken: Taken, agreements: Agreements) -> FreightSent:
    return FreightSent(ordered.freight, taken[0].carrier, agreements.managers)


saga = Saga("send_freight", version=1, starts_on=FreightOrdered, deadline=days(9))
pallets = saga.step(
    warehouse,
    set_aside,
    undo=Undo(put_back, succeeds=PalletsPutBack),
    succeeds=PalletsSetAside,
    fails=NothingThere,
    within=minutes(1),
)
agreed = saga.gather(
    "agreement",
    of=ManagerAgreed,
    into=Agreements,
    by=count_agreement,
    enough=two_agree,
    fails=ManagerObjected,
    limit=10,
    within=days(2),
    on_timeout=COMPENSATE,
    reminds=Remind(agreement_missing, event=AgreementMissing, every=hours(8), times=3),
)
taken = saga.each(
    carriers,
    offer_freight,
    over=invited,
    limit=10,
    enough=1,
    after=pallets & agreed,
    undo=UndoEach(withdraw_offer, succeeds=OfferWithdrawn),
    succeeds=FreightTaken,
    fails=NoTruck,
    within=minutes(30),
)
loaded = saga.pivot(warehouse, load_truck, needs=pallets & taken, succeeds=TruckLoaded, within=seconds(30))
saga.result(freight_sent, event=FreightSent, needs=taken & agreed)
