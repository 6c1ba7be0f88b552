"""Reads real records, from topics and files, for `contracts check --from-topic` and `--from-file`."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from towpath.cli import output
from towpath.cli.contracts_report import ContractsProject
from towpath.errors import ContractError, NotFoundError

if TYPE_CHECKING:
    from towpath.contract.finding import Finding
    from towpath.contract.parties import Parties
    from towpath.contract.real_records import RealRecord, WriterOf


def check_records(
    project: ContractsProject, parties: "Parties", topics: Sequence[str], files: Sequence[Path], limit: int
) -> tuple[tuple["Finding", ...], str]:
    """Read the newest `limit` records of each topic and file; return findings, and in words how many were read."""
    from towpath.contract.codec import Codec
    from towpath.contract.real_records import RecordCheck
    from towpath.contract.registry import RegistryClient

    done = RecordCheck(project.contracts, parties, Codec.of(project.contracts))
    with RegistryClient(project.settings.registry) as client:
        writer_of = cache(client.writer)  # asked only for ids that occur
        for topic in topics:
            project.catalogue.topic(topic)
            done.read(_from_topic(project, topic, limit, writer_of))
        for path in files:
            done.read(_from_file(project, path, limit, writer_of))
    return done.findings(), f"{output.counted(done.records, 'record')}, read {output.counted(done.readings, 'time')}"


def _from_topic(project: ContractsProject, topic: str, limit: int, writer_of: "WriterOf") -> Iterable["RealRecord"]:
    from towpath.contract.kafka import read_to_end
    from towpath.contract.real_records import from_wire

    newest = deque(read_to_end(project.settings, [topic]), maxlen=limit)
    for message in newest:
        origin = f"{message.topic()}/{message.partition()}/{message.offset()}"
        found = from_wire(origin, topic, message.value(), writer_of)
        if found is not None:
            yield found


def _from_file(project: ContractsProject, path: Path, limit: int, writer_of: "WriterOf") -> Iterable["RealRecord"]:
    from towpath.contract.real_records import from_container, from_lines

    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", next_step="name a file of JSON lines, or an .avro file")
    if path.suffix == ".avro":
        with path.open("rb") as stream:
            yield from deque(from_container(path.name, stream), maxlen=limit)
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: {error}", next_step="name a file of JSON lines, or an .avro file") from error
    yield from deque(from_lines(path.name, text, project.contracts, writer_of), limit)
