"""The runner of the rings: what runs together, and what is refused."""

import pytest

from tests.run import main, plan


def test_rings_on_real_parts_share_one_run() -> None:
    """Integration and acceptance are one pytest, so that one stack serves both; unit runs apart on two processes."""
    unit, real = plan(["unit", "integration", "acceptance"])
    assert unit.rings == ("unit",)
    assert unit.options == ("-n", "2")
    assert real.rings == ("integration", "acceptance")


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
