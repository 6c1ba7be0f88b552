"""What Python values stand for Avro's logical types, and how each becomes the raw value that is written. Pure.

`timestamp-nanos` and `local-timestamp-nanos` are an int, nanoseconds since 1970: a datetime holds microseconds, and a
value that comes back as another one is worse than a plain number.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from math import isinf, isnan
from typing import Any, Final
from uuid import UUID

from towpath.contract.binary import PRECISION_MAX, malformed, whole
from towpath.contract.record import Duration

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOCAL_EPOCH: Final = datetime(1970, 1, 1)
INT_RANGE: Final = range(-(2**31), 2**31)
LONG_RANGE: Final = range(-(2**63), 2**63)
# The largest number that a float of 32 bits holds.
SINGLE_MAX: Final = (2 - 2**-23) * 2.0**127
DURATION_BYTES: Final = 12
UUID_BYTES: Final = 16
_UUID_TEXT: Final = 36
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_MICROSECONDS: Final = 86_400_000_000
# Shifts the point of any decimal that passes PRECISION_MAX, without rounding it.
_EXACT: Final = Context(prec=2 * PRECISION_MAX, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation])


class Unfit(ValueError):
    """A value does not fit its field. The text says what it is and what the field takes, never the value."""


def unfit(value: object, takes: str) -> Any:
    """Raise Unfit; an expression, so that compiled code can call it."""
    raise Unfit(f"takes {takes}, not {type(value).__name__}")


def micros_of(value: Any) -> int:
    """Return an aware datetime as microseconds since 1970."""
    past = value - EPOCH  # raises TypeError for what is no datetime, or has no zone
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds  # type: ignore[no-any-return]


def millis_of(value: Any) -> int:
    """Return an aware datetime as whole milliseconds since 1970; what is finer is cut off, as the schema says."""
    past = value - EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000 + past.microseconds // 1_000  # type: ignore[no-any-return]


def local_micros_of(value: Any) -> int:
    """Return a datetime without a zone as microseconds since the beginning of 1970, wherever that was."""
    past = value - LOCAL_EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds  # type: ignore[no-any-return]


def local_millis_of(value: Any) -> int:
    """Return a datetime without a zone as whole milliseconds since the beginning of 1970."""
    past = value - LOCAL_EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000 + past.microseconds // 1_000  # type: ignore[no-any-return]


def days_of(value: Any) -> int:
    """Return a date as days since 1970."""
    # A datetime is a date to Python; its time would be lost without a word.
    if not isinstance(value, date) or isinstance(value, datetime):
        unfit(value, "a date")
    return value.toordinal() - _EPOCH_DAY  # type: ignore[no-any-return]


def time_micros_of(value: Any) -> int:
    """Return a time of day as microseconds since midnight."""
    if not isinstance(value, time) or value.tzinfo is not None:
        unfit(value, "a time of day without a zone")
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond  # type: ignore[no-any-return]


def time_millis_of(value: Any) -> int:
    """Return a time of day as whole milliseconds since midnight."""
    return time_micros_of(value) // 1_000


def uuid_text_of(value: Any) -> str:
    """Return a UUID as its text."""
    return str(value) if isinstance(value, UUID) else str(unfit(value, "a UUID"))


def uuid_bytes_of(value: Any) -> bytes:
    """Return a UUID as its 16 bytes."""
    return value.bytes if isinstance(value, UUID) else unfit(value, "a UUID")


def duration_bytes_of(value: Any) -> bytes:
    """Return a Duration as Avro's twelve bytes: months, days, milliseconds, the lowest byte first."""
    if not isinstance(value, Duration):
        unfit(value, "a Duration")
    try:
        parts = [part.to_bytes(4, "little") for part in (value.months, value.days, value.milliseconds)]
    except OverflowError:
        unfit(value, "a Duration whose parts are not negative and hold 32 bits")
    return b"".join(parts)


def unscaled(value: Any, precision: int, scale: int) -> int | None:
    """Return a decimal as a whole number of its smallest units; None where the field does not hold it exactly.

    Zeros at its end do not count: 3.0000 is 3.00.
    """
    if not isinstance(value, Decimal) or not value.is_finite():
        return None
    if value.is_zero():
        return 0
    digits = value.as_tuple().digits
    if value.adjusted() + scale >= precision or len(digits) > _EXACT.prec:
        return None
    shifted = value.scaleb(scale, _EXACT)
    number = int(shifted)
    return number if number == shifted else None


