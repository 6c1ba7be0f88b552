"""Every planted mistake is found, at its place, and the test that is written about it fails until it is fixed."""

from functools import cache

import pytest

from tests.unit.saga.check.planted import PLANTED
from tests.unit.saga.check.running import MODULE, written_test
from towpath.saga.check import Check, Report, Violation


@cache
def reports(name: str, *, fixed: bool) -> list[Report]:
    """Check a planted saga (or sagas, side by side), or its twin."""
    planted = PLANTED[name]
    definitions = planted.definitions(fixed=fixed)
    imports = {
        (definition.name, definition.version): f"{MODULE}:{'saga' if not number else f'saga_{number + 1}'}"
        for number, definition in enumerate(definitions)
    }
    return Check(definitions, lambda: 0.0, planted.samples, imports).run()


def found(name: str) -> Violation | None:
    """Return the violation that was planted, if it is found."""
    planted = PLANTED[name]
    return next(
        (
            violation
            for report in reports(name, fixed=False)
            for violation in report.violations
            if (violation.rule, violation.subject) == (planted.rule, planted.step)
        ),
        None,
    )


@pytest.mark.parametrize("name", PLANTED)
def test_the_planted_mistake_is_found(name: str) -> None:
    """The check names the property that is broken, and the step."""
    assert found(name) is not None


@pytest.mark.parametrize("name", PLANTED)
def test_the_mended_twin_is_clean(name: str) -> None:
    """The check finds nothing where nothing is wrong."""
    wrong = [
        (violation.rule.value, violation.subject, violation.words)
        for report in reports(name, fixed=True)
        for violation in report.violations
    ]
    assert wrong == []


# Tests of these need what only the command line has (the contracts' examples), or a saga with a name of its own.
NO_TEST = {
    "a_command_that_its_participant_does_not_take",
    "a_condition_comes_out_alike_on_everything",
    "a_mistake_inside_a_sub_saga",
}


@pytest.mark.parametrize("name", sorted(PLANTED.keys() - NO_TEST))
def test_the_written_test_fails_until_the_mistake_is_mended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails on the saga as it is, says why, and passes on the fixed one."""
    violation = found(name)
    assert violation is not None
    broken = PLANTED[name].definitions(fixed=False)
    others = {f"saga_{number}": saga for number, saga in enumerate(broken[1:], start=2)}
    with pytest.raises(AssertionError, match="but"):
        written_test(violation.test, broken[0], monkeypatch, **others)()
    fixed = PLANTED[name].definitions(fixed=True)
    others = {f"saga_{number}": saga for number, saga in enumerate(fixed[1:], start=2)}
    written_test(violation.test, fixed[0], monkeypatch, **others)()


def test_there_are_at_least_25_planted_mistakes() -> None:
    """The set is as large as was promised."""
    assert len(PLANTED) >= 25
