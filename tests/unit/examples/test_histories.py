"""Every saga of the examples, proved, and then played against services, network and invariants of its own.

The short form runs with all tests. The long one, 10,000 histories a saga: `python -m tests.unit.examples.long`.
"""

import sys
import time
from typing import Any

import pytest

from tests.unit.examples.model import Broken, play
from tests.unit.examples.stories import STORIES
from towpath.saga.check import Check
from towpath.saga.state import Status

HISTORIES = 60


@pytest.mark.parametrize("name", STORIES)
def test_the_saga_is_proved(name: str) -> None:
    """Nothing is found, in it or in what it starts."""
    reports = Check([STORIES[name].saga.definition], time.perf_counter).run()
    assert [(each.rule, each.subject, each.words) for report in reports for each in report.violations] == []


@pytest.mark.parametrize("name", STORIES)
def test_no_history_breaks_a_promise(name: str) -> None:
    """Both endings are met, and every promise is kept on the way to them; a failure names its seed."""
    counts = play(STORIES[name], HISTORIES)
    assert counts[Status.COMPLETED]
    assert counts[Status.COMPENSATED]


machine: Any = sys.modules["towpath.saga.advance"]
beginning: Any = sys.modules["towpath.saga.beginning"]


def forget_the_undo(patch: pytest.MonkeyPatch) -> None:
    """What was not answered counts as not done."""
    owes = machine._owes
    patch.setattr(
        machine, "_owes", lambda step, state: state.status is machine._SUCCEEDED and owes(step, state) and bool(state)
    )


def know_no_pivot(patch: pytest.MonkeyPatch) -> None:
    """Whoever cancels is heard, always."""
    patch.setattr(machine, "committed", lambda builder: False)


def undo_what_was_declined(patch: pytest.MonkeyPatch) -> None:
    """What stands in is done though the first was."""
    patch.setattr(
        machine, "is_skipped", lambda builder, step: step.instead_of is None and beginning.is_skipped(builder, step)
    )


def publish_twice(patch: pytest.MonkeyPatch) -> None:
    """Each event comes twice."""
    publish = machine.DecisionBuilder.publish

    def twice(*said: Any) -> None:
        publish(*said)
        publish(*said)

    patch.setattr(machine.DecisionBuilder, "publish", twice)


@pytest.mark.parametrize(
    ("break_it", "story"),
    [
        (forget_the_undo, "book_trip"),
        (know_no_pivot, "cancel_meal"),
        (undo_what_was_declined, "send_parcel"),
        (publish_twice, "ship_parts"),
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_the_model_sees_a_broken_machine(break_it: Any, story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can fail: a mistake that is made on purpose breaks a promise within the short form."""
    break_it(monkeypatch)
    with pytest.raises(Broken, match="seed"):
        play(STORIES[story], HISTORIES)
