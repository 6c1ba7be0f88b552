"""Writes what is derived from the schemas: the generated record classes, and the released versions."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from towpath.contract.files import Contracts, ends_with
from towpath.contract.generate import generate

_MARK: Final = '"""Generated'


def stale_files(contracts: Contracts) -> tuple[Path, ...]:
    """Return the generated files that differ from what the schemas give, are missing, or have lost their schemas."""
    wanted = _wanted(contracts)
    differing = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    return tuple(sorted([*differing, *_orphans(contracts, wanted)]))


def write_records(contracts: Contracts) -> tuple[Path, ...]:
    """Write the generated files anew and remove those without schemas; return the ones that changed."""
    stale = stale_files(contracts)
    wanted = _wanted(contracts)
    for path in stale:
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return stale


def _wanted(contracts: Contracts) -> dict[Path, str]:
    return {path: text for loaded in contracts.sets for path, text in generate(contracts, loaded).items()}


def _orphans(contracts: Contracts, wanted: dict[Path, str]) -> list[Path]:
    """Return generated modules for which no Avro file is left. A file that a person wrote is none of them."""
    packages = [loaded.source.target for loaded in contracts.sets if loaded.source.is_package]
    found = [path for package in packages for path in package.glob("*.py") if path not in wanted]
    return [path for path in found if path.read_text("utf-8").startswith(_MARK)]


def release(contracts: Contracts, names: Iterable[str], *, dry_run: bool = False) -> tuple[Path, ...]:
    """Keep the form of today of each record in `names` as its next released version; return the files.

    A record whose form is that of its latest version already is passed over. With `dry_run` nothing is written.
    """
    written: list[Path] = []
    for name in names:
        versions = contracts.versions(name)
        fingerprint = contracts.schemas.fingerprint(name)
        if versions and versions[max(versions)].fingerprint(name) == fingerprint:
            continue
        today = contracts.path_of(name)
        folder = today.parent / "versions"
        stem = today.stem if ends_with(name, today.stem) else name.rpartition(".")[2]
        path = folder / f"{stem}.v{max(versions, default=0) + 1}.avsc"
        if not dry_run:
            folder.mkdir(exist_ok=True)
            path.write_text(json.dumps(contracts.schemas.avro(name), indent=2, ensure_ascii=False) + "\n", "utf-8")
        written.append(path)
    return tuple(written)
