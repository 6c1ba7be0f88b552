"""Data for the functions of a saga: the contracts' good examples, and records made at random from a known seed."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from random import Random
from typing import Any

from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.examples import good_examples
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.json_form import write_json
from towpath.contract.record import Record
from towpath.contract.sample import sample
from towpath.saga.check import Samples
from towpath.settings import Settings

# Each branch of a union and each bound of a number comes up in about so many (as in `contracts test`).
GENERATED_EACH = 8
SEED = 20260101


def with_zeros(codec: Codec, records: Sequence[Any]) -> Sequence[Any]:
    """Return records whose whole numbers are 0: at random they hardly ever are, and 0 is where functions raise."""
    zeroed = []
    for record in records:
        numbers = [field.name for field in fields(record) if type(getattr(record, field.name)) is int]
        zero = replace(record, **dict.fromkeys(numbers, 0))
        if numbers and not unwritable(codec, zero):
            zeroed.append(zero)
    return zeroed


def unwritable(codec: Codec, command: Record) -> str:
    """Say why a command cannot be written as its schema says; empty where it can. What is written is read again."""
    try:
        again = codec.decode(codec.encode(command))
    except Exception as error:  # whatever it is, production would meet it as well
        return f"it cannot be encoded: {error}"
    return "" if again == command else "it is read as something else than was written"


def contract_samples(settings: Settings) -> Samples:
    """Return what the contracts of a project show and allow. Raises ContractError where they are broken."""
    contracts = load_contracts(schema_sets(settings))
    codec = Codec.of(contracts)
    shown: dict[str, list[object]] = {
        name: [codec.from_json(name, content) for content in contents]
        for name, contents in good_examples(contracts, settings).items()
    }
    topics = Catalogue.load(settings).topics

    @cache
    def generated(kind: type) -> Sequence[object]:
        if not issubclass(kind, Record):
            return ()
        chance = Random(f"{SEED}:{kind.SCHEMA_NAME}")  # noqa: S311 - chance of tests, not of secrets
        made = [sample(contracts.schemas, kind.SCHEMA_NAME, chance) for _ in range(GENERATED_EACH)]
        name = kind.SCHEMA_NAME
        records = [codec.from_json(name, write_json(contracts.schemas, name, datum)) for datum in made]
        return [*records, *with_zeros(codec, records[:1])]

    def examples(kind: type) -> Sequence[object]:
        return shown.get(kind.SCHEMA_NAME, ()) if issubclass(kind, Record) else ()

    def complaint(participant: str, command: object) -> str:
        topic = topics.get(f"{participant}.commands")
        if topic is None:
            return f"no topic {participant}.commands is declared"
        if not isinstance(command, Record):
            return f"{type(command).__name__} is no record of the contracts"
        if command.SCHEMA_NAME not in topic.values:
            return f"{command.SCHEMA_NAME} is not among {topic.name}"
        return unwritable(codec, command)

    return Samples(examples, generated, complaint)
