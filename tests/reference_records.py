"""Good records of the reference project, topic by topic: what fuzz tests start from."""

import json
from collections import Counter
from collections.abc import Iterable
from random import Random

from tests.stack_fixture import ROOT
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.examples import good_examples
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.json_form import write_json
from towpath.contract.sample import sample
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord

SETTINGS = load_settings(ROOT, environment=False)
CATALOGUE = Catalogue.load(SETTINGS)
CONTRACTS = load_contracts(schema_sets(SETTINGS))
CODEC = Codec.offline(schema_sets(SETTINGS))
_EXAMPLES = good_examples(CONTRACTS, SETTINGS)


def good_values(topic: str, chance: Random) -> list[tuple[str, bytes]]:
    """Return type and value of records that may travel in `topic`: every example, and two more of each, made up."""
    found = []
    for name in CATALOGUE.topic(topic).values:
        made = [write_json(CONTRACTS.schemas, name, sample(CONTRACTS.schemas, name, chance)) for _ in range(2)]
        found += [(name, CODEC.encode(CODEC.from_json(name, content))) for content in (*_EXAMPLES.get(name, ()), *made)]
    return found


def letters_by_position(dead: Iterable[str]) -> Counter[str]:
    """Return how many letters there are of each record, given their headers; by the position where it died."""
    found = Counter[str]()
    for text in dead:
        letter = json.loads(text)
        found[f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"] += 1
    return found


def dead_headers_of(records: Iterable[ConsumedRecord]) -> list[str]:
    """Return what dead-lettered records say of their deaths."""
    return [text for record in records if (text := record.header("dead")) is not None]
