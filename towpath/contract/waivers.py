"""What a project has decided to live with for a time: known findings, with who decided it, why, and until when.

The rule: a waiver ends. One that has run out lets its finding fail again, and one that matches nothing is reported.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from towpath.contract.catalogue import StrictLoader
from towpath.contract.finding import Finding, Severity, in_order
from towpath.errors import ContractError

FILE = "waivers.yaml"
# What only a comparison with another moment, an environment or real records finds: `contracts test` cannot know whether
# such a waiver is still needed.
_OF_COMPARISONS: Final = frozenset(
    {
        "can-deploy",
        "deploy-order",
        "real-record",
        "record-removed",
        "topic-cleanup-changed",
        "topic-compatibility-weakened",
        "topic-key-changed",
        "topic-partitions-changed",
        "topic-removed",
        "topic-retention-shortened",
        "topic-size-lowered",
        "topic-value-removed",
    }
)


class Waiver(BaseModel):
    """One entry of the file. `place` empty: the whole subject; `until` is its last day."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rule: Annotated[str, Field(min_length=1)]
    subject: Annotated[str, Field(min_length=1)]
    place: str = ""
    reason: Annotated[str, Field(min_length=3)]
    actor: Annotated[str, Field(min_length=1)]
    until: date

    def covers(self, finding: Finding) -> bool:
        """Return whether it is about `finding`."""
        return (finding.rule, finding.subject) == (self.rule, self.subject) and self.place in {"", finding.place}


@dataclass(frozen=True, slots=True)
class Waived:
    """All findings after the waivers were applied; `count` says how many of them are waived."""

    findings: tuple[Finding, ...]
    count: int


_FILE: TypeAdapter[list[Waiver]] = TypeAdapter(list[Waiver])


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read the file at `path`; without one there are no waivers. Raises ContractError naming what is wrong in it."""
    return () if not path.exists() else _waivers(path.name, _text(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ContractError(f"{path.name}: {error}", next_step=f"fix schemas/{path.name}") from error


def _waivers(name: str, text: str) -> tuple[Waiver, ...]:
    try:
        content = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
        return tuple(_FILE.validate_python(content or []))
    except (yaml.YAMLError, RecursionError) as error:
        raise ContractError(f"{name}: {error}", next_step=f"fix schemas/{name}") from error
    except ValidationError as error:
        problems = "; ".join(_problem(item["loc"], item["msg"]) for item in error.errors())
        raise ContractError(f"{name}: {problems}", next_step=f"fix schemas/{name}") from error


def _problem(place: Sequence[int | str], said: str) -> str:
    """Return one problem of the file, as people count its entries: from 1."""
    named = [f"entry {part + 1}" if isinstance(part, int) else part for part in place]
    return f"{', '.join(named) or 'the file'}: {said}"


def add_waiver(path: Path, waiver: Waiver) -> None:
    """Append `waiver` to the file at `path`, leaving what a person wrote there as it is.

    Raises ContractError, and writes nothing, where the file is broken or would be.
    """
    before = _text(path) if path.exists() else ""
    _waivers(path.name, before)
    entry: list[dict[str, Any]] = [waiver.model_dump(exclude_defaults=True)]
    text = before + ("\n" if before and not before.endswith("\n") else "")
    text += yaml.safe_dump(entry, sort_keys=False, allow_unicode=True)
    _waivers(path.name, text)
    path.write_text(text, encoding="utf-8")


def apply_waivers(findings: Iterable[Finding], waivers: Sequence[Waiver], today: date, *, whole: bool = True) -> Waived:
    """Mark what is waived on the day `today`; add a finding for each waiver that has run out or is about nothing.

    `whole` is False where `findings` are not all that the project may have: then none is called unused.
    """
    found = tuple(findings)
    current = [waiver for waiver in waivers if waiver.until >= today]
    done: list[Finding] = []
    count = 0
    for finding in found:
        waiver = next((item for item in current if finding.fails and item.covers(finding)), None)
        if waiver is None:
            done.append(finding)
            continue
        count += 1
        because = f"{waiver.reason} ({waiver.actor}, until {waiver.until})"
        done.append(replace(finding, severity=Severity.WAIVED, waived_because=because))
    for waiver in waivers:
        matches = any(waiver.covers(finding) for finding in found)
        if waiver not in current and matches:
            problem = f"the waiver of {waiver.rule} ran out on {waiver.until}: {waiver.reason} ({waiver.actor})"
            fix = f"fix what it was about, or decide again: a later day in schemas/{FILE}"
            done.append(Finding("waiver-expired", waiver.subject, problem, fix=fix, place=waiver.place))
        elif not matches and whole and waiver.rule not in _OF_COMPARISONS:
            problem = f"the waiver of {waiver.rule} is about nothing that is found here any more"
            fix = f"remove it from schemas/{FILE}, once comparisons find nothing of it either"
            unused = Finding("waiver-unused", waiver.subject, problem, fix=fix, place=waiver.place)
            done.append(replace(unused, severity=Severity.WARNING))
    return Waived(in_order(done), count)
