"""Deadlines hold while capture is known to be behind, and only then."""

from towpath.capture.freshness import Freshness


def test_a_connector_that_never_beat_is_not_known_to_be_behind() -> None:
    """A new stack's deadlines are not held for ever."""
    assert Freshness(["order"], 5.0).behind(10_000_000) == ()


def test_a_connector_that_stopped_beating_is_behind_until_it_beats_again() -> None:
    """Three beats may be missing."""
    freshness = Freshness(["order", "payment"], 5.0)
    freshness.beat("order", 1_000)
    freshness.beat("payment", 20_000)
    assert freshness.behind(16_000) == ()
    assert freshness.behind(16_001) == ("order",)
    freshness.beat("order", 17_000)
    assert freshness.behind(17_001) == ()


def test_an_old_heartbeat_read_late_changes_nothing() -> None:
    """Time only moves on."""
    freshness = Freshness(["order"], 5.0)
    freshness.beat("order", 20_000)
    freshness.beat("order", 1_000)
    assert freshness.behind(30_000) == ()
