"""Sagas with one function each that depends on more than its arguments, and their corrected twins."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

from towpath.saga import Participant, Saga, Undo, hours, seconds

desk = Participant("desk")
LIMIT = os.environ.get("DESK_LIMIT", "10")  # read when the module is imported: another worker may have another
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Asked:
    """Starts it."""

    name: str = "ada"
    items: tuple[str, ...] = ("desk", "lamp", "chair", "shelf", "clock")
    at: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Book:
    """Do."""

    words: str


@dataclass(frozen=True)
class Booked:
    """Done."""


@dataclass(frozen=True)
class Free:
    """Undo."""


@dataclass(frozen=True)
class Freed:
    """Undone."""


def free(_: Asked) -> Free:
    """Take back."""
    return Free()


PAIRS: dict[str, tuple[Callable[[Asked], Book], Callable[[Asked], Book], str]] = {}


def pair(name: str, wrong: Callable[[Asked], object], right: Callable[[Asked], object], words: str) -> None:
    """Register a mistake, its corrected twin, and a word of what is said about it."""
    PAIRS[name] = (lambda asked: Book(str(wrong(asked))), lambda asked: Book(str(right(asked))), words)


def seldom(_: Asked) -> str:
    """Draw lots that hardly ever come out."""
    return "free" if random.random() < 1e-9 else "paid"


def by_seed(asked: Asked) -> str:
    """Draw lots that come out alike for the same name."""
    return "free" if random.Random(asked.name).random() < 0.5 else "paid"


def local_day(asked: Asked) -> str:
    """Return the day in the zone of this machine."""
    return asked.at.astimezone().isoformat()


pair("set_order", lambda asked: list(set(asked.items)), lambda asked: sorted(set(asked.items)), "order of a set")
pair("hash", lambda asked: hash(asked.name) % 1_000, lambda asked: len(asked.name), "hash()")
pair("today", lambda _: date.today().year, lambda asked: asked.at.date().year, "reads the clock")
pair("now", lambda _: datetime.now(UTC).month, lambda asked: (asked.at + timedelta(days=1)).month, "reads the clock")
pair("time", lambda _: int(time.time()) // 86_400, lambda asked: int(asked.at.timestamp()) // 86_400, "reads the clock")
pair("weekday", lambda _: time.strftime("%j"), lambda asked: WEEKDAYS[asked.at.weekday()], "reads the clock")
pair("environment", lambda _: os.environ.get("REGION", "eu"), lambda asked: asked.name, "environment (REGION)")
pair("at_import", lambda _: LIMIT, lambda _: "10", "another Book")
pair("seldom", seldom, by_seed, "draws lots")
pair("uuid", lambda _: len(str(uuid4())), lambda asked: len(asked.name), "draws lots")
pair("zone", local_day, lambda asked: asked.at.astimezone(UTC).isoformat(), "time zone")


def saga_of(name: str, build: Callable[[Asked], Book]) -> Saga[Asked]:
    """Return a saga of one step, built by that function."""
    made = Saga(name, version=1, starts_on=Asked, deadline=hours(1))
    made.step(desk, build, key="book", undo=Undo(free, succeeds=Freed), succeeds=Booked, within=seconds(10))
    return made


for _name, (_wrong, _right, _) in PAIRS.items():
    globals()[f"{_name}_wrong"] = saga_of(f"{_name}_wrong", _wrong)
    globals()[f"{_name}_right"] = saga_of(f"{_name}_right", _right)
