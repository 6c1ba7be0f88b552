"""Values are what `dataclasses` would make of them; only their `__init__` is another."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest

from towpath.saga import effects, inputs, state
from towpath.saga.advance import Decision
from towpath.saga.value import value

VALUES = [
    found
    for module in (state, effects, inputs)
    for found in vars(module).values()
    if isinstance(found, type) and found.__module__ == module.__name__ and hasattr(found, "__dataclass_fields__")
]


@value
class Point:
    """A value with and without defaults."""

    x: int
    y: int = 2
    name: str = "p"


@dataclass(frozen=True, slots=True)
class Plain:
    """The same, as `dataclasses` makes it."""

    x: int
    y: int = 2
    name: str = "p"


def test_it_takes_the_same_arguments() -> None:
    """Positional, by name, left out; a wrong one is refused by Python as ever."""
    assert inspect.signature(Point) == inspect.signature(Plain)
    assert repr(Point(1)) == repr(Plain(1)).replace("Plain", "Point")
    assert Point(1, name="q") == Point(x=1, y=2, name="q") != Point(1)
    with pytest.raises(TypeError, match="z"):
        Point(1, z=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'x'"):
        Point()  # type: ignore[call-arg]


def test_it_is_frozen_and_has_slots() -> None:
    """Nothing is changed or added after it was made."""
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 5  # type: ignore[misc]
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        point.z = 5  # type: ignore[attr-defined]
    assert not hasattr(point, "__dict__")


def test_it_is_copied_hashed_and_kept() -> None:
    """By the tools that know dataclasses."""
    point = Point(1, 7)
    assert replace(point, y=2) == Point(1)
    assert copy.deepcopy(point) == point == pickle.loads(pickle.dumps(point))
    assert len({point, Point(1, 7)}) == 1


@pytest.mark.parametrize("cls", [*VALUES, Decision], ids=lambda cls: cls.__name__)
def test_each_value_of_the_machine_is_made_so(cls: type) -> None:
    """One made with `dataclass` alone would be half as fast, and nobody would notice."""
    names = tuple(field.name for field in fields(cls))
    assert cls.__init__.__code__.co_names == tuple(f"_set_{name}" for name in names)  # type: ignore[misc]
    made = cls(*range(len(names)))
    assert [getattr(made, name) for name in names] == list(range(len(names)))
