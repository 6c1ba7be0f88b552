"""What people and applications wrote (a reason, a business key) is shown as it is: brackets in it are no markup."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.orchestrator.desktop import CODEC, desktop, history, order_placed
from tests.unit.orchestrator.test_upgrading import VERSION_1, ask, moving
from tests.unit.saga.support import OPENED, chain
from towpath.cli import saga_instances, saga_request_report, saga_why
from towpath.orchestrator.requests import Preview, request_of
from towpath.orchestrator.why import Line
from towpath.saga.advance import advance
from towpath.saga.inputs import Action, OperatorAsked
from towpath.saga.state import SagaState
from towpath.saga.testing import given

WRITTEN = ("wrong price [/b]", "customer [ref 4711] called", "it is :bug: again")
words = pytest.mark.parametrize("words", WRITTEN)


def cancelled(reason: str) -> SagaState:
    """Return an instance that a person has cancelled for that reason, and whose key has it, too."""
    state = given(chain(), OPENED).expect_anything().state
    asked = OperatorAsked("x", state.started_milliseconds + 1, Action.CANCEL, "ada", reason)
    after = advance(chain().definition, state, asked).state
    assert after is not None
    return replace(after, key=reason)


@words
def test_an_instance_is_shown(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its key and its cause."""
    saga_instances.show_state(cancelled(words), "now")
    assert " ".join(capsys.readouterr().out.split()).count(words) == 2


@words
def test_a_history_is_shown(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For ever after one such request."""
    desk = desktop(VERSION_1)
    entries = history(desk.give("order.events", order_placed("o"), key="o", id="e"))
    entries += history(ask(desk, moving(desk, "o", 7, words)))
    read: Any = lambda *_: (CODEC, entries)  # noqa: E731
    monkeypatch.setattr(saga_instances, "load_settings", lambda: None)
    monkeypatch.setattr(saga_instances, "_read_history", read)
    saga_instances.history("check_order", "o")
    assert words in capsys.readouterr().out


@words
def test_what_would_be_and_why_are_told(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refusals and sentences carry keys and causes."""
    request = request_of(cancelled(words), Action.CANCEL, actor="a", reason="r")
    seen = Preview(words, "running", "running", (), ())
    saga_request_report.show_previews([request], {request.id: seen}, as_json=False)
    saga_why._show(Line(f"because of {words}", f"towpath saga show s {words}"))
    assert capsys.readouterr().out.count(words) == 4
