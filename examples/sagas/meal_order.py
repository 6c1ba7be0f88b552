"""A meal is ordered, revised and cancelled: three sagas about one order, each with its own point of no return."""

from dataclasses import dataclass

from towpath.saga import NO_EFFECT, Cause, Participant, Saga, Undo, UndoStart, hours, minutes, one_of, seconds

consumers, kitchen, cards, orders = map(Participant, ("consumers", "kitchen", "cards", "orders"))


@dataclass(frozen=True, slots=True)
class MealOrdered:
    order: str = "o-1"
    cents: int = 1_800


@dataclass(frozen=True, slots=True)
class RevisionAsked:
    order: str = "o-1"
    cents: int = 2_400


@dataclass(frozen=True, slots=True)
class CancellationAsked:
    order: str = "o-1"


@dataclass(frozen=True, slots=True)
class KitchenClosed:
    order: str = "o-1"


@dataclass(frozen=True, slots=True)
class CheckConsumer:
    order: str
    cents: int


@dataclass(frozen=True, slots=True)
class ConsumerFine:
    pass


@dataclass(frozen=True, slots=True)
class ConsumerBlocked:
    pass


@dataclass(frozen=True, slots=True)
class OpenTicket:
    order: str


@dataclass(frozen=True, slots=True)
class TicketOpened:
    ticket: int = 7


@dataclass(frozen=True, slots=True)
class KitchenFull:
    pass


@dataclass(frozen=True, slots=True)
class DropTicket:
    order: str


@dataclass(frozen=True, slots=True)
class TicketDropped:
    pass


@dataclass(frozen=True, slots=True)
class AuthoriseCard:
    order: str
    cents: int


@dataclass(frozen=True, slots=True)
class CardAuthorised:
    pass


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class VoidCard:
    order: str


@dataclass(frozen=True, slots=True)
class CardVoided:
    pass


@dataclass(frozen=True, slots=True)
class AcceptOrder:
    order: str


@dataclass(frozen=True, slots=True)
class OrderAccepted:
    pass


@dataclass(frozen=True, slots=True)
class RejectOrder:
    order: str
    why: str


@dataclass(frozen=True, slots=True)
class OrderRejected:
    pass


@dataclass(frozen=True, slots=True)
class StartCooking:
    ticket: int


@dataclass(frozen=True, slots=True)
class CookingStarted:
    pass


@dataclass(frozen=True, slots=True)
class MealOnItsWay:
    order: str
    ticket: int


def check_consumer(meal: MealOrdered) -> CheckConsumer:
    return CheckConsumer(meal.order, meal.cents)


def open_ticket(meal: MealOrdered) -> OpenTicket:
    return OpenTicket(meal.order)


def drop_ticket(meal: MealOrdered) -> DropTicket:
    return DropTicket(meal.order)


def authorise_card(meal: MealOrdered) -> AuthoriseCard:
    return AuthoriseCard(meal.order, meal.cents)


def void_card(meal: MealOrdered) -> VoidCard:
    return VoidCard(meal.order)


def accept_order(meal: MealOrdered) -> AcceptOrder:
    return AcceptOrder(meal.order)


def reject_order(meal: MealOrdered, cause: Cause) -> RejectOrder:
    return RejectOrder(meal.order, str(cause))


def start_cooking(meal: MealOrdered, ticket: TicketOpened) -> StartCooking:
    return StartCooking(ticket.ticket)


def meal_on_its_way(meal: MealOrdered, ticket: TicketOpened) -> MealOnItsWay:
    return MealOnItsWay(meal.order, ticket.ticket)


create = Saga(
    "order_meal",
    version=1,
    starts_on=MealOrdered,
    undo=UndoStart(reject_order, by=orders, succeeds=OrderRejected, within=seconds(10)),
    cancel_on=KitchenClosed,
    deadline=hours(2),
)
consumer = create.step(
    consumers, check_consumer, undo=NO_EFFECT, succeeds=ConsumerFine, fails=ConsumerBlocked, within=seconds(10)
)
ticket = create.step(
    kitchen,
    open_ticket,
    undo=Undo(drop_ticket, succeeds=TicketDropped),
    succeeds=TicketOpened,
    fails=KitchenFull,
    within=seconds(10),
)
card = create.step(
    cards,
    authorise_card,
    after=consumer & ticket,
    undo=Undo(void_card, succeeds=CardVoided),
    succeeds=CardAuthorised,
    fails=CardRefused,
    within=seconds(30),
)
accepted = create.pivot(orders, accept_order, after=card, succeeds=OrderAccepted, within=seconds(10))
cooking = create.retriable(
    kitchen, start_cooking, needs=ticket, after=accepted, succeeds=CookingStarted, within=seconds(10)
)
create.result(meal_on_its_way, event=MealOnItsWay, needs=ticket)


