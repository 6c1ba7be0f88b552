"""`up`: from nothing, or from what lies there, to a stack that is ready; and `down`.

The order: look before anything starts (ports, disk, what the data was made for), fetch, start the supervisor, then
everything side by side, each step as soon as what it needs is ready. What fails takes down what was started.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from towpath.errors import RefusedError, TowpathError, WorldError
from towpath.settings import Settings
from towpath.stack import machine as this_machine
from towpath.stack import prepare
from towpath.stack.cache import FetchWatcher, InstalledParts, cache_folder, install
from towpath.stack.client import NotRunning, StackClient, last_words, start_supervisor
from towpath.stack.home import Home
from towpath.stack.lock import load_lock
from towpath.stack.metadata_log import METADATA_LOG
from towpath.stack.parts import Part, PartKind, native_placement, stack_parts
from towpath.stack.postgres import make_cluster, make_databases
from towpath.stack.processes import (
    Machine,
    format_command,
    part_processes,
    postgres_data,
    settings_files,
)
from towpath.stack.start_caches import begin_recordings, drop_recordings, keep_recordings
from towpath.stack.supervisor.spec import ProcessSpec, State

# Jars 60 MiB, registry 170 MiB unpacked from 160 MiB, start caches 250 MiB.
CACHE_BYTES_NEEDED = 700 * 1024 * 1024
# WAL up to 1 GiB before a checkpoint, room for topics.
DATA_BYTES_NEEDED = 2 * 1024 * 1024 * 1024
READY_SECONDS_MAX = 240.0
# What the parts inherit of this process's environment: nothing that could change what they do.
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")


class UpWatcher(FetchWatcher, Protocol):
    """Who shows how `up` gets on."""

    def step(self, text: str) -> None:
        """Something begins that may take a moment."""
        ...

    def ready(self, name: str, seconds: float) -> None:
        """A part became ready, so many seconds after `up` began to start it."""
        ...


class Silent:
    """Watches and says nothing."""

    def begin(self, files: int, size_bytes: int) -> None:
        """Say nothing."""

    def advance(self, size_bytes: int) -> None:
        """Say nothing."""

    def step(self, text: str) -> None:
        """Say nothing."""

    def ready(self, name: str, seconds: float) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` starts: the parts, their processes, and what they need of this machine."""

    home: Home
    parts: tuple[Part, ...]
    specs: tuple[ProcessSpec, ...]
    machine: Machine
    installed: InstalledParts
    environment: dict[str, str]

    def of(self, kind: PartKind) -> tuple[Part, ...]:
        """Return the parts of one kind."""
        return tuple(part for part in self.parts if part.kind is kind)

    def spec(self, name: str) -> ProcessSpec:
        """Return the process of a part."""
        return next(spec for spec in self.specs if spec.name == name)


def up(settings: Settings, *, fresh: bool = False, watcher: UpWatcher | None = None) -> tuple[str, ...]:
    """Bring the stack up and return the names of the parts that had to be started; with `fresh`, without its data.

    A stack that is up already is looked at and completed: parts that failed are started again. Raises RefusedError
    where the running stack or the data was made with other settings, WorldError with the cause where a part does not
    start; then nothing is left running that this call started.
    """
    watcher = watcher or Silent()
    home = Home(settings.stack_home)
    if fresh:
        watcher.step("removing the data of the stack")
        remove_data(settings)
    home.make()
    _refuse_other_shape(settings, home)
    try:
        client = StackClient(home)
    except NotRunning:
        return _start_whole(settings, home, watcher)
    with client:
        return _complete(settings, home, client, watcher)


def down(settings: Settings) -> bool:
    """Stop the stack; its data stays. Returns whether it was running."""
    home = Home(settings.stack_home)
    try:
        client = StackClient(home)
    except NotRunning:
        return False
    with client:
        client.shutdown()
    keep_recordings(cache_folder(settings.stack), home)
    return True


