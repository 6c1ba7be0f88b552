"""What the engine does where the kernel is not Linux's: the same code, with what only Linux has taken away."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from towpath.clock import SystemClock, wait_until
from towpath.stack.home import Home
from towpath.stack.machine import memory_bytes
from towpath.stack.supervisor import ends
from towpath.stream.engine import slot

# A parent whose child is tied to it, as a supervisor's are; it says the child's id, then sleeps.
PARENT = """
import signal, subprocess, sys, time
from towpath.stack.supervisor import launch
launch.HAS_PRCTL = False
launch.WATCH_SECONDS = 0.05
tie = launch.before_exec(None, signal.SIGTERM)
child = subprocess.Popen(sys.argv[1:], preexec_fn=tie, start_new_session=True)
print(child.pid, flush=True)
child.wait()
time.sleep(60)
"""


@contextmanager
def parent_of(*command: str) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    with subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            yield parent, child
        finally:
            parent.kill()
            if not ends.has_ended(child):
                os.kill(child, signal.SIGKILL)


def soon(holds: object) -> bool:
    assert callable(holds)
    return bool(wait_until(SystemClock(), holds, seconds=30, every_seconds=0.02))


def in_session_of(child: int) -> list[int]:
    def session(process: psutil.Process) -> int | None:
        try:
            return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return None

    return [process.pid for process in psutil.process_iter() if session(process) == child]


def test_a_child_does_not_outlive_its_parent() -> None:
    """The watcher beside it signals it once the parent was killed."""
    with parent_of("sleep", "60") as (parent, child):
        assert not ends.has_ended(child)
        parent.kill()
        assert soon(lambda: ends.has_ended(child))


def test_the_watcher_ends_with_its_child() -> None:
    """And does not keep whoever started the child waiting for a pipe."""
    with parent_of("sleep", "0.2") as (_, child):
        assert soon(lambda: not in_session_of(child))


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_the_end_of_a_process_is_told(monkeypatch: pytest.MonkeyPatch, has_pidfd: bool) -> None:
    """By a descriptor or by looking; it is not reaped."""
    monkeypatch.setattr(ends, "HAS_PIDFD", has_pidfd and ends.HAS_PIDFD)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not ends.has_ended(child.pid)

        async def main() -> None:
            waiting = asyncio.create_task(ends.ended(child.pid))
            await asyncio.sleep(0)
            assert not waiting.done()
            assert child.stdin is not None
            child.stdin.close()
            await asyncio.wait_for(waiting, 30)

        asyncio.run(main())
        ends.wait_ended(child.pid, 30)
        assert ends.has_ended(child.pid)
        os.waitpid(child.pid, os.WNOHANG)
        child.returncode = 0
    ends.wait_ended(child.pid, 30)


def test_a_worker_is_known_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its machine by its network card, its process by when it began."""
    monkeypatch.setattr(slot, "PROC", tmp_path)
    own = slot.this_process()
    assert own.started > 0
    assert slot.is_alive(own, own)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        other = slot.Holder(own.host, child.pid, 1, own.machine)
        assert not slot.is_alive(other, own), "the id belongs to another process by now"
        child.wait()
    assert not slot.is_alive(other, own)


def test_a_socket_of_a_deep_home_has_a_short_path(tmp_path: Path) -> None:
    """Through a link, which is gone afterwards."""
    home = Home(tmp_path / ("deep" * 30))
    home.make()
    with home.short_socket_path() as path:
        assert len(os.fsencode(path)) < 104
        Path(path).touch()
    assert home.socket.exists()
    assert not Path(path).exists()


def test_memory_is_told_without_proportional_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, whose kernel knows none."""
    whole = psutil.Process.memory_full_info

    class Info:
        uss = 7

    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda self: Info() if whole(self) else None)
    assert memory_bytes(os.getpid(), children=False) == 7
