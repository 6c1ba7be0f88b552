"""Functions are called again in processes of another hash seed, date, zone, environment: what differs is found."""

import sys
from collections.abc import Iterator

import pytest

from tests.unit.cli.saga import elsewhere_sagas
from towpath.cli.saga_elsewhere import Processes
from towpath.saga.check import Check, Property, Report, Samples

DATA = Samples(generated=lambda kind: (kind(),))
MODULE = elsewhere_sagas.__name__
NAMES = [f"{name}_{twin}" for name in elsewhere_sagas.PAIRS for twin in ("wrong", "right")]


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[str, Report]]:
    """Check all of them, with one pair of processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DESK_LIMIT", "20")
        patch.setattr(elsewhere_sagas, "LIMIT", "20")
        places = {(name, 1): f"{MODULE}:{name}" for name in NAMES}
        sagas = [getattr(elsewhere_sagas, name).definition for name in NAMES]
        with Processes(places) as elsewhere:
            found = Check(sagas, lambda: 0.0, DATA, imports=places, elsewhere=elsewhere).run()
        yield {report.saga: report for report in found}


@pytest.mark.parametrize("name", elsewhere_sagas.PAIRS)
def test_what_depends_on_more_than_its_arguments_is_found(name: str, reports: dict[str, Report]) -> None:
    """It gives the same twice here, and is found all the same: at its step, with what it depends on."""
    (violation,) = reports[f"{name}_wrong"].violations
    assert (violation.rule, violation.subject) == (Property.IMPURE, "book")
    assert elsewhere_sagas.PAIRS[name][2] in violation.words
    assert violation.test == ""


@pytest.mark.parametrize("name", elsewhere_sagas.PAIRS)
def test_its_corrected_twin_is_clean(name: str, reports: dict[str, Report]) -> None:
    """What depends on its arguments alone gives the same everywhere, and was tried there."""
    report = reports[f"{name}_right"]
    assert report.violations == ()
    assert report.elsewhere == report.calls == 2


def test_a_module_that_another_environment_cannot_import_is_found() -> None:
    """A worker without that variable would not start, or decide otherwise."""
    saga = elsewhere_sagas.saga_of("gone", elsewhere_sagas.PAIRS["hash"][1])
    places = {("gone", 1): f"{MODULE}:no_such_saga"}
    with Processes(places) as elsewhere:
        (report,) = Check([saga.definition], lambda: 0.0, DATA, imports=places, elsewhere=elsewhere).run()
    assert "cannot be imported in another environment" in report.violations[0].words


def test_a_process_that_ends_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The check goes on without it, and claims nothing that was not tried."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    saga = elsewhere_sagas.saga_of("alone", elsewhere_sagas.PAIRS["hash"][1])
    with Processes({("alone", 1): f"{MODULE}:hash_right"}) as elsewhere:
        (report,) = Check([saga.definition], lambda: 0.0, DATA, elsewhere=elsewhere).run()
    assert (report.violations, report.elsewhere) == ((), 0)
    assert "ended early" in capsys.readouterr().err
