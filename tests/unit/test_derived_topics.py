"""Topics follow from code: what sagas need, what services answer, who reads; a person says which events there are."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.records.order import OrderPlaced
from tests.stack_fixture import ROOT
from tests.unit.orchestrator.family import buy, hold_goods
from towpath.contract.catalogue import DERIVED_FILE, WHOLE, Catalogue, Topic
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.parties import Parties
from towpath.contract.snapshot import Snapshot, topic_to_json
from towpath.contract.topic_changes import topic_changes
from towpath.derived_topics import Code, derive, derived_is_stale, derived_text
from towpath.errors import ContractError
from towpath.orchestrator.topics import topic_findings
from towpath.project import load_sagas, load_services
from towpath.settings import load_settings
from towpath.view import View

SAGAS = {made.name: {1: made.definition} for made in (buy(), hold_goods())}
EVENTS: dict[str, dict[str, Any]] = {
    "order.events": {"topic": "order.events", "key": "order_id", "values": [OrderPlaced.SCHEMA_NAME]}
}


@dataclass(frozen=True, slots=True)
class _Row:
    order_id: str


def _fold(_row: _Row | None, event: OrderPlaced, _at: object) -> _Row:
    return _Row(event.order_id)


def catalogue(folder: Path, code: Code, declared: dict[str, dict[str, Any]], partitions: int = 4) -> Catalogue:
    """Return the catalogue of what people declared and what is derived of it."""
    for name, content in declared.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    derived = derive(code, declared, {}, partitions)
    (folder / DERIVED_FILE).write_text(yaml.safe_dump(list(derived.values())), encoding="utf-8")
    return Catalogue.read(folder)


def test_a_saga_and_its_sub_saga_lack_nothing(tmp_path: Path) -> None:
    """Three lines of events are declared; every topic of parent and child follows, in one partition count."""
    found = catalogue(tmp_path, Code(SAGAS, {}), EVENTS, partitions=6)
    assert topic_findings(SAGAS, found) == ()
    assert {topic.partitions for topic in found.topics.values()} == {6}
    assert {topic.key for topic in found.topics.values()} == {"order_id"}
    assert found.topics["order.events"].consumers == ("buy",)
    assert found.dead_letter("buy.replies") is not None
    assert found.dead_letter("buy.state") is None


def test_the_start_events_partitions_are_those_of_the_saga(tmp_path: Path) -> None:
    """What concerns one saga lies in one partition number, so its topics follow the one that starts it."""
    declared = {"order.events": {**EVENTS["order.events"], "partitions": 2}}
    found = catalogue(tmp_path, Code(SAGAS, {}), declared)
    assert {topic.partitions for topic in found.topics.values()} == {2}
    assert topic_findings(SAGAS, found) == ()


def test_a_start_event_in_no_topic_is_named() -> None:
    """Which events a service publishes is for people to say."""
    with pytest.raises(ContractError) as caught:
        derive(Code(SAGAS, {}), {}, {OrderPlaced.SCHEMA_NAME: "order"}, 4)
    assert "buy starts on craftygoods.order.OrderPlaced" in caught.value.cause
    assert "towpath add topic order.events" in (caught.value.next_step or "")


def test_a_file_that_says_everything_is_not_derived() -> None:
    """So the catalogues of projects that declare every topic stay exactly as they are."""
    whole = dict.fromkeys(WHOLE, "") | {"topic": "buy.timers", "key": "order_id", "partitions": 4, "values": []}
    assert "buy.timers" not in derive(Code(SAGAS, {}), EVENTS | {"buy.timers": whole}, {}, 4)


def test_a_long_saga_keeps_its_topics_as_long() -> None:
    """A topic never forgets an input that a saga may still wait for."""
    long = replace(buy().definition, deadline_milliseconds=40 * 86_400_000 + 1)
    derived = derive(Code({"buy": {1: long}, "hold_goods": SAGAS["hold_goods"]}, {}), EVENTS, {}, 4)
    assert derived["buy.replies"]["retention_days"] == 41
    assert derived["order.events"]["retention_days"] == 41
    assert derived["buy.history"]["retention_days"] == 90


def test_services_and_views_are_among_the_readers() -> None:
    """A service answers its commands though no saga asks yet; a view reads the topics that it names."""
    services = load_services(load_settings(ROOT))
    view = View(
        name="days", topics=("order.events",), row=_Row, key="order_id", folds=frozenset({OrderPlaced}), fold=_fold
    )
    derived = derive(Code({}, services, (view,)), EVENTS, {}, 4)
    assert derived["payment.commands"]["consumers"] == ["payment"]
    assert derived["payment.commands"]["producers"] == []
    assert "craftygoods.payment.CapturePayment" in derived["payment.commands"]["values"]
    assert derived["order.events"]["consumers"] == ["days"]


def test_the_projects_own_derived_file_is_fresh() -> None:
    """As `towpath contracts test` asks; and no topic of a saga is declared by hand."""
    settings = load_settings(ROOT)
    assert not derived_is_stale(settings, derived_text(settings, load_contracts(schema_sets(settings))))
    assert topic_findings(load_sagas(settings), Catalogue.load(settings)) == ()
    assert sorted(path.stem for path in (ROOT / "schemas/topics").glob("[!_]*.yaml")) == [
        "catalog.events",
        "identity.events",
        "order.events",
        "payment.events",
    ]


def test_what_was_declared_by_hand_is_what_is_derived() -> None:
    """Each of the 33 topics of the reference project, as its own file said it before topics were derived."""
    path = ROOT / "tests/contracts/declared_topics.json"
    before = Snapshot.from_json(path.name, json.loads(path.read_text(encoding="utf-8"))).catalogue
    assert before is not None
    now = Catalogue.load(load_settings(ROOT))
    assert topic_changes(before, now, Parties.of((), now)) == ()
    assert [_plain(topic) for topic in now.topics.values()] == [_plain(topic) for topic in before.topics.values()]


def _plain(topic: Topic) -> dict[str, Any]:
    """Return a topic without its documentation, the order of its lists, and the limits that the engine itself sets."""
    listed = {name: sorted(getattr(topic, name)) for name in ("values", "producers", "consumers")}
    return {**topic_to_json(topic), **listed, "doc": "", "config": {}}
