"""Finds the file and line that a finding is about, so that a reviewer sees it beside the change."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from towpath.contract.catalogue import DERIVED_FILE
from towpath.contract.files import Contracts
from towpath.contract.finding import Finding

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def locate(findings: Iterable[Finding], contracts: Contracts, root: Path, schemas_folder: str) -> tuple[Finding, ...]:
    """Return `findings` with file, relative to `root`, and line filled in where they can be known."""
    return tuple(_located(finding, contracts, root, schemas_folder) for finding in findings)


def _located(finding: Finding, contracts: Contracts, root: Path, schemas_folder: str) -> Finding:
    if finding.file:
        path = root / finding.file
    elif finding.subject in contracts.schemas:
        path = contracts.path_of(finding.subject)
    elif finding.subject.startswith("examples/"):
        path = root / schemas_folder / finding.subject.partition(":")[0]
    elif finding.rule.startswith("waiver"):
        path = root / schemas_folder / "waivers.yaml"
    else:
        path = root / schemas_folder / "topics" / f"{finding.subject.removesuffix('.dead')}.yaml"
        if not path.is_file():
            path = path.with_name(DERIVED_FILE)
    if not path.is_file() or not path.is_relative_to(root):
        return finding
    text = path.read_text(encoding="utf-8")
    if path.name == DERIVED_FILE:
        line = _line_of_topic(text, finding.subject.removesuffix(".dead"))
        if not line and not finding.file:
            return finding
    else:
        line = finding.line or _line(text, finding.place or finding.subject)
    return replace(finding, file=path.relative_to(root).as_posix(), line=line)


def _line_of_topic(text: str, topic: str) -> int:
    lines = text.splitlines()
    return lines.index(f"- topic: {topic}") + 1 if f"- topic: {topic}" in lines else 0


def _line(text: str, place: str) -> int:
    """Return the line, from 1, that names the last part of `place`; the first one where none does."""
    parts = _PART.findall(place)
    if parts:
        wanted = re.compile(rf'"name"\s*:\s*"{parts[-1]}"|^{parts[-1]}\s*:|^\s*-?\s*subject:\s*\S*{parts[-1]}\b')
        for number, line in enumerate(text.splitlines(), 1):
            if wanted.search(line):
                return number
    return 1
