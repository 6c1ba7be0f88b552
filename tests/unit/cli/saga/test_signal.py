"""A signal that no wait takes is refused in the words in which an application's is, before anything is looked for."""

import pytest

from tests.next_steps import run
from tests.stack_fixture import ROOT


@pytest.mark.parametrize(
    ("saga", "next_step"),
    [
        ("place_order", "send one of OrderApproved, OrderDeclined"),
        ("cancel_order", "nothing: no wait of cancel_order takes a signal"),
    ],
)
def test_a_signal_that_no_wait_takes_is_told_as_the_client_tells_it(saga: str, next_step: str) -> None:
    """No other type is guessed at, and a saga that waits for nobody has no topic to speak of."""
    said = run(ROOT, "saga", "signal", saga, "o-1", "Foo")
    assert said.code == 2
    assert f"saga {saga} takes no signal Foo" in said.text
    assert next_step in said.text
