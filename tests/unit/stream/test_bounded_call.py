"""A call that does not come back is given up; others answer, or fail, as if they had been called directly."""

import threading
from functools import partial

import pytest

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
