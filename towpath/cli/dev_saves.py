"""What is saved while `towpath dev` runs: a thread watches the project's files and gathers what changed until asked.

So a save is seen whatever the session does meanwhile, and what it waits for can be given up for the sake of the save.
"""

import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from towpath.errors import WorldError

SUFFIXES = frozenset({".py", ".avsc", ".json", ".yaml", ".yml", ".sql", ".toml"})
FOLDERS = ("sagas", "pipelines", "schemas", "infra/postgres")
SETTINGS = "towpath.toml"
DEBOUNCE_MILLISECONDS = 120
"""An editor writes a file in several steps, and a formatter writes it again: they count as one save."""
TURN_MILLISECONDS = 200
"""Between two looks at single files: an editor that puts a new one in its place takes the watch away with the old."""


@dataclass(frozen=True)
class Look:
    """How files stood at one look: `beside`, the names that were followed then; of each file what tells a save."""

    beside: frozenset[str]
    files: dict[Path, tuple[int, int, int] | None]


class Saves:
    """The saves in the project in `root`. For one thread that asks.

    The system's events only say when to look again; a save is a file that differs from how it stood at the last look.
    So none is lost while other folders begin to be watched, and none is told twice.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._beside: frozenset[str] = frozenset()
        self._stands = Look(frozenset(), {})
        self._paths: set[Path] = set()
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._ended = threading.Event()

    def begin(self) -> None:
        """Watch from now on."""
        self._stands = self._look()
        threading.Thread(target=self._run, daemon=True).start()

    def follow(self, beside: Iterable[str]) -> None:
        """Watch these files and folders of the project too: what its code imports beside its own folders."""
        self._beside = frozenset(beside)

    def any(self, seconds: float = 0.0) -> bool:
        """Wait so long at most, and return whether something was saved. Raises WorldError where none can be seen."""
        found = self._news.wait(seconds)
        if self._failure is not None:
            raise WorldError(
                f"what is saved cannot be watched: {self._failure}",
                next_step="raise the system's limit of watched files, or let them be looked at in turn: "
                "WATCHFILES_FORCE_POLLING=1 towpath dev",
            ) from self._failure
        return found

    def take(self) -> list[Path]:
        """Return what was saved since this was last asked."""
        with self._lock:
            self._news.clear()
            paths, self._paths = self._paths, set()
        return sorted(paths)

    def close(self) -> None:
        """Watch no more."""
        self._ended.set()

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    self._watch(self._folders())
                except FileNotFoundError:  # a folder that went away before it was watched, or looked into
                    self._ended.wait(TURN_MILLISECONDS / 1000)
        except Exception as error:  # whatever the watcher's library, or the system, makes of it
            self._failure = error
            self._news.set()

    def _watch(self, folders: frozenset[Path]) -> None:
        """Watch until there are other folders to watch."""
        from watchfiles import watch

        is_first = True
        for changes in watch(
            *folders,
            watch_filter=None,
            debounce=DEBOUNCE_MILLISECONDS * 4,
            step=DEBOUNCE_MILLISECONDS,
            rust_timeout=TURN_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=self._ended,
        ):
            # Of what was saved before these folders were watched there was no event.
            self._tell(self._look(is_whole=is_first or bool(changes) or self._beside != self._stands.beside))
            is_first = False
            if self._folders() != folders:
                break

    def _look(self, *, is_whole: bool = True) -> Look:
        """Return how the files stand: all, or only those outside the folders anew."""
        beside = self._beside
        files = {self._root / name: _seen(self._root / name) for name in (SETTINGS, *beside)}
        if not is_whole:
            return Look(beside, self._stands.files | files)
        inside = (path for folder in self._folders() for path in folder.rglob("*") if concerns(self._root, path))
        return Look(beside, {path: _seen(path) for path in inside} | files)

    def _tell(self, now: Look) -> None:
        """Note what stands otherwise than at the last look. What is looked at only from now on was not saved."""
        before, self._stands = self._stands, now
        new = [self._root / name for name in now.beside - before.beside]
        saved = {
            path
            for path in before.files.keys() | now.files.keys()
            if before.files.get(path) != now.files.get(path) and not any(path.is_relative_to(one) for one in new)
        }
        if saved:
            with self._lock:
                self._paths |= saved
                self._news.set()

    def _folders(self) -> frozenset[Path]:
        return frozenset(path for name in (*FOLDERS, *self._beside) if (path := self._root / name).is_dir())


def _seen(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return None if stat.S_ISDIR(seen.st_mode) else (seen.st_ino, seen.st_size, seen.st_mtime_ns)


def concerns(root: Path, path: Path) -> bool:
    """Say whether a file that changed is one that a person wrote and a worker or a check reads."""
    return path.suffix in SUFFIXES and _is_written_by_people(root, path)


def _is_written_by_people(root: Path, path: Path) -> bool:
    from towpath.contract.catalogue import DERIVED_FILE

    place: tuple[str, ...] = path.relative_to(root).parts if path.is_relative_to(root) else ()
    generated = place[:2] == ("schemas", "records") or path.name == DERIVED_FILE
    return not generated and not any(part.startswith(".") or part == "__pycache__" for part in place)
