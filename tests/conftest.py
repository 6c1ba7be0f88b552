"""One stack for all tests on real parts, of every ring: started once a session, when the first test wants it.

Tests share it: each takes topics, databases and keys of its own. A test that takes it is marked `stack`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack_fixture import ROOT, RunningStack, stack_environment, stop_and_tell, variables
from towpath.settings import load_settings
from towpath.stack.client import StackClient
from towpath.stack.up import up


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that takes the stack."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """Start the whole stack of the reference project, and stop it when the session ends.

    Its variables stay set, so that processes that a test starts find the same stack. `TOWPATH_TEST_STACK=running`
    takes the stack that these variables point to instead, and leaves it running: quicker while one writes tests.
    """
    if os.environ.get("TOWPATH_TEST_STACK") == "running":
        settings = load_settings(ROOT)
        with StackClient(settings.stack_home) as client:
            yield RunningStack(settings, dict(os.environ), client)
        return
    home = Path(tempfile.mkdtemp(prefix="towpath-"))
    home.chmod(0o755)  # PostgreSQL's own user passes it
    with variables(stack_environment(home)):
        settings = load_settings(ROOT)
        try:
            up(settings)
            with StackClient(settings.stack_home) as client:
                yield RunningStack(settings, dict(os.environ), client)
        finally:
            stop_and_tell(settings)
            shutil.rmtree(home, ignore_errors=True)
