"""Whatever lies in a dead-letter topic under a name of ours: a stranger, and never an end of whoever reads it."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from tests.unit.deadletter.test_dead_commands import TIMER, dead, watch
from tests.unit.stream.test_parking import mark
from towpath.deadletter.quarantine import Fate, Settlement, sort_quarantine
from towpath.deadletter.redrive import read_quarantine
from towpath.stream.broker.dead_letter import Announcement, read_mark
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.record import ConsumedRecord

GOOD, IDENTITY = dead()
LETTER = json.loads(GOOD.header("dead") or "")
SAID: dict[str, dict[str, Any]] = {
    "settled": asdict(Settlement(IDENTITY, Fate.REDRIVEN, "grace", "fixed", 1_000)),
    "dead": LETTER,
    "stand-in": asdict(Announcement("app", 0, "o-1", "grace", "gone", 1_000)),
    "redrive": asdict(mark()),
}
ODD: tuple[Any, ...] = ([], [1], {}, {"n": None}, "x", 5, 5.5, True, None, 2**63, "\ud83d")
NOTHING = ("[" * 100_000, "5", "null", "[]", '"text"', "{}", "{", "9" * 5_000)
HEADERS = ([1], [["id", 5]], [["id"]], [[7, "a"]], [["id", "\ud83d"]], [["i\ud83d", "a"]])


def hostile() -> list[tuple[str, str]]:
    """Return the header's name and its text: each of ours with each of its parts replaced, left out, and one more."""
    found = [(name, text) for name in SAID for text in NOTHING]
    for name, said in SAID.items():
        found += [(name, json.dumps({**said, part: odd})) for part in said for odd in ODD]
        found += [(name, json.dumps({key: said[key] for key in said if key != part})) for part in said]
        found += [(name, json.dumps({**said, "surplus": 1}))]
    found += [("dead", json.dumps({**LETTER, "headers": headers})) for headers in HEADERS]
    return found + [("dead", json.dumps({**LETTER, "headers": [], "key": odd})) for odd in ODD]


def record(name: str, text: str, offset: int = 8) -> ConsumedRecord:
    return ConsumedRecord(GOOD.topic, 0, offset, 1, b"o-1", None, ((name, text.encode()),))


def test_no_record_of_a_dead_letter_topic_ends_whoever_reads_it() -> None:
    """Neither a command's clock nor a look at the quarantine, which can say of each letter when it died and of what."""
    for name, text in hostile():
        found = watch()
        found.met(record(name, text, 7))
        found.met(GOOD)
        assert found.holds(TIMER, 10) or (name == "settled" and IDENTITY in text), (name, text[:80])
        quarantine = sort_quarantine([GOOD, record(name, text)])
        assert GOOD in [one.record for one in quarantine.letters()], (name, text[:80])
        read_mark(record(name, text))


@pytest.mark.parametrize("name", [name for name in SAID if name != "redrive"])
def test_what_has_a_wrong_type_is_a_stranger(name: str) -> None:
    """It settles nothing, announces nothing and is no dead letter."""
    wrong = [json.dumps({**SAID[name], part: {}}) for part in SAID[name]]
    for text in (*NOTHING, *wrong):
        quarantine = sort_quarantine([GOOD, record(name, text)])
        assert len(quarantine.strangers) == 1, text[:80]
        assert [one.fate for one in quarantine.letters()] == [Fate.WAITING]


def test_a_letter_of_a_place_that_there_is_not_hides_no_other() -> None:
    """Where a letter says that its record lies is read only where there is such a place."""
    broker = MemoryBroker()
    for topic in (GOOD.topic, LETTER["topic"]):
        broker.create_topic(topic, 1)
    for place in ({"partition": 999}, {"partition": -1}, {"topic": "no.such"}, {"offset": 2**62}):
        said = {**LETTER, **place, "reference": "0" * 64}
        broker.append(GOOD.topic, None, key=b"o-1", headers=(("dead", json.dumps(said).encode()),))
    broker.append(GOOD.topic, GOOD.value, key=GOOD.key, headers=GOOD.headers)
    assert any(one.record.value == GOOD.value for one in read_quarantine(broker, [GOOD.topic], seconds=1).letters())


def test_a_dead_commands_own_header_of_that_name_settles_nothing() -> None:
    """A record may have any header before it dies, and is a dead letter all the same."""
    found = watch()
    found.met(GOOD._replace(headers=(("settled", b"yes"), *GOOD.headers)))
    assert found.holds(TIMER, 10)


@pytest.mark.parametrize("name", ["settled", "stand-in", "position"])
def test_a_dead_records_own_header_of_that_name_does_not_hide_it(name: str) -> None:
    """Else nobody can list, redrive or drop it, and its key waits for good."""
    quarantine = sort_quarantine([GOOD._replace(headers=((name, b"7"), *GOOD.headers))])
    assert [one.letter.identity for one in quarantine.letters()] == [IDENTITY]
