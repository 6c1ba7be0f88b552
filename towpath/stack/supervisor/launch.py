"""What a child does between fork and exec: it gives up root where asked, and ties its life to its parent's.

On Linux the kernel does that (prctl, capset); elsewhere, on macOS, a process of its own beside the child. The rule of
the file: nothing here may allocate much or take a lock, since it runs in a forked child; the C library is therefore
loaded when the module is.
"""

import ctypes
import os
import select
import signal
import stat
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from towpath.stack.supervisor.spec import Identity

_LIBC = ctypes.CDLL(None, use_errno=True)
HAS_PRCTL = hasattr(_LIBC, "prctl")
# <linux/prctl.h>, <linux/capability.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_TIMERSLACK = 29
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_CANNOT_EXECUTE = 126
WATCH_SECONDS = 0.5
_DESCRIPTORS_MAX = 4096
"""More than a supervisor has open: a pipe and a log for each process."""


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that it can end them, where the system has that."""
    if HAS_PRCTL:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def before_exec(
    identity: Identity | None, death_signal: int, timer_slack_milliseconds: float | None = None
) -> Callable[[], None]:
    """Return the function for `preexec_fn`: become `identity`, and get `death_signal` when the parent dies.

    With `timer_slack_milliseconds` the kernel may be so late (PR_SET_TIMERSLACK, which threads and exec keep).
    """
    parent, life = os.getpid(), -1 if HAS_PRCTL else _life()

    def prepare() -> None:
        if identity:
            _become(identity)
        # After the change of user, which clears it.
        if HAS_PRCTL:
            _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if timer_slack_milliseconds is not None:
                _LIBC.prctl(_PR_SET_TIMERSLACK, int(timer_slack_milliseconds * 1e6), 0, 0, 0)
        else:
            _leave_watcher(life, death_signal)
        if os.getppid() != parent:
            os._exit(_CANNOT_EXECUTE)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


@cache
def _life() -> int:
    """Return the end of a pipe that reads as ended once this process is gone: nothing else has its other end."""
    reading, _held_open = os.pipe()
    return reading


def _leave_watcher(life: int, death_signal: int) -> None:
    """Leave a process beside this one that signals it once the parent, whose `life` it is, is gone.

    The watcher ends when this process does.
    """
    child = os.getpid()
    if os.fork() > 0:
        return
    # Whoever started the child waits for the end of a pipe; and the parent's own end is not to be held.
    os.closerange(0, life)
    os.closerange(life + 1, _DESCRIPTORS_MAX)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == child:
        if select.select([life], [], [], WATCH_SECONDS)[0]:
            os.kill(child, death_signal)
            break
    os._exit(0)


def _become(identity: Identity) -> None:
    keeps_right = identity.reads_anywhere and HAS_PRCTL
    if keeps_right:
        _LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(identity.group_id)
    os.setuid(identity.user_id)
    if identity.reads_anywhere and not (keeps_right and (_keep(_CAP_DAC_READ_SEARCH) or _keep(_CAP_DAC_OVERRIDE))):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"towpath: cannot keep the right to pass folders\n")


def _keep(capability: int) -> bool:
    """Keep one capability across exec without any file that grants it (capabilities(7), ambient set)."""
    bit = 1 << capability
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    if _LIBC.capset(header, data) != 0:
        return False
    return int(_LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)) == 0


def may_enter(path: Path, user_id: int) -> bool:
    """Tell whether the user may pass every folder above `path`, by owner and the rights of others.

    Folders that are still to be made are passed over: whoever makes them sees to their rights.
    """
    for folder in path.resolve().parents:
        if not folder.exists():
            continue
        found = folder.stat()
        right = stat.S_IXUSR if found.st_uid == user_id else stat.S_IXOTH
        if not found.st_mode & right:
            return False
    return True
