"""How the versions of a view stand to each other, and what may be done with them. Pure.

The one rule: a version is judged by its offset vector, the next offset of each partition that its rows are the fold of.
Two versions whose vectors are equal have folded the same records.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from towpath.errors import ContractError, RefusedError
from towpath.stream.broker.record import TopicPartition

Vector = Mapping[TopicPartition, int]
DECLARED_IN = "pipelines/views (or [project] views of towpath.toml, where that lists them)"
"""Where a project has the versions of its views."""


class State(StrEnum):
    """How a version stands."""

    PUBLISHED = "published"
    """Readers of the stable name see it."""
    CAUGHT_UP = "caught up"
    """It has folded what its topics have."""
    BUILDING = "building"
    """It is behind its topics."""
    NOT_BEGUN = "not begun"
    """It has folded nothing yet."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as PostgreSQL describes it."""

    name: str
    type: str
    required: bool

    def __str__(self) -> str:
        return f"{self.name} {self.type}{' NOT NULL' if self.required else ''}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a table is made of."""

    columns: tuple[Column, ...]
    key: str
    checks: Mapping[str, str] = field(default_factory=dict)
    """Conditions that each row meets, as they were declared, by the names of their constraints."""

    @property
    def types(self) -> dict[str, str]:
        """Return the type of each column, in the table's order."""
        return {column.name: column.type for column in self.columns}

    def differences(self, found: "Shape") -> list[str]:
        """Return what `found` has otherwise, a line each."""
        mine = {column.name: column for column in self.columns}
        theirs = {column.name: column for column in found.columns}
        lines = [f"+ {mine[name]}" for name in mine if name not in theirs]
        lines += [f"- {theirs[name]}" for name in theirs if name not in mine]
        lines += [f"~ {theirs[name]} -> {mine[name]}" for name in mine if name in theirs and mine[name] != theirs[name]]
        lines += [f"+ CHECK ({check})" for check in self.checks.values() if check not in found.checks.values()]
        lines += [f"- CHECK ({check})" for check in found.checks.values() if check not in self.checks.values()]
        return lines + ([f"~ key {found.key} -> {self.key}"] if self.key != found.key else [])


