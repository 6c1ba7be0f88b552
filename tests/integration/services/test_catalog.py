"""catalog on a real database: stock is promised once, never twice, and never more than there is."""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest
from psycopg import errors

from pipelines.services.catalog import list_product, postgres, service
from schemas.records.catalog import (
    ItemsRestocked,
    OutOfStock,
    ReleaseStock,
    ReserveStock,
    RestockItems,
    StockLevelChanged,
    StockLine,
    StockReleased,
    StockReserved,
)
from tests.commands import CODEC, Asking
from tests.integration.service_fixture import Asked, NewService
from towpath.saga.state import Direction

pytestmark = pytest.mark.stack


def lines(**pieces: int) -> tuple[StockLine, ...]:
    """Return lines: `lines(vase=2)`."""
    return tuple(StockLine(sku=sku, quantity=quantity) for sku, quantity in pieces.items())


def reserve(order_id: str, **pieces: int) -> Asking:
    """Return the command that reserves pieces for an order."""
    return Asking(ReserveStock(order_id=order_id, lines=lines(**pieces)), key=order_id, step="stock")


def release(order_id: str) -> Asking:
    """Return its undo."""
    return Asking(ReleaseStock(order_id=order_id), key=order_id, step="stock", direction=Direction.UNDO)


def restock(order_id: str, **pieces: int) -> Asking:
    """Return the command that takes pieces back."""
    command = RestockItems(order_id=order_id, lines=lines(**pieces))
    return Asking(command, key=order_id, step="restock", saga="cancel_order")


@pytest.fixture
def catalog(new_service: NewService) -> Asked:
    """Return a catalog with ten vases and five bowls."""
    asked = new_service(service)
    with asked.connection.transaction():
        for sku, on_hand in (("vase", 10), ("bowl", 5)):
            list_product(
                asked.connection, CODEC, sku=sku, name=sku, unit_price_cents=900, on_hand=on_hand, event_id=uuid4()
            )
    assert [topic for topic, _ in asked.sent()] == ["catalog.events", "catalog.events"]
    return asked


def reserved(catalog: Asked) -> dict[str, int]:
    """Return the promised pieces, after a look whether the books agree."""
    assert postgres.unbalanced(catalog.connection) == []
    assert postgres.executed_twice(catalog.connection) == 0
    return dict(catalog.rows("SELECT sku, reserved FROM product"))


def test_stock_is_promised_and_the_level_told(catalog: Asked) -> None:
    """With the reply, in the same transaction."""
    catalog.batch(reserve("o-1", vase=3, bowl=1))
    sent = {topic: CODEC.decode(payload) for topic, payload in catalog.sent()}
    assert isinstance(sent["place_order.replies"], StockReserved)
    assert isinstance(sent["catalog.events"], StockLevelChanged)
    assert reserved(catalog) == {"vase": 3, "bowl": 1}


def test_an_order_gets_all_or_nothing(catalog: Asked) -> None:
    """The vases of an order whose bowls are short stay on the shelf."""
    (reply,) = catalog.ask(reserve("o-1", vase=3, bowl=6))
    assert reply == OutOfStock(order_id="o-1", sku="bowl", requested=6, available=5)
    assert reserved(catalog) == {"vase": 0, "bowl": 0}


def test_what_is_not_sold_is_out_of_stock(catalog: Asked) -> None:
    """No line of an order can name an article that is not there."""
    (reply,) = catalog.ask(reserve("o-1", unicorn=1))
    assert reply == OutOfStock(order_id="o-1", sku="unicorn", requested=1, available=0)


def test_orders_of_one_batch_share_the_shelf(catalog: Asked) -> None:
    """The third order in one transaction finds what the first two left."""
    replies = catalog.ask(
        reserve("o-1", vase=4), reserve("o-2", vase=4), reserve("o-3", vase=4), reserve("o-4", vase=2)
    )
    assert [type(reply) for reply in replies] == [StockReserved, StockReserved, OutOfStock, StockReserved]
    assert reserved(catalog)["vase"] == 10


def test_an_article_in_two_lines_counts_with_both(catalog: Asked) -> None:
    """Six and five vases are eleven."""
    twice = ReserveStock(order_id="o-1", lines=(*lines(vase=6), *lines(vase=5)))
    (reply,) = catalog.ask(replace(reserve("o-1"), command=twice))
    assert reply == OutOfStock(order_id="o-1", sku="vase", requested=11, available=10)


def test_a_command_that_comes_again_is_answered_and_not_done_again(catalog: Asked) -> None:
    """In another batch, in the same batch, and under another attempt."""
    first = reserve("o-1", vase=3)
    replies = catalog.ask(first, first, first.again())
    replies += catalog.ask(first.again().again())
    assert set(replies) == {replies[0]}
    assert len(replies) == 4
    assert reserved(catalog)["vase"] == 3
    attempts = catalog.rows("SELECT attempt FROM outbox WHERE topic = 'place_order.replies' ORDER BY tableoid, ctid")
    assert attempts == [(1,), (1,), (2,), (3,)]


