"""Fetches one locked file over HTTP: resumes where a broken fetch ended, and keeps nothing whose hash is wrong."""

import errno
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx

from towpath.errors import WorldError
from towpath.stack.lock import LockedFile

CHUNK_BYTES = 256 * 1024
ATTEMPTS_MAX = 4
TIMEOUT_SECONDS = 30.0

Progress = Callable[[int], None]


class CorruptDownload(WorldError):
    """The repository served, twice, a file that is not the locked one."""


class _WrongContent(Exception):
    """The bytes at hand are not those of the lock."""


def hash_matches(path: Path, wanted: LockedFile) -> bool:
    """Tell whether `path` is the locked file, by size and SHA-256."""
    try:
        if path.stat().st_size != wanted.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256
    except FileNotFoundError:
        return False


def fetch_all(base_url: str, pool: ThreadPoolExecutor, wanted: Mapping[Path, LockedFile], progress: Progress) -> None:
    """Fetch several files side by side, on the threads of `pool`; raises what the first failing `fetch` raised."""
    # Largest first: the long fetch runs beside the many short ones.
    ordered = sorted(wanted.items(), key=lambda pair: -pair[1].size_bytes)
    with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
        fetches = [pool.submit(fetch, client, base_url, file, path, progress) for path, file in ordered]
        try:
            for done in as_completed(fetches):
                done.result()
        except BaseException:
            for pending in fetches:
                pending.cancel()
            raise


def fetch(client: httpx.Client, base_url: str, wanted: LockedFile, target: Path, progress: Progress) -> None:
    """Fetch `wanted` from the Maven repository at `base_url` to `target`; `progress` is told of bytes that arrived.

    What arrived before a break is kept in `target`.part and continued, in this run or a later one. Raises
    WorldError where the repository is away or the disk is full, CorruptDownload where it serves something else.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    url = f"{base_url.rstrip('/')}/{wanted.repository_path}"
    wrong = 0
    failure: Exception = _WrongContent()
    for _ in range(ATTEMPTS_MAX):
        try:
            _continue(client, url, part, wanted, progress)
            if hash_matches(part, wanted):
                part.replace(target)
                return
            raise _WrongContent
        except _WrongContent as error:
            failure, wrong = error, wrong + 1
            progress(-_size(part))
            part.unlink(missing_ok=True)
            if wrong == 2:
                break
        except httpx.HTTPStatusError as error:
            failure = error
            if error.response.status_code < 500:
                break
        except httpx.TransportError as error:
            failure = error
        except OSError as error:
            raise _disk_error(error, part) from error
    raise _failure(failure, wanted, part)


def _continue(client: httpx.Client, url: str, part: Path, wanted: LockedFile, progress: Progress) -> None:
    have = _size(part)
    if have >= wanted.size_bytes:
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        if have and not resumed:
            progress(-have)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw(CHUNK_BYTES):
                file.write(chunk)
                progress(len(chunk))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _disk_error(error: OSError, part: Path) -> WorldError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return WorldError(
            f"the disk is full: {part.parent}",
            kept=f"{part.name}, which the next run continues",
            next_step="free space there, or set stack.cache to a folder on another disk; then towpath up",
        )
    return WorldError(f"cannot write {part}: {error.strerror}", next_step="fix the folder's permissions")


def _failure(failure: Exception, wanted: LockedFile, part: Path) -> WorldError:
    if isinstance(failure, _WrongContent):
        return CorruptDownload(
            f"{wanted.coordinates} is not the locked file: its SHA-256 is wrong, twice",
            kept="nothing of it; all other files",
            next_step="check the repository or the proxy that served it, then towpath up",
        )
    return WorldError(
        f"cannot fetch {wanted.coordinates}: {failure or type(failure).__name__}",
        kept=f"{_size(part)} of {wanted.size_bytes} bytes, which the next run continues",
        next_step="check the network, or set stack.maven_repository; then towpath up",
    )
