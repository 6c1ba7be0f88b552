"""Record golden histories: `python -m tests.histories.record` writes those that are not there yet, and changes none.

To add one, add a run; to change what a version decides is to make another version of the saga.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sagas import cancel_order, place_order
from tests.scenarios.craftygoods import (
    APPROVED,
    AUTHORISED,
    AUTHORISED_LARGE,
    CANCELLATION,
    CANCELLED,
    CAPTURED,
    CONFIRMED,
    DECLINED,
    HELD,
    LARGE,
    NOT_APPROVED,
    NOT_HELD,
    NOT_REFUNDED,
    NOT_VERIFIED,
    OUT_OF_STOCK,
    REFUNDED,
    REJECTED,
    RELEASED,
    RESERVED,
    RESTOCKED,
    RESUMED,
    SMALL,
    VERIFIED,
    VOIDED,
)
from towpath.saga import Saga, hours, seconds
from towpath.saga.inputs import Action
from towpath.saga.state import Status
from towpath.saga.testing import Conversation, given, history_of, write_history

FOLDER = Path(__file__).parent


Happening = object | Callable[[Conversation], Conversation]


def run(saga: Saga[Any], event: object, *happenings: Happening) -> Conversation:
    """Return a conversation in which these messages are said and these things happen, a second apart."""
    talk = given(saga, event, key="o1")
    for happening in happenings:
        talk.expect_anything().when_time_passes(seconds(1)).expect_anything()
        if callable(happening):
            happening(talk)
        else:
            talk.when(happening)
    return talk


def ask(action: Action, **what: Any) -> Callable[[Conversation], Conversation]:
    """Return the request of a person as a happening."""
    return lambda talk: talk.when_asked(action, by="grace", because="asked by the customer", **what)


def late(talk: Conversation) -> Conversation:
    """Let the saga's deadline be the first timer to fire after a long outage."""
    return talk.when_its_deadline_passes()


def pause(talk: Conversation) -> Conversation:
    """Let one attempt go unanswered."""
    return talk.when_next_timer_fires()


def silence(talk: Conversation) -> Conversation:
    """Let nobody answer until the saga starts compensating."""
    return talk.when_nobody_answers_until(Status.COMPENSATING)


def again(talk: Conversation) -> Conversation:
    """Deliver the last input once more."""
    return talk.when_repeated()


def runs() -> dict[str, Conversation]:
    """Return every run that has a golden history, by the path of its file below this folder."""
    checked = (VERIFIED, RESERVED)
    paid = (*checked, AUTHORISED)
    large = (*checked, AUTHORISED_LARGE)
    back = (VOIDED, RELEASED, REJECTED)
    order, cancel = place_order.saga, cancel_order.saga
    return {
        "place_order/v1/completed": run(order, SMALL, *paid, CONFIRMED, CAPTURED),
        "place_order/v1/approved": run(order, LARGE, *large, APPROVED, CONFIRMED, CAPTURED),
        "place_order/v1/approved_early": run(order, LARGE, APPROVED, *large, CONFIRMED, CAPTURED),
        "place_order/v1/declined_by_a_person": run(order, LARGE, *large, NOT_APPROVED, *back),
        "place_order/v1/nobody_decided": run(
            order, LARGE, *large, lambda talk: talk.when_time_passes(hours(25)), *back
        ),
        "place_order/v1/out_of_stock": run(order, SMALL, VERIFIED, OUT_OF_STOCK, REJECTED),
        "place_order/v1/customer_refused": run(order, SMALL, RESERVED, NOT_VERIFIED, RELEASED, REJECTED),
        "place_order/v1/card_declined": run(order, SMALL, *checked, DECLINED, RELEASED, REJECTED),
        "place_order/v1/silent_card_network": run(order, SMALL, *checked, silence, *back),
        "place_order/v1/everything_twice": run(
            order, SMALL, VERIFIED, again, RESERVED, again, AUTHORISED, again, CONFIRMED, again, CAPTURED, again
        ),
        "place_order/v1/cancelled": run(order, LARGE, *large, ask(Action.CANCEL), again, *back),
        "place_order/v1/capture_resumed": run(order, SMALL, *paid, CONFIRMED, late, ask(Action.RESUME), CAPTURED),
        "place_order/v1/undo_retried": run(
            order, SMALL, VERIFIED, OUT_OF_STOCK, pause, ask(Action.RETRY, step="start"), REJECTED
        ),
        "cancel_order/v1/completed": run(cancel, CANCELLATION, HELD, REFUNDED, RESTOCKED, CANCELLED),
        "cancel_order/v1/has_left": run(cancel, CANCELLATION, NOT_HELD),
        "cancel_order/v1/refund_refused": run(cancel, CANCELLATION, HELD, NOT_REFUNDED, RESUMED),
        "cancel_order/v1/skipped_by_a_person": run(
            cancel, CANCELLATION, HELD, late, ask(Action.SKIP, step="refund_payment", reply=NOT_REFUNDED), RESUMED
        ),
    }


def main() -> None:
    """Write the histories that are missing, and name them."""
    for name, talk in runs().items():
        path = FOLDER / f"{name}.jsonl"
        if not path.exists():
            write_history(path, history_of(talk.definition, talk.inputs, talk.decisions))
            sys.stdout.write(f"recorded {path.relative_to(FOLDER)}\n")


if __name__ == "__main__":
    main()
