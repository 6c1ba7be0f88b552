"""Apache's Avro for Java judges what ours decodes and what our rules call compatible.

`TOWPATH_TEST_PAIRS=2000` is the long form; each pair comes with three records. `TOWPATH_TEST_SEED` makes other pairs.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from tests.java.judge import JavaJudge, java_judge
from tests.java.reasons import Reason, reasons
from tests.unit.contract.corpus import CASES, REFUSED, imported, name_of, original, records_of
from tests.unit.contract.random_schemas import ROOT, Maker, codec_of, evolved, usable
from towpath.contract.codec import UndecodableRecord, WriterSchema, wire_prefix
from towpath.contract.compatibility import breaks
from towpath.contract.datum import decode_datum, encode_datum
from towpath.contract.parse import parse
from towpath.contract.sample import sample
from towpath.contract.schema import Schemas

SEED: Final = int(os.environ.get("TOWPATH_TEST_SEED", "13"))
PAIRS: Final = int(os.environ.get("TOWPATH_TEST_PAIRS", "150"))
RECORDS_EACH: Final = 3
RIGHT: Final = [case for case in CASES if case.parent.name != REFUSED]
WRITER_ID: Final = 900
# What makes our reader refuse a record that Java's takes, and what makes the two read another value.
_REFUSING: Final = frozenset({Reason.LOGICAL, Reason.NAME, Reason.TEXT, Reason.CIRCLE})
_OTHER_VALUE: Final = frozenset({Reason.LOGICAL, Reason.ROUNDED})
# Cases of the corpus that Java reads and cannot write again, by its own fault, and the words of its error.
NOT_WRITTEN: Final = {"payments-pix_payment_java_strings": "Utf8 cannot be cast"}  # a text that stands for a class
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
    """Whatever both decode is the same datum; what one alone refuses is refused for a reason that the schemas show."""
    chance = Random(SEED)
    seen: Counter[str] = Counter()
    for turn, writer, reader in pairs():
        avro = {"writer": writer.avro(ROOT), "reader": reader.avro(ROOT)}
        bodies = [encode_datum(writer, ROOT, sample(writer, ROOT, chance)) for _ in range(RECORDS_EACH)]
        answer = java.ask(**avro, bodies=bodies)
        found = breaks(ROOT, reader=reader, writer=writer)
        why = [reasons(item.place, ROOT, reader=reader, writer=writer) for item in found]
        context = f"seed {SEED}, pair {turn}: {[str(item) for item in found]} {avro}"
        assert "error" not in answer, f"Java does not parse it: {answer} {context}"
        codec = codec_of(reader, (WriterSchema(WRITER_ID, avro["writer"]),))
        explained = frozenset().union(*why)
        for body, theirs in zip(bodies, answer["read"], strict=True):
            ours = _ours(codec, body)
            assert found or isinstance(ours, bytes), f"no break was found, and yet {ours}: {context}"
            seen[_compare(ours, theirs, reader, explained, context=context)] += 1
        if answer["compatible"]:
            for item, reason in zip(found, why, strict=True):
                # Java's judge of schemas, unlike its reader, looks at the names of records.
                assert reason - {Reason.NAME}, f"Java calls compatible what we do not: {item} {context}"
                seen.update(one.name for one in reason)
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


def _compare(ours: bytes | str, theirs: Any, reader: Schemas, explained: frozenset[Reason], *, context: str) -> str:
    """Return what the two made of a record; fails where they differ and no reason stands behind it."""
    if isinstance(ours, str):
        if "error" in theirs:
            return "refused by both"
        assert explained & _REFUSING, f"Java reads what we refuse: {ours} {context}"
        return "refused by us alone"
    if any(words in theirs.get("error", "") for words in FAULTS_OF_JAVA):
        return "refused by Java, by its own fault"
    assert "body" in theirs, f"Java refuses what we read: {theirs} {context}"
    mine, other = (decode_datum(reader, ROOT, body) for body in (ours, bytes.fromhex(theirs["body"])))
    same = _numbers_alone(mine) == _numbers_alone(other)
    if not same and explained & _OTHER_VALUE:
        return "another value, as the break says"
    assert same, f"we read {ours.hex()}, Java {theirs['body']}: {context}"
    return "the same datum"


@pytest.mark.parametrize("kind", [{"type": "enum", "symbols": ["A"]}, {"type": "fixed", "size": 1}])
def test_java_reads_what_moved_to_another_namespace_as_we_say(java: JavaJudge, kind: dict[str, Any]) -> None:
    """An enum or fixed of a union: by the order of its branches while nothing else changed, else by full name alone."""
    old, new = {"name": "old.Moved", **kind}, {"name": "Moved", **kind}
    for is_read, wanted, body in (
        (True, ["null", new], b"\x02\x00"),
        (False, ["null", "long", new], b"\x02\x00"),
        (True, ["null", "long", {**new, "aliases": ["old.Moved"]}], b"\x02\x00"),
    ):
        writer, reader = (
            {"type": "record", "name": "Root", "namespace": "new", "fields": [{"name": "x", "type": found}]}
            for found in (["null", old], wanted)
        )
        (read,) = java.ask(writer=writer, reader=reader, bodies=[body])["read"]
        assert ("body" in read) is is_read, read
        forms = [Schemas(parse(avro, source="moved")) for avro in (reader, writer)]
        assert (breaks("new.Root", reader=forms[0], writer=forms[1]) == ()) is is_read


@pytest.mark.parametrize("case", RIGHT, ids=name_of)
def test_java_reads_and_writes_the_corpus_as_we_do(java: JavaJudge, case: Path, tmp_path: Path) -> None:
    """Each form that people have: bytes of ours are a datum to Java under the schema as it was found, and under the
    imported one, and come back the same.
    """
    _, contracts = imported(case, tmp_path)
    schemas = contracts.schemas
    chance = Random(f"{SEED} {name_of(case)}")
    for name in records_of(contracts):
        found, ours = original(case, contracts, name), schemas.avro(name)
        bodies = [encode_datum(schemas, name, sample(schemas, name, chance)) for _ in range(RECORDS_EACH)]
        for writer, reader in ((found, found), (found, ours), (ours, found)):
            answer = java.ask(writer=writer, reader=reader, bodies=bodies)
            assert "error" not in answer, f"Java does not parse it: {answer}"
            assert answer["compatible"]
            for body, theirs in zip(bodies, answer["read"], strict=True):
                if (fault := NOT_WRITTEN.get(name_of(case))) is not None:
                    assert fault in theirs["error"]
                    continue
                assert "body" in theirs, theirs
                # A map has no order: Java writes its entries in another.
                read = [decode_datum(schemas, name, one) for one in (body, bytes.fromhex(theirs["body"]))]
                assert read[0] == read[1], f"seed {SEED}, {name}: {body.hex()}"


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
