"""The store on RocksDB: one folder for each changelog partition.

The one rule: changes and checkpoint go into one write batch, so a store that was killed stands at some commit, never
between two. Its files are a cache of the changelog: whatever is wrong with them, they can be deleted.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rocksdict import AccessType, DBCompressionType, Options, Rdict, WriteBatch

from towpath.errors import WorldError
from towpath.stream.state.partition_state import Changes, Checkpoint

_CHECKPOINT = b"\x00c"
WRITE_BUFFER_BYTES = 16 * 1024 * 1024
"""A store has at most two of these in memory: 4 partitions of one topic take 128 MiB at the very most."""


class StoreDamaged(WorldError):
    """A store's files cannot be used; what they held is in the changelog."""


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_open_files(64)
    options.set_max_total_wal_size(4 * WRITE_BUFFER_BYTES)
    return options


class RocksStore:
    """One folder of RocksDB. Raises StoreDamaged from any call that meets damage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open()

    @property
    def folder(self) -> Path:
        """Return where it lies."""
        return self._folder

    def _open(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = Rdict(str(self._folder), _options(), access_type=AccessType.read_write())
            text = self._database.get(_CHECKPOINT)
            self._checkpoint = None if text is None else Checkpoint(**json.loads(text))
        except Exception as error:
            # rocksdict raises plain Exception; "lock" is a second process on the same folder, not damage.
            if "lock" in str(error).lower():
                raise WorldError(
                    f"{self._folder} is held by another process",
                    next_step="give each live worker a slot of its own",
                ) from error
            raise StoreDamaged(f"{self._folder}: {error}") from error

    def checkpoint(self) -> Checkpoint | None:
        """Return how far it has followed its changelog."""
        return self._checkpoint

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        value: bytes | None = self._database.get(key)
        return value

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield, in order, keys that begin with `prefix`, from `start` on."""
        entries: Any = self._database.items(from_key=max(prefix, start or prefix))
        for key, value in entries:
            if not key.startswith(prefix):
                return
            if key != _CHECKPOINT:
                yield key, value

    def apply(self, changes: Changes, checkpoint: Checkpoint) -> None:
        """Write changes and checkpoint in one batch."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(
            _CHECKPOINT,
            json.dumps(
                {
                    "offset": checkpoint.offset,
                    "topic_id": checkpoint.topic_id,
                    "written_milliseconds": checkpoint.written_milliseconds,
                }
            ).encode(),
        )
        self._database.write(batch)
        self._checkpoint = checkpoint

    def clear(self) -> None:
        """Delete every entry. The files stay open: their lock is what keeps another process out."""
        entries = self._database.iter()
        entries.seek_to_last()
        if entries.valid():
            last, batch = entries.key(), WriteBatch(raw_mode=True)
            batch.delete_range(b"", last)  # its end is exclusive
            batch.delete(last)
            self._database.write(batch)
        self._checkpoint = None

    def close(self) -> None:
        """Close the files."""
        self._database.close()


def store_folder(base: Path, application: str, slot: str, changelog: str, partition: int) -> Path:
    """Return where a worker keeps the store of a changelog partition."""
    return base / application / slot / changelog / str(partition)


def remove_store(folder: Path) -> None:
    """Delete a store's files, whatever they are."""
    shutil.rmtree(folder, ignore_errors=True)


def open_store(folder: Path) -> tuple[RocksStore, str | None]:
    """Open the store in `folder`; if it is damaged, an empty one in its place, and the reason."""
    try:
        return RocksStore(folder), None
    except StoreDamaged as error:
        remove_store(folder)
        return RocksStore(folder), error.cause
