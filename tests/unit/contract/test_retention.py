"""What remembers outlives what can come back: the sums, and the arithmetic of one that does not hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from towpath.contract.catalogue import Catalogue
from towpath.contract.record import Record
from towpath.contract.retention import all_sums, require_sums, retention_findings
from towpath.errors import ConfigurationError
from towpath.project import load_sagas, load_services
from towpath.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = load_settings(ROOT, environment=False)
CATALOGUE = Catalogue.load(SETTINGS)
COMMANDS = {name: service.commands_topic for name, service in load_services(SETTINGS).items()}
STARTS = {
    saga: [kind.SCHEMA_NAME for one in versions.values() for kind in one.starts if issubclass(kind, Record)]
    for saga, versions in load_sagas(SETTINGS).items()
}


def problems(settings: Settings = SETTINGS, catalogue: Catalogue = CATALOGUE) -> list[tuple[str, str]]:
    """Return subject and problem of each sum that does not hold."""
    found = retention_findings(all_sums(catalogue, settings, COMMANDS, STARTS))
    return [(one.subject, one.problem) for one in found]


def test_the_shipped_values_hold_with_a_margin() -> None:
    """A tenth at least, so that nobody lives at the edge."""
    sums = list(all_sums(CATALOGUE, SETTINGS, COMMANDS, STARTS))
    assert {"catalog", "place_order", "outbox", "order.events"} <= {one.subject for one in sums}
    for one in sums:
        assert one.holds, one.arithmetic
        assert one.memory_days is None or one.memory_days >= 1.1 * (one.total_days or 0), one.arithmetic


def changed(section: str, **values: Any) -> Settings:
    """Return the shipped settings with some changed."""
    return SETTINGS.model_copy(update={section: getattr(SETTINGS, section).model_copy(update=values)})


BROKEN = {
    "an inbox that outlives each retention, and not their sum": (
        changed("participant", inbox_keep_days=100),
        "catalog",
        "[participant] inbox_keep_days 100 must be more than 30 (catalog.commands, unread) + 90 (catalog.commands.dead",
    ),
    "an outbox that is kept as long as ids are": (
        changed("stream", dedup_horizon_days=7.0),
        "outbox",
        "[stream] dedup_horizon_days 7 must be more than 7 ([outbox] keep_days) + 1 (the day that has begun) = 8 days",
    ),
    "finished sagas that go before their start events": (
        changed("saga", finished_retention_days=14.0),
        "place_order",
        "[saga] finished_retention_days 14 must be more than 30 (order.events, from which it starts) days",
    ),
    "an outbox that outlives its topics": (
        changed("outbox", keep_days=30),
        "order.events",
        "order.events retention_days 30 must be more than 30 ([outbox] keep_days) + 1 (the day that has begun) = 31",
    ),
}


@pytest.mark.parametrize(("settings", "subject", "arithmetic"), BROKEN.values(), ids=BROKEN.keys())
def test_a_sum_that_does_not_hold_says_its_arithmetic(settings: Settings, subject: str, arithmetic: str) -> None:
    """Offline as a finding, at a start as an error with a next step."""
    (problem,) = [text for name, text in problems(settings) if name == subject]
    assert problem.startswith(arithmetic), problem
    with pytest.raises(ConfigurationError) as refusal:
        require_sums(one for one in all_sums(CATALOGUE, settings, COMMANDS, STARTS) if one.subject == subject)
    assert arithmetic in str(refusal.value)
    assert refusal.value.next_step


def test_nothing_outlives_commands_that_are_kept_for_ever() -> None:
    """So such a topic is refused, however long the inbox is; what is kept for ever outlives everything."""
    topics = dict(CATALOGUE.topics)
    topics["catalog.commands"] = replace(topics["catalog.commands"], retention_days=None)
    topics["order.events"] = replace(topics["order.events"], retention_days=None)
    found = dict(problems(changed("participant", inbox_keep_days=10_000), Catalogue(topics)))
    assert "for ever" in found["catalog"]
    assert "for ever" in found["place_order"]
    assert "order.events" not in found
