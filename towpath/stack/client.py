"""Talks to the supervisor of a stack home: `StackClient` is how the command line, the demo and tests drive it."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from towpath.clock import SystemClock, retry
from towpath.errors import NotFoundError, RefusedError, WorldError
from towpath.stack.home import Home
from towpath.stack.supervisor.ends import is_frozen, wait_ended
from towpath.stack.supervisor.logs import START_MARK, tail
from towpath.stack.supervisor.spec import PROTOCOL, Group, ProcessSpec, ProcessStatus, State

ANSWER_SECONDS = 10.0
# Stopping waits for the slowest part: a JVM that also writes its start cache.
STOP_SECONDS_MAX = 120.0
REASON_LINES = 400
WORDS_MAX = 400
_ERROR = re.compile(r"\b(FATAL|ERROR|PANIC)\b")
_EXCEPTION = re.compile(r"^[\w.]*(Exception|Error|Exit)\b: .*$")


class NotRunning(NotFoundError):
    """No supervisor runs in this stack home."""

    def __init__(self, home: Home) -> None:
        super().__init__(f"the stack in {home.root} is not running", next_step="towpath up")


class SupervisorSilent(WorldError):
    """The supervisor of a stack home is there and does not answer: it is frozen, or its machine is."""

    def __init__(self, home: Home, verb: str) -> None:
        try:
            pid = home.lock.read_text(encoding="ascii").strip()
        except OSError:
            pid = "PID"
        super().__init__(
            f"the supervisor, process {pid}, does not answer {verb!r}",
            kept="the data, and what it runs as long as it lives",
            next_step=f"ask again; if it stays silent: kill -KILL {pid} ends it and all that it runs, then: towpath up",
        )


class ProcessFailed(WorldError):
    """A process of the stack died or never became ready; its own last words are the cause."""


class StackClient:
    """One connection to the supervisor of the stack in `home`. Raises NotRunning where there is none.

    Not for several threads at once: each opens its own.
    """

    def __init__(self, home: Path | Home) -> None:
        self.home = home if isinstance(home, Home) else Home(Path(home).resolve())
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            with self.home.short_socket_path() as path:
                self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            self._socket.close()
            raise NotRunning(self.home) from error
        self._lines = self._socket.makefile("rb")
        self._changes = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the stack runs on."""
        self._lines.close()
        self._socket.close()

    def status(self) -> dict[str, ProcessStatus]:
        """Return how each process stands, by name: as its supervisor says, or frozen."""
        return {name: _as_seen(one) for name, one in self._told().items()}

    def supervisor(self) -> ProcessStatus:
        """Return how the supervisor itself stands."""
        hello = self._ask("hello")
        return ProcessStatus(
            name="supervisor",
            group=Group.SUPERVISOR,
            state=State.READY,
            version=metadata.version("towpath"),
            ports=(),
            log_file=str(self.home.supervisor_log),
            pid=hello["pid"],
            uptime_seconds=hello["uptime_seconds"],
            starts=1,
            reason=None,
        )

    def start(self, spec: ProcessSpec) -> None:
        """Run a process and keep it running; a name that runs already is left as it is.

        Raises RefusedError where the supervisor is of a version that reads specs of another form.
        """
        hello = self._ask("hello")
        if hello["protocol"] != PROTOCOL:
            raise RefusedError(
                f"the stack in {self.home.root} is run by another version of Towpath "
                f"(its supervisor, process {hello['pid']}, speaks protocol {hello['protocol']}, not {PROTOCOL})",
                kept="it runs on as it is",
                next_step="towpath down, then towpath up; the data stays",
            )
        self._ask("start", spec=spec.to_json())

    def stop(self, name: str) -> None:
        """Stop a process and leave it stopped; returns once it is gone."""
        self._ask("stop", seconds=STOP_SECONDS_MAX, name=name)

    def restart(self, name: str) -> None:
        """Stop a process and start it again; `wait_ready` tells when it is ready."""
        self._ask("restart", seconds=STOP_SECONDS_MAX, name=name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process, SIGKILL unless told otherwise; the supervisor starts it again if it dies."""
        self._ask("kill", name=name, signal=int(number))

    def begin(self) -> None:
        """From now on the whole stack goes down if this connection ends before `commit`."""
        self._ask("begin")

    def commit(self) -> None:
        """Leave the stack running when this connection ends."""
        self._ask("commit")

    def wait_ready(self, names: Iterable[str], deadline_seconds: float, *, patient: bool = False) -> None:
        """Return once all these processes are ready.

        Raises ProcessFailed when one fails, when one dies while it starts (unless `patient`: then its restarts are
        awaited), or when the deadline passes; the message ends in the process's own last words.
        """
        wanted = set(names)
        first = self._told()
        end = time.monotonic() + deadline_seconds
        statuses = first
        while True:
            missing = wanted - {name for name, one in statuses.items() if one.state is State.READY}
            if not missing:
                return
            for name in missing:
                now = statuses.get(name)
                comes_again = patient and now is not None and now.state not in {State.FAILED, State.STOPPED}
                problem = None if comes_again else self.death(name, now, first.get(name))
                if problem is not None:
                    raise problem
            left = end - time.monotonic()
            if left <= 0:
                name = sorted(missing)[0]
                raise self.failure(name, f"{name} is not ready after {deadline_seconds:.0f} s")
            statuses = self._wait(min(left, ANSWER_SECONDS / 2))

    def shutdown(self) -> None:
        """Stop every process, then the supervisor; returns once all are gone."""
        pid = self._ask("hello")["pid"]
        with suppress(NotRunning, WorldError):
            self._ask("shutdown", seconds=STOP_SECONDS_MAX)
        self.close()
        wait_ended(pid, STOP_SECONDS_MAX)

    def death(self, name: str, now: ProcessStatus | None, first: ProcessStatus | None) -> ProcessFailed | None:
        """Return why a process does not run, or died since its `first` status; None where neither is so."""
        if now is None or now.state is State.STOPPED:
            return self.failure(name, f"{name} is not running")
        if now.state in {State.FAILED, State.WAITING} or (first is not None and now.starts > first.starts):
            return self.failure(name, f"{name} {now.reason or 'died while it started'}")
        return None

    def failure(self, name: str, what: str) -> ProcessFailed:
        """Return an error that says `what`, and the process's own last words."""
        said = last_words(tail(self.home.log_file(name), REASON_LINES))
        return ProcessFailed(f"{what}{f': {said}' if said else ''}", next_step=f"towpath logs {name}")

    def _told(self) -> dict[str, ProcessStatus]:
        return self._statuses(self._ask("status"))

    def _wait(self, seconds: float) -> dict[str, ProcessStatus]:
        return self._statuses(self._ask("wait", seen=self._changes, seconds=seconds))

    def _statuses(self, answer: Mapping[str, Any]) -> dict[str, ProcessStatus]:
        self._changes = answer["changes"]
        return {one["name"]: ProcessStatus.from_json(one) for one in answer["processes"]}

    def _ask(self, verb: str, *, seconds: float = 0.0, **arguments: Any) -> dict[str, Any]:
        self._socket.settimeout(ANSWER_SECONDS + seconds)
        request = {"verb": verb, "seconds": seconds, **arguments}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError as error:
            raise SupervisorSilent(self.home, verb) from error
        except ConnectionError as error:
            raise NotRunning(self.home) from error
        if not line:
            raise NotRunning(self.home)
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise NotFoundError(answer["error"], next_step="towpath status lists the processes")
        return answer


def _as_seen(status: ProcessStatus) -> ProcessStatus:
    """Return it as frozen where it should do something, and the operating system has stopped it."""
    at_work = status.state in {State.STARTING, State.READY, State.UNREADY}
    frozen = at_work and status.pid is not None and is_frozen(status.pid)
    return replace(status, state=State.FROZEN) if frozen else status


def running(home: Path | Home) -> dict[str, ProcessStatus]:
    """Return the processes of the stack in `home`; none where it does not run."""
    try:
        with StackClient(home) as client:
            return client.status()
    except NotRunning:
        return {}


def last_words(lines: list[str]) -> str:
    """Return the line of a log that most likely says why its process died, of its last start only.

    That is the innermost cause of the exception that follows the last error, else that error, else the last line.
    """
    starts = [place for place, line in enumerate(lines) if line.startswith(START_MARK)]
    said = [line.strip() for line in lines[starts[-1] + 1 if starts else 0 :] if line.strip()]
    errors = [place for place, line in enumerate(said) if _ERROR.search(line)]
    after = said[errors[-1] :] if errors else said
    causes = [line for line in after if line.startswith("Caused by: ")]
    causes = causes or [line for line in after if _EXCEPTION.match(line)]
    best = causes[-1:] or (after[:1] if errors else said[-1:])
    return best[0][:WORDS_MAX] if best else ""


def start_supervisor(home: Home) -> StackClient:
    """Start the supervisor of a stack home, detached from this process, and return a connection to it."""
    home.make()
    command = [sys.executable, "-P", "-m", "towpath.stack.supervisor.supervisor", str(home.root)]
    launched = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if launched.returncode == 2:
        # Its lock is held: it has only just begun to listen, or is on its way out.
        return _connect_soon(home)
    if launched.returncode != 0:
        said = launched.stderr.strip() or last_words(tail(home.supervisor_log, REASON_LINES))
        raise WorldError(f"the supervisor did not start: {said}", next_step=f"read {home.supervisor_log}")
    return StackClient(home)


def _connect_soon(home: Home) -> StackClient:
    try:
        return retry(SystemClock(), lambda: StackClient(home), on=NotRunning, seconds=ANSWER_SECONDS, every_seconds=0.1)
    except NotRunning:
        raise WorldError(
            "another supervisor holds this stack home and does not answer",
            next_step=f"end the process named in {home.lock}, then towpath up",
        ) from None
