"""Apache's Avro for Java judges what ours decodes and what our rules call compatible.

`TOWPATH_TEST_PAIRS=2000` is the long form; each pair comes with three records.
"""

import os
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pytest

from tests.java.judge import JavaJudge, java_judge
from tests.unit.contract.random_schemas import ROOT, Maker, codec_of, evolved, usable
from towpath.contract.codec import UndecodableRecord, WriterSchema, wire_prefix
from towpath.contract.compatibility import breaks
from towpath.contract.datum import decode_datum, encode_datum
from towpath.contract.sample import sample
from towpath.contract.schema import Schemas

SEED: Final = 13
PAIRS: Final = int(os.environ.get("TOWPATH_TEST_PAIRS", "150"))
RECORDS_EACH: Final = 3
WRITER_ID: Final = 900
# Where we are stricter than Java on purpose, by the words of the finding or of the refusal, and why.
STRICTER: Final = {
    "another value": "Java reads a logical type as another one, or rounds, without a word",
    "may read another value": "a promotion that rounds",
    "where the reader takes": "Java takes a record of any name for another, and a logical type for another",
    "the reader takes": "the same, seen by the rules",
    "UnicodeDecodeError": "Java reads bytes that are no UTF-8 as a text all the same",
    "lead in a circle": "aliases that lead on to another field: Java applies them twice",
    "libraries read one or the other": "the same, seen by the rules",
}
# Where Java refuses what it should read, by the words of its error, and why.
FAULTS_OF_JAVA: Final = {
    "Invalid default for field": "a reader's alias renames the writer's fields, but not in the writer's defaults",
}


@pytest.fixture(scope="module")
def java() -> Iterator[JavaJudge]:
    """Return the judge, one process for all tests of this file."""
    with java_judge() as judge:
        yield judge


def pairs() -> Iterator[tuple[int, Schemas, Schemas]]:
    """Yield pairs of schemas: the writer's, and the reader's that was made from it."""
    chance = Random(SEED)
    turn = 0
    while turn < PAIRS:
        old = Maker(chance).root()
        writer, reader = usable(old), usable(evolved(chance, old))
        if writer is not None and reader is not None:
            turn += 1
            yield turn, writer, reader


def test_java_reads_what_our_rules_allow_and_reads_the_same(java: JavaJudge) -> None:
    """Whatever both decode is the same datum; what one alone refuses is refused for a reason that is named."""
    chance = Random(SEED)
    seen: Counter[str] = Counter()
    for turn, writer, reader in pairs():
        avro = {"writer": writer.avro(ROOT), "reader": reader.avro(ROOT)}
        bodies = [encode_datum(writer, ROOT, sample(writer, ROOT, chance)) for _ in range(RECORDS_EACH)]
        answer = java.ask(**avro, bodies=bodies)
        context = f"seed {SEED}, pair {turn}: {avro}"
        assert "error" not in answer, f"Java does not parse it: {answer} {context}"
        found = [str(item) for item in breaks(ROOT, reader=reader, writer=writer)]
        codec = codec_of(reader, (WriterSchema(WRITER_ID, avro["writer"]),))
        for body, theirs in zip(bodies, answer["read"], strict=True):
            ours = _ours(codec, body)
            seen[_compare(ours, theirs, reader, breaks_found=bool(found), context=f"{found} {context}")] += 1
        if answer["compatible"] and found and not any(words in item for item in found for words in STRICTER):
            pytest.fail(f"Java calls compatible what we do not: {found} {context}")
        seen["called compatible by us" if not found else "called a break by us"] += 1
    print(f"seed {SEED}, {PAIRS} pairs: {dict(seen)}")  # noqa: T201 - the count of each outcome is the result
    assert seen["the same datum"] > PAIRS
    assert seen["called compatible by us"] > PAIRS // 5
    assert seen["called a break by us"] > PAIRS // 5


def _ours(codec: Any, body: bytes) -> bytes | str:
    try:
        record = codec.decode(wire_prefix(WRITER_ID) + body)
    except UndecodableRecord as error:
        return error.cause
    return bytes(codec.encode(record)[5:])


def _compare(ours: bytes | str, theirs: Any, reader: Schemas, *, breaks_found: bool, context: str) -> str:
    """Return what the two made of a record; fails where they differ and nothing explains it."""
    if isinstance(ours, str):
        assert breaks_found, f"no break was found, and yet {ours}: {context}"
        if "error" in theirs:
            return "refused by both"
        assert any(words in ours for words in STRICTER), f"Java reads what we refuse: {ours} {context}"
        return "refused by us alone"
    if any(words in theirs.get("error", "") for words in FAULTS_OF_JAVA):
        return "refused by Java, by its own fault"
    assert "body" in theirs, f"Java refuses what we read: {theirs} {context}"
    mine, other = (decode_datum(reader, ROOT, body) for body in (ours, bytes.fromhex(theirs["body"])))
    same = _numbers_alone(mine) == _numbers_alone(other)
    if not same and breaks_found and "another value" in context:
        return "another value, as the break says"
    assert same, f"we read {ours.hex()}, Java {theirs['body']}: {context}"
    return "the same datum"


def _numbers_alone(datum: Any) -> Any:
    """Return a datum without the names of branches of numbers: to Python, an int and a long are one number."""
    match datum:
        case ("int" | "long" | "float" | "double", number):
            return number
        case (str(name), inner):
            return (name, _numbers_alone(inner))
        case dict():
            return {key: _numbers_alone(value) for key, value in datum.items()}
        case list():
            return [_numbers_alone(item) for item in datum]
        case _:
            return datum
