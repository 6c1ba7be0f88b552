"""What of a parked key may pass: every cell of the table in `towpath/stream/state/parking.py`."""

from typing import Any

import pytest

from towpath.stream.broker.dead_letter import Mark, occurred_milliseconds, read_mark
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.state.parking import Admission, Parked, admit_redriven, park


def mark(**changes: Any) -> Mark:
    values: dict[str, Any] = {
        "application": "app",
        "of": "app in[0]@1 5",
        "behind": "in[0]@1",
        "drop": False,
        "first_offset": 1,
        "first_died_milliseconds": 5,
        "timestamp_milliseconds": 3,
    }
    return Mark(**{**values, **changes})


WAITS = Parked("in[0]@1", 3)


@pytest.mark.parametrize(
    ("given", "parked", "expected"),
    [
        pytest.param({"application": "other"}, WAITS, (Admission.PASS_OVER, WAITS), id="for another, parked"),
        pytest.param({"application": "other"}, None, (Admission.PASS_OVER, None), id="for another, free"),
        pytest.param({}, None, (Admission.APPLY, None), id="free"),
        pytest.param({}, WAITS, (Admission.APPLY, Parked("in[0]@1", 2)), id="in turn"),
        pytest.param({}, Parked("in[0]@1", 1), (Admission.APPLY, None), id="the last frees the key"),
        pytest.param({}, Parked("in[0]@9", 3), (Admission.FOLLOW, Parked("in[0]@9", 2)), id="out of turn"),
        pytest.param({"behind": None}, WAITS, (Admission.FOLLOW, WAITS), id="never counted"),
        pytest.param({"drop": True}, None, (Admission.PASS_OVER, None), id="dropped, free"),
        pytest.param({"drop": True}, WAITS, (Admission.PASS_OVER, Parked("in[0]@1", 2)), id="dropped"),
        pytest.param({"drop": True}, Parked("in[0]@9", 1), (Admission.PASS_OVER, None), id="dropped out of turn"),
    ],
)
def test_what_comes_from_quarantine_passes_in_its_turn_only(
    given: dict[str, Any], parked: Parked | None, expected: tuple[Admission, Parked | None]
) -> None:
    """It is for one application; it is held no more once it passes, and the last one lets its key go on."""
    assert admit_redriven(mark(**given), parked, "app") == expected


def test_a_key_waits_for_what_died_first_or_again() -> None:
    """Followers and further deaths only count; a redriven record that dies again is what its key waits for now."""
    first = park(None, "in[0]@1", follows=False, redriven=False)
    assert first == Parked("in[0]@1", 1)
    assert park(first, "in[0]@2", follows=True, redriven=False) == Parked("in[0]@1", 2)
    assert park(first, "in[0]@2", follows=False, redriven=False) == Parked("in[0]@1", 2)
    assert park(first, "in[0]@2", follows=True, redriven=True) == Parked("in[0]@1", 2)
    assert park(first, "in[0]@2", follows=False, redriven=True) == Parked("in[0]@2", 2)


def test_a_mark_is_read_back_and_nothing_else_is_one() -> None:
    """A header of that name that somebody else wrote means nothing; a redriven record keeps the time of its first."""
    record = ConsumedRecord("in", 0, 9, 1_000, b"k", b"v", (mark().to_header(),))
    assert read_mark(record) == mark()
    assert occurred_milliseconds(record) == 3
    for strange in (b"last", b"{}", b"[1]", None):
        assert read_mark(record._replace(headers=(("redrive", strange),))) is None
    assert occurred_milliseconds(record._replace(headers=())) == 1_000
