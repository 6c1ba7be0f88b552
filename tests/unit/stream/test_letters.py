"""A dead letter always fits, and always can be redriven: whatever the record holds, and however large it is."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.stream.support import SETTINGS, copy, memory_broker, options_for, values, working
from tests.unit.stream.test_agents import done, make_app, run
from towpath.clock import SystemClock
from towpath.deadletter.quarantine import Fate
from towpath.deadletter.redrive import Redrive, read_quarantine
from towpath.deadletter.redrive_plan import drop_plan, redrive_plan
from towpath.errors import PeerError
from towpath.outbox.message import PAYLOAD_BYTES_MAX
from towpath.stream.broker.dead_letter import (
    DeadLetter,
    Mark,
    describe,
    key_name,
    original,
    read_dead_letter,
    read_mark,
    record_hash,
    resolved,
)
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups, OutputRefused, RefusedEarlier
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition
from towpath.stream.broker.record_limits import RecordLimits
from towpath.stream.engine.dead_message import dead_message
from towpath.stream.engine.failures import LetterRefused, RecordFailed
from towpath.stream.engine.unit import KafkaUnit

BAD = b"BAD"


def fill_around(broker: MemoryBroker, value: bytes, *, key: bytes | None = b"k", headers: Headers = ()) -> None:
    broker.append("in", b"one", key=b"other")
    broker.append("in", value, key=key, headers=headers)
    broker.append("in", b"two", key=b"other")


async def refuses_bad(unit: KafkaUnit, groups: Groups) -> None:
    for records in groups.values():
        for record in records:
            if record.value is not None and record.value.startswith(BAD):
                raise RecordFailed(record, PeerError("not for us"))
            unit.send("out", record.value)


def redrive(broker: MemoryBroker) -> Redrive:
    clock = SystemClock()
    run = Redrive(broker, clock, transactional_id="redrive", dead_topics=["in.dead"], actor="ada", reason="fixed")
    run.start()
    return run


@pytest.mark.parametrize("size", [999_900, 1_000_000, 1_048_588])
def test_an_input_near_its_topics_limit_is_quarantined_at_once_and_can_be_redriven(size: int) -> None:
    """It goes as a reference where letter and record together do not fit, and comes back whole."""
    broker = memory_broker(partitions=1)
    broker.create_topic("in", 1, {"max.message.bytes": "1100000"})
    value = BAD + bytes(size - 3)
    fill_around(broker, value, headers=(("id", b"1"), ("zero", b"\0\xff")))
    runs = 0
    bad = True

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal runs
        runs += 1
        if bad:
            await refuses_bad(unit, groups)
        else:
            for records in groups.values():
                for record in records:
                    unit.send("out", record.header("id"))  # type: ignore[arg-type]
                    assert record.value == value
                    assert dict(record.headers)["zero"] == b"\0\xff"

    async def main() -> None:
        nonlocal bad
        async with working(handler, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 3)
            assert runs <= 4
            bad = False
            fix = redrive(broker)
            quarantine = read_quarantine(broker, ["in.dead"])
            (dead,) = quarantine.letters()
            assert original(dead.record, dead.letter).value == value
            outcome = await asyncio.to_thread(fix.run, redrive_plan(quarantine, [dead]), wait_seconds=20)
            fix.close()
            assert (len(outcome.redriven), outcome.left, outcome.died_again) == (1, (), ())

    asyncio.run(main())
    assert len(broker.records("out")) == 3
    (letter, _) = broker.records("in.dead")
    assert (letter.value is None) == (size > 1_048_000)


def test_what_is_gone_is_said_and_can_be_dropped() -> None:
    """A letter whose record retention has taken is left by a redrive; dropped, its key goes on."""
    broker = memory_broker(partitions=1)
    key = b"k" * 5_000
    fill_around(broker, BAD + bytes(1_048_000), key=key)
    broker.append("in", b"three", key=key)

    async def main() -> None:
        async with working(refuses_bad, options_for(broker, states=("counts",)), ["in"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 4)
            broker.log_of(TopicPartition("in", 0)).expire(3)
            fix = redrive(broker)
            quarantine = read_quarantine(broker, ["in.dead"])
            gone, follower = quarantine.letters()
            assert gone.is_gone
            assert not follower.is_gone
            outcome = await asyncio.to_thread(fix.run, redrive_plan(quarantine, [gone]), wait_seconds=0.5)
            assert (outcome.redriven, len(outcome.left)) == ((), 2)
            drops = drop_plan(quarantine, [gone], followers=False)
            outcome = await asyncio.to_thread(fix.run, drops, wait_seconds=20)
            fix.close()
            assert (len(outcome.dropped), len(outcome.redriven)) == (1, 1)
            broker.append("in", b"four", key=key)
            await worker.until(lambda: values(broker.records("out"))[-1] == "four")

    asyncio.run(main())
    assert values(broker.records("out")) == ["one", "two", "three", "four"]


def test_a_letter_that_the_broker_refuses_goes_as_a_reference() -> None:
    """A dead-letter topic smaller than the catalogue says delays nobody; one that takes nothing ends the worker."""
    for bytes_max, ends in ((5_000, False), (100, True)):
        broker = memory_broker(partitions=1)
        broker.create_topic("in.dead", 1, {"max.message.bytes": str(bytes_max)})
        fill_around(broker, BAD + bytes(10_000))
        broker.append("in", b"follows" * 1_000, key=b"k")

        async def main(broker: MemoryBroker = broker, ends: bool = ends) -> None:
            async with working(refuses_bad, options_for(broker, states=("counts",)), ["in"]) as worker:
                if ends:
                    with pytest.raises(LetterRefused, match=r"in\[0\]@1"):
                        await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 4)
                else:
                    await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 4)

        asyncio.run(main())
        if not ends:
            assert [record.value for record in broker.records("in.dead")] == [None, None]
            quarantine = read_quarantine(broker, ["in.dead"])
            assert [original(dead.record, dead.letter).value for dead in quarantine.letters()] == [
                BAD + bytes(10_000),
                b"follows" * 1_000,
            ]


@pytest.mark.parametrize("what", ["output", "state"])
@pytest.mark.parametrize("known", [True, False], ids=["limit known", "refused by the broker"])
def test_an_output_or_state_too_large_is_its_records_fault_after_its_attempts(what: str, known: bool) -> None:
    """Not an endless loop: its record is dead after its attempts, and the others are applied once."""
    broker = memory_broker(partitions=1)
    limits = RecordLimits({"out": 20_000, "counts": 20_000}) if known else RecordLimits()
    for topic in ("out", "counts"):
        broker.create_topic(topic, 1, {"max.message.bytes": "20000"})
    fill_around(broker, BAD)
    runs = 0

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal runs
        runs += 1
        for records in groups.values():
            for record in records:
                large = bytes(30_000) if record.value == BAD else b"small"
                if what == "output":
                    unit.send("out", large, key=record.key)
                else:
                    unit.send("out", b"small")
                    unit.state("counts", 0).put(record.key or b"", large)

    async def main() -> None:
        async with working(handler, options_for(broker, states=("counts",), limits=limits), ["in"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 3)

    asyncio.run(main())
    (dead,) = broker.records("in.dead")
    letter = read_dead_letter(dead.header("dead") or "")
    assert (dead.value, letter.error, letter.attempts) == (BAD, "OutputRefused", SETTINGS.handler_attempts_max)
    assert "20000" in letter.cause
    assert len(broker.records("out")) == 2
    assert runs < 12


def test_what_the_broker_refuses_while_others_write_is_not_their_fault() -> None:
    """A later record meets the refusal of an earlier one: with one attempt for each, it would be dead in its stead."""
    broker = memory_broker(partitions=1)
    for value in (b"1", BAD, b"2", b"3"):
        broker.append("in", value)

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        refused = False
        for records in groups.values():
            for record in records:
                if refused:
                    raise RecordFailed(record, RefusedEarlier("a record of this unit of work is refused"))
                unit.send("out", record.value)
                refused = record.value == BAD
        if refused:
            raise OutputRefused("as a commit says it")

    async def main() -> None:
        once = SETTINGS.model_copy(update={"handler_attempts_max": 1})
        async with working(handler, options_for(broker, settings=once), ["in"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 4)

    asyncio.run(main())
    assert values(broker.records("in.dead")) == [BAD.decode()]
    assert values(broker.records("out")) == ["1", "2", "3"]


def test_a_send_beside_the_units_that_is_refused_harms_no_other(tmp_path: Path) -> None:
    """Sends that wait together share a transaction; the one that is too large fails alone."""
    broker = memory_broker(partitions=1)
    app = make_app(broker, tmp_path)
    out = app.topic("out")
    answers: list[Any] = []

    @app.task  # type: ignore[untyped-decorator]
    async def task() -> None:
        waiting = [await out.send(value=value) for value in (b"a", bytes(2_000_000), b"b")]
        answers.extend(await asyncio.gather(*waiting, return_exceptions=True))

    run(app, lambda: len(answers) == 3)
    assert values(broker.records("out")) == ["a", "b"]
    assert isinstance(answers[1], OutputRefused)


NAMES = ["id", "type", "attempt", "dead", "redrive", "settled", "stand-in"]
HEADERS = st.lists(
    st.tuples(
        st.text(max_size=8) | st.sampled_from(NAMES),
        st.none() | st.binary(max_size=40) | st.just(b"99999999999"),
    ),
    max_size=6,
).map(tuple)
RECORDS = st.builds(
    ConsumedRecord,
    st.just("in"),
    st.just(0),
    st.integers(0, 2**40),
    st.integers(-1, 2**62),
    st.none() | st.binary(max_size=60) | st.binary(min_size=1, max_size=3).map(lambda part: part * 1_000),
    st.none() | st.binary(max_size=60) | st.just(bytes(PAYLOAD_BYTES_MAX + 1)),
    HEADERS,
)


def letter_of(record: ConsumedRecord) -> DeadLetter:
    return describe(record, "why", application="app", kind="peer", attempts=1, died_milliseconds=1, parked=True)


@given(RECORDS)
@settings(max_examples=300, deadline=None)
def test_the_outboxs_form_holds_any_record_in_what_any_database_takes(record: ConsumedRecord) -> None:
    """All of it is ASCII without a zero byte and within the limits; and the record comes out as it was."""
    letter = letter_of(record)
    message = dead_message(record, letter)
    texts = [
        value for name in ("key", "type", "dead", "step", "tenant") if isinstance(value := getattr(message, name), str)
    ]
    assert all(text.isascii() and "\0" not in text for text in texts)
    assert len(message.payload) + sum(map(len, texts)) <= PAYLOAD_BYTES_MAX + 10_000
    assert message.attempt is None or abs(message.attempt) < 2**31
    said = read_dead_letter(message.dead or "")
    dead = ConsumedRecord(
        "in.dead", 0, 1, 1, message.key.encode(), message.payload, (("dead", (message.dead or "").encode()),)
    )
    if said.reference is not None:
        whole = resolved(dead, said, record)
        assert whole is not None
        dead, said = whole, read_dead_letter(whole.header("dead") or "")
    back = original(dead, said)
    assert (back.key, back.value, record_hash(back)) == (record.key, record.value, record_hash(record))


def test_a_long_key_has_a_name_that_names_itself() -> None:
    """So that a record under the name, and one under the key, wait for the same."""
    assert key_name(b"short") == b"short"
    assert key_name(b"x" * 2_000) == key_name(key_name(b"x" * 2_000))
    assert len(key_name(b"x" * 2_000)) < 100


@pytest.mark.parametrize(
    "header",
    [b"[" * 100_000, b"{}", b"null", b"[]", b"\xff", json.dumps({"application": 1}).encode(), b'{"a": ' * 5_000],
    ids=lambda value: repr(value[:12]),
)
def test_a_header_that_only_looks_like_a_mark_stops_nobody(header: bytes) -> None:
    """It is looked at before any agent is: JSON nested beyond recursion would end the worker at each start."""
    broker = memory_broker(partitions=1)
    fill_around(broker, b"x", headers=(("redrive", header),))

    async def main() -> None:
        async with working(copy, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 3)

    asyncio.run(main())
    assert len(broker.records("out")) == 3


def test_a_mark_is_read_as_it_was_written() -> None:
    """The check of its types refuses none of ours."""
    mark = Mark("app", "of", None, False, 1, 2, 3, True)
    record = ConsumedRecord("in", 0, 0, 0, None, None, (mark.to_header(),))
    assert read_mark(record) == mark


def test_a_dead_record_may_have_had_headers_of_ours() -> None:
    """A record with a header `settled` of its own is a dead letter like any other once it is dead."""
    broker = memory_broker(partitions=1)
    fill_around(broker, BAD, headers=(("settled", b"{}"), ("stand-in", b"{}")))

    async def main() -> None:
        async with working(refuses_bad, options_for(broker), ["in"]) as worker:
            await worker.until(lambda: sum(broker.committed_offsets("app").values()) == 3)

    asyncio.run(main())
    (dead,) = read_quarantine(broker, ["in.dead"]).letters()
    assert dead.fate is Fate.WAITING
    assert done(broker, 3)()
