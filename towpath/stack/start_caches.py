"""Keeps the start caches that JVMs record while they stop (JEP 514), so that the next `up` boots from them.

A JVM records into a folder of its stack and part, and a recording is used only once it is whole: the JVM removes its
temporary `.config` last.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from towpath.stack.home import Home
from towpath.stack.processes import START_CACHE_SUFFIX, recording_folder


def start_cache_folder(cache: Path) -> Path:
    """Return the folder of start caches, in the user's cache folder."""
    return cache / "start"


def known_start_caches(folder: Path) -> frozenset[str]:
    """Return the names of the caches that can be used."""
    return frozenset(path.name for path in folder.glob(f"*{START_CACHE_SUFFIX}"))


def begin_recordings(cache: Path, home: Home, parts: Iterable[str]) -> None:
    """Make the folders that JVMs without a cache record into."""
    for part in parts:
        (_recordings(cache, home) / part).mkdir(parents=True, exist_ok=True)


def keep_recordings(cache: Path, home: Home) -> None:
    """Move the whole recordings of a stack that stopped to where the next `up` of any stack finds them."""
    for recorded in _recordings(cache, home).glob(f"*/*{START_CACHE_SUFFIX}"):
        if not list(recorded.parent.glob("*.config")):
            recorded.replace(start_cache_folder(cache) / recorded.name)
    drop_recordings(cache, home)


def drop_recordings(cache: Path, home: Home) -> None:
    """Throw away the recordings of a stack that did not come up: they would know only how to fail."""
    shutil.rmtree(_recordings(cache, home), ignore_errors=True)


def _recordings(cache: Path, home: Home) -> Path:
    return start_cache_folder(cache) / recording_folder(home)
