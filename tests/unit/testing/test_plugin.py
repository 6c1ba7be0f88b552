"""The pytest plugin, in a run of its own: strict conversations, and fixtures that say what they need."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TESTS = """
import pytest
from tests.unit.saga.support import OPENED, Do, Take, Yes, diamond
from towpath.testing import given


def test_left_over():
    given(diamond(), OPENED).expect(Do("root")).when(Yes()).expect(Do, where=lambda do: do.what == "left")


def test_nothing_left():
    given(diamond(), OPENED).expect(Do("root")).when(Yes()).expect(Do).expect(Do)


def test_given_up_on_purpose():
    given(diamond(), OPENED).expect_anything()


def test_failed_on_purpose():
    with pytest.raises(AssertionError):
        given(diamond(), OPENED).expect(Take("root"))


def test_needs_a_server(towpath_service):
    raise AssertionError("never called")


def test_has_no_server(towpath_project, towpath_server):
    assert towpath_server is None
    assert towpath_project.instances() == []
"""


def test_the_plugin_in_a_run_of_its_own(tmp_path: Path) -> None:
    """What a saga sent and nobody expected fails its test, in words; one that wants a server says how to name it."""
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    options = ["-p", "towpath.testing.plugin", "-c", "/dev/null", str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "1 failed, 4 passed, 1 skipped" in said, said
    assert "test_left_over ends, and diamond also sent what was not expected:\n  Do to service (step right)" in said
    assert "expect it, or say .expect_anything()" in said
    assert "a service needs PostgreSQL: pytest --towpath-postgres URL" in said
