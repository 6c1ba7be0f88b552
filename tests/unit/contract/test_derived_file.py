"""The derived file of the catalogue: what people leave open comes from it, what they say wins."""

from pathlib import Path

import pytest
import yaml

from towpath.contract.catalogue import DERIVED_FILE, Catalogue
from towpath.errors import ContractError

EVENTS: dict[str, object] = {"topic": "order.events", "key": "order_id", "values": ["shop.order.OrderPlaced"]}
REST: dict[str, object] = {
    "kind": "events",
    "owner": "order",
    "partitions": 4,
    "retention_days": 30,
    "producers": ["order"],
    "consumers": ["place_order"],
    "dead": {"retention_days": 90},
}
TIMERS: dict[str, object] = {**EVENTS, **REST, "topic": "place_order.timers", "kind": "timers", "owner": "place_order"}


def declare(folder: Path, *contents: dict[str, object]) -> None:
    """Write a file for each topic."""
    for content in contents:
        (folder / f"{content['topic']}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def derive(folder: Path, *contents: dict[str, object]) -> None:
    """Write the derived file."""
    (folder / DERIVED_FILE).write_text(yaml.safe_dump(list(contents)), encoding="utf-8")


def test_a_file_says_what_differs_and_the_rest_is_derived(tmp_path: Path) -> None:
    """Key by key: the retention of the file, all else of the derived one."""
    declare(tmp_path, {**EVENTS, "retention_days": 7})
    derive(tmp_path, {**EVENTS, **REST}, TIMERS)
    topics = Catalogue.read(tmp_path).topics
    assert sorted(topics) == ["order.events", "order.events.dead", "place_order.timers", "place_order.timers.dead"]
    assert topics["order.events"].retention_days == 7
    assert topics["order.events"].consumers == ("place_order",)


def test_a_file_that_says_everything_is_taken_as_it_stands(tmp_path: Path) -> None:
    """One without a dead section has no dead letters, whatever was derived before it was written."""
    whole = {**EVENTS, **REST, "consumers": []}
    del whole["dead"]
    declare(tmp_path, whole)
    derive(tmp_path, {**EVENTS, **REST})
    assert list(Catalogue.read(tmp_path).topics) == ["order.events"]
    assert Catalogue.read(tmp_path).topics["order.events"].consumers == ()


def test_what_is_derived_nowhere_is_asked_for(tmp_path: Path) -> None:
    """The error names what is open, and the command that derives it."""
    declare(tmp_path, EVENTS)
    with pytest.raises(ContractError) as caught:
        Catalogue.read(tmp_path)
    assert "'partitions' is missing" in caught.value.cause
    assert (caught.value.next_step or "").startswith("towpath contracts generate")


@pytest.mark.parametrize("text", ["topic: a.events", "- kind: events"])
def test_a_derived_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """It is generated, so the way out is to generate it."""
    (tmp_path / DERIVED_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ContractError) as caught:
        Catalogue.read(tmp_path)
    assert caught.value.next_step == "towpath contracts generate"
