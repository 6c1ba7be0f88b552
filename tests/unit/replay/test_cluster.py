"""Values carried to a cluster whose registry knows the same schemas by other numbers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from schemas.records.order import OrderConfirmed
from tests.unit.orchestrator.desktop import CODEC
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec, WriterSchema, schema_id_of
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.registry import RegistryClient
from towpath.contract.subjects import SubjectStrategy
from towpath.errors import ConfigurationError, ContractError, NotFoundError
from towpath.orchestrator import records as wire
from towpath.replay.cluster import SchemaTranslation, load_cluster
from towpath.replay.nested import payloads_in
from towpath.settings import load_settings

SETTINGS = load_settings(Path(__file__).resolve().parents[3], environment=False)
CONTRACTS = load_contracts(schema_sets(SETTINGS))
CONFIRMED = OrderConfirmed(order_id="o-1", confirmed_at=datetime(2026, 1, 1, tzinfo=UTC))
ENTRY = wire.SubsagaCompleted(
    saga="place_order", saga_id="s", result=wire.Message(type=CONFIRMED.SCHEMA_NAME, payload=CODEC.encode(CONFIRMED))
)


class Registry:
    """Schemas by number, in memory: what is added gets the next one."""

    def __init__(self, known: Mapping[int, Mapping[str, Any]]) -> None:
        self.known = dict(known)

    def writer(self, schema_id: int) -> WriterSchema | None:
        """Return the schema of a number."""
        found = self.known.get(schema_id)
        return None if found is None else WriterSchema(schema_id, found)

    def find(self, subject: str, avro: Mapping[str, Any]) -> int | None:
        """Return the number of a schema."""
        return next((number for number, known in self.known.items() if known == avro), None)

    def add(self, subject: str, avro: Mapping[str, Any]) -> int:
        """Give a schema a number."""
        self.known[1_000 + len(self.known)] = avro
        return max(self.known)


def translation(there: Registry, codec: Codec = CODEC) -> SchemaTranslation:
    """Return what carries values from the codec's registry to `there`."""
    records = [CONFIRMED.SCHEMA_NAME, ENTRY.SCHEMA_NAME]
    here = Registry(
        {
            schema_id_of(CODEC.encode(record)): CONTRACTS.schemas.avro(name, docs=False)
            for name, record in zip(records, (CONFIRMED, ENTRY), strict=True)
        }
    )
    ours, theirs = cast("RegistryClient", here), cast("RegistryClient", there)
    return SchemaTranslation(codec, Catalogue.load(SETTINGS), ours, theirs, SubjectStrategy.RECORD)


def test_a_value_keeps_every_byte_but_the_number_of_its_schema() -> None:
    """What the other registry knows keeps its number there; what it lacks is registered, once."""
    there = Registry({7: CONTRACTS.schemas.avro(CONFIRMED.SCHEMA_NAME, docs=False)})
    carry, value = translation(there), CODEC.encode(CONFIRMED)
    assert (schema_id_of(carry(value)), carry(value)[5:]) == (7, value[5:])
    there.known.clear()
    again = translation(there)
    assert {schema_id_of(again(value)) for _ in range(3)} == {1_000}
    assert list(there.known.values()) == [CONTRACTS.schemas.avro(CONFIRMED.SCHEMA_NAME, docs=False)]


def test_what_lies_inside_the_engines_records_is_carried_as_well() -> None:
    """A reply in a history has a schema of its own."""
    there = Registry({7: CONTRACTS.schemas.avro(CONFIRMED.SCHEMA_NAME, docs=False)})
    carried = translation(there)(CODEC.encode(ENTRY))
    # The outer number is the other registry's; under ours the content can be looked at.
    decoded = CODEC.decode(CODEC.encode(ENTRY)[:5] + carried[5:])
    assert schema_id_of(carried) == 1_001
    assert [schema_id_of(payload) for payload in payloads_in(decoded)] == [7]


def test_a_schema_that_nobody_knows_is_not_carried_as_another() -> None:
    """The same number may be anything there; what is no value of a registry stays as it is."""
    carry = translation(Registry({}))
    with pytest.raises(ContractError, match="schema 424242"):
        carry(b"\0" + (424_242).to_bytes(4, "big") + b"x")
    assert carry(b"text") == b"text"
    assert carry(b"") == b""


def test_a_file_says_how_another_cluster_is_reached(tmp_path: Path) -> None:
    """With the sections of towpath.toml; a registry of its own is optional, anything else refused."""
    path = tmp_path / "other.toml"
    path.write_text('[kafka]\nbootstrap_servers = "there:9092"\n', encoding="utf-8")
    found = load_cluster(path)
    assert (found.kafka.bootstrap_servers, found.registry) == ("there:9092", None)
    path.write_text(path.read_text(encoding="utf-8") + '[registry]\nurl = "http://there"\n', encoding="utf-8")
    registry = load_cluster(path).registry
    assert registry is not None
    assert registry.url == "http://there"
    for wrong in ("", "[kafka]\n", "[project]\n", '[kafka]\nbootstrap_servers = "x"\nnothing = 1\n', "["):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigurationError):
            load_cluster(path)
    with pytest.raises(NotFoundError):
        load_cluster(tmp_path / "none.toml")
