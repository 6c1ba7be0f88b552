"""What a check of contracts says: one finding a cause, in an order that does not depend on who asked first. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """Whether a finding fails the check."""

    ERROR = "error"
    WARNING = "warning"
    WAIVED = "waived"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, and everything that follows from it.

    `subject` is a record's full name or a topic's name, `place` a path of fields in it. `breaks` names who is hit and
    `unaffected` who reads the same topic and is not; `fix` says what would help. `sample` is a record, as JSON, that
    shows the problem. `file` is relative to the project's folder; `line` counts from 1, 0 where it is not known.
    """

    rule: str
    subject: str
    problem: str
    breaks: tuple[str, ...] = ()
    fix: str = ""
    unaffected: tuple[str, ...] = ()
    place: str = ""
    sample: str = ""
    file: str = ""
    line: int = 0
    severity: Severity = Severity.ERROR
    waived_because: str = ""

    @property
    def fails(self) -> bool:
        """Return whether the check fails because of it."""
        return self.severity is Severity.ERROR

    def order(self) -> tuple[Any, ...]:
        """Return what findings are sorted by: errors first, then by subject and place."""
        rank = list(Severity).index(self.severity)
        return (rank, self.subject, self.place, self.rule, self.problem, self.breaks)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings` sorted, each once."""
    return tuple(sorted(dict.fromkeys(findings), key=Finding.order))


def as_text(value: Any) -> str:
    """Return a JSON value in one line, keys as they stand."""
    return json.dumps(value, ensure_ascii=False, default=str)
