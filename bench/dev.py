"""How soon what is saved runs: `python -m bench.dev [--json] [--rounds N] [--pause SECONDS]`.

Begins a project with `towpath new`, runs `towpath dev` on a stack of its own, and saves one file after another: a
service, a view, a saga, a schema. The clock runs from the write to the line `runs after`; the processor's time, from
the write until the proof is shown, is that of the session, its checks and all workers, without the JVMs and PostgreSQL.
Before each save passes the time in which a person looks at what the last one did; with `--pause 0` the next comes at
once, while each worker that was restarted still makes its successor ready.
Needs a machine that does nothing else.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import psutil

READY_SECONDS_MAX = 300.0
TOWPATH = [sys.executable, "-c", "from towpath.cli import main; main()"]
SAVES = {
    "service": ("pipelines/services/payment/service.py", "service:payment"),
    "view": ("pipelines/views/order_status.py", "view:order_status"),
    "saga": ("sagas/place_order.py", "saga:place_order"),
    "schema": ("schemas/avro/payment/VoidPayment.avsc", "service:payment"),
}


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a shell, with those of a stack in `folder` on free ports."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}
    parts = ("KAFKA", "CONTROLLER", "CONNECT", "REGISTRY", "POSTGRES")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in parts]
    ports = {f"TOWPATH_STACK__{part}_PORT": str(one.getsockname()[1]) for part, one in zip(parts, sockets, strict=True)}
    for one in sockets:
        one.close()
    return {**own, **ports, "TOWPATH_STACK__HOME": str(folder / "stack"), "PYTHONUNBUFFERED": "1"}


class Dev:
    """A `towpath dev` that runs."""

    def __init__(self, root: Path, variables: Mapping[str, str]) -> None:
        self.log = root.parent / "dev.log"
        with self.log.open("w", encoding="utf-8") as out:
            command = [*TOWPATH, "dev"]
            self.process = subprocess.Popen(
                command, cwd=root, env=dict(variables), stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )
        self.home = Path(variables["TOWPATH_STACK__HOME"])

    def text(self, since: int = 0) -> str:
        """Return what it has shown."""
        return self.log.read_text(encoding="utf-8", errors="replace")[since:]

    def wait_for(self, pattern: str, since: int, times: int = 1) -> float:
        """Return when so many lines of that pattern have been shown, by the monotonic clock."""
        end = time.monotonic() + READY_SECONDS_MAX
        while len(re.findall(pattern, self.text(since), re.MULTILINE)) < times:
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"towpath dev has not shown {pattern!r}:\n{self.text(since)[-3000:]}")
            time.sleep(0.01)
        return time.monotonic()

    def processor_seconds(self) -> dict[int, float]:
        """Return what each process of the session has used: itself, its checks, the supervisor's children."""
        supervisor = int((self.home / "run" / "supervisor.lock").read_text(encoding="ascii"))
        found: dict[int, float] = {}
        for one in (psutil.Process(self.process.pid), psutil.Process(supervisor)):
            for process in (one, *one.children(recursive=True)):
                try:
                    if "java" not in process.name() and "postgres" not in process.name():
                        times = process.cpu_times()
                        found[process.pid] = times.user + times.system + times.children_user + times.children_system
                except psutil.NoSuchProcess:
                    continue
        return found

    def close(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)


def save(dev: Dev, root: Path, kind: str, number: int) -> dict[str, float]:
    """Save one file; return the seconds until its worker runs, and the processor's seconds until all is checked."""
    path, worker = SAVES[kind]
    since, before = len(dev.text()), dev.processor_seconds()
    file = root / path
    text = file.read_text(encoding="utf-8")
    began = time.monotonic()
    if kind == "schema":
        file.write_text(re.sub(r'"doc": "[^"]*', f'"doc": "Round {number}.', text, count=1), encoding="utf-8")
    else:
        file.write_text(f"{text}# {number}\n", encoding="utf-8")
    runs = dev.wait_for(rf"^{re.escape(worker)} +runs after", since)
    dev.wait_for("every property holds", since)
    used = dev.processor_seconds()
    return {"seconds": runs - began, "processor_seconds": sum(used[pid] - before.get(pid, 0.0) for pid in used)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds between one save's checks and the next save")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="towpath-dev-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    try:
        variables = environment(folder)
        subprocess.run([*TOWPATH, "new", "myshop"], cwd=folder, env=variables, check=True, stdout=sys.stderr)
        root = folder / "myshop"
        dev = Dev(root, variables)
        try:
            dev.wait_for("every property holds", 0)
            found: dict[str, list[dict[str, float]]] = {kind: [] for kind in SAVES}
            for kind, number in product(SAVES, range(options.rounds)):
                time.sleep(options.pause)
                found[kind].append(save(dev, root, kind, number))
        finally:
            dev.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report: dict[str, Any] = {
        kind: {
            "seconds_p50": round(statistics.median(one["seconds"] for one in rounds), 2),
            "seconds_max": round(max(one["seconds"] for one in rounds), 2),
            "processor_seconds_p50": round(statistics.median(one["processor_seconds"] for one in rounds), 2),
        }
        for kind, rounds in found.items()
    }
    if options.json:
        print(json.dumps(report))
        return
    for kind, one in report.items():
        print(
            f"{kind:8} runs {one['seconds_p50']} s after the save (at most {one['seconds_max']}), "
            f"{one['processor_seconds_p50']} s of processor time with its checks"
        )


if __name__ == "__main__":
    main()