def require_shape(view: str, version: int, declared: Shape, found: Shape) -> None:
    """Raise ContractError, with the difference, where a version's table is not what its row declares."""
    lines = declared.differences(found)
    if lines:
        raise ContractError(
            f"view {view} version {version} was built with another row (- has the table, + declares the row): "
            f"{'; '.join(lines)}",
            kept="the table and its rows, which readers go on seeing",
            next_step=f"raise the version of {view} to {version + 1}; keep {version} beside it until the new one "
            "is promoted",
        )


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a view, as its tables and topics have it."""

    view: str
    number: int
    declared: bool
    built: bool
    published: bool
    vector: Vector = field(default_factory=dict)
    ends: Vector = field(default_factory=dict)
    begins: Vector = field(default_factory=dict)
    rows: int = 0
    workers: int = 0
    builders: int = 0
    """Members of its group in the slot of `views build`; one that was killed is a member until its session ends."""
    others_declared: bool = False
    """Whether the project has other versions of the view."""
    way_back: str | None = None
    """What brings its worker back, where it has none and the project has one for it."""

    @property
    def lag(self) -> int:
        """Return how many offsets it has yet to read."""
        return sum(max(end - self.vector.get(place, self.begins.get(place, 0)), 0) for place, end in self.ends.items())

    @property
    def read(self) -> int:
        """Return how many offsets it has read of what its topics have."""
        return sum(max(self.vector.get(place, 0) - begin, 0) for place, begin in self.begins.items())

    @property
    def state(self) -> State:
        """Return how it stands."""
        if self.published:
            return State.PUBLISHED
        if not self.vector:
            return State.NOT_BEGUN
        return State.BUILDING if self.lag or self.ends.keys() - self.vector.keys() else State.CAUGHT_UP

    @property
    def advice(self) -> str | None:
        """Return what is wrong with it and what to run, None where nothing is."""
        if self.published and not self.declared:
            cause = f"version {self.number} is published, and the project does not have it: its rows stand still"
            if self.others_declared:
                return f"{cause}; towpath views promote {self.view} --when-ready --reason REASON"
            return f"{cause}; {self.to_fold}"
        if self.declared and not self.workers and not self.built:
            return f"version {self.number} is not built: {self.to_fold}"
        if self.declared and not self.workers and (self.lag or self.published):
            return f"version {self.number} has no worker: {self.to_fold}"
        return None

    @property
    def to_fold(self) -> str:
        """Return what to do so that it is folded, where nobody folds it.

        The published one needs its worker: a build ends once it has caught up, and readers are stale from then on.
        """
        if not self.declared:
            return f"have it in {DECLARED_IN} again, and run its worker"
        if self.published and self.way_back is not None:
            return self.way_back
        return f"towpath views build {self.view} --version {self.number}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "view": self.view,
            "version": self.number,
            "state": self.state.value,
            "published": self.published,
            "in_project": self.declared,
            "workers": self.workers,
            "rows": self.rows,
            "read": self.read,
            "lag": self.lag,
            "offsets": {str(place): offset for place, offset in sorted(self.vector.items())},
            "advice": self.advice,
        }


def published_kept(view: str, version: int, others: Collection[int], *, declarable: bool = True) -> RefusedError:
    """Return the error of who would drop the version that readers see; `others` are those built beside it.

    The engine's own view is not `declarable`: which versions of it there are is the engine's.
    """
    step = f"take the name from readers in the views' database (DROP VIEW {view}), then drop it again"
    if declarable:
        step = (
            "declare it with a higher version, build that and promote it first; or, where the view is to go "
            f"altogether, {step}"
        )
    if others:
        step = f"promote another one first: towpath views promote {view} --version {max(others)} --reason REASON"
    return RefusedError(
        f"version {version} of {view} is the one that readers see", kept="every version", next_step=step
    )


def missing(vector: Vector, wanted: Vector) -> dict[TopicPartition, tuple[int, int]]:
    """Return where `vector` has not come as far as `wanted`: the range of offsets between them, by partition."""
    return {place: (vector.get(place, 0), offset) for place, offset in wanted.items() if vector.get(place, -1) < offset}


def between(one: Vector, other: Vector, topics: Collection[str]) -> dict[TopicPartition, tuple[int, int]]:
    """Return the range of offsets that only one of two versions has folded, in the partitions of `topics`."""
    found = {}
    for place in one.keys() | other.keys():
        low, high = sorted((one.get(place, 0), other.get(place, 0)))
        if low != high and place.topic in topics:
            found[place] = (low, high)
    return found


@dataclass(frozen=True, slots=True)
class VersionDecision:
    """What a person (or the worker of a version without a predecessor) did with a view's versions, and why."""

    view: str
    action: str
    version_before: int | None
    version_after: int | None
    actor: str
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row in which two versions differ: by column, what the old one has and what the new one has."""

    key: str
    kind: str
    columns: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions at one offset vector. `left_out` are keys that only one of them has read something further of."""

    view: str
    old: int
    new: int
    equal: int
    different: int
    only_old: int
    only_new: int
    by_column: Mapping[str, int]
    columns_only_old: tuple[str, ...]
    columns_only_new: tuple[str, ...]
    left_out: int
    samples: Sequence[Difference] = ()

    @property
    def same(self) -> bool:
        """Return whether no row differs in the columns that both have."""
        return not (self.different or self.only_old or self.only_new)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "view": self.view,
            "old": self.old,
            "new": self.new,
            "same": self.same,
            "equal": self.equal,
            "different": self.different,
            "only_old": self.only_old,
            "only_new": self.only_new,
            "by_column": dict(self.by_column),
            "columns_only_old": list(self.columns_only_old),
            "columns_only_new": list(self.columns_only_new),
            "left_out": self.left_out,
            "samples": [
                {"key": one.key, "kind": one.kind, "columns": {name: list(pair) for name, pair in one.columns.items()}}
                for one in self.samples
            ],
        }
