"""The process in which a saga's functions are called once more: another hash seed, date, zone, locale, environment.

Run by `saga_elsewhere.py`, as a file: its environment was emptied, and clock and locale are changed here, before the
project is imported. It imports nothing of Towpath itself, so that it is ready while the first saga is explored.
"""

import contextlib
import datetime
import importlib
import locale
import os
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

LOCALES = ("de_DE.UTF-8", "fr_FR.UTF-8", "tr_TR.UTF-8", "de_DE", "fr_FR")  # the first that is installed, if any is
_READS_ENVIRONMENT = type(os.environ).__getitem__.__code__
_MAKES_RANDOM = random.Random.__init__.__code__
_RealDatetime = datetime.datetime

Definition = Any


class Watch:
    """Notes what the functions of a saga use beside their arguments."""

    def __init__(self) -> None:
        self.clock = False
        self.used: set[str] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note what is used from here on, until it is left."""
        self.clock, self.used = False, set()
        sys.setprofile(self._seen)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            if called is os.urandom or getattr(called, "__self__", None) is _SHARED_RANDOM:
                self.used.add("draws lots")
        elif event == "call":
            if frame.f_code is _READS_ENVIRONMENT:
                self.used.add(f"reads the environment ({frame.f_locals['key']})")
            elif frame.f_code is _MAKES_RANDOM and frame.f_locals.get("x") is None:
                self.used.add("draws lots")


_SHARED_RANDOM = random.random.__self__  # type: ignore[attr-defined]  # what `random.random()` draws from
_WATCH = Watch()


class _AsReal(type):
    """A moved clock's times are times: what was made before the clock was moved, too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _RealDatetime)


def move_the_clock(seconds: int) -> None:
    """Let every clock of this process be so far ahead, for whatever is imported from here on."""
    real, real_localtime, real_gmtime, real_strftime = time.time, time.localtime, time.gmtime, time.strftime

    def now() -> float:
        _WATCH.clock = True
        return real() + seconds

    class Moved(_RealDatetime, metaclass=_AsReal):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(now(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(now())

    Moved.__name__ = Moved.__qualname__ = "datetime"
    Moved.__module__ = "datetime"
    # `date.today` asks `time.time`, wherever it is.
    replaced: dict[str, Callable[..., Any]] = {
        "time": now,
        "time_ns": lambda: int(now() * 1e9),
        "localtime": lambda at=None: real_localtime(now() if at is None else at),
        "gmtime": lambda at=None: real_gmtime(now() if at is None else at),
        "strftime": lambda form, at=None: real_strftime(form, real_localtime(now()) if at is None else at),
        "ctime": lambda at=None: time.asctime(real_localtime(now() if at is None else at)),
    }
    for name, function in replaced.items():
        setattr(time, name, function)
    datetime.datetime = Moved  # type: ignore[misc]


def change_the_locale() -> None:
    """Take another locale, where one is installed."""
    for name in LOCALES:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            return


def definitions_in(place: str) -> Iterator[Definition]:
    """Yield the definition at `module:attribute`, and those of its sub-sagas."""
    module, _, attribute = place.partition(":")
    open_ = [getattr(importlib.import_module(module), attribute).definition]
    while open_:
        definition = open_.pop()
        yield definition
        open_ += [step.child for step in definition.steps if step.child is not None]


def function_of(step: Any, role: str) -> Callable[..., Any]:
    """Return the function of a step that has that role."""
    holders = {"undo": step.undo, "remind": step.remind, "fold": step.gather, "enough": step.gather}
    names = {"undo": "build", "remind": "build", "choose": "build"}
    function: Callable[..., Any] = getattr(holders.get(role, step), names.get(role, role))
    return function


def judged(definition: Definition, call: bytes | None) -> str | None:
    """Say what is wrong with a call; nothing where it comes out as it did; None where it cannot be repeated."""
    if call is None:
        return None
    try:
        key, role, given, returned = pickle.loads(call)  # noqa: S301 - from the process that started this one
    except Exception:  # whatever a class of the project does when it is read
        return None
    step = definition.step(key)
    function = definition.keyed_by if role == "keyed_by" and step.keyed_by is None else function_of(step, role)
    name = getattr(function, "__name__", "a function")
    try:
        with _WATCH.watching():
            again = function(*given)
    except (Exception, SystemExit) as error:  # whatever it is, it did not happen there
        return f"{name} raises {type(error).__name__} in another process: {error}"
    if _WATCH.used:
        return f"{name} {' and '.join(sorted(_WATCH.used))}: let it depend on what it is given alone"
    if again == returned:
        return ""
    why = "it reads the clock" if _WATCH.clock else "by the order of a set, hash(), the time zone or the locale"
    return f"{name} gives another {type(again).__name__} in another process: {why}"


def main() -> None:
    """Answer calls until there are none any more."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the project prints is no answer
    begin = pickle.load(calls)  # noqa: S301 - from the process that started this one
    sys.path[:] = begin["path"]
    move_the_clock(begin["seconds"])
    change_the_locale()
    found: dict[tuple[str, int], Definition] = {}
    wrong = ""
    for place in begin["sagas"]:
        try:
            found.update({(each.name, each.version): each for each in definitions_in(place)})
        except (Exception, SystemExit) as error:  # whatever a module of the project does when it is imported
            wrong = f"cannot be imported in another environment: {place}: {type(error).__name__}: {error}"
    with contextlib.suppress(EOFError):
        while True:
            name, version, asked = pickle.load(calls)  # noqa: S301 - from the process that started this one
            definition = found.get((name, version))
            heard = (
                [wrong or None for _ in asked] if definition is None else [judged(definition, each) for each in asked]
            )
            pickle.dump(heard, answers)
            answers.flush()


if __name__ == "__main__":
    main()
