"""Arbitrary bytes as key, value and headers, from a seed: what fuzz tests feed to workers."""

import random
from collections.abc import Iterator

from towpath.stream.broker.record import Headers

NAMES = [
    "id",
    "type",
    "saga",
    "saga_id",
    "step",
    "item",
    "direction",
    "attempt",
    "round",
    "idempotency_key",
    "undoes",
    "reply_to",
    "parent",
    "saga_version",
    "deadline",
    "tenant",
    "traceparent",
    "dead",
    "redrive",
    "settled",
    "stand-in",
    "replay_id",
]
NASTY = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"99999999999",
    b"9" * 5_000,
    b"-1",
    b"do",
    b"undo",
    b"[" * 5_000,
    b"{}",
    "é\u0000\U0001f600".encode(),
    b"k" * 4_000,
    b"catalog events",
    b"00000000-0000-0000-0000-000000000000",
)


class ArbitraryRecords:
    """Records whose every part is arbitrary, or borrowed from good ones, so that they come far before they fail."""

    def __init__(self, seed: int, *, values: list[bytes], headers: list[Headers], sizes: tuple[int, ...] = ()) -> None:
        self._random = random.Random(seed)
        self._values = values
        self._headers = headers
        self._sizes = sizes

    def take(self, count: int) -> Iterator[tuple[bytes | None, bytes | None, Headers]]:
        """Yield key, value and headers of `count` records."""
        for _ in range(count):
            yield self._key(), self._value(), self._some_headers()

    def _bytes(self) -> bytes:
        roll = self._random
        return roll.choice(NASTY) if roll.random() < 0.6 else roll.randbytes(roll.randrange(60))

    def _key(self) -> bytes | None:
        roll = self._random.random()
        return None if roll < 0.1 else self._bytes() if roll < 0.6 else b"o-%d" % self._random.randrange(20)

    def _value(self) -> bytes | None:
        roll = self._random
        kind = roll.random()
        if kind < 0.1:
            return None
        if kind < 0.3:
            return self._bytes()
        if kind < 0.34 and self._sizes:
            return bytes(roll.choice(self._sizes))
        value = roll.choice(self._values)
        if kind < 0.6:
            place = roll.randrange(len(value))
            return value[:place] + roll.randbytes(1) + value[place + 1 :]
        return value if kind < 0.9 else value[: roll.randrange(len(value))]

    def _some_headers(self) -> Headers:
        roll = self._random
        headers = list(roll.choice(self._headers)) if roll.random() < 0.7 else []
        for _ in range(roll.randrange(4)):
            name = roll.choice(NAMES) if roll.random() < 0.9 else "näme"
            headers = [header for header in headers if header[0] != name]
            headers.append((name, None if roll.random() < 0.1 else self._bytes()))
        return tuple(headers)
