"""Another whole stack beside the tests' own, on ports of its own."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stack_fixture import ROOT, RunningStack, stack_environment, variables
from towpath.settings import load_settings
from towpath.stack.client import StackClient
from towpath.stack.up import down, up


@contextmanager
def another_stack() -> Iterator[RunningStack]:
    """Start it, and stop it in the end."""
    home = Path(tempfile.mkdtemp(prefix="towpath-another-"))
    home.chmod(0o755)  # PostgreSQL's own user passes it
    environment = stack_environment(home)
    try:
        with variables(environment):
            settings = load_settings(ROOT)
            up(settings)
        with StackClient(settings.stack_home) as client:
            yield RunningStack(settings, environment, client)
    finally:
        with variables(environment):
            down(load_settings(ROOT))
        shutil.rmtree(home, ignore_errors=True)
