"""An instance as it was: its recorded inputs decided again, up to a time or a place in its history. Pure.

The one rule: what is shown is what the machine decides over the recorded inputs, held against the record at each step.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from towpath.contract.codec import Codec
from towpath.errors import NotFoundError
from towpath.orchestrator import records as wire
from towpath.orchestrator.recording import decided_again
from towpath.saga.definition import Definition
from towpath.saga.state import SagaState
from towpath.saga.state_snapshot import state_to_snapshot, tree_to_json

Placed = Sequence[tuple[int, wire.HistoryEntry]]
_QUIET = frozenset({"recent", "forgotten_milliseconds"})
"""Parts of a state that change with every input and say nothing to a person."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a run: the entry, where it lies, how the instance stood after it, and what it changed."""

    number: int
    offset: int
    entry: wire.HistoryEntry
    state: SagaState | None
    changes: tuple[str, ...]


def until(placed: Placed, *, at_milliseconds: int | None = None, offset: int | None = None) -> Placed:
    """Return the entries up to a time, or up to an offset of the history topic. Raises NotFoundError for none.

    Up to the first one past it: an input's time is its writer's clock, and one that is behind may come later.
    """
    kept = list(
        takewhile(
            lambda one: (
                (at_milliseconds is None or one[1].at_milliseconds <= at_milliseconds)
                and (offset is None or one[0] <= offset)
            ),
            placed,
        )
    )
    if not kept:
        raise NotFoundError(
            "it had not begun then", next_step="say a later time or offset; without --at it is shown as it stands"
        )
    return kept


def moments(
    definition: Definition, placed: Placed, codec: Codec, others: Mapping[int, Definition] | None = None
) -> Iterator[Moment]:
    """Yield each step of a run, of which a part may be under `others`, further versions.

    Raises NotAsRecorded where it cannot be decided again as it was.
    """
    before: Mapping[str, Any] = {}
    decided = decided_again(definition, [entry for _, entry in placed], codec, others)
    for number, ((offset, entry), one) in enumerate(zip(placed, decided, strict=True), start=1):
        state = one.decision.state
        after = {} if state is None else dict(_flat(tree_to_json(state_to_snapshot(state)), ""))
        yield Moment(number, offset, entry, state, tuple(_changes(before, after)))
        before = after


def _flat(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a state, each by its path; what has a key is named by it."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name not in _QUIET:
                yield from _flat(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            name = value.get("key", place) if isinstance(value, dict) else place
            yield from _flat(value, f"{path}.{name}")
    else:
        yield path, tree


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for path in dict.fromkeys((*before, *after)):
        was, becomes = before.get(path), after.get(path)
        if was != becomes and path.rpartition(".")[2] != "key":
            yield f"{path}: {_word(becomes)}" if was is None else f"{path}: {_word(was)} -> {_word(becomes)}"


def _word(value: Any) -> str:
    return "nothing" if value is None else str(value)
