"""Writes a plan's records into a captured file: one a line, or blocks of an Avro object container (`.avro`).

The one rule: the file itself says where a run stands. What a killed run left half is cut, and the next one goes on
behind what is whole. Nothing else is ever cut: a file that holds anything but the plan's records is left as it is.
A run writes only where it has left the file itself: of two at a time one ends, and no record is written twice.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from towpath.clock import Clock, SystemClock
from towpath.errors import ConfigurationError, RefusedError
from towpath.replay import container
from towpath.replay.captured import LINE_BEGINS, line_of, no_record, record_of
from towpath.replay.plan import Plan
from towpath.replay.progress import RECORDS_AT_ONCE, Choose, KeepOn, Progress, chunks, left_of, reached, superseded
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
        """Yield each line; one that was left half is the last. Raises ConfigurationError for one of anything else."""
        for line in iter(file.readline, b""):
            if line.endswith(b"\n"):
                yield file.tell(), [record_of(line)]
            elif not (line.startswith(LINE_BEGINS) or LINE_BEGINS.startswith(line)):
                raise no_record("the last one has no end, and begins like none")

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


def _cut(form: _Form, file: IO[bytes], plan: Plan) -> dict[TopicPartition, int]:
    """Cut what a killed run left half, and return behind which offset of each partition the file ends.

    Raises RefusedError where the file has a record that the plan does not read.
    """
    found: dict[TopicPartition, int] = {}
    whole = 0
    file.seek(0)
    for end, records in form.whole(file):
        for record in records:
            begin, behind = plan.ranges.get(record.topic_partition, (0, 0))
            if not begin <= record.offset < behind:
                raise RefusedError(
                    f"{file.name} has {record.position}, which is no part of replay {plan.replay_id}: it is of another",
                    kept="the file, as it was",
                    next_step="plan anew with another file: towpath replay plan --to-file FILE",
                )
        found.update(reached(records))
        whole = end
    file.truncate(whole)
    file.seek(whole)
    return found


def write_file(
    source: Source, plan: Plan, path: Path, choose: Choose, keep_on: KeepOn, clock: Clock | None = None
) -> Progress:
    """Write a plan's records into a file, behind those of an earlier run of it; `keep_on` is asked after each chunk.

    Raises ConfigurationError where it cannot be written or holds anything else, RefusedError where its records are
    those of another plan or another run writes into it, and what the source raises.
    """
    try:
        return _write_file(source, plan, path, choose, keep_on, clock or SystemClock())
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error}",
            kept="what is written whole: the same plan goes on behind it",
            next_step="make room for it or give it its folder, and run the plan again; or plan another --to-file FILE",
        ) from error


def _write_file(source: Source, plan: Plan, path: Path, choose: Choose, keep_on: KeepOn, clock: Clock) -> Progress:
    form: _Form = _Blocks(str(path)) if container.is_container(path) else _Lines()
    with path.open("a+b") as file:
        standing = {place: begin for place, (begin, _) in plan.ranges.items()} | _cut(form, file, plan)
        end = file.tell()
        began, sent = clock.monotonic_seconds(), 0
        left = left_of(plan, standing)
        source.require_unchanged(left)
        progress = Progress(0, dict(standing), 0.0)
        for chunk in chunks(source.read(left), RECORDS_AT_ONCE):
            records = list(choose(chunk))
            if records:
                if file.seek(0, os.SEEK_END) != end:
                    raise superseded(plan.replay_id)
                form.append(file, records)
                file.flush()
                end = file.tell()
            standing.update(reached(chunk))
            sent += len(records)
            progress = Progress(sent, dict(standing), clock.monotonic_seconds() - began)
            if not keep_on(progress):
                break
    return progress
