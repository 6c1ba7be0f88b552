"""An instance as it was: recorded inputs decided again, up to a time or a place."""

from dataclasses import replace

import pytest

from tests.unit.orchestrator.desktop import CODEC
from tests.unit.orchestrator.test_recording import DEFINITION, confirmed, out_of_stock
from towpath.errors import NotFoundError
from towpath.orchestrator.recording import NotAsRecorded
from towpath.orchestrator.time_travel import moments, until


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
