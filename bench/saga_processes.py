"""What processes cost, and how busy the rest of the machine is: CPU time from /proc, counts from the workers' metrics.

The one rule: CPU time (user and system) and counts hold on a busy machine, too; elapsed time holds on a quiet one only.
"""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SPIN_SECONDS = 0.4
CROWDING_MAX = 1.15
"""A busy loop that takes a seventh longer than its own CPU time, or than at another moment, has lost that to others."""
SPIN = """
import time
wall, cpu = time.perf_counter(), time.process_time()
rounds = 0
while time.process_time() - cpu < {seconds}:
    sum(range(1000))
    rounds += 1
spent = time.process_time() - cpu
print((time.perf_counter() - wall) / spent, rounds / spent)
"""
_METRIC = re.compile(r'^towpath_(\w+)\{application="([^"]+)"[^}]*\} ([0-9.e+-]+)$', re.MULTILINE)
_WANTED = ("units_total", "records_total", "unit_seconds_sum", "commit_seconds_sum", "commit_seconds_count")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its children and those it has waited for (PostgreSQL's ended backends)."""
    total = 0
    for one in _family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # Fields 14 to 17 of proc(5): utime, stime, and those of waited-for children.
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def _family(pid: int) -> Iterable[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from _family(int(child))


def all_cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time of each named process up to now."""
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def machine_busy_seconds() -> float | None:
    """Return the CPU time that the whole machine has spent, None where /proc/stat shows another machine's cores."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    if sum(re.match(r"cpu\d", line) is not None for line in lines) != os.cpu_count():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, lines[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a busy loop on each core at once says of the machine, by its most disturbed core.

    `crowding`: how much longer than its CPU time it takes, 1.0 on a quiet machine. `rounds_per_second`: what it does in
    a second of CPU time; less where a neighbour shares the core's units, which no count of times shows.
    """

    crowding: float
    rounds_per_second: float


def calibrate() -> Calibration:
    """Run the loop."""
    loops = [
        subprocess.Popen([sys.executable, "-c", SPIN.format(seconds=SPIN_SECONDS)], stdout=subprocess.PIPE, text=True)
        for _ in range(len(os.sched_getaffinity(0)))
    ]
    told = [tuple(map(float, loop.communicate()[0].split())) for loop in loops]
    return Calibration(round(max(one for one, _ in told), 3), round(min(one for _, one in told)))


def is_steady(calibrations: Sequence[Calibration]) -> bool:
    """Say whether the machine was quiet at each of them and as fast at the last as at the first."""
    speeds = [one.rounds_per_second for one in calibrations]
    return max(one.crowding for one in calibrations) <= CROWDING_MAX and max(speeds) <= CROWDING_MAX * min(speeds)


@dataclass(frozen=True, slots=True)
class Counts:
    """What the workers' metrics say, by application and metric."""

    values: Mapping[tuple[str, str], float]

    def since(self, before: "Counts", seconds: float) -> dict[str, dict[str, float]]:
        """Return what each application did since `before`, in `seconds`."""
        found: dict[str, dict[str, float]] = {}
        for application in sorted({name for name, _ in self.values}):
            grown = {
                metric: self.values.get((application, metric), 0.0) - before.values.get((application, metric), 0.0)
                for metric in _WANTED
            }
            units = grown["units_total"]
            found[application] = {
                "units_per_second": round(units / seconds, 1),
                "records_per_unit": round(grown["records_total"] / units, 1) if units else 0.0,
                "units": units,
                "commits": grown["commit_seconds_count"],
                "share_of_time_in_commit": round(grown["commit_seconds_sum"] / seconds, 3),
                "share_of_time_in_units": round(grown["unit_seconds_sum"] / seconds, 3),
            }
        return found


def read_counts(ports: Iterable[int]) -> Counts:
    """Read the metrics that workers serve on these ports of this machine."""
    values: dict[tuple[str, str], float] = {}
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for metric, application, value in _METRIC.findall(text):
            if metric in _WANTED:
                key = (application, metric)
                values[key] = values.get(key, 0.0) + float(value)
    return Counts(values)
