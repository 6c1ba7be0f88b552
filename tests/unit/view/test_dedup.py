"""Which ids are fresh, repeated, or beyond the horizon."""

from towpath.view.dedup.horizon import Sighting, sort_sightings


def sight(*pairs: tuple[str, int]) -> list[Sighting]:
    return [Sighting(name, time) for name, time in pairs]


def test_what_was_applied_is_not_applied_again() -> None:
    """Neither an id that is known, nor one that comes twice in the batch."""
    result = sort_sightings(sight(("a", 1), ("b", 2), ("b", 2), ("c", 3)), {"a"}, None)
    assert [each.id for each in result.fresh] == ["b", "c"]
    assert not result.beyond


def test_a_backlog_is_not_beyond_the_horizon() -> None:
    """However old records are: where nothing was forgotten, nothing is in doubt."""
    assert len(sort_sightings(sight(("a", 1), ("b", 10**15)), set(), None).fresh) == 2


def test_what_may_have_been_forgotten_is_not_guessed_at() -> None:
    """Not newer than the newest forgotten id, and not known: beyond. Known: a repetition, whatever its age."""
    result = sort_sightings(sight(("a", 5), ("b", 6), ("c", 7), ("d", 1)), {"d"}, 6)
    assert [each.id for each in result.fresh] == ["c"]
    assert [each.id for each in result.beyond] == ["a", "b"]
