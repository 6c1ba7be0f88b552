"""A box of vegetables every week: changed until it is packed, or ended by the customer; each week is a saga."""

from dataclasses import dataclass, replace

from towpath.saga import PROCEED, Participant, Saga, Undo, days, hours, minutes, one_of

farm, cards, post = map(Participant, ("farm", "cards", "post"))


@dataclass(frozen=True, slots=True)
class BoxSubscribed:
    subscription: str = "s-1"
    customer: str = "ada"
    items: tuple[str, ...] = ("leek", "beet")
    weeks_left: int = 3


@dataclass(frozen=True, slots=True)
class ItemAdded:
    item: str = "kale"


@dataclass(frozen=True, slots=True)
class ItemRemoved:
    item: str = "beet"


@dataclass(frozen=True, slots=True)
class SubscriptionEnded:
    pass


@dataclass(frozen=True, slots=True)
class ThisWeek:
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PackBox:
    subscription: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoxPacked:
    weight_grams: int = 4_000


@dataclass(frozen=True, slots=True)
class HarvestFailed:
    pass


@dataclass(frozen=True, slots=True)
class UnpackBox:
    subscription: str


@dataclass(frozen=True, slots=True)
class BoxUnpacked:
    pass


@dataclass(frozen=True, slots=True)
class ChargeWeek:
    customer: str
    weight_grams: int


@dataclass(frozen=True, slots=True)
class WeekCharged:
    pass


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class SendBox:
    subscription: str


@dataclass(frozen=True, slots=True)
class BoxSent:
    pass


def customer(subscribed: BoxSubscribed) -> str:
    return subscribed.customer


def change(subscribed: BoxSubscribed, so_far: ThisWeek | None, change: ItemAdded | ItemRemoved) -> ThisWeek:
    items = so_far.items if so_far else subscribed.items
    without = tuple(item for item in items if item != change.item)
    return ThisWeek((*without, change.item) if isinstance(change, ItemAdded) else without)


def pack_box(subscribed: BoxSubscribed, week: ThisWeek | None) -> PackBox:
    return PackBox(subscribed.subscription, week.items if week else subscribed.items)


def unpack_box(subscribed: BoxSubscribed) -> UnpackBox:
    return UnpackBox(subscribed.subscription)


def charge_week(subscribed: BoxSubscribed, packed: BoxPacked) -> ChargeWeek:
    return ChargeWeek(subscribed.customer, packed.weight_grams)


def send_box(subscribed: BoxSubscribed) -> SendBox:
    return SendBox(subscribed.subscription)


def next_week(subscribed: BoxSubscribed) -> BoxSubscribed | None:
    return replace(subscribed, weeks_left=subscribed.weeks_left - 1) if subscribed.weeks_left > 1 else None


saga = Saga(
    "weekly_box",
    version=1,
    starts_on=BoxSubscribed,
    deadline=days(12),
    keyed_by=customer,
    cancel_on=SubscriptionEnded,
)
week = saga.gather(
    "week", of=one_of(ItemAdded, ItemRemoved), into=ThisWeek, by=change, limit=30, within=days(6), on_timeout=PROCEED
)
packed = saga.step(
    farm,
    pack_box,
    needs=week,
    undo=Undo(unpack_box, succeeds=BoxUnpacked),
    succeeds=BoxPacked,
    fails=HarvestFailed,
    within=hours(8),
)
charged = saga.pivot(cards, charge_week, needs=packed, succeeds=WeekCharged, fails=CardRefused, within=minutes(5))
saga.retriable(post, send_box, after=charged, succeeds=BoxSent, within=hours(24))
saga.then_starts(next_week)
