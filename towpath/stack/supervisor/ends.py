"""Tells when a process has ended, whoever's child it is; it is not reaped by that, so its id stays its own.

Linux has a descriptor for that (pidfd_open(2)). Elsewhere, on macOS, the process is looked at now and then.
"""

import asyncio
import os
import select
from collections.abc import Set
from contextlib import suppress

import psutil

from towpath.clock import SystemClock, wait_until

LOOK_SECONDS = 0.1
ORPHAN_SECONDS = 5.0
HAS_PIDFD = hasattr(os, "pidfd_open")


async def ended(pid: int) -> None:
    """Return once the process has ended. Raises ProcessLookupError where there is none."""
    if not HAS_PIDFD:
        while not has_ended(pid):
            await asyncio.sleep(LOOK_SECONDS)
        return
    loop, event, pidfd = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(pid)
    loop.add_reader(pidfd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def end_orphans(own: Set[int]) -> None:
    """SIGKILL every child of this process that is none of `own`, and reap it: the kernel gave them here as orphans.

    Waits a few seconds at most: one that hangs in the kernel ends later, and its parent's next start says so. One that
    this process may not end stays: an error here would end the task that keeps the parent running.
    """
    orphans = [child for child in psutil.Process().children() if child.pid not in own]
    await asyncio.gather(*map(_end_orphan, orphans))


async def _end_orphan(orphan: psutil.Process) -> None:
    with suppress(psutil.Error, ProcessLookupError, TimeoutError, ChildProcessError):
        orphan.kill()
        async with asyncio.timeout(ORPHAN_SECONDS):
            await ended(orphan.pid)
        os.waitpid(orphan.pid, os.WNOHANG)


def wait_ended(pid: int, seconds: float) -> None:
    """Return once the process has ended, after `seconds` at the latest."""
    if not HAS_PIDFD:
        wait_until(SystemClock(), lambda: has_ended(pid), seconds=seconds, every_seconds=LOOK_SECONDS)
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [], seconds)
    finally:
        os.close(pidfd)


def is_frozen(pid: int) -> bool:
    """Return whether the operating system has stopped a process (SIGSTOP): it lives, and does nothing."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def has_ended(pid: int) -> bool:
    """Return whether there is no such process, or only what its parent has not read yet of its end."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
