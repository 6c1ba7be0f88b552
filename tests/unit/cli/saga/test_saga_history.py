"""How the history of an instance tells its times."""

from towpath.cli.saga_instances import seconds_of


def test_seconds_never_fall() -> None:
    """An input's time is its writer's clock; one that is behind does not let time run backwards."""
    assert seconds_of([1_000, 1_250, 900, 1_100, 3_000]) == [0, 0.25, 0.25, 0.25, 2.0]
    assert seconds_of([]) == []
