"""What a registry files schemas under, and how a schema that refers to others is made whole. Pure.

The three strategies are Confluent's: by record, by topic, by topic and record.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from towpath.contract.catalogue import Catalogue
from towpath.contract.schema import PRIMITIVES
from towpath.errors import ContractError

_VALUE_SUFFIX: Final = "-value"


class SubjectStrategy(StrEnum):
    """How a subject is named: a record's lineage is one, one a topic, or one for each record in each topic."""

    RECORD = "record"
    TOPIC = "topic"
    TOPIC_RECORD = "topic_record"


def subjects_of(record: str, catalogue: Catalogue, strategy: SubjectStrategy) -> tuple[str, ...]:
    """Return the subjects under which a record is registered, by topic in alphabetical order.

    Raises ContractError where a strategy by topic meets a topic that carries several records: a subject has one
    lineage, and each record would have to read what the others wrote.
    """
    if strategy is SubjectStrategy.RECORD:
        return (record,)
    topics = sorted(catalogue.carrying(record), key=lambda topic: topic.name)
    if strategy is SubjectStrategy.TOPIC_RECORD:
        return tuple(f"{topic.name}-{record}" for topic in topics)
    for topic in topics:
        if len(topic.values) > 1:
            raise ContractError(
                f"{topic.name} carries {len(topic.values)} records, and by topic a subject has one",
                next_step='set [registry] subject_strategy = "topic_record", or "record"',
            )
    return tuple(f"{topic.name}{_VALUE_SUFFIX}" for topic in topics)


def inline(avro: Any, named: Mapping[str, Any]) -> Any:
    """Return `avro` with each type of `named` written out where it is first used, so that it is whole in itself."""
    return _Inliner(named).type(avro, "")


class _Inliner:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._written: set[str] = set()

    def type(self, avro: Any, namespace: str) -> Any:  # noqa: PLR0911 - a case each
        if isinstance(avro, str):
            return self._reference(avro, namespace)
        if isinstance(avro, list):
            return [self.type(branch, namespace) for branch in avro]
        kind = avro.get("type")
        if kind in {"record", "error", "enum", "fixed"}:
            name = full_name(avro["name"], avro.get("namespace", namespace))
            self._written.add(name)
            inner = name.rpartition(".")[0]
            if "fields" not in avro:
                return avro
            fields = [{**item, "type": self.type(item["type"], inner)} for item in avro["fields"]]
            return {**avro, "fields": fields}
        if kind == "array":
            return {**avro, "items": self.type(avro["items"], namespace)}
        if kind == "map":
            return {**avro, "values": self.type(avro["values"], namespace)}
        if kind in PRIMITIVES:
            return avro
        return {**avro, "type": self.type(kind, namespace)}

    def _reference(self, name: str, namespace: str) -> Any:
        if name in PRIMITIVES:
            return name
        wanted = full_name(name, namespace)
        if wanted in self._written:
            return wanted
        if wanted not in self._named and name in self._named:
            wanted = name
        return self.type(self._named[wanted], "") if wanted in self._named else name


def full_name(name: str, namespace: str) -> str:
    """Return a name with its namespace, as Avro reads it."""
    return name if "." in name or not namespace else f"{namespace}.{name}"
