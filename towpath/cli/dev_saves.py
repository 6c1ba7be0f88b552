"""What is saved while `towpath dev` runs: a thread watches the project's files and gathers what changed until asked.

So a save is seen whatever the session does meanwhile, and what it waits for can be given up for the sake of the save.
"""

import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from towpath.errors import WorldError

if TYPE_CHECKING:
    from watchfiles import Change

SUFFIXES = frozenset({".py", ".avsc", ".json", ".yaml", ".yml", ".sql", ".toml"})
FOLDERS = ("sagas", "pipelines", "schemas", "infra/postgres")
SETTINGS = "towpath.toml"
DEBOUNCE_MILLISECONDS = 120
"""An editor writes a file in several steps, and a formatter writes it again: they count as one save."""
TURN_MILLISECONDS = 200
"""Between two looks at single files: an editor that puts a new one in its place takes the watch away with the old."""
Seen = dict[Path, tuple[int, int, int] | None]


class Saves:
    """The saves in the project in `root`. For one thread that asks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._beside: frozenset[str] = frozenset()
        self._paths: set[Path] = set()
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._ended = threading.Event()

    def begin(self) -> None:
        """Watch from now on."""
        seen = self._single_files()
        threading.Thread(target=self._run, args=(seen,), daemon=True).start()

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

    def _tell(self, paths: Iterable[Path]) -> None:
        with self._lock:
            before = len(self._paths)
            self._paths.update(paths)
            if len(self._paths) > before:
                self._news.set()

    def _folders(self) -> frozenset[Path]:
        return frozenset(path for name in (*FOLDERS, *self._beside) if (path := self._root / name).is_dir())

    def _single_files(self) -> Seen:
        return {self._root / name: _seen(self._root / name) for name in (SETTINGS, *self._beside)}

    def _run(self, seen: Seen) -> None:
        try:
            while not self._ended.is_set():
                try:
                    seen = self._watch(self._folders(), seen)
                except FileNotFoundError:  # a folder that went away before it was watched
                    self._ended.wait(TURN_MILLISECONDS / 1000)
        except Exception as error:  # whatever the watcher's library, or the system, makes of it
            self._failure = error
            self._news.set()

    def _watch(self, folders: frozenset[Path], seen: Seen) -> Seen:
        """Watch until there are other folders to watch; return how the single files stood last."""
        from watchfiles import watch

        known = {one for folder in folders for one in folder.rglob("*") if _is_folder(self._root, one)}
        for changes in watch(
            *folders,
            watch_filter=None,
            debounce=DEBOUNCE_MILLISECONDS * 4,
            step=DEBOUNCE_MILLISECONDS,
            rust_timeout=TURN_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=self._ended,
        ):
            files = self._single_files()
            self._tell(self._saved(changes, known))
            # One that is looked at from now on was not saved.
            self._tell(path for path, now in files.items() if seen.get(path, now) != now)
            seen = files
            if (watched := self._folders()) != folders:
                new = watched - folders - {self._root / name for name in self._beside}
                self._tell(path for folder in new for path in self._files_in(folder))
                break
        return seen

    def _saved(self, changes: "set[tuple[Change, str]]", known: set[Path]) -> set[Path]:
        """Return what was saved; of a folder that came, its files; of one of the `known` that went, itself."""
        found: set[Path] = set()
        for _, name in changes:
            path = Path(name)
            if concerns(self._root, path):
                found.add(path)
            elif path in known and not path.exists():
                known.discard(path)
                found.add(path)
            elif path not in known and _is_folder(self._root, path):
                known |= {path, *(one for one in path.rglob("*") if _is_folder(self._root, one))}
                found |= self._files_in(path)
        return found

    def _files_in(self, folder: Path) -> set[Path]:
        return {path for path in folder.rglob("*") if concerns(self._root, path)}


def _seen(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return None if stat.S_ISDIR(seen.st_mode) else (seen.st_ino, seen.st_size, seen.st_mtime_ns)


def concerns(root: Path, path: Path) -> bool:
    """Say whether a file that changed is one that a person wrote and a worker or a check reads."""
    return path.suffix in SUFFIXES and _is_written_by_people(root, path)


def _is_folder(root: Path, path: Path) -> bool:
    return _is_written_by_people(root, path) and path.is_dir()


def _is_written_by_people(root: Path, path: Path) -> bool:
    from towpath.contract.catalogue import DERIVED_FILE

    place: tuple[str, ...] = path.relative_to(root).parts if path.is_relative_to(root) else ()
    generated = place[:2] == ("schemas", "records") or path.name == DERIVED_FILE
    return not generated and not any(part.startswith(".") or part == "__pycache__" for part in place)