# --- the order is revised -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BeginRevision:
    order: str


@dataclass(frozen=True, slots=True)
class RevisionBegun:
    pass


@dataclass(frozen=True, slots=True)
class TooLateToRevise:
    pass


@dataclass(frozen=True, slots=True)
class EndRevision:
    order: str


@dataclass(frozen=True, slots=True)
class RevisionEnded:
    pass


@dataclass(frozen=True, slots=True)
class ChangeTicket:
    order: str
    cents: int


@dataclass(frozen=True, slots=True)
class TicketChanged:
    pass


@dataclass(frozen=True, slots=True)
class RestoreTicket:
    order: str


@dataclass(frozen=True, slots=True)
class TicketRestored:
    pass


@dataclass(frozen=True, slots=True)
class ConfirmRevision:
    order: str


@dataclass(frozen=True, slots=True)
class RevisionConfirmed:
    pass


def begin_revision(asked: RevisionAsked) -> BeginRevision:
    return BeginRevision(asked.order)


def end_revision(asked: RevisionAsked) -> EndRevision:
    return EndRevision(asked.order)


def change_ticket(asked: RevisionAsked) -> ChangeTicket:
    return ChangeTicket(asked.order, asked.cents)


def restore_ticket(asked: RevisionAsked) -> RestoreTicket:
    return RestoreTicket(asked.order)


def authorise_more(asked: RevisionAsked) -> AuthoriseCard:
    return AuthoriseCard(asked.order, asked.cents)


def void_more(asked: RevisionAsked) -> VoidCard:
    return VoidCard(asked.order)


def confirm_revision(asked: RevisionAsked) -> ConfirmRevision:
    return ConfirmRevision(asked.order)


revise = Saga("revise_meal", version=1, starts_on=RevisionAsked, deadline=hours(1))
begun = revise.step(
    orders,
    begin_revision,
    undo=Undo(end_revision, succeeds=RevisionEnded),
    succeeds=RevisionBegun,
    fails=TooLateToRevise,
    within=seconds(10),
)
changed = revise.step(
    kitchen,
    change_ticket,
    after=begun,
    undo=Undo(restore_ticket, succeeds=TicketRestored, in_order=False),
    succeeds=TicketChanged,
    fails=KitchenFull,
    within=seconds(10),
)
more = revise.step(
    cards,
    authorise_more,
    after=changed,
    undo=Undo(void_more, succeeds=CardVoided),
    succeeds=CardAuthorised,
    fails=CardRefused,
    within=seconds(30),
)
revise.pivot(orders, confirm_revision, after=more, succeeds=RevisionConfirmed, within=seconds(10))


# --- the order is cancelled -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StopTicket:
    order: str


@dataclass(frozen=True, slots=True)
class TicketStopped:
    pass


@dataclass(frozen=True, slots=True)
class AlreadyCooked:
    pass


@dataclass(frozen=True, slots=True)
class ResumeTicket:
    order: str


@dataclass(frozen=True, slots=True)
class TicketResumed:
    pass


@dataclass(frozen=True, slots=True)
class CloseOrder:
    order: str


@dataclass(frozen=True, slots=True)
class OrderClosed:
    pass


@dataclass(frozen=True, slots=True)
class OrderGone:
    pass


def stop_ticket(asked: CancellationAsked) -> StopTicket:
    return StopTicket(asked.order)


def resume_ticket(asked: CancellationAsked) -> ResumeTicket:
    return ResumeTicket(asked.order)


def close_order(asked: CancellationAsked) -> CloseOrder:
    return CloseOrder(asked.order)


def pay_back(asked: CancellationAsked) -> VoidCard:
    return VoidCard(asked.order)


cancel = Saga("cancel_meal", version=1, starts_on=CancellationAsked, deadline=hours(1))
stopped = cancel.step(
    kitchen,
    stop_ticket,
    undo=Undo(resume_ticket, succeeds=TicketResumed),
    succeeds=TicketStopped,
    fails=AlreadyCooked,
    within=seconds(10),
)
closed = cancel.pivot(orders, close_order, after=stopped, succeeds=one_of(OrderClosed, OrderGone), within=minutes(1))
cancel.retriable(cards, pay_back, after=closed, succeeds=CardVoided, within=seconds(30))
