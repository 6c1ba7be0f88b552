"""The benchmark of restarts does not take what was never seen for a short time."""

import pytest

from bench import restarts


def test_of_twenty_the_longest_is_told_as_p99() -> None:
    """No restart is left out of what is promised."""
    found = restarts.percentiles([float(number) for number in range(1, 21)])
    assert found == {"p50": 11.0, "p99": 20.0, "max": 20.0}


def test_a_restart_after_which_nobody_served_has_no_time() -> None:
    """It counts as longer than any other."""
    assert restarts.percentiles([2.0, None, 3.0]) == {"p50": 3.0, "p99": None, "max": None}


def test_no_restart_at_all_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    monkeypatch.setattr("sys.argv", ["restarts", "--restarts", "0"])
    with pytest.raises(SystemExit):
        restarts.main()
    assert "at least 1" in capsys.readouterr().err
