"""The lock of the parts: which files they are made of, by Maven coordinates, size and SHA-256.

One rule: no download address. Where the files come from is a setting; what they must be is not.
`parts.lock` is written by `python -m towpath.stack.resolve` and read here.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

LOCK_FILE = "parts.lock"


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One file of a part.

    `coordinates` is `group:artifact:type[:classifier]:version`; `sha256` is lower-case hexadecimal; `size_bytes`
    is its length; `parts` names the parts whose class path or folder it belongs to.
    """

    coordinates: str
    sha256: str
    size_bytes: int
    parts: tuple[str, ...]

    @property
    def _fields(self) -> tuple[str, str, str, str, str]:
        fields = self.coordinates.split(":")
        group, artifact, kind = fields[:3]
        classifier = fields[3] if len(fields) == 5 else ""
        return group, artifact, kind, classifier, fields[-1]

    @property
    def version(self) -> str:
        """Return the version of the artifact."""
        return self._fields[4]

    @property
    def file_name(self) -> str:
        """Return the file's name as Maven repositories lay it out."""
        _, artifact, kind, classifier, version = self._fields
        return f"{artifact}-{version}{f'-{classifier}' if classifier else ''}.{kind}"

    @property
    def repository_path(self) -> str:
        """Return the path below the base of any Maven repository."""
        group, artifact, _, _, version = self._fields
        return f"{group.replace('.', '/')}/{artifact}/{version}/{self.file_name}"


@dataclass(frozen=True, slots=True)
class PartsLock:
    """All locked files, in the order of their coordinates."""

    files: tuple[LockedFile, ...]

    def of(self, part: str) -> tuple[LockedFile, ...]:
        """Return the files of one part, in lock order (which is class path order)."""
        return tuple(file for file in self.files if part in file.parts)

    def version(self, artifact: str) -> str:
        """Return the locked version of `group:artifact`. Raises KeyError if it is not locked."""
        for file in self.files:
            if file.coordinates.startswith(f"{artifact}:"):
                return file.version
        raise KeyError(artifact)


def parse_lock(text: str) -> PartsLock:
    """Read a lock from its TOML text."""
    return PartsLock(
        tuple(
            LockedFile(entry["coordinates"], entry["sha256"], entry["size_bytes"], tuple(entry["parts"]))
            for entry in tomllib.loads(text)["file"]
        )
    )


def render_lock(files: Iterable[LockedFile]) -> str:
    """Write the TOML text of a lock; the same files always give the same text."""
    lines = ["# The files of the parts. Written by `python -m towpath.stack.resolve`; do not edit by hand."]
    for file in sorted(files, key=lambda one: one.coordinates):
        parts = ", ".join(f'"{part}"' for part in sorted(file.parts))
        lines += [
            "",
            "[[file]]",
            f'coordinates = "{file.coordinates}"',
            f'sha256 = "{file.sha256}"',
            f"size_bytes = {file.size_bytes}",
            f"parts = [{parts}]",
        ]
    return "\n".join(lines) + "\n"


def load_lock() -> PartsLock:
    """Read the lock that ships with this package."""
    return parse_lock(resources.files(__package__).joinpath(LOCK_FILE).read_text(encoding="utf-8"))
