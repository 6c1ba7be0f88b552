"""A finding that a project decided to live with is reported as waived, until the day that it named."""

from datetime import date
from pathlib import Path

import pytest

from towpath.contract.finding import Finding, Severity
from towpath.contract.waivers import Waiver, add_waiver, apply_waivers, load_waivers
from towpath.errors import ContractError

FOUND = Finding("judge", "shop.order.OrderPlaced", "avro cannot read it", place="OrderPlaced.rate")
WAIVER = Waiver(
    rule="judge", subject="shop.order.OrderPlaced", reason="a fault of avro", actor="ada", until=date(2027, 1, 31)
)


def test_a_waived_finding_does_not_fail_and_says_who_decided_it() -> None:
    """On the last day, too."""
    (finding,) = apply_waivers([FOUND], [WAIVER], date(2027, 1, 31)).findings
    assert finding.severity is Severity.WAIVED
    assert not finding.fails
    assert finding.waived_because == "a fault of avro (ada, until 2027-01-31)"


def test_a_waiver_that_ran_out_fails_again_and_is_reported() -> None:
    """The finding and the waiver are both told."""
    done = apply_waivers([FOUND], [WAIVER], date(2027, 2, 1)).findings
    assert [(one.rule, one.fails) for one in done] == [("waiver-expired", True), ("judge", True)]


def test_a_waiver_that_is_about_nothing_is_a_warning() -> None:
    """It would hide the same finding when it comes back for another reason."""
    (unused,) = apply_waivers([], [WAIVER], date(2027, 1, 1)).findings
    assert (unused.rule, unused.fails) == ("waiver-unused", False)


@pytest.mark.parametrize(("place", "waived"), [("OrderPlaced.rate", True), ("OrderPlaced.total", False), ("", True)])
def test_a_waiver_of_one_place_covers_no_other(place: str, waived: bool) -> None:
    """Without a place it covers the whole subject."""
    waiver = WAIVER.model_copy(update={"place": place})
    assert apply_waivers([FOUND], [waiver], date(2027, 1, 1)).count == waived


def test_a_waiver_is_appended_and_read_back(tmp_path: Path) -> None:
    """What a person wrote in the file stays."""
    path = tmp_path / "waivers.yaml"
    path.write_text("# decided in the meeting of May\n", encoding="utf-8")
    add_waiver(path, WAIVER)
    add_waiver(path, WAIVER.model_copy(update={"rule": "unit-changed", "place": "OrderPlaced.total"}))
    assert [waiver.rule for waiver in load_waivers(path)] == ["judge", "unit-changed"]
    assert path.read_text(encoding="utf-8").startswith("# decided in the meeting of May\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {rule: judge, subject: X, reason: because, actor: ada}", "entry 1, until"),
        ("- {rule: judge, subject: X, reason: because, actor: ada, until: 2027-01-31, untill: 1}", "untill"),
        ("- {rule: judge, rule: judge, subject: X}", "stands there twice"),
        ("- {rule: judge, subject: X, reason: '', actor: ada, until: 2027-01-31}", "entry 1, reason"),
    ],
)
def test_a_waiver_without_reason_actor_or_end_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Nothing is waived by a file that is half written."""
    path = tmp_path / "waivers.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ContractError) as caught:
        load_waivers(path)
    assert words in caught.value.cause


def test_an_entry_without_a_line_break_is_not_joined_to_the_next(tmp_path: Path) -> None:
    """Editors leave the last line open."""
    path = tmp_path / "waivers.yaml"
    path.write_text("- {rule: judge, subject: X, reason: because, actor: ada, until: 2027-01-31}", encoding="utf-8")
    add_waiver(path, WAIVER)
    assert [waiver.subject for waiver in load_waivers(path)] == ["X", "shop.order.OrderPlaced"]


@pytest.mark.parametrize("content", [b"nonsense", b"[]", b"- {rule: judge}", b"# caf\xe9\n"])
def test_a_file_that_would_be_broken_is_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    """What cannot take another entry is named, and not written."""
    path = tmp_path / "waivers.yaml"
    path.write_bytes(content)
    with pytest.raises(ContractError, match=r"waivers\.yaml"):
        add_waiver(path, WAIVER)
    assert path.read_bytes() == content


def test_a_waiver_that_another_verb_needs_is_not_called_unused() -> None:
    """Only a comparison finds that partitions changed, and a comparison does not find what the judges say."""
    of_comparison = WAIVER.model_copy(update={"rule": "topic-partitions-changed", "subject": "order.events"})
    assert apply_waivers([], [of_comparison], date(2027, 1, 1)).findings == ()
    assert apply_waivers([], [WAIVER], date(2027, 1, 1), whole=False).findings == ()
