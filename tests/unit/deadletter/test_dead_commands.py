"""Which commands are dead now: what holds an attempt's clock, and what lets it go on."""

import pytest

from schemas.records.payment import VoidAuthorisation
from tests.commands import Asking
from towpath.deadletter.dead_commands import REDRIVEN_MILLISECONDS, DeadCommands
from towpath.deadletter.quarantine import Fate, Settlement
from towpath.orchestrator.performer import attempt_timer
from towpath.saga.state import Direction
from towpath.stream.broker.dead_letter import dead_headers, describe, with_original
from towpath.stream.broker.record import ConsumedRecord

ASKING = Asking(VoidAuthorisation(order_id="o-1"), step="authorise_payment", direction=Direction.UNDO, attempt=2)
TIMER = f"{ASKING.saga_id}:attempt:authorise_payment::undo:2:1".encode()


def dead(asking: Asking = ASKING, *, through_an_outbox: bool = False) -> tuple[ConsumedRecord, str]:
    """Return the dead letter of a command as its topic holds it, and its identity."""
    command = asking.arriving(offset=7)
    letter = describe(
        command,
        ValueError("a bug"),
        application="shop-service-payment",
        kind="handler",
        attempts=3,
        died_milliseconds=5,
    )
    if through_an_outbox:
        letter = with_original(command, letter)
        bare = command._replace(topic="payment.commands.dead", headers=())
        return bare._replace(headers=dead_headers(bare, letter)), letter.identity
    return command._replace(topic="payment.commands.dead", headers=dead_headers(command, letter)), letter.identity


def settled(identity: str, fate: Fate, at_milliseconds: int = 1_000) -> ConsumedRecord:
    """Return the record by which a person settled a dead letter."""
    headers = Settlement(identity, fate, "grace", "fixed", at_milliseconds).to_headers()
    return ConsumedRecord("payment.commands.dead", 0, 8, at_milliseconds, b"o-1", None, headers)


def watch(saga: str = "place_order") -> DeadCommands:
    """Return what one saga's worker follows."""
    return DeadCommands(lambda command: attempt_timer(saga, command))


@pytest.mark.parametrize("through_an_outbox", [True, False])
def test_a_dead_command_holds_its_own_attempt(through_an_outbox: bool) -> None:
    """And no other one; whichever way its letter came."""
    found = watch()
    assert not found.holds(TIMER, 0)
    found.met(dead(through_an_outbox=through_an_outbox)[0])
    assert found.holds(TIMER, 10**12)
    assert not found.holds(TIMER.replace(b":2:1", b":3:1"), 0)


def test_another_sagas_command_holds_nothing() -> None:
    """Its own worker follows it."""
    found = watch("cancel_order")
    found.met(dead()[0])
    assert not found.holds(TIMER, 0)


def test_what_is_dropped_is_held_no_more_and_what_is_redriven_a_little_longer() -> None:
    """The attempt's own time is over: a redriven command is given the time to be answered."""
    record, identity = dead()
    found = watch()
    found.met(record)
    found.met(settled(identity, Fate.DROPPED))
    assert not found.holds(TIMER, 1_000)
    found = watch()
    found.met(record)
    found.met(record)
    found.met(settled(identity, Fate.REDRIVEN))
    assert found.holds(TIMER, 1_000)
    assert not found.holds(TIMER, 1_000 + REDRIVEN_MILLISECONDS)
    found.met(record)
    assert found.holds(TIMER, 10**12)


def test_what_is_neither_is_passed_over() -> None:
    """A stranger's record in the topic is nobody's command."""
    found = watch()
    record, identity = dead()
    for headers in ((), (("dead", b"{"),), (("settled", b"[]"),)):
        found.met(record._replace(headers=headers))
    found.met(settled(identity, Fate.DROPPED))
    found.met(ConsumedRecord("payment.commands.dead", 0, 0, 0, None, None, dead()[0].headers[-1:]))
    assert not found.holds(TIMER, 0)
