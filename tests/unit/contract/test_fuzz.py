"""Mutated messages over schemas made at random: a record or a declared refusal, in bounded time and memory.

`TOWPATH_TEST_MUTATIONS=1000000` is the long form.
"""

import os
import tracemalloc
from random import Random
from typing import Final

from tests.unit.contract.random_schemas import ROOT, Maker, codec_of, evolved, usable
from towpath.contract.codec import UndecodableRecord, WriterSchema, wire_prefix
from towpath.contract.datum import encode_datum
from towpath.contract.sample import sample

SEED: Final = 17
MUTATIONS: Final = int(os.environ.get("TOWPATH_TEST_MUTATIONS", "4000"))
EACH: Final = 500
WRITER_ID: Final = 900
# A message of at most so many bytes may take at most so much: objects of Python are large beside what they hold.
BYTES_MAX: Final = 4_000
MEMORY_BYTES_MAX: Final = 12_000_000
_EDGES: Final = (
    b"\xff" * 9 + b"\x01",
    b"\xfe" * 9 + b"\x01",
    b"\x80" * 10,
    b"\x00" * 64,
    b"\x02\x00" * 200,
    b"\x01\x80",
)


def mutated(chance: Random, body: bytes) -> bytes:
    """Return a body with a few bytes changed, cut, doubled, or replaced by numbers at the edge."""
    changed = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(0, len(changed))
        match chance.randrange(5):
            case 0 if place < len(changed):
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place : place + chance.randint(1, 8)]
            case 2:
                changed[place:place] = changed[: chance.randint(0, 40)]
            case 3:
                changed[place:place] = chance.choice(_EDGES)
            case _:
                changed[place : place + 1] = chance.randbytes(chance.randint(1, 12))
    return bytes(changed[:BYTES_MAX])


def test_whatever_the_bytes_the_codec_answers_in_bounds() -> None:
    """Only records and UndecodableRecord come out, and what is taken stays within the limit."""
    chance = Random(SEED)
    done = refused = 0
    while done < MUTATIONS:
        old = Maker(chance).root()
        writer, reader = usable(old), usable(evolved(chance, old))
        if writer is None or reader is None:
            continue
        codec = codec_of(reader, (WriterSchema(WRITER_ID, writer.avro(ROOT)),))
        bodies = [encode_datum(writer, ROOT, sample(writer, ROOT, chance)) for _ in range(5)]
        tracemalloc.start()
        for _ in range(min(EACH, MUTATIONS - done)):
            body = mutated(chance, chance.choice(bodies))
            tracemalloc.reset_peak()
            try:
                codec.decode(wire_prefix(WRITER_ID) + body)
            except UndecodableRecord:
                refused += 1
            done += 1
            peak = tracemalloc.get_traced_memory()[1]
            assert peak < MEMORY_BYTES_MAX, f"seed {SEED}: {peak} bytes for {body.hex()} under {writer.avro(ROOT)}"
        tracemalloc.stop()
    print(f"seed {SEED}: {done} mutations, {refused} refused")  # noqa: T201 - the long form is read by a person
    assert 0 < refused < done
