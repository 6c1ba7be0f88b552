"""Faults to order: what the memory broker does wrong, when, and how often. Pure."""

from collections import defaultdict, deque
from collections.abc import Callable

from towpath.stream.broker.port import BrokerAway

Fault = Callable[[], None]


class Faults:
    """Each operation meets the faults that were ordered for it, one a call, then goes well again.

    Operations: `metadata`, `offsets`, `committed`, `poll`, `start`, `produce`, `send_offsets`, `commit`,
    `commit answer` (met after the commit was done: the answer is lost), `abort`, `read`.
    """

    def __init__(self) -> None:
        self._ordered: dict[str, deque[Fault]] = defaultdict(deque)
        self.away = False

    def order(self, operation: str, error: Exception, times: int = 1) -> None:
        """Have the next calls of `operation` raise `error`."""

        def fail() -> None:
            raise error

        self._ordered[operation].extend([fail] * times)

    def call(self, operation: str, function: Fault) -> None:
        """Have the next call of `operation` run `function` first: the place for whatever happens in between."""
        self._ordered[operation].append(function)

    def meet(self, operation: str) -> None:
        """Be met by an operation."""
        if self.away:
            raise BrokerAway(f"the memory broker is away ({operation})")
        if self._ordered[operation]:
            self._ordered[operation].popleft()()
