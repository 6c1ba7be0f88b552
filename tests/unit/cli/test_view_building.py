"""Waiting for a version of a view that nobody folds comes to an end."""

import pytest

from towpath.cli import view_building
from towpath.cli.view_building import FOLDED_SECONDS, Watched
from towpath.clock import ManualClock
from towpath.errors import RefusedError
from towpath.settings import Settings, load_settings
from towpath.view.versions.standing import Version


class Folders:
    """How many workers the version has, whenever it is looked at."""

    def __init__(self, *workers: int) -> None:
        self.left = list(workers)

    def version_of(self, _: Settings, name: str, number: int) -> Version:
        """Return the version with the next number of workers."""
        return Version(name, number, True, True, False, workers=self.left.pop(0))


def looked(monkeypatch: pytest.MonkeyPatch, *workers: int) -> None:
    """Wait half a second at a time, until the version has been looked at so often."""
    folders, clock = Folders(*workers), ManualClock()
    monkeypatch.setattr(view_building, "version_of", folders.version_of)
    watched = Watched(load_settings(), "customers", 2, clock)
    while folders.left:
        watched.look()
        clock.sleep(0.5)


def test_a_version_without_a_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what folds it."""
    with pytest.raises(RefusedError, match="nobody folds version 2") as refused:
        looked(monkeypatch, 1, 0, 0, 0)
    assert refused.value.next_step == "towpath views build customers --version 2, then promote it again"


def test_a_worker_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone at one look, and back at the next, which is not at once."""
    looked(monkeypatch, 0, 1, 0, 2, 1)
    assert FOLDED_SECONDS >= 10
