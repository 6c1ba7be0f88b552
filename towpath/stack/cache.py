"""The user's cache of locked files: every file is hashed before it is used, and fetched again if it is damaged."""

import fcntl
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import platformdirs

from towpath.errors import WorldError
from towpath.settings import StackSettings
from towpath.stack.http import fetch_all, hash_matches
from towpath.stack.lock import LockedFile, PartsLock

# Two connections a core would do for bandwidth; most files are small, so their round trips are what is waited for.
FETCHES_AT_ONCE = 6
REGISTRY_RUNNER = "quarkus-run.jar"
# PEP 706 came with Python 3.11.4; before it (Debian 12 has 3.11.2) there is no filter, and the attribute says nothing.
_EXTRACTION_FILTER: Callable[[tarfile.TarInfo, str], tarfile.TarInfo | None] = getattr(
    tarfile, "data_filter", lambda member, _: member
)


class FetchWatcher(Protocol):
    """Who shows the progress of fetching."""

    def begin(self, files: int, size_bytes: int) -> None:
        """Fetching begins: so many files, so many bytes in all."""
        ...

    def advance(self, size_bytes: int) -> None:
        """So many bytes arrived; negative when a damaged part is thrown away."""
        ...


@dataclass(frozen=True, slots=True)
class InstalledParts:
    """Where the files of the parts lie on this machine."""

    kafka_class_path: tuple[Path, ...]
    connect_class_path: tuple[Path, ...]
    plugin_folder: Path
    registry_folder: Path


def cache_folder(stack: StackSettings) -> Path:
    """Return the folder of fetched files: the setting, or the user's own cache folder."""
    return stack.cache or Path(platformdirs.user_cache_dir("towpath"))


def repository_url(stack: StackSettings) -> str:
    """Return the Maven repository to fetch from: the setting, or Maven Central as the resolver knows it."""
    if stack.maven_repository:
        return stack.maven_repository
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL)


def install(stack: StackSettings, lock: PartsLock, watcher: FetchWatcher) -> InstalledParts:
    """Make sure that every locked file is here and whole, fetching what is not; then lay out what needs a folder.

    Safe beside another `towpath up` of the same user. Raises WorldError (network, disk) and CorruptDownload.
    """
    cache = cache_folder(stack)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorldError(
            f"cannot make the cache folder {cache}: {error.strerror}", next_step="set stack.cache to one that you own"
        ) from error
    with _locked(cache / "lock"):
        _fetch_missing(stack, cache, lock, watcher)
        return InstalledParts(
            kafka_class_path=_paths(cache, lock.of("kafka")),
            connect_class_path=_paths(cache, lock.of("connect")),
            plugin_folder=_lay_out_plugins(cache, lock),
            registry_folder=_unpack_registry(cache, lock),
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _path(cache: Path, file: LockedFile) -> Path:
    return cache / "maven" / file.repository_path


def _paths(cache: Path, files: Sequence[LockedFile]) -> tuple[Path, ...]:
    return tuple(_path(cache, file) for file in files)


def _fetch_missing(stack: StackSettings, cache: Path, lock: PartsLock, watcher: FetchWatcher) -> None:
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        usable = list(pool.map(lambda file: _usable(cache, file), lock.files))
        missing = [file for file, good in zip(lock.files, usable, strict=True) if not good]
        if not missing:
            return
        watcher.begin(len(missing), sum(file.size_bytes for file in missing))
        for file in missing:
            watcher.advance(_already_there(_path(cache, file)))
        fetch_all(repository_url(stack), pool, {_path(cache, file): file for file in missing}, watcher.advance)


def _already_there(path: Path) -> int:
    part = path.with_name(f"{path.name}.part")
    return part.stat().st_size if part.exists() else 0


def _usable(cache: Path, file: LockedFile) -> bool:
    if "registry" in file.parts and (_registry_folder(cache, file) / REGISTRY_RUNNER).is_file():
        return True
    return hash_matches(_path(cache, file), file)


def _lay_out_plugins(cache: Path, lock: PartsLock) -> Path:
    """Make the folder that Connect scans: a plugin each folder, its jars linked from the cache."""
    files = lock.of("debezium")
    folder = cache / "plugins" / f"debezium-{lock.version('io.debezium:debezium-connector-postgres')}"
    plugin = folder / "debezium-connector-postgres"
    plugin.mkdir(parents=True, exist_ok=True)
    wanted = {file.file_name: _path(cache, file) for file in files}
    for link in plugin.iterdir():
        if link.name not in wanted or not link.exists():
            link.unlink()
    for name, path in wanted.items():
        if not (plugin / name).exists():
            (plugin / name).symlink_to(path)
    return folder


def _registry_folder(cache: Path, archive: LockedFile) -> Path:
    return cache / "registry" / f"{archive.version}-{archive.sha256[:12]}"


def _unpack_registry(cache: Path, lock: PartsLock) -> Path:
    """Unpack the registry beside its final place and move it there whole; the archive is then not needed any more."""
    (archive,) = lock.of("registry")
    folder = _registry_folder(cache, archive)
    if (folder / REGISTRY_RUNNER).is_file():
        return folder
    unpacking = folder.with_name(f"{folder.name}.unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    path = _path(cache, archive)
    try:
        with tarfile.open(path) as tar:
            tar.extraction_filter = _EXTRACTION_FILTER
            tar.extractall(unpacking)  # noqa: S202 - its hash was verified
    except OSError as error:
        shutil.rmtree(unpacking, ignore_errors=True)
        raise WorldError(
            f"cannot unpack the registry into {folder.parent}: {error.strerror or error}",
            next_step="free space there, or set stack.cache to a folder on another disk; then towpath up",
        ) from error
    os.rename(_runner_folder(unpacking), folder)
    shutil.rmtree(unpacking, ignore_errors=True)
    path.unlink()
    return folder


def _runner_folder(unpacked: Path) -> Path:
    found = next(unpacked.rglob(REGISTRY_RUNNER), None)
    if found is None:
        raise WorldError(f"the registry's archive holds no {REGISTRY_RUNNER}", next_step="report the locked version")
    return found.parent
