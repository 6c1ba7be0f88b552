"""Repeats calls of a saga's functions in processes of another hash seed, date, zone, locale and environment.

They are started at once, and import the project while the walk through the states goes on (see elsewhere_process.py).
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from towpath.cli import output
from towpath.saga.check.elsewhere import Tried

# Two seeds that differ from each other, so that the order of a set of two is another in one of them: what is found does
# not depend on the seed of the process that checks.
HASH_SEEDS = ("1", "2")
ZONES = ("AAA-12:45", "BBB+09:30")  # POSIX zones, which need no data; on different days for most of the time
DAYS_AHEAD = (403, 1_207)  # another day of the week, of the month and of the year, and another month
_KEPT = ("PYTHON", "LD_", "DYLD_", "VIRTUAL_ENV")
_KEPT_WHOLE = ("PATH", "HOME", "SYSTEMROOT", "TMPDIR")
_PROGRAM = str(Path(__file__).with_name("elsewhere_process.py"))


class Processes:
    """The processes, as an `Elsewhere`. `sagas` says where each saga lies: (name, version) -> `module:attribute`."""

    def __init__(self, sagas: Mapping[tuple[str, int], str]) -> None:
        self._processes = [_started(seed, zone) for seed, zone in zip(HASH_SEEDS, ZONES, strict=True)]
        for process, days in zip(self._processes, DAYS_AHEAD, strict=True):
            self._tell(
                process, {"path": sys.path, "sagas": sorted(set(sagas.values())), "seconds": days * 86_400 + 26_000}
            )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.wait()
        self._processes = []

    def __call__(self, saga: str, version: int, tried: Sequence[Tried]) -> Sequence[str | None]:
        """Repeat calls in each of the processes; see `Elsewhere`."""
        written = [_written(each) for each in tried]
        for process in self._processes:
            self._tell(process, (saga, version, written))
        heard = [self._hear(process, len(tried)) for process in self._processes]
        return [next((words for words in of_one if words), of_one[0]) for of_one in zip(*heard, strict=True)]

    def _tell(self, process: "subprocess.Popen[bytes]", said: Any) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is seen where nothing is heard
            pickle.dump(said, process.stdin)
            process.stdin.flush()

    def _hear(self, process: "subprocess.Popen[bytes]", count: int) -> list[str | None]:
        assert process.stdout is not None
        try:
            answers: list[str | None] = pickle.load(process.stdout)  # noqa: S301 - a process of our own
        except (EOFError, pickle.UnpicklingError):
            output.note(
                f"a second process ended early (exit code {process.wait()}): functions were not called there. "
                "It imports the saga's modules, as this one does"
            )
            return [None] * count
        return answers


def _started(seed: str, zone: str) -> "subprocess.Popen[bytes]":
    kept = {name: value for name, value in os.environ.items() if name in _KEPT_WHOLE or name.startswith(_KEPT)}
    environment = {**kept, "PYTHONHASHSEED": seed, "TZ": zone}
    # -P: the folder of that file is no place to import from.
    return subprocess.Popen(
        [sys.executable, "-P", _PROGRAM],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _written(tried: Tried) -> bytes | None:
    """Return a call as bytes; None where it cannot leave this process."""
    try:
        return pickle.dumps((tried.step, tried.role.value, tried.given, tried.returned))
    except Exception:  # whatever a class of the project does when it is written
        return None
