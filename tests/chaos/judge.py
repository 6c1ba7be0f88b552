"""What is wrong at the end, computed from databases, topics and groups alone. Pure: evidence in, sentences out.

The one rule: each promise is checked from what the parts themselves say, as independently of the engine as can be:
letters are read as JSON, positions are compared with the records that were read, inboxes with commands.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from tests.chaos.evidence import Evidence, Letter, Place
from tests.chaos.poison import READERS, SERVICES, Poison
from towpath.contract.codec import Codec
from towpath.demo.verdict import fold_topics
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.sagas_view import sagas_view
from towpath.project import load_sagas, view_workers
from towpath.settings import Settings
from towpath.stack.config import captured_databases

ENDED = frozenset({"completed", "compensated"})
SHOWN_MAX = 5


@dataclass(frozen=True)
class Case:
    """What is judged: the orders of one run, and what was sent beside them.

    `expected` is what quarantine must hold, `before` the letters that lay there when the run began.
    """

    settings: Settings
    codec: Codec
    run_id: str
    placed: Collection[str]
    cancelled: Collection[str]
    expected: Mapping[Letter, Poison]
    poisoned: Collection[str]
    """Positions of all poison, whoever reads it, and of what was dead before."""
    before: Collection[Letter]

    def wrongs(self, evidence: Evidence) -> list[str]:
        """Return everything that is wrong, in words; empty where every promise was kept."""
        history = list(self._history(evidence))
        return [
            *self._orders(evidence, history),
            *self._cancellations(evidence, history),
            *_books(evidence),
            *self._commands(evidence),
            *self._views(evidence),
            *_outboxes(evidence),
            *_groups(evidence),
            *_transactions(evidence),
            *self._quarantine(evidence),
        ]

    def _history(self, evidence: Evidence) -> Iterator[HistoryEntry]:
        for saga in ("place_order", "cancel_order"):
            for record in evidence.records[f"{saga}.history"]:
                if record.position not in self.poisoned and record.value is not None:
                    entry = self.codec.decode(record.value)
                    assert isinstance(entry, HistoryEntry)
                    yield entry

    def _orders(self, evidence: Evidence, history: Iterable[HistoryEntry]) -> Iterator[str]:
        """Every order ended once: one instance, one ending, and the owner's word agrees."""
        standing = evidence.orders(self._prefix)
        yield from _some("orders were committed and are not there", set(self.placed) - standing.keys())
        endings = _endings(entry for entry in history if entry.saga == "place_order")
        for order_id, status in standing.items():
            found = endings.get(order_id, {})
            wanted = {"rejected": "compensated", "confirmed": "completed", "cancelled": "completed"}.get(status)
            if (
                len(found) != 1
                or [ended for ended, _ in found.values()] != [1]
                or {s for _, s in found.values()} != {wanted}
            ):
                yield f"order {order_id} is {status}; its instances: {found or 'none'}"

    def _cancellations(self, evidence: Evidence, history: Iterable[HistoryEntry]) -> Iterator[str]:
        """Every cancellation ended once."""
        standing = evidence.cancellations(self._prefix)
        yield from _some("cancellations were asked for and are not there", set(self.cancelled) - standing.keys())
        endings = _endings(entry for entry in history if entry.saga == "cancel_order")
        for order_id, status in standing.items():
            found = endings.get(order_id, {})
            wanted = {"cancelled": "completed", "confirmed": "compensated"}.get(status)
            if list(found.values()) != [(1, wanted)]:
                yield f"the cancellation of {order_id}, which is {status}: its instances: {found or 'none'}"

    def _commands(self, evidence: Evidence) -> Iterator[str]:
        """Every command that a saga sent for this run has one outcome in its service's inbox; none has another."""
        for service in SERVICES:
            sent: set[UUID] = set()
            for record in evidence.records[f"{service}.commands"]:
                key = record.key or b""
                if record.position not in self.poisoned and key.startswith(self._prefix.encode()):
                    sent.add(UUID(record.header("idempotency_key") or ""))
            answered = evidence.answered(service, self._prefix)
            yield from _some(f"commands to {service} have no outcome", map(str, sent - answered))
            yield from _some(f"outcomes of {service} have no command", map(str, answered - sent))

    def _views(self, evidence: Evidence) -> Iterator[str]:
        """Each view is a fold of its topics."""
        views = [*view_workers(self.settings).values(), sagas_view(load_sagas(self.settings))]
        rows = evidence.rows(views)
        for view in views:
            good = (
                record
                for topic in view.topics
                for record in evidence.records[topic]
                if record.position not in self.poisoned and record.value is not None
            )
            folded, kept = fold_topics(view, good, self.codec), rows[view.table]
            keys = [key for key in folded.keys() | kept.keys() if folded.get(key) != kept.get(key)]
            yield from _some(f"rows of view {view.name} are not the fold of the log", keys)

    def _quarantine(self, evidence: Evidence) -> Iterator[str]:
        """It holds the poison, each once for each reader, untouched, and nothing else."""
        letters = {place: found for place, found in evidence.letters.items() if place not in self.before}
        missing = self.expected.keys() - letters.keys()
        yield from _some(
            "records of poison are not in quarantine", (f"{self.expected[one].kind}: {one}" for one in missing)
        )
        for place in letters.keys() - self.expected.keys():
            text, _ = letters[place][0]
            yield f"{place} is in quarantine, and is no poison: {json.loads(text)['cause']}"
        for place in letters.keys() & self.expected.keys():
            if len(letters[place]) != 1:
                yield f"{place} died {len(letters[place])} times"
            text, record = letters[place][0]
            poison, said = self.expected[place], json.loads(text)
            if said.get("reference") is None and record.value != (
                poison.value or (b"" if said.get("valueless") else None)
            ):
                yield f"{place}: its letter has another value than it had"

    @property
    def _prefix(self) -> str:
        return f"order-{self.run_id}-"


