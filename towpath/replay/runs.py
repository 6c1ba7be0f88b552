"""Recorded runs: the inputs of whole instances, from a saga's history or from a captured file. No I/O imports.

A captured file has one JSON object a line: `{"saga", "version", "saga_id", "entries": [{"input": ...}]}`. It needs no
registry to be read again: records stand in it as JSON, under the names of their classes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from towpath.contract.codec import Codec
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.recording import input_of
from towpath.saga.definition import Definition
from towpath.saga.inputs import Input
from towpath.saga.testing.golden import input_to_plain, inputs_of
from towpath.stream.broker.record import ConsumedRecord


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """The inputs of one instance, in their order, and the version of the definition that decided on them."""

    saga: str
    version: int
    saga_id: str
    inputs: tuple[Input, ...]

    def to_line(self) -> str:
        """Return the run as a line of a captured file."""
        entries = [{"input": input_to_plain(input_)} for input_ in self.inputs]
        plain = {"saga": self.saga, "version": self.version, "saga_id": self.saga_id, "entries": entries}
        return json.dumps(plain, sort_keys=True) + "\n"


def runs_in(
    records: Iterable[ConsumedRecord], codec: Codec, since_milliseconds: int = 0, until_milliseconds: int = 2**62
) -> Iterator[RecordedRun]:
    """Yield the runs in the records of a history topic that started in `[since, until)`, the oldest start first.

    Raises PeerError for a record that is no entry.
    """
    messages = Messages(codec)
    entries: dict[str, list[wire.HistoryEntry]] = {}
    for record in records:
        entry = codec.decode(record.value or b"")
        if isinstance(entry, wire.HistoryEntry) and entry.saga_id:
            entries.setdefault(entry.saga_id, []).append(entry)
    chosen = [
        found for found in entries.values() if since_milliseconds <= found[0].at_milliseconds < until_milliseconds
    ]
    for found in sorted(chosen, key=lambda one: (one[0].at_milliseconds, one[0].saga_id)):
        first = found[0]
        inputs = tuple(input_of(entry, messages) for entry in found)
        yield RecordedRun(first.saga, first.version, first.saga_id, inputs)


def runs_of_lines(
    lines: Iterable[str], definition_of: Callable[[str, int], Definition]
) -> Iterator[RecordedRun | ValueError]:
    """Yield the runs in the lines of a captured file; a line that is none comes as the ValueError that says why.

    `definition_of(saga, version)` gives the classes of the records.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            plain = json.loads(line)
            definition = definition_of(plain["saga"], plain["version"])
            inputs: Sequence[Input] = inputs_of(definition, plain)
            yield RecordedRun(plain["saga"], plain["version"], plain["saga_id"], tuple(inputs))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield ValueError(f"line {number} is no recorded run: {error!r}")
