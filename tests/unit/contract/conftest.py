"""What the tests of contracts share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.contract.workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """Return an empty project of contracts; what it imported is forgotten afterwards."""
    # A module that is written twice within a second looks unchanged to Python's cache of compiled files.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = Workshop(tmp_path)
    yield found
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for module in [name for name in sys.modules if name.split(".")[0] == found.package]:
        del sys.modules[module]
