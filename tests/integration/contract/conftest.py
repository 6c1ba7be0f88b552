"""A project of its own for each test, on the real broker and the real registry."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import RunningStack
from tests.integration.contract.shop import Shop
from towpath.settings import Settings


@pytest.fixture(scope="session")
def settings(stack: RunningStack) -> Settings:
    """Return the settings of the running stack."""
    return stack.settings


@pytest.fixture
def shop(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Return a project whose names no other test uses."""
    # A module that is written twice within a second looks unchanged to Python's cache of compiled files.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = Shop(tmp_path, settings, f"t{uuid.uuid4().hex[:10]}")
    yield found
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for module in [name for name in sys.modules if name.split(".")[0] == found.package]:
        del sys.modules[module]
