"""Arbitrary records in every topic of a saga: each is applied or quarantined, and the worker never stops."""

import asyncio
import os
import re
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from tests.arbitrary_records import ArbitraryRecords
from tests.reference_records import CATALOGUE, CODEC, SETTINGS, dead_headers_of, good_values, letters_by_position
from tests.unit.orchestrator.desktop import order_placed
from tests.unit.orchestrator.village import Village
from towpath.orchestrator import records as wire
from towpath.orchestrator.agent import create_orchestrator
from towpath.orchestrator.envelope import headers_of, message_id
from towpath.orchestrator.mapping import wire_name
from towpath.orchestrator.retention import FORGET
from towpath.project import load_sagas
from towpath.saga.definition import Definition
from towpath.settings import Settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord, Headers, TopicPartition

TOPICS = ("order.events", "buy.replies", "buy.signals", "buy.operator", "buy.timers")


@pytest.mark.parametrize("seed", range(3))
def test_an_orchestrator_applies_or_quarantines_whatever_comes(tmp_path: Path, seed: int) -> None:
    """Bytes that are no record, headers that lie, keys that are no text, sizes at the limit."""
    village = Village(tmp_path, {})
    asked = wire.OperatorAsked(saga_id="x", action=wire.OperatorAction.CANCEL, actor="grace", reason="late")
    order = order_placed()
    arbitrary = ArbitraryRecords(
        seed,
        values=[CODEC.encode(record) for record in (order, asked)],
        headers=[
            headers_of(id="e-1", type=order.SCHEMA_NAME),
            headers_of(id="r", saga_id="x", step="goods", direction="do", attempt=1, round=1),
        ],
        sizes=(999_900, 1_040_000, 1_048_400),
    )
    settings = village.settings.stream.model_copy(update={"dead_letter_share_max": 1.0, "handler_attempts_max": 2})
    village.settings = village.settings.model_copy(update={"stream": settings})
    topics = [topic for topic in TOPICS if topic in village.catalogue.topics]
    for topic in topics:
        for key, value, headers in arbitrary.take(40):
            village.broker.append(topic, value, key=key, headers=headers)
    places = [
        TopicPartition(topic, number)
        for topic in topics
        for number in range(village.broker.partition_counts([topic])[topic])
    ]

    def read() -> bool:
        offsets = village.broker.committed_offsets("village-saga-buy")
        ends = village.broker.end_offsets(places)
        return all(end == 0 or offsets.get(place, 0) >= end for place, end in ends.items())

    print(f"seed {seed}")  # noqa: T201 - to run it again
    with capture_logs():
        village.run(read, seconds=120, workers=("buy",))
    dead = sum(len(village.broker.records(f"{topic}.dead")) for topic in topics)
    assert 0 < dead < 40 * len(topics)


GOOD_SHARE = 0.4
HISTORY_ID = re.compile(r"\w+:(?P<position>[\w.]+\[\d+\]@\d+):", re.ASCII)


@pytest.mark.parametrize("saga", ["place_order", "cancel_order"])
def test_every_input_of_the_reference_projects_sagas_is_accounted_for(saga: str) -> None:
    """It has entries in the history, or one letter; what has neither is another's event, a repetition, or kept."""
    seed = int(os.environ.get("TOWPATH_TEST_SEED") or Random().randrange(10**6))
    print(f"seed {seed}")  # noqa: T201 - to run it again
    chance = Random(seed)
    definitions = load_sagas(SETTINGS)[saga]
    stream = SETTINGS.stream.model_copy(
        update={
            "dead_letter_share_max": 1.0,
            "handler_attempts_max": 2,
            "batch_seconds_max": 2.0,
            "transaction_timeout_seconds": 3.0,
            "session_timeout_seconds": 4.0,
        }
    )
    broker = MemoryBroker(stream)
    for topic in CATALOGUE.topics.values():
        broker.create_topic(topic.name, topic.partitions)
    topics = [
        name
        for name in ("order.events", *(f"{saga}.{kind}" for kind in ("replies", "signals", "operator", "timers")))
        if name in CATALOGUE.topics
    ]
    for number, topic_name in enumerate(topics):
        send_arbitrary(broker, topic_name, seed + number, chance)
    work(SETTINGS.model_copy(update={"stream": stream}), saga, definitions, broker, topics)
    sent = [record for topic_name in topics for record in broker.records(topic_name)]
    letters = letters_by_position(
        text for topic_name in topics for text in dead_headers_of(broker.records(f"{topic_name}.dead"))
    )
    told = positions_told(broker.records(f"{saga}.history"))
    assert max(letters.values()) == 1
    assert letters.keys() <= {record.position for record in sent}
    assert told <= {record.position for record in sent}
    assert not told & letters.keys()
    assert told, "few starts come through, but some do"
    assert len(letters) > 10
    silent = [record for record in sent if record.position not in told and record.position not in letters]
    kept = early_signals(broker.records(f"{saga}.state"))
    starts = {wire_name(kind) for kind in definitions[max(definitions)].starts}
    started = {message_id(record) for record in sent if record.topic == "order.events" and record.position in told}
    for record in silent:
        assert is_silent(record, starts, started, kept), f"nothing came of {record}"