def decimal_bytes_of(value: Any, precision: int, scale: int) -> bytes:
    """Return a decimal in as few bytes of two's complement as hold it."""
    number = unscaled(value, precision, scale)
    if number is None:
        unfit(value, "another Decimal")
    assert number is not None
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def decimal_fixed_of(value: Any, precision: int, scale: int, size: int) -> bytes:
    """Return a decimal in exactly `size` bytes of two's complement."""
    number = unscaled(value, precision, scale)
    if number is None:
        unfit(value, "another Decimal")
    assert number is not None
    return number.to_bytes(size, "big", signed=True)


def number_of(value: Any) -> float:
    """Return a float. Type checkers let an int stand for one, so it may."""
    return float(value) if value.__class__ in (float, int) else float(unfit(value, "a float"))


def single_of(value: Any) -> float:
    """Return a float that 32 bits hold; struct would refuse a larger one with other words."""
    number = number_of(value)
    return number if abs(number) <= SINGLE_MAX or isinf(number) or isnan(number) else float(unfit(value, "32 bits"))


def micros_from(raw: int) -> datetime:
    """Return the instant so many microseconds after 1970. Raises OverflowError for one outside years 1 to 9999."""
    seconds, micros = divmod(raw, 1_000_000)
    return EPOCH + timedelta(0, seconds, micros)


def millis_from(raw: int) -> datetime:
    """Return the instant so many milliseconds after 1970. Raises OverflowError as `micros_from` does."""
    seconds, millis = divmod(raw, 1_000)
    return EPOCH + timedelta(0, seconds, millis * 1_000)


def local_micros_from(raw: int) -> datetime:
    """Return the datetime without a zone so many microseconds after 1970."""
    seconds, micros = divmod(raw, 1_000_000)
    return LOCAL_EPOCH + timedelta(0, seconds, micros)


def local_millis_from(raw: int) -> datetime:
    """Return the datetime without a zone so many milliseconds after 1970."""
    seconds, millis = divmod(raw, 1_000)
    return LOCAL_EPOCH + timedelta(0, seconds, millis * 1_000)


def days_from(raw: int) -> date:
    """Return the date so many days after 1970. Raises OverflowError or ValueError for one outside years 1 to 9999."""
    return date.fromordinal(raw + _EPOCH_DAY)


def time_micros_from(raw: int) -> time:
    """Return the time so many microseconds after midnight."""
    if not 0 <= raw < _DAY_MICROSECONDS:
        malformed("a time of day outside the day")
    seconds, micros = divmod(raw, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)


def time_millis_from(raw: int) -> time:
    """Return the time so many milliseconds after midnight."""
    return time_micros_from(raw * 1_000)


def uuid_text_from(raw: str) -> UUID:
    """Return the UUID that a text is, in its one usual form."""
    if len(raw) != _UUID_TEXT:
        malformed("a text that is no UUID")
    return UUID(raw)


def uuid_bytes_from(raw: bytes) -> UUID:
    """Return the UUID of 16 bytes."""
    return UUID(bytes=raw)


def duration_from(raw: bytes) -> Duration:
    """Return the Duration of twelve bytes."""
    months, days, milliseconds = (int.from_bytes(raw[place : place + 4], "little") for place in (0, 4, 8))
    return Duration(months=months, days=days, milliseconds=milliseconds)


def decimal_from(raw: bytes, precision: int, scale: int) -> Decimal:
    """Return the decimal of so many digits, `scale` of them after the point. Raises Malformed for one of more."""
    return Decimal(whole(raw, precision)).scaleb(-scale, _EXACT)


# Logical type -> the functions to the raw value and back. Decimals need their precision and scale: see `Primitive`.
TO_RAW: Final[Mapping[str, Callable[[Any], Any]]] = {
    "timestamp-millis": millis_of,
    "timestamp-micros": micros_of,
    "local-timestamp-millis": local_millis_of,
    "local-timestamp-micros": local_micros_of,
    "date": days_of,
    "time-millis": time_millis_of,
    "time-micros": time_micros_of,
    "uuid": uuid_text_of,
    "uuid-fixed": uuid_bytes_of,
    "duration": duration_bytes_of,
}
FROM_RAW: Final[Mapping[str, Callable[[Any], Any]]] = {
    "timestamp-millis": millis_from,
    "timestamp-micros": micros_from,
    "local-timestamp-millis": local_millis_from,
    "local-timestamp-micros": local_micros_from,
    "date": days_from,
    "time-millis": time_millis_from,
    "time-micros": time_micros_from,
    "uuid": uuid_text_from,
    "uuid-fixed": uuid_bytes_from,
    "duration": duration_from,
}
