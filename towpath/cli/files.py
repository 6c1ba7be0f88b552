"""Files that a person names: what cannot be read or written is said, with the file's name and what to do."""

import sys
from pathlib import Path

from towpath.errors import ConfigurationError, NotFoundError


def read_text(file: Path, *, next_step: str) -> str:
    """Return the text of a file, of stdin for `-`. Raises NotFoundError, or ConfigurationError for what is no text."""
    try:
        found = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return found.decode("utf-8")
    except OSError as error:
        raise NotFoundError(f"{file} cannot be read: {error}", next_step=next_step) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{file} is no text: byte {error.start} is not UTF-8", kept="the file, as it is", next_step=next_step
        ) from error


def require_writable(file: Path | None) -> None:
    """Raise ConfigurationError where a file cannot be written, before much is done for it."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        why = "it is a folder" if file.is_dir() else "its folder is not there"
        raise ConfigurationError(f"{file} cannot be written: {why}", next_step="name another file")


def write_text(file: Path, text: str) -> None:
    """Write a file. Raises ConfigurationError where it cannot be written."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error}", next_step="name another file") from error
