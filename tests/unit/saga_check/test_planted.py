"""Every planted mistake is found, at its place; its mended twin is clean."""

import pytest

from tests.unit.saga_check.planted import PLANTED
from towpath.saga.check import Check, Report


def reports(name: str, *, mended: bool) -> list[Report]:
    """Check a planted saga, or its twin."""
    planted = PLANTED[name]
    return Check(planted.definitions(mended=mended), clock=lambda: 0.0, samples=planted.samples).run()


@pytest.mark.parametrize("name", PLANTED)
def test_the_planted_mistake_is_found(name: str) -> None:
    """The check names the property that is broken, and the step."""
    found = {
        (violation.rule, violation.subject) for report in reports(name, mended=False) for violation in report.violations
    }
    assert (PLANTED[name].rule, PLANTED[name].step) in found


@pytest.mark.parametrize("name", PLANTED)
def test_the_mended_twin_is_clean(name: str) -> None:
    """The check finds nothing where nothing is wrong."""
    found = [
        (violation.rule.value, violation.subject, violation.words)
        for report in reports(name, mended=True)
        for violation in report.violations
    ]
    assert found == []


def test_there_are_at_least_25_planted_mistakes() -> None:
    """The set is as large as was promised."""
    assert len(PLANTED) >= 25
