"""Writes a plan's records into a captured file: one a line, or blocks of an Avro object container (`.avro`).

The one rule: the file itself says where a run stands. What a killed run left half is cut, and the next one goes on
behind what is whole.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from towpath.clock import Clock, SystemClock
from towpath.replay import container
from towpath.replay.captured import line_of, record_of
from towpath.replay.plan import Plan
from towpath.replay.progress import RECORDS_AT_ONCE, Choose, KeepOn, Progress, chunks, left_of, reached
from towpath.replay.source import Source
from towpath.stream.broker.record import ConsumedRecord, TopicPartition


class _Form(Protocol):
    """One form of a captured file."""

    def whole(self, file: IO[bytes]) -> Iterator[tuple[int, list[ConsumedRecord]]]:
        """Yield each whole part of a file that stands at its beginning: where it ends, and its records."""
        ...

    def append(self, file: IO[bytes], records: Iterable[ConsumedRecord]) -> None:
        """Write further records."""
        ...


class _Lines:
    """One record a line."""

    def whole(self, file: IO[bytes]) -> Iterator[tuple[int, list[ConsumedRecord]]]:
        """Yield each line; one that was left half is the last."""
        for line in iter(file.readline, b""):
            if line.endswith(b"\n"):
                yield file.tell(), [record_of(line.decode())]

    def append(self, file: IO[bytes], records: Iterable[ConsumedRecord]) -> None:
        """Write a line for each record."""
        file.writelines(line_of(record).encode() for record in records)


class _Blocks:
    """Blocks of an Avro object container."""

    def __init__(self, name: str) -> None:
        self._name = name

    def whole(self, file: IO[bytes]) -> Iterator[tuple[int, list[ConsumedRecord]]]:
        """Yield each block."""
        return container.whole_blocks(file, self._name)

    def append(self, file: IO[bytes], records: Iterable[ConsumedRecord]) -> None:
        """Write the records as blocks."""
        container.append(file, records)


def _cut(form: _Form, file: IO[bytes]) -> dict[TopicPartition, int]:
    """Cut what a killed run left half, and return behind which offset of each partition the file ends."""
    found: dict[TopicPartition, int] = {}
    whole = 0
    file.seek(0)
    for end, records in form.whole(file):
        found.update(reached(records))
        whole = end
    file.truncate(whole)
    file.seek(whole)
    return found


def write_file(
    source: Source, plan: Plan, path: Path, choose: Choose, keep_on: KeepOn, clock: Clock | None = None
) -> Progress:
    """Write a plan's records into a file, behind those of an earlier run of it; `keep_on` is asked after each chunk."""
    clock = clock or SystemClock()
    form: _Form = _Blocks(str(path)) if container.is_container(path) else _Lines()
    with path.open("a+b") as file:
        standing = {place: begin for place, (begin, _) in plan.ranges.items()} | _cut(form, file)
        began, sent = clock.monotonic_seconds(), 0
        left = left_of(plan, standing)
        source.require_unchanged(left)
        progress = Progress(0, dict(standing), 0.0)
        for chunk in chunks(source.read(left), RECORDS_AT_ONCE):
            records = list(choose(chunk))
            if records:
                form.append(file, records)
                file.flush()
            standing.update(reached(chunk))
            sent += len(records)
            progress = Progress(sent, dict(standing), clock.monotonic_seconds() - began)
            if not keep_on(progress):
                break
    return progress
