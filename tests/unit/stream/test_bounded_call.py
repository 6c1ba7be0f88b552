"""A call that does not come back is given up; others answer, or fail, as if they had been called directly."""

import threading
from functools import partial

import pytest

from towpath.stream.broker import bounded_call
from towpath.stream.broker.bounded_call import BoundedCaller


def test_a_call_answers() -> None:
    """What it returns is returned."""
    caller = BoundedCaller("test")
    assert [caller.call(partial(abs, -number), 10) for number in range(3)] == [0, 1, 2]
    caller.close()


def test_a_call_fails() -> None:
    """What it raises is raised, and the next call is made."""
    caller = BoundedCaller("test")
    with pytest.raises(ZeroDivisionError):
        caller.call(lambda: 1 / 0, 10)
    assert caller.call(lambda: 1, 10) == 1
    caller.close()


def test_a_call_that_does_not_come_back_is_given_up() -> None:
    """The waiting ends after its time, although the call does not."""
    caller, released = BoundedCaller("test"), threading.Event()
    with pytest.raises(TimeoutError):
        caller.call(released.wait, 0.05)
    released.set()
    caller.close()


def test_a_call_is_given_up_sooner_while_the_cluster_answers_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five answers in a row are enough; a single one that does not come begins the count anew."""
    monkeypatch.setattr(bounded_call, "LOOK_SECONDS", 0.01)
    caller, released = BoundedCaller("test"), threading.Event()
    looks = iter([True, True, True, True, False, *[True] * 100])
    with pytest.raises(TimeoutError, match="answers others"):
        caller.call(released.wait, 600, lambda: next(looks))
    assert len(list(looks)) == 95
    released.set()
    caller.close()


def test_a_slow_call_of_a_cluster_that_is_away_is_waited_for() -> None:
    """While nobody is answered, it may yet come back."""
    caller, released = BoundedCaller("test"), threading.Event()
    threading.Timer(0.2, released.set).start()
    assert caller.call(lambda: released.wait(60), 60, lambda: False)
    caller.close()