def test_a_refusal_is_recorded_though_stock_came_meanwhile(catalog: Asked) -> None:
    """The saga may have acted on the first answer; only an operator's new round asks anew."""
    short = reserve("o-1", bowl=6)
    (first,) = catalog.ask(short)
    with catalog.connection.transaction():
        catalog.connection.execute("UPDATE product SET on_hand = 100")
    assert catalog.ask(short.again()) == [first]
    (later,) = catalog.ask(replace(short, round=2))
    assert isinstance(later, StockReserved)


def test_an_undo_gives_back_what_was_promised(catalog: Asked) -> None:
    """Once, however often it comes."""
    catalog.ask(reserve("o-1", vase=3), reserve("o-2", vase=2))
    assert catalog.ask(release("o-1"), release("o-1").again()) == [StockReleased(order_id="o-1")] * 2
    assert reserved(catalog)["vase"] == 2


def test_do_and_undo_in_one_batch_are_done_in_their_order(catalog: Asked) -> None:
    """What concerns one order is never done out of its order."""
    replies = catalog.ask(reserve("o-1", vase=3), release("o-1"))
    assert [type(reply) for reply in replies] == [StockReserved, StockReleased]
    assert reserved(catalog)["vase"] == 0


def test_an_undo_before_its_do_makes_the_late_do_harmless(catalog: Asked) -> None:
    """The saga has its undo and waits for nothing else, so the late command is not even answered."""
    assert catalog.ask(release("o-1")) == [StockReleased(order_id="o-1")]
    assert catalog.ask(reserve("o-1", vase=3)) == []
    assert reserved(catalog)["vase"] == 0


def test_a_do_that_is_redelivered_after_its_undo_is_not_done_again(catalog: Asked) -> None:
    """A redriven dead letter, for one."""
    catalog.ask(reserve("o-1", vase=3))
    catalog.ask(release("o-1"))
    assert catalog.ask(reserve("o-1", vase=3).again()) == []
    assert reserved(catalog)["vase"] == 0


def test_the_undo_of_a_refusal_gives_nothing_back(catalog: Asked) -> None:
    """By contract a refusal left nothing."""
    catalog.ask(reserve("o-1", bowl=6))
    assert catalog.ask(release("o-1")) == [StockReleased(order_id="o-1")]
    assert reserved(catalog) == {"vase": 0, "bowl": 0}


def test_an_undo_gives_back_what_its_own_saga_was_promised(catalog: Asked) -> None:
    """Another saga's undo about the same order, whose own command never came, leaves it alone."""
    catalog.ask(reserve("o-1", vase=3))
    catalog.batch(replace(release("o-1"), saga="cancel_order"))
    assert reserved(catalog)["vase"] == 3


def test_cancelled_pieces_come_back_at_most_once(catalog: Asked) -> None:
    """More than was promised to the order cannot come back."""
    catalog.ask(reserve("o-1", vase=3, bowl=2))
    assert catalog.ask(restock("o-1", vase=2)) == [ItemsRestocked(order_id="o-1")]
    assert reserved(catalog) == {"vase": 1, "bowl": 2}
    catalog.ask(replace(restock("o-1", vase=9, bowl=1, unicorn=1), step="again"))
    assert reserved(catalog) == {"vase": 0, "bowl": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda asked: asked.rows("UPDATE product SET reserved = on_hand + 1 RETURNING 1"),
        lambda asked: asked.rows("UPDATE product SET on_hand = -1 RETURNING 1"),
        lambda asked: asked.rows("UPDATE product SET reserved = -1 RETURNING 1"),
        lambda asked: asked.rows("UPDATE reservation_line SET restocked = quantity + 1 RETURNING 1"),
    ],
    ids=["promise what is not there", "negative stock", "negative promise", "give back too much"],
)
def test_no_code_can_break_the_stock(catalog: Asked, wrong: Callable[[Asked], object]) -> None:
    """The database itself refuses."""
    catalog.ask(reserve("o-1", vase=1))
    with pytest.raises(errors.CheckViolation):
        wrong(catalog)


def test_books_that_do_not_agree_are_found(catalog: Asked) -> None:
    """The invariant that the demo checks can fail."""
    catalog.ask(reserve("o-1", vase=1))
    catalog.rows("UPDATE product SET reserved = 2 WHERE sku = 'vase' RETURNING 1")
    assert postgres.unbalanced(catalog.connection) == ["vase"]
    catalog.rows("INSERT INTO stock_movement SELECT * FROM stock_movement RETURNING 1")
    assert postgres.executed_twice(catalog.connection) == 1
