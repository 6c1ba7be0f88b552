"""The process that runs the stack's processes: starts them, asks whether they are ready, starts them again.

One for each stack home, detached from the terminal, alone by the lock that it holds, obeying `control` requests.
The rule of the file: it knows processes only, and nothing that it started outlives it (each child asks the kernel
for a signal at its death, so not even after SIGKILL).
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from towpath.stack.home import Home
from towpath.stack.supervisor.control import serve
from towpath.stack.supervisor.ends import end_orphans, ended
from towpath.stack.supervisor.launch import adopt_orphans, before_exec
from towpath.stack.supervisor.logs import FORCE_MARK, START_MARK, LogKeeper
from towpath.stack.supervisor.probes import is_ready, question
from towpath.stack.supervisor.spec import Deaths, Group, Probe, ProbeKind, ProcessSpec, ProcessStatus, State

PROBE_SECONDS = 0.05
PROBE_TIMEOUT_SECONDS = 5.0
WATCH_SECONDS = 1.0
"""Between two looks whether a worker still says that it is ready."""
ANSWER_BYTES_MAX = 64 * 1024
LOOK_SECONDS = 0.1
LAST_WORDS_SECONDS = 1.0
"""How long a part that is ended by force may say where it stands."""
SUCCESSOR_SECONDS_MAX = 2.0
"""How long a successor lets others that restart have the processor: one of them may start for ever."""


class Supervised:
    """One process and the task that keeps it running."""

    def __init__(
        self,
        spec: ProcessSpec,
        changed: Callable[[], None],
        end_orphans: Callable[[], Awaitable[None]],
        others_start: Callable[[], bool],
    ) -> None:
        self.spec = spec
        self.state = State.STOPPED
        self.reason: str | None = None
        self.starts = 0
        self._changed = changed
        self._end_orphans = end_orphans
        self._others_start = others_start
        self._process: subprocess.Popen[bytes] | None = None
        self._successor: subprocess.Popen[bytes] | None = None
        self._started_seconds = 0.0
        self._wanted = False
        self._keeper: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    def status(self) -> ProcessStatus:
        """Return how it stands now."""
        alive = self._process is not None
        return ProcessStatus(
            name=self.spec.name,
            group=self.spec.group,
            state=self.state,
            version=self.spec.version,
            ports=self.spec.ports,
            log_file=self.spec.log_file,
            pid=self.pid,
            uptime_seconds=time.monotonic() - self._started_seconds if alive else None,
            starts=self.starts,
            reason=self.reason,
            successor_pid=self._successor.pid if self._successor else None,
        )

    @property
    def pid(self) -> int | None:
        """Its process id, while it is not reaped."""
        return self._process.pid if self._process else None

    @property
    def pids(self) -> set[int]:
        """The process ids of it and of its successor."""
        return {one.pid for one in (self._process, self._successor) if one is not None}

    def start(self) -> None:
        """Begin to keep it running, with its count of deaths at nought; does nothing if it is kept already."""
        if self._wanted:
            return
        self._wanted = True
        self._wake.clear()
        self._set(State.STARTING)
        self._keeper = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """End it: its stop signal, then SIGKILL after its time; returns once it is gone. Those who ask take turns."""
        async with self._turn:
            await self._end()
            self._end_successor()

    async def restart(self, may_start: Callable[[], bool]) -> None:
        """Stop it, and start it again if it may still be started then."""
        async with self._turn:
            await self._end()
            if may_start():
                self.start()

    async def _end(self) -> None:
        self._wanted = False
        self._wake.set()
        self._prepare_no_more()
        if self._process is not None:
            self._set(State.STOPPING)
            self.send(self.spec.stop_signal)
            done, _ = await asyncio.wait([self._running_keeper()], timeout=self.spec.stop_seconds)
            if not done:
                await self._end_by_force()
        if self._keeper:
            await self._keeper
        self._set(State.STOPPED)

    async def _end_by_force(self) -> None:
        """End what has not ended in its time; a part says before where it stands: a JVM, at SIGQUIT, its threads."""
        told = f"{self.spec.stop_seconds:.0f} s after {signal.Signals(self.spec.stop_signal).name} it still ran"
        # Whoever removed the stack's folder, or filled the disk, wants it ended all the same.
        with suppress(OSError), open(self.spec.log_file, "ab", buffering=0) as log:
            log.write(f"{FORCE_MARK} {self.spec.name}, {told}\n".encode())
        if self.spec.group is Group.PART:
            self.send(signal.SIGQUIT)
            await asyncio.wait([self._running_keeper()], timeout=LAST_WORDS_SECONDS)
        self._end_group()

    def send(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def _stop_asked(self) -> bool:
        return not self._wanted

    def _running_keeper(self) -> "asyncio.Task[None]":
        if self._keeper is None:
            raise RuntimeError(f"{self.spec.name} has a process and no keeper")
        return self._keeper

    def _set(self, state: State, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        self._changed()

    async def _keep_running(self) -> None:
        deaths = Deaths()
        while self._wanted:
            reason, was_ready = await self._run_once()
            if self._stop_asked():
                return
            ran_seconds = time.monotonic() - self._started_seconds
            deaths = self.spec.restart.after(deaths, ran_seconds, was_ready=was_ready)
            delay = self.spec.restart.delay_seconds(deaths)
            if delay is None:
                self._wanted = False
                self._end_successor()
                self._set(State.FAILED, f"{reason}; died {deaths.unready} times in a row")
                return
            self._set(State.WAITING, f"{reason}; starts again in {delay:.1f} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)

    async def _run_once(self) -> tuple[str, bool]:
        """Start it, tell when it is ready, and return why it ended and whether it had been ready."""
        self._set(State.STARTING)
        self._started_seconds = time.monotonic()
        self.starts += 1
        try:
            self._process = self._spawn()
        except (OSError, subprocess.SubprocessError) as error:
            return f"cannot start: {error}", False
        gone = asyncio.Event()
        watching = asyncio.create_task(_tell_end(self._process.pid, gone))
        asking = asyncio.create_task(self._until_ready())
        waiting = asyncio.create_task(gone.wait())
        try:
            await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            too_slow = not gone.is_set() and not asking.result()
            if too_slow:
                self._end_group()
            elif not gone.is_set() and self.state is State.STARTING:
                self._set(State.READY)
                if self.spec.waits_to_begin:
                    self._preparing = asyncio.create_task(self._prepare_successor())
            await self._watch_until(gone)
        finally:
            self._prepare_no_more()
            for task in (asking, waiting, watching):
                task.cancel()
        was_ready = asking.done() and not asking.cancelled() and asking.result()
        self._end_group()  # what it leaves behind in its own group, while its id is still ours
        await self._end_orphans()
        code = self._process.wait()
        self._process = None
        return (f"not ready after {self.spec.ready_seconds:.0f} s" if too_slow else _ending(code)), was_ready

    def _spawn(self) -> "subprocess.Popen[bytes]":
        if self.spec.probe.kind is ProbeKind.FILE:
            Path(self.spec.probe.path).unlink(missing_ok=True)
        with open(self.spec.log_file, "ab", buffering=0) as log:  # append: it can be cut in use
            log.write(f"{START_MARK} {self.spec.name} {self.spec.version}, start {self.starts}\n".encode())
        if not self.spec.waits_to_begin:
            return self._launch()
        successor, self._successor = self._successor, None
        if successor is not None and _begins(successor):
            return successor
        process = self._launch()
        _begins(process)  # one that is gone already is seen to be
        return process

    def _launch(self) -> "subprocess.Popen[bytes]":
        with open(self.spec.log_file, "ab", buffering=0) as log:
            return subprocess.Popen(
                self.spec.arguments,
                env=dict(self.spec.environment),
                cwd=self.spec.folder,
                stdin=subprocess.PIPE if self.spec.waits_to_begin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                preexec_fn=before_exec(  # noqa: PLW1509 - no threads here
                    self.spec.identity, self.spec.death_signal, self.spec.timer_slack_milliseconds
                ),
            )

    async def _prepare_successor(self) -> None:
        """Keep a successor waiting, once those that restart together with this one have had the processor."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SUCCESSOR_SECONDS_MAX):
                while self._others_start():
                    await asyncio.sleep(LOOK_SECONDS)
        if self._successor is None:
            with suppress(OSError, subprocess.SubprocessError):  # without one, the next start takes longer
                self._successor = self._launch()

    def _prepare_no_more(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()

    def _end_successor(self) -> None:
        if self._successor is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._successor.pid, signal.SIGKILL)
            self._successor.wait()
            self._successor = None

    async def _watch_until(self, gone: asyncio.Event) -> None:
        """Wait until it is gone; one that tells by a file goes on being asked, since it may take its word back."""
        while not gone.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    gone.wait(), None if self.spec.probe.kind is not ProbeKind.FILE else WATCH_SECONDS
                )
            if self.state in (State.READY, State.UNREADY) and not gone.is_set():
                state = State.READY if await _answers(self.spec.probe) else State.UNREADY
                if state is not self.state:
                    self._set(state, None if state is State.READY else "it says that it is not ready")

    async def _until_ready(self) -> bool:
        seconds = self.spec.ready_seconds
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            if await _answers(self.spec.probe):
                return True
            await asyncio.sleep(PROBE_SECONDS)
        return False

    def _end_group(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _begins(process: "subprocess.Popen[bytes]") -> bool:
    """Let a process that waits to begin do so; return whether it was there."""
    assert process.stdin is not None  # a pipe was asked for
    with suppress(BrokenPipeError), process.stdin as told:
        told.write(b"\n")
    return process.poll() is None


async def _tell_end(pid: int, gone: asyncio.Event) -> None:
    await ended(pid)
    gone.set()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


async def _answers(probe: Probe) -> bool:
    if probe.kind is ProbeKind.FILE:
        return Path(probe.path).exists()
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(probe.host, probe.port)
            try:
                writer.write(question(probe))
                return await _judged(probe, reader)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _judged(probe: Probe, reader: asyncio.StreamReader) -> bool:
    answer = b""
    while len(answer) < ANSWER_BYTES_MAX:
        chunk = await reader.read(4096)
        answer += chunk
        verdict = is_ready(probe, answer)
        if verdict is not None:
            return verdict
        if not chunk:
            return False
    return False


class Supervisor:
    """All processes of one stack home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.processes: dict[str, Supervised] = {}
        self.changes = 0
        self.ended = asyncio.Event()
        self._began_seconds = time.monotonic()
        self._moved = asyncio.Condition()
        self._stopping: asyncio.Task[None] | None = None

    def uptime_seconds(self) -> float:
        """Return how long it has run."""
        return time.monotonic() - self._began_seconds

    def changed(self) -> None:
        """Count one change and wake those who wait for it."""
        self.changes += 1
        self._waker = asyncio.ensure_future(self._wake_watchers())

    async def _wake_watchers(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def next_change(self, seen: int, seconds: float) -> None:
        """Return once the count of changes is past `seen`, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.changes > seen)

    def start(self, spec: ProcessSpec) -> None:
        """Run a process under a name that is free, or one that has stopped or failed, by its new spec."""
        known = self.processes.get(spec.name)
        if known is None or known.state in {State.STOPPED, State.FAILED}:
            starts = known.starts if known else 0
            known = self.processes[spec.name] = Supervised(spec, self.changed, self._end_orphans, self._one_starts)
            known.starts = starts
        known.start()

    def _one_starts(self) -> bool:
        """Return whether a process that has a successor is on its way to run again."""
        on_its_way = {State.STARTING, State.STOPPING}
        return any(one.spec.waits_to_begin and one.state in on_its_way for one in self.processes.values())

    async def _end_orphans(self) -> None:
        """End what dead processes left behind outside their own group, as PostgreSQL's backends are (setsid).

        A frozen one would keep the shared memory, and no server could start over its data.
        """
        await end_orphans({pid for one in self.processes.values() for pid in one.pids})

    async def restart(self, process: Supervised) -> None:
        """Stop a process and start it again; one that stops while the whole stack is asked to stays stopped."""
        await process.restart(lambda: self._stopping is None)

    async def stop_all(self) -> None:
        """Stop every process, the highest rank first, those of one rank together; then end."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop_ranks())
        await asyncio.shield(self._stopping)

    async def _stop_ranks(self) -> None:
        for rank in sorted({one.spec.rank for one in self.processes.values()}, reverse=True):
            await asyncio.gather(*(one.stop() for one in self.processes.values() if one.spec.rank == rank))
        self.ended.set()


async def _supervise(home: Home, listening: Callable[[], None]) -> None:
    supervisor = Supervisor(home)
    loop = asyncio.get_running_loop()
    orders: set[asyncio.Task[None]] = set()

    def stop() -> None:
        orders.add(asyncio.ensure_future(supervisor.stop_all()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    server = await serve(supervisor)
    logs = asyncio.create_task(LogKeeper(home.logs).keep())
    listening()
    try:
        await supervisor.ended.wait()
    finally:
        logs.cancel()
        server.close()
        home.socket.unlink(missing_ok=True)


def _become_daemon(home: Home) -> Callable[[], None]:
    """Fork away from the caller, who leaves once the returned function was called, or with 1 if it never is."""
    read_end, write_end = os.pipe()
    if os.fork() > 0:
        os.close(write_end)
        os._exit(0 if os.read(read_end, 1) else 1)
    os.close(read_end)
    os.setsid()
    os.chdir("/")
    log = os.open(home.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2)):
        os.dup2(source, target)

    def listening() -> None:
        os.write(write_end, b"1")
        os.close(write_end)

    return listening


def main(arguments: list[str]) -> int:
    """Supervise the stack home named by the only argument; the exit code is that of the launcher, not the daemon."""
    home = Home(Path(arguments[0]))
    lock = home.lock.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write("another supervisor holds this stack home\n")
        return 2
    listening = _become_daemon(home)
    adopt_orphans()
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    asyncio.run(_supervise(home, listening))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
