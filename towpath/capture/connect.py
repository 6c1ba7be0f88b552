"""Speaks to Kafka Connect's REST API: what a connector is told, and how it fares."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from towpath.capture.connector import Connector
from towpath.clock import Clock, SystemClock, wait_until
from towpath.errors import ConfigurationError, NotFoundError, WorldError
from towpath.settings import ConnectSettings

RETRY_SECONDS = 0.1
"""Between two tries while Connect rebalances or a task starts, both of which take some tenths of a second."""

POSITION_GONE = "no longer available on the server"
"""Debezium's words for a stored position that is older than what its replication slot begins with."""
SHOWN_CHARACTERS = 120
"""Of the beginning and of the end of a long cause, where it is told beside other things."""
REFUSALS = (
    "InvalidTopicException",
    "UnknownTopicOrPartitionException",
    "RecordTooLargeException",
    "InvalidTimestampException",
    "InvalidRecordException",
    "more invalid records",
    "is not present in metadata",
)
"""What Kafka's producer says of a record that is at fault itself; the last of a topic that is not there."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task. `state` is Connect's: RUNNING, FAILED, PAUSED, UNASSIGNED, RESTARTING, STOPPED."""

    number: int
    state: str
    worker: str
    trace: str | None = None

    @property
    def cause(self) -> str | None:
        """Return the innermost cause in the trace, in one line, or None if it has not failed."""
        if not self.trace:
            return None
        lines = [line.strip() for line in self.trace.splitlines() if line.strip()]
        causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
        return causes[-1] if causes else lines[0]


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """A connector and its tasks."""

    name: str
    state: str
    worker: str
    tasks: tuple[TaskStatus, ...]

    @property
    def running(self) -> bool:
        """Return whether the connector and at least one task run, and none does anything else."""
        return self.state == "RUNNING" and bool(self.tasks) and all(task.state == "RUNNING" for task in self.tasks)

    @property
    def failure(self) -> str | None:
        """Return why it failed, or None."""
        for task in self.tasks:
            if task.state == "FAILED":
                return task.cause or f"task {task.number} failed without saying why"
        return f"connector {self.name} failed" if self.state == "FAILED" else None

    @property
    def failure_in_short(self) -> str | None:
        """Return why it failed; of a long cause what it begins and ends with, since Debezium's tell of every schema."""
        failure = self.failure
        if failure is None or len(failure) <= 2 * SHOWN_CHARACTERS:
            return failure
        return f"{failure[:SHOWN_CHARACTERS].rsplit(' ', 1)[0]} ... {failure[-SHOWN_CHARACTERS:].split(' ', 1)[-1]}"

    @property
    def position_gone(self) -> bool:
        """Return whether it failed since its slot no longer has what comes after the last that it carried."""
        return POSITION_GONE in (self.failure or "")

    @property
    def refused_by_kafka(self) -> bool:
        """Return whether it failed since Kafka refused a record, which it will refuse again."""
        return any(kind in (self.failure or "") for kind in REFUSALS)


