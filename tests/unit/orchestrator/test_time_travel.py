"""An instance as it was: recorded inputs decided again, up to a time or a place."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sagas import catalog, identity
from schemas.records.catalog import StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderPlaced
from tests.unit.orchestrator.desktop import CODEC, commands, desktop, history, order_placed
from tests.unit.orchestrator.test_recording import DEFINITION, confirmed, out_of_stock
from tests.unit.orchestrator.test_upgrading import VERSION_1, reserve, reserved, verified, verify
from towpath.errors import NotFoundError
from towpath.orchestrator.recording import NotAsRecorded, golden_of
from towpath.orchestrator.time_travel import moments, until
from towpath.saga import Saga, hours, seconds
from towpath.saga.definition_snapshot import fingerprint_of


def test_each_step_says_how_it_stood_and_what_changed() -> None:
    """As the history says that it stood; what an input did not change is not told."""
    tape = confirmed()
    placed = list(enumerate(tape.entries, start=100))
    found = list(moments(DEFINITION, placed, CODEC))
    assert [one.offset for one in found] == [offset for offset, _ in placed]
    for one in found:
        assert one.state is not None
        assert one.state.status.value == one.entry.status
    begun, *later = found
    assert "status: running" in begun.changes
    (verified,) = [one for one in later if one.entry.step == "verify_customer" and one.entry.happened == "replied"][:1]
    assert "steps.verify_customer.status: sent -> succeeded" in verified.changes
    assert not any(path.startswith(("steps.reserve_stock", "recent")) for path in verified.changes)
    repeated = [one for one in later if one.entry.happened == "duplicate"]
    assert all(one.changes == () for one in repeated)


def test_a_run_is_cut_at_a_time_or_an_offset() -> None:
    """Both include what lies there; before the start there is nothing."""
    tape = out_of_stock()
    placed = list(enumerate(tape.entries, start=10))
    middle = placed[3][1].at_milliseconds
    by_time = until(placed, at_milliseconds=middle)
    assert [entry.at_milliseconds <= middle for _, entry in placed].count(True) == len(by_time)
    assert until(placed, offset=12) == placed[:3]
    *_, last = moments(DEFINITION, until(placed, offset=12), CODEC)
    assert last.state is not None
    assert last.state.status.value == placed[2][1].status
    with pytest.raises(NotFoundError, match="had not begun"):
        until(placed, offset=9)


def test_what_is_decided_otherwise_now_is_not_shown_as_what_was() -> None:
    """The record is held against each decision."""
    placed = list(enumerate(confirmed().entries))
    placed[2] = (2, replace(placed[2][1], status="stuck"))
    with pytest.raises(NotAsRecorded, match="entry 3"):
        list(moments(DEFINITION, placed, CODEC))


def test_a_moment_between_two_inputs_of_which_the_later_has_the_earlier_time_can_be_shown() -> None:
    """The identity service's clock is 5 s ahead of the catalog's: what is shown is a beginning of the run."""
    desk = desktop(VERSION_1)
    sent = desk.give("order.events", order_placed("o"), key="o", id="e")
    entries = history(sent)
    began = desk.clock.now()
    desk.clock.advance(60)
    names = ("saga_id", "saga", "step", "direction", "attempt", "round")
    for number, (reply, at_seconds) in enumerate(((verified("o"), 10), (reserved("o"), 5))):
        (command,) = commands(sent)
        said = {name: command.headers[name] for name in names}
        at, own = began + timedelta(seconds=at_seconds), {"id": f"r{number}", "type": reply.SCHEMA_NAME}
        sent = desk.give_at(at, command.headers["reply_to"], reply, key="o", **said, **own)
        entries += history(sent)
    chosen = until(list(enumerate(entries)), at_milliseconds=entries[0].at_milliseconds + 7_000)
    assert [moment.offset for moment in moments(VERSION_1.definition, chosen, CODEC)] == [0]


def side_by_side(*, turned: bool = False) -> Saga[OrderPlaced]:
    """Return a saga of two steps that need nothing, in either order of lines."""
    made = Saga("check_order", version=1, starts_on=OrderPlaced, deadline=hours(1))
    if not turned:
        made.retriable(identity, verify, succeeds=CustomerVerified, within=seconds(10))
    made.retriable(catalog, reserve, succeeds=StockReserved, within=seconds(10))
    if turned:
        made.retriable(identity, verify, succeeds=CustomerVerified, within=seconds(10))
    return made


def test_a_run_is_shown_and_recorded_though_two_lines_of_its_definition_changed_places() -> None:
    """That is no change: a worker goes on with such an instance, too."""
    entries = history(desktop(side_by_side()).give("order.events", order_placed(), id="e"))
    turned = side_by_side(turned=True).definition
    assert fingerprint_of(turned) == fingerprint_of(side_by_side().definition)
    assert len(list(moments(turned, list(enumerate(entries)), CODEC))) == 1
    assert golden_of(turned, entries, CODEC)
