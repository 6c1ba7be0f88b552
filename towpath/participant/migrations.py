"""Numbered migrations of a service's database: which there are, and which are still to be applied. Pure but for files.

They are `NNNN_name.sql`, in `infra/postgres/<service>` or in `pipelines/services/<service>/migrations` (then 10000).
The rule: a migration is applied once, in the order of the numbers, and never changes afterwards.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towpath.errors import ConfigurationError
from towpath.participant.sql_file import statements

_FILE: Final = re.compile(r"(?P<number>[0-9]{4}|[1-9][0-9]{4})_(?P<name>[a-z0-9_]+)\.sql\Z")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; `digest` is the SHA-256 of its bytes, in hexadecimal, with the line ends of Unix."""

    number: int
    name: str
    path: Path
    sql: bytes

    @property
    def digest(self) -> str:
        """Return what tells that the file is still the one that was applied, however git wrote its line ends."""
        return hashlib.sha256(self.sql.replace(b"\r\n", b"\n")).hexdigest()

    def is_of(self, digest: str) -> bool:
        """Say whether `digest` is this file's: also one that was noted of its bytes with the line ends of Windows."""
        of_windows = self.sql.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return digest in (self.digest, *(hashlib.sha256(sql).hexdigest() for sql in (self.sql, of_windows)))


def migrations_of(root: Path, service: str) -> tuple[Migration, ...]:
    """Return the migrations of a service in the project at `root`, by number.

    Raises ConfigurationError for a file that is called otherwise, and for a number that two files have.
    """
    folders = (root / "infra" / "postgres" / service, root / "pipelines" / "services" / service / "migrations")
    found: dict[int, Migration] = {}
    paths = sorted(path for folder in folders for path in folder.glob("*.sql"))
    for path in paths:
        match = _FILE.match(path.name)
        if match is None:
            raise ConfigurationError(
                f"{path.relative_to(root)}: a migration is called NNNN_name.sql, as in 0001_orders.sql",
                next_step=f"call it {_next_number(paths):04}_{_name_of(path)}.sql",
            )
        number = int(match["number"])
        if number in found:
            raise ConfigurationError(
                f"{path.relative_to(root)}: {found[number].path.relative_to(root)} has the number {number} already",
                kept="the database as it was",
                next_step=f"give the later one of them the number {_next_number(paths):04}",
            )
        found[number] = Migration(number, match["name"], path, path.read_bytes())
    return tuple(found[number] for number in sorted(found))


def _next_number(paths: Sequence[Path]) -> int:
    return (
        max((int(match["number"]) for match in map(_FILE.match, (path.name for path in paths)) if match), default=0) + 1
    )


def _name_of(path: Path) -> str:
    """Return the name of a migration after that of a file, without the number with which that begins."""
    name = re.sub(r"^[0-9]+[^a-z0-9]+", "", path.stem.lower())
    return re.sub(r"[^a-z0-9]+", "_", name).strip("_") or "migration"


def pending(migrations: Sequence[Migration], applied: Mapping[int, str], service: str) -> tuple[Migration, ...]:
    """Return those that are to be applied; `applied` has the digest of each that was, by number.

    Raises ConfigurationError where one that was applied is gone or has changed, or a new one comes before one of them,
    or cannot be applied in one transaction.
    """
    known = {one.number: one for one in migrations}
    for number, digest in applied.items():
        one = known.get(number)
        if one is None or not one.is_of(digest):
            what = "is not there any more" if one is None else "has changed since it was applied"
            raise ConfigurationError(
                f"migration {number:04} of {service} {what}",
                kept="the database as it was",
                next_step=f"bring the file back as it was, and write what is to change as migration "
                f"{max(known.keys() | applied.keys()) + 1:04}",
            )
    left = tuple(one for one in migrations if one.number not in applied)
    latest = max(applied, default=0)
    if left and left[0].number < latest:
        raise ConfigurationError(
            f"migration {left[0].number:04} of {service} comes before {latest:04}, which is applied already",
            kept="the database as it was",
            next_step=f"give it the number {max(known.keys() | applied.keys()) + 1:04}",
        )
    for one in left:
        statements(one.sql, one.path.name)
    return left