def _endings(history: Iterable[HistoryEntry]) -> dict[str, dict[str, tuple[int, str]]]:
    """Return how often each instance ended and how it stands, by its id, by business key."""
    found: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for entry in history:
        if entry.saga_id:
            ended, before = found[entry.key].get(entry.saga_id, (0, ""))
            ended += entry.status in ENDED and before not in ENDED
            found[entry.key][entry.saga_id] = (ended, entry.status)
    return found


def _outboxes(evidence: Evidence) -> Iterator[str]:
    """Every message of every outbox lies in its topic."""
    carried = {
        topic: {record.header("id") for record in records if record.header("handed_over") is None}
        for topic, records in evidence.records.items()
    }
    for database in captured_databases(evidence.settings):
        missing = Counter(topic for id_, topic in evidence.outbox(database) if id_ not in carried.get(topic, ()))
        for topic, count in missing.items():
            yield f"{count} messages of the outbox of {database} are not in {topic}"
        if skipped := evidence.skipped(database):
            yield f"{skipped} messages of {database} were stepped over"


def _books(evidence: Evidence) -> Iterator[str]:
    """Money and stock are conserved, and no command had two effects."""
    for check in evidence.books():
        if not check.holds:
            yield f"{check.name}: {check.detail}"
    if twice := evidence.executed_twice():
        yield f"{twice} commands had a second effect"


def _groups(evidence: Evidence) -> Iterator[str]:
    """Each group has a member, and has read every record of its topics."""
    for name, members in evidence.members().items():
        if not members:
            yield f"group {name} has no member"
    last: dict[Place, int] = {}
    for topic, records in evidence.records.items():
        for record in records:
            last[topic, record.partition] = record.offset
    for group in evidence.groups.values():
        positions = evidence.positions(group)
        read = {place: end for place, end in last.items() if group.worker in READERS.get(place[0], ())}
        for (topic, partition), end in read.items():
            position = positions.get((topic, partition), 0)
            if position <= end:
                yield f"group {group.name} stands at {position} of {topic}[{partition}], which goes on to {end}"


def _transactions(evidence: Evidence) -> Iterator[str]:
    """No partition of the project's topics has a transaction that is open."""
    for (topic, partition), (stable, end) in evidence.ends().items():
        if stable != end:
            yield f"a transaction is open in {topic}[{partition}], at {stable} of {end}"


def _some(what: str, which: Iterable[str]) -> Iterator[str]:
    found = sorted(which)
    if found:
        yield f"{len(found)} {what}: {', '.join(found[:SHOWN_MAX])}{' ...' if len(found) > SHOWN_MAX else ''}"
