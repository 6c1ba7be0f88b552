"""A project of its own for each test, on the real broker and the real registry."""

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.contract.shop import Shop
from towpath.settings import KafkaSettings, RegistrySettings, Settings, load_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def stack() -> Settings:
    """Return the settings of a running stack."""
    settings = load_settings(ROOT, environment=False)
    return settings.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap_servers=os.environ["TEST_KAFKA"]),
            "registry": RegistrySettings(url=os.environ["TEST_REGISTRY"]),
        }
    )


@pytest.fixture
def shop(stack: Settings, tmp_path: Path) -> Iterator[Shop]:
    """Return a project whose names no other test uses."""
    found = Shop(tmp_path, stack, f"t{uuid.uuid4().hex[:10]}")
    yield found
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for module in [name for name in sys.modules if name.split(".")[0] == found.package]:
        del sys.modules[module]
