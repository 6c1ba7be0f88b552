"""Who holds a worker's slot: two live workers in one would fence each other without end.

The one rule: the second of two live workers gives way, before it joins. A predecessor that died is no worker: one of
the same machine is told by its process at once, one of another machine by its session, which ends by itself.
"""

import asyncio
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from towpath.clock import Clock
from towpath.errors import RefusedError
from towpath.stream.broker.port import Broker, GroupMember

MARGIN_SECONDS = 2.0
"""So much later than its session's end the coordinator may notice that a member is gone."""
LOOK_SECONDS = 0.5
PROC = Path("/proc")
"""Linux has it; macOS does not."""


class SlotTaken(RefusedError):
    """Another live worker has this one's slot."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, as a worker names it to its group: `machine` tells kernels and process namespaces apart."""

    host: str
    pid: int
    started: int
    machine: str

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}/{self.machine}"

    @property
    def words(self) -> str:
        """Say where it runs."""
        return f"process {self.pid} on {self.host}"


def client_id(application: str, slot: str, holder: str) -> str:
    """Return by what a worker is known to its group."""
    return f"{application}-{slot}@{holder}"


def holder_in(member: GroupMember, application: str, slot: str) -> str | None:
    """Return how the holder of a slot named itself, None where `member` is no holder of it."""
    name, _, holder = member.client_id.rpartition("@")
    return holder if name == f"{application}-{slot}" else None


def read_holder(text: str) -> Holder | None:
    """Return the process that a holder's name tells, None where it tells none."""
    parts = text.rsplit("/", 3)
    if len(parts) != 4 or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return Holder(parts[0], int(parts[1]), int(parts[2]), parts[3])


def this_process() -> Holder:
    """Return the running process with when it began: an id alone is given again after its process has ended."""
    pid = os.getpid()
    return Holder(os.uname().nodename, pid, _started(pid) or 0, _machine())


def _machine() -> str:
    """Return what tells this kernel and namespace of process ids from others; elsewhere than on Linux, this machine."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot[:8]}-{(PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{uuid.getnode():012x}"


def is_alive(holder: Holder, own: Holder) -> bool | None:
    """Return whether a holder's process lives, None where it is one of another machine."""
    if holder.machine != own.machine:
        return None
    return _started(holder.pid) == holder.started


def taken(application: str, slot: str, holder: str) -> SlotTaken:
    """Return what the second worker of a slot ends with."""
    known = read_holder(holder)
    return SlotTaken(
        f"{application}: slot {slot} is held by {holder if known is None else known.words}",
        kept="the other worker and its work; this one has not joined",
        next_step="give each worker a slot of its own: towpath run NAME --slot SLOT, the same over its restarts",
    )


async def wait_for_slot(
    broker: Broker, application: str, slot: str, own: Holder, session_seconds: float, clock: Clock
) -> None:
    """Return once no other live worker is known to hold the slot.

    Raises SlotTaken where one of this machine lives, or one of another machine has outlived a session; BrokerAway.
    """
    deadline = clock.monotonic_seconds() + session_seconds + MARGIN_SECONDS
    while True:
        members = await asyncio.to_thread(broker.group_members, application)
        named = [holder_in(member, application, slot) for member in members]
        others = [text for text in named if text is not None and text != str(own)]
        alive = {text: None if (known := read_holder(text)) is None else is_alive(known, own) for text in others}
        living = [text for text in others if alive[text] is not False]
        if not living:
            return
        certain = [text for text in living if alive[text]]
        if certain or clock.monotonic_seconds() > deadline:
            raise taken(application, slot, (certain or living)[0])
        await asyncio.sleep(LOOK_SECONDS)


def _started(pid: int) -> int | None:
    """Return when a process began, in ticks that tell it from any other of its id; None where there is none."""
    if not (PROC / "self").exists():
        return _started_elsewhere(pid)
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything. After it come the state, Z for one that has ended and was not waited for
    # yet, and 20th the beginning (proc_pid_stat(5)).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _started_elsewhere(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
    except psutil.NoSuchProcess:
        return None
