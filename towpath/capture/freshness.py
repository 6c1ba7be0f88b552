"""Whether capture is known to be behind: then replies may lie in an outbox, and no deadline may fire for their lack.

The one rule: silence counts only after speech. A connector that has never beaten is not known to be behind; one that
has stopped beating is, until it beats again. Pure; `kafka.py` reads the heartbeats.
"""

from collections.abc import Iterable

BEATS_MISSED_MAX = 3
"""Heartbeats that may be missing: one may be late, and Connect moves a task within a few seconds."""


class Freshness:
    """When each service's connector last beat."""

    def __init__(self, services: Iterable[str], heartbeat_seconds: float) -> None:
        self._last_milliseconds: dict[str, int | None] = dict.fromkeys(services)
        self._allowed_milliseconds = heartbeat_seconds * BEATS_MISSED_MAX * 1000

    def beat(self, service: str, at_milliseconds: int) -> None:
        """Note a heartbeat; an older one than the last says nothing."""
        last = self._last_milliseconds.get(service)
        if last is None or at_milliseconds > last:
            self._last_milliseconds[service] = at_milliseconds

    def behind(self, now_milliseconds: int) -> tuple[str, ...]:
        """Return the services whose capture is known to be behind."""
        return tuple(
            service
            for service, last in self._last_milliseconds.items()
            if last is not None and now_milliseconds - last > self._allowed_milliseconds
        )
