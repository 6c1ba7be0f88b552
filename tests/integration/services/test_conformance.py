"""CraftyGoods' services keep the contract of a participant; and each mistake that is planted in one is found."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from pipelines.services import catalog, identity, order, payment
from pipelines.services.catalog.service import release_stock, reserve_stock
from pipelines.services.payment.card_network import HoldRequest
from schemas.records.catalog import ReleaseStock, ReserveStock, StockReleased, StockReserved
from schemas.records.payment import AuthorisePayment, PaymentAuthorised
from tests.integration.services import cases
from towpath.contract.record import Record
from towpath.participant import Context, Service
from towpath.participant.core import UndeclaredReply
from towpath.testing import ServiceAlone, conformance, suite

pytestmark = pytest.mark.stack

test_catalog = suite(catalog.service, cases=cases.CATALOG, prepare=cases.shelves, restores=[cases.PROMISED])
test_identity = suite(identity.service, cases=cases.IDENTITY, prepare=cases.customers)
test_order = suite(order.service, cases=cases.ORDER, prepare=cases.orders, restores=[cases.STATUSES])
test_payment = suite(payment.service, cases=cases.PAYMENT, restores=cases.BLOCKED, ignore=cases.OUTSIDE)

Contexts = Sequence[Context[Any]]
Replies = Sequence[Record]
Handler = Callable[[Contexts], Replies]


@dataclass(frozen=True)
class Mistake:
    """A handler that is wrong, in place of the right one, and what is said of it."""

    command: type[Record]
    handler: Handler
    check: str
    words: str
    case: int = 0
    service: Service = catalog.service


def commits(contexts: Contexts) -> Replies:
    """Commit by itself."""
    replies = reserve_stock(contexts)
    contexts[0].connection.commit()
    return replies


def writes_elsewhere(contexts: Contexts) -> Replies:
    """Write on a connection of its own, whose transaction does not wait for the worker's."""
    info = contexts[0].connection.info
    with psycopg.connect(info.dsn, password=info.password) as own:
        own.execute("UPDATE product SET on_hand = on_hand + 1")
    return reserve_stock(contexts)


def asks_under_a_new_key(contexts: Contexts) -> Replies:
    """Block the amount under a key of the moment, so that the network cannot know the repetition."""
    network = contexts[0].outside
    for one in contexts:
        command = one.command
        network.authorise([HoldRequest(uuid.uuid4(), command.card_token, command.amount_cents, command.currency)])
    return [
        PaymentAuthorised(order_id=one.command.order_id, authorisation_id="x", amount_cents=one.command.amount_cents)
        for one in contexts
    ]


def releases_whatever_is_asked(contexts: Contexts) -> Replies:
    """Release pieces without asking whether any were reserved."""
    for one in contexts:
        one.connection.execute("UPDATE product SET reserved = greatest(reserved - 1, 0), on_hand = on_hand + 1")
    return [StockReleased(order_id=one.command.order_id) for one in contexts]


def releases_nothing(contexts: Contexts) -> Replies:
    """Say that it is released, and leave it reserved."""
    return [StockReleased(order_id=one.command.order_id) for one in contexts]


def fails_without_a_reservation(contexts: Contexts) -> Replies:
    """Take for granted that there is something to undo."""
    assert all(one.do_reply is not None for one in contexts), "nothing was reserved"
    return release_stock(contexts)


def reserves_before_it_refuses(contexts: Contexts) -> Replies:
    """Write first, look later."""
    for one in contexts:
        one.connection.execute("UPDATE product SET on_hand = on_hand + 1 WHERE sku = 'mug'")
    return reserve_stock(contexts)


def answers_with_something_else(contexts: Contexts) -> Replies:
    """Return a reply that it does not declare."""
    reserve_stock(contexts)
    return [StockReleased(order_id=one.command.order_id) for one in contexts]


def answers_all_with_the_first(contexts: Contexts) -> Replies:
    """Give every command of a batch the first one's reply."""
    replies = reserve_stock(contexts)
    return [replies[0]] * len(replies)


def counts_once_a_batch(contexts: Contexts) -> Replies:
    """Do for the batch what is due for each command."""
    contexts[0].connection.execute("UPDATE product SET on_hand = on_hand + 1 WHERE sku = 'mug'")
    return reserve_stock(contexts)


REMEMBERED: dict[str, Record] = {}


def remembers_in_the_process(contexts: Contexts) -> Replies:
    """Keep in memory what was done: a worker that dies takes the rows back, and a new one has no such memory."""
    replies = []
    for one in contexts:
        known = REMEMBERED.get(one.command.order_id)
        if known is None:
            known = REMEMBERED[one.command.order_id] = reserve_stock([one])[0]
        replies.append(known)
    return replies


def reserves_at_random(contexts: Contexts) -> Replies:
    """Refuse now, and reserve when it is asked again."""
    for one in contexts:
        one.connection.execute("SELECT 1")
    return [StockReserved(order_id=one.command.order_id, reservation_id=str(uuid.uuid4())) for one in contexts]


MISTAKES = [
    Mistake(ReserveStock, commits, "answered", "commits or rolls back"),
    Mistake(ReserveStock, writes_elsewhere, "crashed", "does not have its effect once"),
    Mistake(
        AuthorisePayment, asks_under_a_new_key, "crashed", "does not have its effect once", service=payment.service
    ),
    Mistake(ReleaseStock, releases_whatever_is_asked, "undone_first", "which never came, has an effect"),
    Mistake(ReleaseStock, releases_nothing, "undone", "do not restore what was there"),
    Mistake(ReleaseStock, fails_without_a_reservation, "undone_first", "which never came, fails"),
    Mistake(ReserveStock, reserves_before_it_refuses, "refused_without_trace", "and leaves a trace", case=2),
    Mistake(ReserveStock, answers_with_something_else, "answered", "which its declaration does not name"),
    Mistake(ReserveStock, answers_all_with_the_first, "asked_together", "number 2 is answered by"),
    Mistake(ReserveStock, counts_once_a_batch, "asked_together", "have another effect than one after the other"),
    Mistake(ReserveStock, remembers_in_the_process, "crashed", "does not have its effect once"),
    Mistake(ReserveStock, reserves_at_random, "every_reply_is_shown", "ReserveStock -> OutOfStock"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.handler.__name__)
def test_a_planted_mistake_is_found(towpath_service: Callable[[Service], ServiceAlone], mistake: Mistake) -> None:
    """By the check that is about it, and that says what is wrong; without the mistake the same check passes."""
    REMEMBERED.clear()
    with pytest.raises((AssertionError, UndeclaredReply), match=mistake.words):
        check(towpath_service, mistake)


def check(make: Callable[[Service], ServiceAlone], mistake: Mistake) -> None:
    """Hold the service with the mistake to one check."""
    right = mistake.service
    handlings = [
        replace(each, handler=mistake.handler) if each.command is mistake.command else each
        for each in right.handlings.values()
    ]
    wrong = Service(right.name, handlers=handlings, opens=right.opens)
    of_catalog = right is catalog.service
    kit = conformance.Kit(
        wrong,
        cases.CATALOG[:3] if of_catalog else cases.PAYMENT[:1],
        cases.shelves if of_catalog else None,
        (cases.PROMISED,) if of_catalog else cases.BLOCKED,
        () if of_catalog else (*cases.OUTSIDE, "card_network.hold.hold_key"),
        frozenset(),
        make(wrong),
    )
    if mistake.check == "every_reply_is_shown":
        conformance.every_reply_is_shown(kit)
    else:
        conformance.CHECKS[mistake.check](kit, kit.cases[mistake.case])
