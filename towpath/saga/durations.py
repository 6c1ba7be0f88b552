"""Durations that read as a sentence: `within=seconds(10)`, `deadline=days(4)`."""

from datetime import timedelta


def seconds(count: float) -> timedelta:
    """Return a duration of `count` seconds."""
    return timedelta(seconds=count)


def minutes(count: float) -> timedelta:
    """Return a duration of `count` minutes."""
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    """Return a duration of `count` hours."""
    return timedelta(hours=count)


def days(count: float) -> timedelta:
    """Return a duration of `count` days of 24 hours."""
    return timedelta(days=count)


def to_milliseconds(duration: timedelta) -> int:
    """Return `duration` in whole milliseconds, the unit of every time in a saga's state."""
    return duration // timedelta(milliseconds=1)
