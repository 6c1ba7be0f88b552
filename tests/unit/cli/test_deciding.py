"""What a person says who decides something: who it is, and why."""

import getpass

import pytest

from towpath.cli.deciding import require_reason, show_done, user_name
from towpath.errors import ConfigurationError


def test_a_user_whom_the_system_has_no_name_for_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number that no user has: a decision is still kept with somebody."""
    assert user_name() == getpass.getuser()

    def nobody() -> str:
        raise OSError("no username set in the environment")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert user_name() == "unknown"


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_a_reason_that_says_nothing_is_none(reason: str | None) -> None:
    """What is kept with a decision is what the person wrote, or there is no decision."""
    with pytest.raises(ConfigurationError, match="a replay needs a reason"):
        require_reason(reason, "a replay")
    assert require_reason(" a disk broke ") == " a disk broke "


def test_what_was_done_is_a_row_for_each_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads names and values; a program reads the same as JSON."""
    show_done({"offset_after": 7}, as_json=True)
    assert capsys.readouterr().out == '{"offset_after": 7}\n'
    show_done({"offset_after": 7}, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["what", "value"],
        ["offset", "after", "7"],
    ]
