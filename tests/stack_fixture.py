"""A stack for tests: in a folder of its own, on ports that are free, found by variables."""

import contextlib
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from towpath.settings import Settings
from towpath.stack.client import StackClient
from towpath.stack.home import Home
from towpath.stack.supervisor.logs import ended_by_force, tail
from towpath.stack.up import down

ROOT = Path(__file__).resolve().parents[1]
PORTS = ("kafka_port", "controller_port", "connect_port", "registry_port", "postgres_port")


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack that is up: its settings, the variables that give them to a process, and who runs its processes."""

    settings: Settings
    environment: dict[str, str]
    client: StackClient


def free_ports(count: int) -> list[int]:
    """Return ports that nobody holds now, below those that the kernel gives to clients."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def stack_environment(home: Path) -> dict[str, str]:
    """Return the variables of a stack in `home` on free ports."""
    ports = {f"TOWPATH_STACK__{name.upper()}": str(port) for name, port in zip(PORTS, free_ports(5), strict=True)}
    return {**ports, "TOWPATH_STACK__HOME": str(home)}


@contextlib.contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and set them back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def stop_and_tell(settings: Settings) -> None:
    """Stop a stack; a part that had to be ended by force is a fault that its log explains, and the log goes with it."""
    began_seconds = time.time()
    down(settings)
    logs = Home(settings.stack_home).logs
    for name in ended_by_force(logs, began_seconds):
        last = "\n".join(tail(logs / f"{name}.log", 1_000))
        sys.__stderr__.write(f"{name} did not end by itself:\n{last}\n")  # type: ignore[union-attr]