def send_arbitrary(broker: MemoryBroker, topic: str, seed: int, chance: Random) -> None:
    """Send arbitrary records, made of good ones, to a topic."""
    good = good_values(topic, chance)

    def said(type_: str) -> Headers:
        values: dict[str, object] = {"id": f"{topic}-{chance.randrange(60)}", "type": type_}
        if not topic.endswith(".events"):
            values |= {"saga_id": f"s-{chance.randrange(3)}", "step": chance.choice(("stock", "payment", "x"))}
            values |= {"direction": chance.choice(("do", "undo")), "attempt": chance.choice((1, 2, 99_999_999_999))}
            values |= {"round": 1}
        return headers_of(**values)

    arbitrary = ArbitraryRecords(
        seed,
        values=[value for _, value in good],
        headers=[said(type_) for type_, _ in good for _ in range(5)],
        sizes=(999_900, 1_040_000, 1_048_400),
    )
    for key, value, headers in arbitrary.take(40):
        if chance.random() < GOOD_SHARE:
            type_, fine = chance.choice(good)
            broker.append(topic, fine, key=b"good-%d" % chance.randrange(1_000), headers=said(type_))
        else:
            broker.append(topic, value, key=key, headers=headers)


def work(
    settings: Settings, saga: str, definitions: dict[int, Definition], broker: MemoryBroker, topics: list[str]
) -> None:
    """Run the saga's worker until it has read all that was sent."""
    places = [TopicPartition(topic, number) for topic in topics for number in range(4)]

    def read() -> bool:
        offsets = broker.committed_offsets(f"{settings.project.name}-saga-{saga}")
        return all(end == 0 or offsets.get(place, 0) >= end for place, end in broker.end_offsets(places).items())

    async def main() -> None:
        app = create_orchestrator(
            settings,
            definitions,
            CODEC,
            slot="1",
            start_topic="order.events",
            declared_topics=CATALOGUE.topics,
            broker=broker,
            memory_stores=True,
        )
        await app.start()
        try:
            async with asyncio.timeout(240):
                while not read():
                    if app.crash_reason is not None:
                        raise app.crash_reason
                    await asyncio.sleep(0.02)
        finally:
            await app.stop()

    with capture_logs():  # hundreds of tracebacks, with all that the frames held, take minutes to print
        asyncio.run(main())


def positions_told(history: list[ConsumedRecord]) -> set[str]:
    """Return the inputs that the history tells of."""
    found = (HISTORY_ID.match(record.header("id") or "") for record in history)
    return {match["position"] for match in found if match is not None}


def early_signals(state: list[ConsumedRecord]) -> set[str]:
    """Return the ids of the signals that were ever kept for a saga that had not started."""
    decoded = [CODEC.decode(record.value) for record in state if record.value and (record.key or b"")[:1] == b"e"]
    return {signal.id for one in decoded if isinstance(one, wire.EarlySignals) for signal in one.signals}


def is_silent(record: ConsumedRecord, starts: set[str], started: set[str], kept: set[str]) -> bool:
    """Say whether nothing need come of an input that could be read."""
    if record.topic == "order.events":
        type_ = record.header("type")
        if type_ is not None and type_ not in starts:
            return True
        # One that says of itself that it is another is taken for what it is.
        return type(CODEC.decode(record.value or b"")).SCHEMA_NAME not in starts or message_id(record) in started
    if record.topic.endswith(".signals"):
        return message_id(record) in kept
    decoded = CODEC.decode(record.value or b"")
    return isinstance(decoded, wire.TimerFired) and decoded.kind == FORGET