def remove_data(settings: Settings) -> None:
    """Stop the stack and remove all that it stored."""
    down(settings)
    data = Home(settings.stack_home).data
    if data.exists():
        shutil.rmtree(data)


def make_plan(settings: Settings, home: Home, watcher: UpWatcher) -> Plan:
    """Fetch what is missing and return what to start."""
    lock = load_lock()
    found = this_machine.find_machine(settings.stack, home.data)
    installed = install(settings.stack, lock, watcher)
    placement = native_placement(settings.stack, str(home.data), str(installed.plugin_folder))
    parts = stack_parts(settings, placement, lock)
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    begin_recordings(cache_folder(settings.stack), home, [part.name for part in parts])
    specs = part_processes(parts, home, installed, found, settings.postgres, environment)
    return Plan(home, parts, specs, found, installed, environment)


def _start_whole(settings: Settings, home: Home, watcher: UpWatcher) -> tuple[str, ...]:
    _refuse_small_disk(settings, home)
    plan = make_plan(settings, home, watcher)
    _refuse_taken_ports(settings, plan.parts)
    with start_supervisor(home) as client:
        if client.status():
            return _complete(settings, home, client, watcher)  # another `up` was a moment faster
        client.begin()
        try:
            _Start(settings, plan, watcher).run()
        except BaseException:
            client.shutdown()
            drop_recordings(cache_folder(settings.stack), home)
            raise
        client.commit()
    return tuple(spec.name for spec in plan.specs)


def _complete(settings: Settings, home: Home, client: StackClient, watcher: UpWatcher) -> tuple[str, ...]:
    plan = make_plan(settings, home, watcher)
    known = client.status()
    for part in plan.parts:
        running = known.get(part.name)
        if running and running.ports != part.ports:
            raise RefusedError(
                f"the stack in {home.root} runs with other settings: {part.name} on port {running.ports[0]}, "
                f"not {part.ports[0]}",
                kept="the running stack, as it is",
                next_step="towpath down, then towpath up",
            )
    gone = [name for name, one in known.items() if one.state in {State.FAILED, State.STOPPED}]
    missing = tuple(spec.name for spec in plan.specs if spec.name not in known or spec.name in gone)
    try:
        _Start(settings, plan, watcher).run()
    except TowpathError:
        for name in missing:
            client.stop(name)
        raise
    return missing


def _refuse_other_shape(settings: Settings, home: Home) -> None:
    if not home.shape.exists():
        return
    shape = json.loads(home.shape.read_text(encoding="utf-8"))
    if shape["brokers"] != settings.stack.brokers:
        raise RefusedError(
            f"the data in {home.data} is that of {shape['brokers']} Kafka broker(s), not of {settings.stack.brokers}",
            kept="the data, untouched",
            next_step=f"towpath up --brokers {shape['brokers']}, or towpath up --fresh to begin anew",
        )


def _refuse_small_disk(settings: Settings, home: Home) -> None:
    needs = [(home.data, DATA_BYTES_NEEDED)]
    cache = cache_folder(settings.stack)
    if not cache.exists():
        needs.append((cache, CACHE_BYTES_NEEDED))
    for folder, needed in needs:
        free = this_machine.free_bytes(folder)
        if free < needed:
            raise WorldError(
                f"{folder}: {free // 2**20} MiB are free on its disk, and {needed // 2**20} MiB are needed",
                next_step="free space there, or set stack.home and stack.cache to folders on another disk",
            )


def _refuse_taken_ports(settings: Settings, parts: Iterable[Part]) -> None:
    for part in parts:
        for taken in this_machine.taken_ports(settings.stack.host, part.ports):
            owner = taken.owner or "another process"
            setting = {PartKind.KAFKA: "kafka_port or controller_port"}.get(part.kind, f"{part.kind}_port")
            raise WorldError(
                f"port {taken.port} of {part.name} is taken by {owner}",
                next_step=f"end that process, or set stack.{setting} in towpath.toml",
            )


