"""What a project promised at one moment, whole in itself: to compare with another, or to keep in a file. Pure.

A snapshot names the moment by its `label` (a commit, a file, a registry); records are those that travel in topics.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Self

from towpath.contract.catalogue import Catalogue, Compatibility, Topic, TopicKind
from towpath.contract.files import Contracts
from towpath.contract.parse import parse
from towpath.contract.schema import NamedSchema, Schemas
from towpath.errors import ContractError

_FORM: Final = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`catalogue` is None where only schemas are known, as in a registry; each of `records` is whole in itself."""

    label: str
    records: Mapping[str, Schemas]
    catalogue: Catalogue | None = None

    @classmethod
    def of(cls, label: str, contracts: Contracts, catalogue: Catalogue) -> Self:
        """Return a project's promises as its files say them, the engine's own records aside."""
        own = {name for loaded in contracts.sets if loaded.source.is_package for name in loaded.services}
        records = {name: whole(contracts.schemas, name) for name in catalogue.values() if name in own}
        return cls(label, records, catalogue)

    def named(self) -> dict[str, tuple[str, NamedSchema]]:
        """Return every named type inside the records, with a record that contains it, by full name."""
        found: dict[str, tuple[str, NamedSchema]] = {}
        for record, schemas in sorted(self.records.items()):
            for name, schema in schemas.by_name.items():
                found.setdefault(name, (record, schema))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; `from_json` reads it back."""
        topics = [] if self.catalogue is None else [topic_to_json(topic) for topic in self.catalogue.topics.values()]
        records = {name: schemas.avro(name) for name, schemas in sorted(self.records.items())}
        return {"towpath_contracts": _FORM, "topics": topics, "records": records}

    @classmethod
    def from_json(cls, label: str, value: Any) -> Self:
        """Return the snapshot that `to_json` wrote. Raises ContractError for anything else."""
        if not isinstance(value, dict) or value.get("towpath_contracts") != _FORM:
            raise ContractError(
                f"{label}: it is no snapshot of contracts", next_step="make one: towpath contracts snapshot FILE"
            )
        records = {name: schemas_of(name, avro, label) for name, avro in value["records"].items()}
        topics = {topic["name"]: topic_from_json(topic) for topic in value["topics"]}
        return cls(label, records, Catalogue(MappingProxyType(topics)) if topics else None)


def whole(schemas: Schemas, name: str) -> Schemas:
    """Return the record called `name` with every type that it contains, and no other."""
    return Schemas({inner: schemas[inner] for inner in reversed(schemas.reachable(name))})


def schemas_of(name: str, avro: Any, source: str) -> Schemas:
    """Return one schema that is whole in itself. Raises ContractError where it is not, or is another record's."""
    found = parse(avro, source=source)
    if name not in found:
        raise ContractError(f"{source}: it defines {next(iter(found))}, not {name}", next_step=f"fix {source}")
    return Schemas(found)


def topic_to_json(topic: Topic) -> dict[str, Any]:
    """Return a topic as JSON."""
    plain = {**asdict(replace(topic, config={})), "kind": topic.kind.value, "compatibility": topic.compatibility.name}
    return {**plain, "config": dict(topic.config)}


def topic_from_json(value: Mapping[str, Any]) -> Topic:
    """Return the topic that `topic_to_json` wrote."""
    listed = {name: tuple(value[name]) for name in ("values", "producers", "consumers")}
    kind, compatibility = TopicKind(value["kind"]), Compatibility[value["compatibility"]]
    return Topic(**{**value, **listed, "kind": kind, "compatibility": compatibility})
