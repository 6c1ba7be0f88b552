"""One stack for all tests on real parts: started once a session, in a folder of its own, on ports that are free.

Tests share it: each takes topics, databases and keys of its own.
"""

import contextlib
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from towpath.settings import Settings, load_settings
from towpath.stack.client import StackClient
from towpath.stack.up import down, up

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """Start the whole stack of the reference project, and stop it when the session ends.

    Its variables stay set, so that processes that a test starts find the same stack. `TOWPATH_TEST_STACK=running`
    takes the stack that these variables point to instead, and leaves it running: quicker while one writes tests.
    """
    if os.environ.get("TOWPATH_TEST_STACK") == "running":
        settings = load_settings(ROOT)
        with StackClient(settings.stack_home) as client:
            yield RunningStack(settings, dict(os.environ), client)
        return
    home = Path(tempfile.mkdtemp(prefix="towpath-"))
    home.chmod(0o755)  # PostgreSQL's own user passes it
    with variables(stack_environment(home)):
        settings = load_settings(ROOT)
        try:
            up(settings)
            with StackClient(settings.stack_home) as client:
                yield RunningStack(settings, dict(os.environ), client)
        finally:
            down(settings)
            shutil.rmtree(home, ignore_errors=True)