class _Start:
    """One run of everything that must happen for a stack to be ready, side by side where it can be."""

    def __init__(self, settings: Settings, plan: Plan, watcher: UpWatcher) -> None:
        self._settings = settings
        self._plan = plan
        self._watcher = watcher
        self._began_seconds = time.monotonic()

    def run(self) -> None:
        """Do all of it; raises what the first failing step raised, without waiting for the others."""
        for path, content in settings_files(self._plan.parts, self._plan.home).items():
            path.write_text(content, encoding="utf-8")
        if not self._plan.home.shape.exists():
            self._plan.home.shape.write_text(json.dumps({"brokers": self._settings.stack.brokers}), encoding="utf-8")
        pool = ThreadPoolExecutor(max_workers=5)
        try:
            database = pool.submit(self._database)
            steps = [database, log := pool.submit(self._log), pool.submit(self._registry, database)]
            tables = pool.submit(self._tables, database)
            steps += [tables, pool.submit(self._capture, (log, tables))]
            done, _ = wait(steps, return_when=FIRST_EXCEPTION)
            for step in done:
                step.result()
        finally:
            # Where one step failed the caller stops the parts, at which the other steps end.
            pool.shutdown(wait=False, cancel_futures=True)

    def _database(self) -> None:
        plan = self._plan
        (postgres,) = plan.of(PartKind.POSTGRES)
        with StackClient(plan.home) as client:
            known = client.status().get(postgres.name)
            if known is None or known.pid is None:
                make_cluster(postgres_data(plan.home), plan.machine, self._settings, plan.environment)
        self._run_parts((postgres,))
        make_databases(self._settings)

    def _tables(self, database: "Future[None]") -> None:
        database.result()
        prepare.apply_tables(self._settings)

    def _registry(self, database: "Future[None]") -> None:
        database.result()
        self._run_parts(self._plan.of(PartKind.REGISTRY))
        prepare.register_schemas(self._settings)

    def _log(self) -> None:
        plan = self._plan
        brokers = plan.of(PartKind.KAFKA)
        cluster = plan.home.data / "cluster-id"
        if not cluster.exists():
            cluster.write_text(_new_cluster_id(), encoding="ascii")
        for broker in brokers:
            if not _is_formatted(Path(broker.settings["log.dirs"])):
                command = format_command(broker, plan.home, plan.installed, plan.machine, cluster.read_text("ascii"))
                _run(command, plan.environment, f"the data folder of {broker.name}")
        self._run_parts(brokers)
        prepare.make_topics(self._settings)

    def _capture(self, needed: "tuple[Future[None], ...]") -> None:
        self._run_parts(self._plan.of(PartKind.CONNECT))
        for step in needed:
            step.result()
        prepare.make_connectors(self._settings)

    def _run_parts(self, parts: tuple[Part, ...]) -> None:
        with StackClient(self._plan.home) as client:
            for part in parts:
                client.start(self._plan.spec(part.name))
            for part in parts:
                client.wait_ready([part.name], READY_SECONDS_MAX)
                self._watcher.ready(part.name, time.monotonic() - self._began_seconds)


def _is_formatted(folder: Path) -> bool:
    """Tell whether a Kafka node's data folder is laid out; one that was cut off half way is made empty again.

    The tool writes `meta.properties` first and `bootstrap.checkpoint` last; before both are there nothing is stored.
    """
    if (folder / METADATA_LOG).exists() or (folder / "bootstrap.checkpoint").exists():
        return True
    (folder / "meta.properties").unlink(missing_ok=True)
    return False


def _run(command: list[str], environment: dict[str, str], what: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = last_words((done.stdout + done.stderr).splitlines())
        raise WorldError(f"{what} cannot be made: {said}", next_step="fix that, then towpath up")


def _new_cluster_id() -> str:
    """Return a cluster id as Kafka writes them: 16 random bytes in URL-safe base64, no leading hyphen."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=").replace("-", "A")
