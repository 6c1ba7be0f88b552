"""Avro's binary form of numbers, and the limits under which bytes of others are read. Pure.

Whoever reads here may hold bytes made to hurt: each function refuses what the specification does not allow, takes time
and memory in proportion to the bytes that are there, and raises Malformed, IndexError or struct.error, nothing else.
"""

from typing import Any, Final, NoReturn

# Levels of records inside each other, where a schema contains itself. A level takes a frame of Python's stack in each
# of decoding, comparing and printing (two there); Python's own limit is 1,000 frames for all of a program.
DEPTH_MAX: Final = 128
# Items that take no byte at all (null, an empty record), in one message: nothing in its length bounds them.
ITEMS_WITHOUT_BYTES_MAX: Final = 65_536
# Digits of a decimal. Python turns an int into a Decimal in time that grows with the square of its length.
PRECISION_MAX: Final = 4_096

_CONTINUES: Final = 128
_PAIR: Final = 1 << 14
# All varints of one or two bytes, by the number in them; and the pairs with which longer ones begin.
SHORT: Final = tuple(bytes([n]) if n < _CONTINUES else bytes([n & 127 | 128, n >> 7]) for n in range(_PAIR))
_LEADING: Final = tuple(bytes([n & 127 | 128, n >> 7 | 128]) for n in range(_PAIR))
_VARINT_BITS_MAX: Final = 63


class Malformed(ValueError):
    """Bytes are not what their schema says, or pass a limit. The text says what was found, never the value."""


def malformed(problem: str) -> NoReturn:
    """Raise Malformed; an expression, so that compiled code can call it."""
    raise Malformed(problem)


def varint(zigzag: int) -> bytes:
    """Return a number that is not negative as a varint, seven bits a byte, the lowest first."""
    written = b""
    while zigzag >= _PAIR:
        written += _LEADING[zigzag & (_PAIR - 1)]
        zigzag >>= 14
    return written + SHORT[zigzag]


def zigzag(number: int) -> int:
    """Return the number that stands for `number` in a varint: small where it is near zero on either side."""
    return number << 1 if number >= 0 else (~number << 1) | 1


def long_at(body: Any, place: int) -> tuple[int, int]:
    """Return the whole number of 64 bits at `place`, and the place after it."""
    byte = body[place]
    place += 1
    if byte < _CONTINUES:
        return (byte >> 1) ^ -(byte & 1), place
    found = byte & 127
    shift = 7
    while True:
        byte = body[place]
        place += 1
        if byte < _CONTINUES:
            found |= byte << shift
            if found >> 64:
                malformed("a whole number of more than 64 bits")
            return (found >> 1) ^ -(found & 1), place
        found |= (byte & 127) << shift
        shift += 7
        if shift > _VARINT_BITS_MAX:
            malformed("a whole number of more than ten bytes")


def int_at(body: Any, place: int) -> tuple[int, int]:
    """Return the whole number of 32 bits at `place`, and the place after it."""
    found, place = long_at(body, place)
    if not -(2**31) <= found < 2**31:
        malformed("a whole number of more than 32 bits where 32 are allowed")
    return found, place


def size_at(body: Any, place: int) -> tuple[int, int]:
    """Return the length, index or position at `place`, never negative, and the place after it."""
    found, place = long_at(body, place)
    if found < 0:
        malformed("a negative length or index")
    return found, place


def count_at(body: Any, place: int) -> tuple[int, int]:
    """Return how many items the block at `place` of an array or a map has, and where the first of them begins."""
    found, place = long_at(body, place)
    if found < 0:  # the block says its size in bytes as well, so that a reader may skip it
        _, place = size_at(body, place)
        found = -found
    return found, place


def whole(body: bytes, precision: int) -> int:
    """Return the unscaled number of a decimal: two's complement, the highest byte first."""
    number = int.from_bytes(body, "big", signed=True)
    if not body or abs(number) >= 10**precision:
        malformed(f"a decimal of more than {precision} digits, or of none")
    return number
