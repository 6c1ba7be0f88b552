"""What a shadow run found, in numbers, rows and a page. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2

from towpath.replay.shadow import Comparison, Verdict

TEMPLATE = "shadow.html.j2"


@dataclass(frozen=True, slots=True)
class Report:
    """All comparisons of one shadow run.

    `left_out` counts instances that could not be compared, by the reason; `values` is what the project's function makes
    of an instance's start event, by saga id (empty where none was given).
    """

    saga: str
    comparisons: tuple[Comparison, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> int:
        """Return how many instances have that verdict."""
        return sum(one.verdict is verdict for one in self.comparisons)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Return instances that differ in the same way, most first: what was, what becomes of it, and an example."""
        found: dict[tuple[str, str, str, str, str], list[Comparison]] = defaultdict(list)
        for one in self.comparisons:
            if one.verdict is not Verdict.SAME:
                found[one.verdict.value, one.was, one.becomes, one.ending_was, ", ".join(one.endings)].append(one)
        rows = [
            {
                "instances": len(members),
                "verdict": verdict,
                "was": was,
                "becomes": becomes,
                "ended": ended,
                "would_end": would_end,
                "value": self._sum(members),
                "example": members[0].saga_id,
            }
            for (verdict, was, becomes, ended, would_end), members in found.items()
        ]
        return sorted(rows, key=lambda row: (-row["instances"], row["verdict"], row["becomes"]))

    @property
    def endings(self) -> list[dict[str, Any]]:
        """Return how many ended how, and how they would: "completed or compensated" where that is not known."""
        counts = Counter((one.ending_was, " or ".join(one.endings)) for one in self.comparisons)
        sums: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
        for one in self.comparisons:
            sums[one.ending_was, " or ".join(one.endings)].append(one)
        return [
            {"ended": was, "would_end": becomes, "instances": number, "value": self._sum(sums[was, becomes])}
            for (was, becomes), number in sorted(counts.items())
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; the keys stay as they are."""
        return {
            "saga": self.saga,
            "instances": len(self.comparisons),
            **{verdict.name.lower(): self.count(verdict) for verdict in Verdict},
            "left_out": self.left_out,
            "endings": self.endings,
            "groups": self.groups,
            "different_instances": [
                {
                    "saga_id": one.saga_id,
                    "key": one.key,
                    "verdict": one.verdict.value,
                    "was": one.was,
                    "becomes": one.becomes,
                    "at": _moment(one.at_milliseconds),
                    "ended": one.ending_was,
                    "would_end": list(one.endings),
                    "explored": one.explored,
                    "explored_all": one.whole,
                }
                for one in self.comparisons
                if one.verdict is not Verdict.SAME
            ],
        }

    def to_html(self, old: str, new: str) -> str:
        """Return a page that stands alone; `old` and `new` name the two definitions."""
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        text = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
        return environment.from_string(text).render(old=old, new=new, has_values=bool(self.values), **self.to_json())

    def _sum(self, members: Iterable[Comparison]) -> float | None:
        return sum(self.values.get(one.saga_id, 0) for one in members) if self.values else None


def report_of(
    saga: str,
    comparisons: Sequence[Comparison],
    left_out: dict[str, int] | None = None,
    values: dict[str, float] | None = None,
) -> Report:
    """Return the report on `comparisons`."""
    return Report(saga, tuple(comparisons), left_out or {}, values or {})


def _moment(milliseconds: int) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds") if milliseconds else None
