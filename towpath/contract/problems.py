"""What is wrong in a schema's file, and on which line. Pure."""

import json
import json.decoder
import json.scanner
import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from towpath.errors import ContractError

# The keys and positions that lead from the top of a JSON document to one of its values.
JsonPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the file, the line where it is known, the record and field (empty at the top), what, and the fix."""

    file: str
    line: int | None
    place: str
    text: str
    fix: str

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        place = f"{self.place}: " if self.place else ""
        return f"{self.file}{line}: {place}{self.text}"


class BrokenSchemas(ContractError):
    """Schemas that cannot be used; `problems` holds every mistake that was found, the message shows them all."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        fixes = tuple(dict.fromkeys(problem.fix for problem in self.problems))
        super().__init__("\n".join(str(problem) for problem in self.problems), next_step=" or ".join(fixes[:3]))


class _Located(dict[str, Any]):
    """A JSON object that knows the line on which it begins."""

    line: int = 0


class _LocatingDecoder(json.JSONDecoder):
    """Python's own decoder, slower, with the lines. Raises ValueError where a key stands twice in one object."""

    def __init__(self, text: str) -> None:
        super().__init__()
        ends = [found.start() for found in re.finditer("\n", text)]

        def parse_object(text_and_end: tuple[str, int], *arguments: Any) -> tuple[Any, int]:
            _, begin = text_and_end
            found, end = json.decoder.JSONObject(text_and_end, *arguments)  # type: ignore[attr-defined]
            located = _Located(found)
            located.line = bisect_left(ends, begin) + 1
            return located, end

        self.parse_object = parse_object
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


@lru_cache(maxsize=1)  # a file with many mistakes asks once for each
def _located(text: str) -> Any:
    try:
        return _LocatingDecoder(text).decode(text)
    except RecursionError:  # nested deeper than Python's own decoder goes: then only the file is known
        return None


def line_of(text: str, path: JsonPath) -> int:
    """Return the line on which the innermost object on the way to `path` begins, from 1. `text` must be JSON."""
    current = _located(text)
    line = current.line if isinstance(current, _Located) else 1
    for step in path:
        try:
            current = current[step]
        except (LookupError, TypeError):
            return line
        if isinstance(current, _Located):
            line = current.line
    return line


def strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raises ValueError where a key stands twice, of which JSON would keep the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found