class ConnectClient:
    """A Connect cluster. Use it as a context manager, so that its connections are closed."""

    def __init__(self, settings: ConnectSettings, clock: Clock | None = None) -> None:
        self._url = settings.url.rstrip("/")
        self._timeout_seconds = settings.timeout_seconds
        self._clock = clock or SystemClock()
        self._http = httpx.Client(base_url=self._url, timeout=settings.timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def names(self) -> tuple[str, ...]:
        """Return the names of all connectors."""
        return tuple(sorted(self._ask("GET", "/connectors")))

    def config(self, name: str) -> dict[str, str]:
        """Return the configuration of the connector called `name`. Raises NotFoundError where there is none."""
        return dict(self._ask("GET", f"/connectors/{name}/config", subject=name))

    def apply(self, connector: Connector) -> bool:
        """Create the connector or give it this configuration; return whether anything changed.

        Raises ConfigurationError with Connect's words where it refuses the configuration.
        """
        try:
            before = self.config(connector.name)
        except NotFoundError:
            before = {}
        if before == {**connector.config, "name": connector.name}:
            return False
        self._ask("PUT", f"/connectors/{connector.name}/config", connector.config, subject=connector.name)
        return True

    def status(self, name: str) -> ConnectorStatus:
        """Return how a connector fares. Raises NotFoundError where there is none."""
        answer = self._ask("GET", f"/connectors/{name}/status", subject=name)
        tasks = tuple(
            TaskStatus(int(task["id"]), task["state"], task["worker_id"], task.get("trace")) for task in answer["tasks"]
        )
        return ConnectorStatus(name, answer["connector"]["state"], answer["connector"]["worker_id"], tasks)

    def restart(self, name: str, *, only_failed: bool = True) -> None:
        """Restart a connector and its tasks, by default only what failed. Raises NotFoundError."""
        flag = "true" if only_failed else "false"
        self._ask("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed={flag}", subject=name)

    def pause(self, name: str) -> None:
        """Let a connector rest: what it reads stays in the slot. Raises NotFoundError."""
        self._ask("PUT", f"/connectors/{name}/pause", subject=name)

    def resume(self, name: str) -> None:
        """Let a resting or stopped connector go on. Raises NotFoundError."""
        self._ask("PUT", f"/connectors/{name}/resume", subject=name)

    def stop(self, name: str, timeout_seconds: float) -> None:
        """End a connector's tasks, and return once none of them is left: nothing more of it reaches Kafka.

        Raises NotFoundError, and WorldError where they have not ended in time.
        """
        self._ask("PUT", f"/connectors/{name}/stop", subject=name)
        status = wait_until(
            self._clock,
            lambda: self.status(name),
            holds=lambda found: found.state == "STOPPED" and not found.tasks,
            seconds=timeout_seconds,
            every_seconds=RETRY_SECONDS,
        )
        if status.state != "STOPPED" or status.tasks:
            raise WorldError(
                f"connector {name} has not stopped within {timeout_seconds:g} s: it is {status.state}",
                kept="every message, in the outbox and in the slot",
                next_step="towpath logs connect",
            )

    def forget_position(self, name: str) -> None:
        """Forget how far a stopped connector has read: it begins anew where its slot does. Raises NotFoundError."""
        self._ask("DELETE", f"/connectors/{name}/offsets", subject=name)

    def delete(self, name: str) -> None:
        """Remove a connector; its slot and its offsets stay. Raises NotFoundError."""
        self._ask("DELETE", f"/connectors/{name}", subject=name)

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None, *, subject: str = "") -> Any:
        """Return Connect's answer. While it rebalances it is asked again, as long as the time-out allows.

        It says so by 409; in the moment between knowing of a rebalance and joining it, by 500.
        """
        try:
            answer = wait_until(
                self._clock,
                lambda: self._http.request(method, path, json=body),
                holds=lambda found: not _is_rebalancing(found),
                seconds=self._timeout_seconds,
                every_seconds=RETRY_SECONDS,
            )
        except httpx.HTTPError as error:
            raise self._away(f"{type(error).__name__}: {error}") from error
        if answer.is_success:
            return answer.json() if answer.content else None
        words = _words(answer)
        if answer.status_code == httpx.codes.NOT_FOUND and subject:
            raise NotFoundError(f"there is no connector {subject}", next_step="towpath up, or towpath provision")
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise ConfigurationError(
                f"Connect refuses the configuration of {subject}: {words}",
                next_step="fix [connect] and [postgres] in towpath.toml",
            )
        raise self._away(f"{method} {path}: {answer.status_code} {words}")

    def _away(self, cause: str) -> WorldError:
        return WorldError(
            f"Kafka Connect at {self._url} does not answer as it should: {cause}",
            kept="every message, in the outboxes and in the slots",
            next_step="towpath status, or check [connect] in towpath.toml",
        )


def _is_rebalancing(answer: httpx.Response) -> bool:
    error = answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR and "rebalance" in answer.text
    return error or answer.status_code == httpx.codes.CONFLICT


def _words(answer: httpx.Response) -> str:
    """Return what an error says, in one line; Connect repeats no secret."""
    try:
        message = str(answer.json().get("message", ""))
    except ValueError:
        message = answer.text
    return " ".join(message.split())[:800]
