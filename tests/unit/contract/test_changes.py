"""Sixty changes and more that would break somebody, and forty that would not: each a folder with its verdict and words.

`changes/<verdict>/<name>/` holds `before.avsc` and `after.avsc`, the topic before and after where it matters, and
`expect.yaml`: the rules that find it and words that the finding says.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Final

import pytest
import yaml

from towpath.contract.avro_readers import ApacheReader, CannotJudge, FastavroReader, Judge, write_body
from towpath.contract.catalogue import Catalogue, read_topics
from towpath.contract.changes import compare, meaning_changes
from towpath.contract.finding import Finding
from towpath.contract.parties import Parties, Party, PartyKind, Use
from towpath.contract.promises import Form, compare_forms
from towpath.contract.sample import sample
from towpath.contract.schema import Schemas
from towpath.contract.snapshot import Snapshot, schemas_of
from towpath.contract.topic_changes import topic_changes

FOLDER: Final = Path(__file__).parent / "changes"
RECORD: Final = "shop.order.OrderPlaced"
TOPIC: Final = {
    "topic": "order.events",
    "kind": "events",
    "owner": "order",
    "key": "order_id",
    "partitions": 4,
    "retention_days": 30,
    "values": [RECORD],
    "producers": ["order"],
    "consumers": ["place_order", "order_status"],
}
CHANGES: Final = sorted(FOLDER.glob("*/*"))


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as its folder says it."""

    verdict: str
    rules: list[str]
    words: str
    before: Snapshot
    after: Snapshot
    parties: Parties


def load(folder: Path, scratch: Path) -> Change:
    """Read one folder; topics are written out for the catalogue's own reader."""
    expect = yaml.safe_load((folder / "expect.yaml").read_text(encoding="utf-8"))
    before, after = (_snapshot(folder, name, scratch) for name in ("before", "after"))
    assert after.catalogue is not None
    use = (Use(RECORD, "order.events", "its start event"),)
    known = [
        Party("place_order", PartyKind.SAGA, use, deadline_days=4),
        Party("order_status", PartyKind.VIEW, use),
    ]
    parties = Parties.of(known, after.catalogue)
    return Change(expect["verdict"], expect["rules"], expect.get("words", ""), before, after, parties)


def _snapshot(folder: Path, name: str, scratch: Path) -> Snapshot:
    avro, topic = folder / f"{name}.avsc", folder / f"{name}.topic.yaml"
    records = {}
    if avro.is_file():
        records[RECORD] = schemas_of(RECORD, json.loads(avro.read_text(encoding="utf-8")), avro.name)
    described: dict[str, Any] = TOPIC
    if topic.is_file():
        described = yaml.safe_load(topic.read_text(encoding="utf-8"))
    elif list(folder.glob("*.topic.yaml")):
        described = {**TOPIC, "topic": "other.events", "owner": "other"}
    path = scratch / f"{described['topic']}.yaml"
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    topics = {found.name: found for found in read_topics(path)}
    return Snapshot("version 1" if name == "before" else "today", records, Catalogue(MappingProxyType(topics)))


