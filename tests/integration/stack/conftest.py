"""Supervisors of small processes: what holds for a sleeping shell holds for Kafka."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from towpath.stack.client import NotRunning, StackClient, start_supervisor
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, Probe, ProbeKind, ProcessSpec

SpecMaker = Callable[..., ProcessSpec]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a stack home of this test's own; whatever runs in it is stopped afterwards."""
    found = Home(tmp_path / "home")
    yield found
    with suppress(NotRunning):
        StackClient(found).shutdown()


@pytest.fixture
def client(home: Home) -> Iterator[StackClient]:
    """Return a connection to a supervisor that runs nothing yet."""
    with start_supervisor(home) as found:
        yield found


@pytest.fixture
def python(home: Home) -> SpecMaker:
    """Return a maker of processes that run a line of Python; `ready()` in it says that the process is ready."""

    def make(name: str, line: str, **changes: object) -> ProcessSpec:
        ready = home.ready_file(name)
        prelude = f"import os, signal, sys, time, subprocess\ndef ready(): open({str(ready)!r}, 'w').close()\n"
        spec = ProcessSpec(
            name=name,
            group=Group.WORKER,
            version="1",
            arguments=(sys.executable, "-I", "-c", prelude + line),
            environment=dict(os.environ),
            folder="/",
            log_file=str(home.log_file(name)),
            probe=Probe(ProbeKind.FILE, path=str(ready)),
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    return make


def is_gone(pid: int) -> bool:
    """Tell whether no process has this pid any more (a zombie has ended)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # also when it ends between the look-up and the reading
        return True


def kill(pid: int) -> None:
    """Kill a process as a power cut would."""
    os.kill(pid, signal.SIGKILL)
