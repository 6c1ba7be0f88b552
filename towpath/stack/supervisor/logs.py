"""Keeps the log files within bounds: one that grew too long is copied aside and cut while it is in use.

A line written between the copy and the cut is lost; the processes write in append mode, so nothing else is.
"""

import asyncio
import shutil
from pathlib import Path

LOG_BYTES_MAX = 20 * 1024 * 1024
CHECK_SECONDS = 30.0
# Begins the line that the supervisor writes into a log at each start of its process.
START_MARK = "--- towpath:"
# Begins the line that it writes where a process has not ended in its time, and is ended by force.
FORCE_MARK = "--- ended by force:"
FORCE_LINES = 2_000


class LogKeeper:
    """Cuts the logs of one folder: each takes at most twice `LOG_BYTES_MAX`, itself and its predecessor."""

    def __init__(self, folder: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max

    async def keep(self) -> None:
        """Look after the folder until cancelled."""
        while True:
            self.cut()
            await asyncio.sleep(CHECK_SECONDS)

    def cut(self) -> None:
        """Cut what is too long now."""
        for log in self._folder.glob("*.log"):
            if log.stat().st_size > self._bytes_max:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                with log.open("r+b") as file:
                    file.truncate(0)


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log, without reading more than its last 256 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 256 * 1024))
            return file.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def ended_by_force(folder: Path, since_seconds: float) -> list[str]:
    """Return whose logs say that they were ended by force, of those written to since a time (of the epoch)."""
    return [
        log.stem
        for log in sorted(folder.glob("*.log"))
        if log.stat().st_mtime >= since_seconds and _was_forced(tail(log, FORCE_LINES))
    ]


def _was_forced(lines: list[str]) -> bool:
    marks = [line for line in lines if line.startswith((START_MARK, FORCE_MARK))]
    return bool(marks) and marks[-1].startswith(FORCE_MARK)
