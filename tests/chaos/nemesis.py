"""Kills and freezes every process of a stack, in random order, and takes away what only a person gives back.

The one rule: it does to the stack what a machine or a person could do to it, never through the engine, but for the
commands that the engine tells a person to run.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import psutil
import psycopg

from tests.chaos.poison import SERVICES
from tests.stack_fixture import ROOT, RunningStack
from towpath.capture.connect import ConnectClient
from towpath.errors import TowpathError
from towpath.outbox.names import connector_name, slot_name
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import State

PARTS = ("kafka", "connect", "postgres", "registry")
READY_SECONDS_MAX = 240.0
ASKING_SECONDS_MAX = 120.0


class Nemesis:
    """What is done to one stack. Each fault returns what was done, for the log."""

    def __init__(self, stack: RunningStack, workers: tuple[str, ...], chance: Random, log: Path) -> None:
        self._stack = stack
        self._workers = workers
        self._chance = chance
        self._log = log
        self._began = time.monotonic()
        self._frozen: dict[str, tuple[float, list[int]]] = {}
        self.faults: dict[str, Callable[[], str]] = {
            "kill a worker": lambda: self.kill(chance.choice(workers)),
            "freeze a worker": lambda: self.freeze(chance.choice(workers), chance.uniform(2, 12)),
            "kill two workers": lambda: "; ".join(self.kill(name) for name in chance.sample(workers, 2)),
            "freeze and kill the broker": self.freeze_and_kill_broker,
            "lose a slot": self.lose_slot,
            "lose a state": self.lose_state,
            **{f"kill {part}": lambda part=part: self.kill(part) for part in PARTS},  # type: ignore[misc]
            **{
                f"freeze {part}": lambda part=part: self.freeze(part, chance.uniform(1, 8))  # type: ignore[misc]
                for part in PARTS
            },
        }

    def note(self, text: str) -> None:
        """Write a line of what happened, with the seconds since the beginning."""
        line = f"{time.monotonic() - self._began:7.1f} s  {text}\n"
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line)
        sys.stdout.write(line)
        sys.stdout.flush()

    def inflict(self, name: str) -> None:
        """Inflict one fault."""
        self.note(f"{name}: {self.faults[name]()}")

    def thaw(self, *, everything: bool = False) -> None:
        """Let go on what was frozen for its time, or all that is frozen."""
        for name, (due, pids) in list(self._frozen.items()):
            if everything or time.monotonic() >= due:
                del self._frozen[name]
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                self.note(f"{name} goes on")

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.thaw()
            time.sleep(0.1)

    def wait_ready(self, *names: str) -> None:
        """Thaw everything, and wait until these processes (all, if none is named) are ready."""
        self.thaw(everything=True)
        try:
            self._stack.client.wait_ready(names or (*PARTS, *self._workers), READY_SECONDS_MAX, patient=True)
        except TowpathError:
            self.tell()
            raise

    def tell(self) -> None:
        """Write down what a person would ask in the end, and keep the logs beside that."""
        home, held = Home(self._stack.settings.stack_home), "[]"
        for words in (("status", "--json"), ("doctor",), ("positions", "list", "--held", "--json")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = self._ask(*words)
                self.note(f"towpath {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
                held = done.stdout or "[]" if words[0] == "positions" else held
        for one in json.loads(held):
            name = f"{one['topic']}-{one['partition']}"  # what the log really has, whatever the broker says
            shutil.copytree(home.data / "kafka" / name, self._log.parent / "held" / name, dirs_exist_ok=True)
        shutil.copytree(home.logs, self._log.parent / "logs", dirs_exist_ok=True)

    def failed(self) -> list[str]:
        """Return what the supervisor gave up."""
        return [name for name, one in self._stack.client.status().items() if one.state is State.FAILED]

    # Faults

    def kill(self, name: str) -> str:
        """SIGKILL a process; its supervisor starts it again."""
        with contextlib.suppress(TowpathError):
            self._frozen.pop(name, None)
            self._stack.client.kill(name)
        return name

    def freeze(self, name: str, seconds: float) -> str:
        """SIGSTOP a process and its children for a time."""
        pids = self._processes(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self._frozen[name] = (time.monotonic() + seconds, pids)
        return f"{name} for {seconds:.1f} s"

    def freeze_and_kill_broker(self) -> str:
        """Freeze the broker for longer than workers wait for it, then kill it."""
        seconds = self._chance.uniform(6, 12)
        self.freeze("kafka", 60)
        self.pass_time(seconds)
        self.kill("kafka")
        return f"frozen for {seconds:.1f} s, then killed"

    def lose_slot(self) -> str:
        """Drop a service's slot while its connector has a stored offset, and run the command that recovers it."""
        service = self._chance.choice(SERVICES)
        self.wait_ready(*PARTS)
        settings = self._stack.settings
        name, slot = connector_name(settings.project.name, service), slot_name(settings.project.name, service)
        self._insist(lambda: self._stop_connector(name))
        self._insist(lambda: self._drop_slot(service, slot))
        self.pass_time(self._chance.uniform(0.5, 3))
        self._insist(lambda: self._run("capture", "recover", service, "--yes", "--reason", "chaos"))
        return f"that of {service}, recovered"

    def lose_state(self) -> str:
        """Delete the state of a saga's worker, and kill it."""
        name = self._chance.choice(("saga:place_order", "saga:cancel_order"))
        project = self._stack.settings.project.name
        folder = Home(self._stack.settings.stack_home).data / "state" / f"{project}-{name.replace(':', '-')}"
        self.freeze(name, 60)
        there = folder.is_dir()
        shutil.rmtree(folder, ignore_errors=True)
        self.kill(name)
        return f"of {name}{'' if there else ', which had none'}"

    # How

    def _processes(self, name: str) -> list[int]:
        status = self._stack.client.status().get(name)
        if status is None or status.pid is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [status.pid, *(child.pid for child in psutil.Process(status.pid).children(recursive=True))]
        return []

    def _insist(self, action: Callable[[], None]) -> None:
        """Do something, again where a part is not quite there yet, as a person would."""
        end = time.monotonic() + ASKING_SECONDS_MAX
        while True:
            try:
                return action()
            except (TowpathError, psycopg.Error) as error:
                if time.monotonic() > end:
                    raise
                self.note(f"again, after: {error}")
                self.pass_time(1)

    def _stop_connector(self, name: str) -> None:
        with ConnectClient(self._stack.settings.connect) as connect:
            connect.stop(name, 30)

    def _drop_slot(self, service: str, slot: str) -> None:
        with psycopg.connect(self._stack.settings.postgres.database_url(service), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
            )

    def _run(self, *arguments: str) -> None:
        done = self._ask(*arguments)
        if done.returncode != 0:
            raise TowpathError(f"towpath {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-600:]}")

    def _ask(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", "from towpath.cli import main; main()", *arguments],
            cwd=ROOT,
            env={**os.environ, **self._stack.environment},
            capture_output=True,
            text=True,
            timeout=ASKING_SECONDS_MAX,
            check=False,
        )
