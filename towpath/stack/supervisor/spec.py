"""What the supervisor is told and what it answers, as values; pure, and imported by both of its ends.

The supervisor knows processes, not parts: everything about Kafka or PostgreSQL is in the spec that it is handed.
"""

import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

PROTOCOL = 2


class Group(StrEnum):
    """What a process is to the stack."""

    PART = "part"
    WORKER = "worker"
    SUPERVISOR = "supervisor"


class State(StrEnum):
    """Where a process stands. `READY` means that it answered its own protocol; `UNREADY` that it was ready and says
    that it is so no more; `FAILED` that it kept dying; `FROZEN` that the operating system has stopped it (SIGSTOP): of
    that the supervisor knows nothing, whoever asks looks.
    """

    STARTING = "starting"
    READY = "ready"
    UNREADY = "not ready"
    WAITING = "waiting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    FROZEN = "frozen"


class ProbeKind(StrEnum):
    """How a process shows that it is ready."""

    POSTGRES = "postgres"
    KAFKA = "kafka"
    HTTP = "http"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask a process whether it is ready: a port and, for HTTP, a path; for FILE, a file that it makes."""

    kind: ProbeKind
    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that a process runs as; `reads_anywhere` lets it pass folders that only root may enter."""

    user_id: int
    group_id: int
    reads_anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Deaths:
    """How often a process died in a row without a steady run between, and without having got ready."""

    unsteady: int = 0
    unready: int = 0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a process that died is started again.

    The first restart is almost at once, each later one waits twice as long, until a steady run. After `deaths_max`
    starts in a row that came to nothing it is left alone as failed: a part that cannot run must be seen, not hidden by
    a loop. One that gets ready can run: whatever kills it then, however often, it is started again.
    """

    first_seconds: float = 0.2
    seconds_max: float = 10.0
    deaths_max: int = 10
    steady_seconds: float = 20.0

    def delay_seconds(self, deaths: Deaths) -> float | None:
        """Return how long to wait after these deaths, or None to give up."""
        if deaths.unready >= self.deaths_max:
            return None
        # A float has no more than a thousand doublings.
        return min(self.first_seconds * 2.0 ** min(deaths.unsteady - 1, 100), self.seconds_max)

    def after(self, deaths: Deaths, ran_seconds: float, *, was_ready: bool) -> Deaths:
        """Return the deaths in a row after one more."""
        steady = was_ready and ran_seconds >= self.steady_seconds
        return Deaths(unsteady=1 if steady else deaths.unsteady + 1, unready=0 if was_ready else deaths.unready + 1)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to run and keep running.

    `rank` orders stopping: the highest rank stops first. `ready_seconds` is how long a start may take, None
    for as long as it needs;
    `stop_seconds` how long after `stop_signal` SIGKILL follows; `death_signal` is what the kernel sends it should
    the supervisor itself die. One that `waits_to_begin` does what takes long, then waits for a line on its standard
    input: while it runs, its successor is kept waiting there, so that a restart is quick. `timer_slack_milliseconds` is
    how late the kernel may wake it from a wait that ends by the clock, where the kernel takes such a wish.
    """

    name: str
    group: Group
    version: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    log_file: str
    probe: Probe
    ports: tuple[int, ...] = ()
    identity: Identity | None = None
    rank: int = 0
    ready_seconds: float | None = 90.0
    stop_seconds: float = 20.0
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    restart: RestartPolicy = RestartPolicy()
    waits_to_begin: bool = False
    timer_slack_milliseconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the wire."""
        return {**asdict(self), "environment": dict(self.environment)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ProcessSpec":
        """Build a spec from plain values."""
        probe = data["probe"]
        return cls(
            **{
                **data,
                "group": Group(data["group"]),
                "arguments": tuple(data["arguments"]),
                "ports": tuple(data["ports"]),
                "probe": Probe(**{**probe, "kind": ProbeKind(probe["kind"])}),
                "identity": Identity(**data["identity"]) if data["identity"] else None,
                "restart": RestartPolicy(**data["restart"]),
            }
        )


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """How a process stands. `starts` counts its starts; `reason` says why it waits or failed; `successor_pid` is who
    waits to take over, if anybody.
    """

    name: str
    group: Group
    state: State
    version: str
    ports: tuple[int, ...]
    log_file: str
    pid: int | None
    uptime_seconds: float | None
    starts: int
    reason: str | None
    successor_pid: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ProcessStatus":
        """Build a status from plain values."""
        return cls(
            **{
                **data,
                "group": Group(data["group"]),
                "state": State(data["state"]),
                "ports": tuple(data["ports"]),
            }
        )
