"""The runner of the rings: what runs together, and what is refused."""

import sys

import pytest

from tests.run import ROOT, Run, main, plan, side_by_side


def test_rings_on_real_parts_run_as_two_halves_side_by_side() -> None:
    """Each half is one pytest with one stack; unit runs apart on two processes. No folder is run twice or left out."""
    unit, real = plan(["unit", "integration", "acceptance"])
    assert unit.rings == ("unit",)
    assert unit.options == ("-n", "2")
    assert len(unit.folders) == 1
    assert real.rings == ("integration", "acceptance")
    first, second = real.folders
    assert second == ("tests/integration/whole_stacks", "tests/crash", "tests/acceptance", "tests/chaos")
    there = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("tests/integration/**/test_*.py")}
    assert sorted(there) == sorted(one for one in (*first, *second) if one.startswith("tests/integration/"))
    assert set(first) - there == {"tests/conformance"}


def test_a_failure_in_either_half_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever half fails, the run does; the other one is seen to its end."""
    for halves, code in (((0, 0), 0), ((1, 0), 1), ((0, 1), 1)):
        ran: list[tuple[str, ...]] = []

        def carried_out(run: Run, _: list[str], codes: tuple[int, ...] = halves) -> tuple[Run, int, float]:
            ran.append(run.rings)  # noqa: B023 - called within the loop
            programs = [[sys.executable, "-c", f"raise SystemExit({one})"] for one in codes]
            return run, side_by_side(programs), 0.0

        monkeypatch.setattr("tests.run._carry_out", carried_out)
        assert main(["integration"]) == code
        assert ran == [("integration",)]


def test_long_forms_run_alone() -> None:
    """What takes an hour runs only when asked for by name."""
    (real,) = plan(["integration"])
    (crash,) = plan(["crash"])
    (chaos,) = plan(["chaos"])
    assert real.options == ("-m", "not crash and not chaos")
    assert crash.options == ("-m", "crash")
    assert chaos.options[:2] == ("-m", "chaos")


def test_an_unknown_ring_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt ring fails instead of passing with nothing run."""
    assert main(["unti"]) == 2
    assert "unti" in capsys.readouterr().err
