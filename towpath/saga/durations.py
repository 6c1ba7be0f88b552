"""Durations that read as a sentence: `within=seconds(10)`, `deadline=days(4)`."""

from datetime import timedelta

from towpath.saga.errors import DefinitionError


def seconds(count: float) -> timedelta:
    """Return a duration of `count` seconds."""
    return _lasting(seconds=count)


def minutes(count: float) -> timedelta:
    """Return a duration of `count` minutes."""
    return _lasting(minutes=count)


def hours(count: float) -> timedelta:
    """Return a duration of `count` hours."""
    return _lasting(hours=count)


def days(count: float) -> timedelta:
    """Return a duration of `count` days of 24 hours."""
    return _lasting(days=count)


def _lasting(**count: float) -> timedelta:
    try:
        return timedelta(**count)
    except (TypeError, ValueError, OverflowError) as error:
        ((unit, said),) = count.items()
        raise DefinitionError(f"{unit}({said!r}) is no duration: {error}", next_step=f"say {unit}(10)") from None


def to_milliseconds(duration: timedelta) -> int:
    """Return `duration` in whole milliseconds, the unit of every time in a saga's state."""
    return duration // timedelta(milliseconds=1)
