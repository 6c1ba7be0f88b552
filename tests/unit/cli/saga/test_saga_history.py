"""How the history of an instance tells its times."""

from types import SimpleNamespace

from towpath.cli.saga_instances import _versions_of, seconds_of


def test_seconds_never_fall() -> None:
    """An input's time is its writer's clock; one that is behind does not let time run backwards."""
    assert seconds_of([1_000, 1_250, 900, 1_100, 3_000]) == [0, 0.25, 0.25, 0.25, 2.0]
    assert seconds_of([]) == []


def test_the_versions_that_an_instance_went_through_are_named() -> None:
    """One that was upgraded is not called by its first version alone."""
    assert _versions_of([SimpleNamespace(version=number) for number in (1, 1)]) == "1"
    assert _versions_of([SimpleNamespace(version=number) for number in (1, 1, 2, 2)]) == "1, then 2"
