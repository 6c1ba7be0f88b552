"""The project's workers as supervised processes: each is `towpath run NAME`, started again when it dies.

A worker tells how it stands by files: the one that `TOWPATH_READY_FILE` names is there while the worker is ready, and
beside it lies a `.json` with what it serves, holds and waits for.
"""

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from towpath.settings import Settings
from towpath.stack.client import StackClient
from towpath.stack.findings import after_stall
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, Probe, ProbeKind, ProcessSpec, ProcessStatus, State
from towpath.stream.engine.worker_status import WorkerStatus

READY_FILE = "TOWPATH_READY_FILE"
READY_SECONDS_MAX = 120.0
# Workers stop before the parts that they use.
RANK = 2
STATUS_SUFFIX = ".json"
_RUN = "from towpath.cli import main; main()"


def tell_status(ready: Path, status: WorkerStatus) -> None:
    """Write how this process's worker stands, and make or remove the file that says that it is ready."""
    path = ready.with_name(ready.name + STATUS_SUFFIX)
    written = path.with_name(path.name + ".new")
    written.write_text(json.dumps({"pid": os.getpid(), **status.to_json()}), encoding="utf-8")
    written.replace(path)
    if status.is_ready:
        ready.touch()
    else:
        ready.unlink(missing_ok=True)


def told_status(home: Home, process: str, pid: int | None) -> dict[str, Any] | None:
    """Return how the worker that runs as `pid` last said that it stands, None if it has not said so."""
    ready = home.ready_file(process)
    try:
        content: dict[str, Any] = json.loads(ready.with_name(ready.name + STATUS_SUFFIX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if pid is not None and content.get("pid") == pid else None


def processes_of(home: Home, statuses: Mapping[str, ProcessStatus], application: str) -> tuple[str, ...]:
    """Return the processes whose workers say that they are of this consumer group."""
    told = {name: told_status(home, name, status.pid) for name, status in statuses.items()}
    return tuple(name for name, said in told.items() if said is not None and said["application"] == application)


def stalled_processes(home: Home, statuses: Mapping[str, ProcessStatus]) -> frozenset[str]:
    """Return the processes whose workers say that a handler does not come back."""
    told = {name: told_status(home, name, status.pid) for name, status in statuses.items()}
    return frozenset(name for name, said in told.items() if said is not None and said.get("has_stalled"))


def way_back(worker: str, statuses: Mapping[str, ProcessStatus], stalled: Collection[str] = ()) -> str:
    """Return what to run where no worker of this name is in its group; `statuses` are the stack's processes.

    One whose process lives is frozen, or hangs: another one beside it would have its slot, and it would come back. One
    that starts, or that died and is started again by the stack, says in its log why it is not there; one that the stack
    has given up is started by the stack again. Of those that have `stalled` a restart meets the same record: their logs
    say at which line.
    """
    own = [one for one in statuses.values() if one.name.partition("/")[0] == worker]
    kept = [one for one in own if one.pid is not None or one.state in (State.STARTING, State.WAITING)]
    for status in [*kept, *(one for one in own if one.state is State.FAILED)]:
        tells = status.state in (State.STARTING, State.WAITING) or status.name in stalled
        return f"towpath logs {status.name}" if tells else f"towpath restart {status.name}"
    return f"towpath run {worker}"


def standstill(worker: str, home: Home, statuses: Mapping[str, ProcessStatus], place: str) -> tuple[str, str] | None:
    """Return why no process of a worker does anything in `place`, and what to run. None where one may, or none is.

    As the processes last said themselves: of workers that run elsewhere nothing is known here.
    """
    found = None
    for name, status in statuses.items():
        if name.partition("/")[0] != worker or status.state is State.STOPPED:
            continue
        told = told_status(home, name, status.pid)
        still = _standstill(status, told, place)
        if still is None:
            return None
        found = found or still
    return found


def _standstill(status: ProcessStatus, told: Mapping[str, Any] | None, place: str) -> tuple[str, str] | None:
    logs = f"towpath logs {status.name}"
    if status.state is State.FROZEN:
        return "its process is frozen", f"towpath restart {status.name}"
    if told is not None and told.get("has_stalled"):
        return told["words"], after_stall(status.name)
    if told is not None and told["held"]:
        held = next((each for each in told["held"] if each["partition"] == place), None)
        return None if held is None else (f"it holds {place} ({held['reason']})", held["next_step"] or logs)
    if told is not None and not told["is_ready"]:
        return told["words"], logs
    if status.state in (State.FAILED, State.WAITING, State.STARTING):
        return f"its process is {status.state}{f': {status.reason}' if status.reason else ''}", logs
    return None


def worker_process(
    settings: Settings,
    name: str,
    slot: str = "1",
    environment: Mapping[str, str] | None = None,
    *,
    waits_to_begin: bool = False,
) -> ProcessSpec:
    """Return the process of one worker; `environment` (default: this process's) holds what the settings came from.

    With `waits_to_begin` its successor has imported the engine, and no project, before it is needed.

    Its name in the stack is the worker's own, with the slot after it from the second on: `service:order`,
    `service:order/2`.
    """
    home = Home(settings.stack_home)
    process = name if slot == "1" else f"{name}/{slot}"
    ready = home.ready_file(process)
    wait = ("--wait-to-begin",) if waits_to_begin else ()
    return ProcessSpec(
        name=process,
        group=Group.WORKER,
        version=metadata.version("towpath"),
        arguments=(sys.executable, "-P", "-c", _RUN, "run", name, "--slot", slot, *wait),
        environment={
            # Beside the data of the stack whose topics it mirrors: two stacks of one project do not share it.
            "TOWPATH_STREAM__STATE_FOLDER": str(home.data / "state"),
            **(os.environ if environment is None else environment),
            "TOWPATH_PROJECT_FOLDER": str(settings.root),
            READY_FILE: str(ready),
            "PYTHONUNBUFFERED": "1",
        },
        folder=str(settings.root),
        log_file=str(home.log_file(process)),
        probe=Probe(ProbeKind.FILE, path=str(ready)),
        rank=RANK,
        # However long its stores, or a part that is away, keep it waiting: it says so, and dies by itself.
        ready_seconds=None,
        stop_seconds=15.0,
        waits_to_begin=waits_to_begin,
    )


def start_workers(
    settings: Settings, client: StackClient, names: Iterable[str], environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Start these workers side by side and return their names once all are ready. Raises ProcessFailed."""
    specs = [worker_process(settings, name, environment=environment) for name in names]
    for spec in specs:
        client.start(spec)
    started = tuple(spec.name for spec in specs)
    client.wait_ready(started, READY_SECONDS_MAX)
    return started