@pytest.mark.parametrize("folder", CHANGES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_change_has_its_verdict_and_its_words(folder: Path, tmp_path: Path) -> None:
    """What breaks somebody fails, by the rules that the folder names and no others; what does not, does not."""
    change = load(folder, tmp_path)
    found = compare(change.before, change.after, change.parties)
    told = "\n".join(f"{one.rule}: {one.problem} -> {one.fix} {one.breaks}" for one in found)
    assert any(one.fails for one in found) == (change.verdict == "breaking"), told
    assert {one.rule for one in found} == set(change.rules), told
    assert change.words in told
    assert len({(one.rule, one.place, one.problem) for one in found}) == len(found)
    assert all(one.fix for one in found)


def test_there_are_enough_changes() -> None:
    """Sixty that break and forty that do not, at the least."""
    verdicts = [path.parent.name for path in CHANGES]
    assert verdicts.count("breaking") >= 60
    assert verdicts.count("harmless") >= 40


def pairs(change: Change) -> Iterator[tuple[Schemas, Schemas]]:
    """Yield (writer, reader) in both directions."""
    if RECORD in change.before.records and RECORD in change.after.records:
        before, after = change.before.records[RECORD], change.after.records[RECORD]
        yield before, after
        yield after, before


def library(judge: Judge) -> Callable[[Change], bool]:
    """Return what a library sees alone: that records made by chance cannot be read, in either direction."""

    def sees(change: Change) -> bool:
        chance = Random(7)
        for writer, reader in pairs(change):
            written, wanted = (form.avro(RECORD, docs=False) for form in (writer, reader))
            for _ in range(12):
                try:
                    judge.read(write_body(written, sample(writer, RECORD, chance)), writer=written, reader=wanted)
                except CannotJudge:
                    return False
                except Exception:
                    return True
        return False

    return sees


def rules(change: Change) -> bool:
    """Return what the rules of compatibility see alone."""
    if not list(pairs(change)):
        return False
    forms = [Form("1", change.before.records[RECORD], 1), Form("2", change.after.records[RECORD], 2)]
    assert change.after.catalogue is not None
    return bool(compare_forms(RECORD, forms, change.after.catalogue, change.parties).findings)


def meaning(change: Change) -> bool:
    """Return what the rules of meaning see alone."""
    return bool(list(meaning_changes(change.before, change.after)))


def topics(change: Change) -> bool:
    """Return what the comparison of topics sees alone."""
    assert change.before.catalogue is not None
    assert change.after.catalogue is not None
    return bool(topic_changes(change.before.catalogue, change.after.catalogue, change.parties))


JUDGES: Final[dict[str, Callable[[Change], bool]]] = {
    "fastavro": library(FastavroReader()),
    "avro": library(ApacheReader()),
    "rules": rules,
    "meaning": meaning,
    "topics": topics,
}


def test_each_judge_alone_misses_some_of_what_breaks(tmp_path: Path) -> None:
    """None of them could be left out, nor do without the others; together they miss nothing."""
    breaking = {path.name: load(path, tmp_path) for path in CHANGES if path.parent.name == "breaking"}
    seen = {name: {change for change, what in breaking.items() if sees(what)} for name, sees in JUDGES.items()}
    for name, found in seen.items():
        assert found, name
        assert breaking.keys() - found, name
    assert set().union(*seen.values()) == breaking.keys()
    # What only decoded bytes show, a library sees; what reads without an error as another value, none does.
    assert "milliseconds_to_microseconds" not in seen["fastavro"] | seen["avro"]
    assert "milliseconds_to_microseconds" in seen["rules"]
    assert "cents_become_euros" not in seen["rules"] | seen["fastavro"] | seen["avro"]


def test_a_finding_names_who_breaks_and_shows_a_record_that_fails(tmp_path: Path) -> None:
    """The whole of one finding, as a person reads it."""
    change = load(FOLDER / "breaking/enum_symbol_added", tmp_path)
    (found,) = compare(change.before, change.after, change.parties)
    assert found == Finding(
        "compatibility",
        RECORD,
        "readers of version 1 cannot read what the form of today writes: OrderPlaced.channel: the reader does not know "
        "the symbols PHONE",
        breaks=("order_status, place_order (reading order.events, as soon as order is deployed)",),
        fix="give the enum a default, in a version that readers have before a writer uses the new symbol",
        place="OrderPlaced.channel",
        sample='{"order_id": "a", "channel": "PHONE"} (cannot be read: SchemaResolutionError)',
    )


def test_every_break_comes_with_a_record_that_fails(tmp_path: Path) -> None:
    """Of each finding of the compatibility rules, whatever the change: somebody who doubts it can try it."""
    without = [
        f"{folder.name}: {found.place}: {found.problem}"
        for folder in CHANGES
        if (change := load(folder, tmp_path))
        for found in compare(change.before, change.after, change.parties)
        if found.rule == "compatibility" and not found.sample
    ]
    assert not without, "\n".join(without)


def test_partitions_that_follow_a_topic_are_told_with_it(tmp_path: Path) -> None:
    """A saga's own topics and its commands grow with the topic that it starts from; another topic is another cause."""

    def catalogue(partitions: int) -> Catalogue:
        folder = tmp_path / str(partitions)
        folder.mkdir()
        for name, kind, producer, consumer in (
            ("order.events", "events", "order", "place_order"),
            ("place_order.replies", "replies", "order", "place_order"),
            ("payment.commands", "commands", "place_order", "payment"),
            ("stock.events", "events", "stock", "audit"),
            ("audit.commands", "commands", "audit", "stock"),
        ):
            described = {**TOPIC, "topic": name, "kind": kind, "partitions": partitions}
            described |= {"owner": name.partition(".")[0], "producers": [producer], "consumers": [consumer]}
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
        return Catalogue.read(folder)

    before, after = catalogue(4), catalogue(6)
    found = topic_changes(before, after, Parties.of((), after))
    assert [(one.subject, one.problem.partition(":")[0]) for one in found] == [
        ("order.events", "it had 4 partitions and has 6, and with it payment.commands, place_order.replies"),
        ("stock.events", "it had 4 partitions and has 6, and with it audit.commands"),
    ]
