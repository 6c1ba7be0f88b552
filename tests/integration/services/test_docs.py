"""The page about testing is true: its blocks run in order, and the tests in them are collected here and pass."""

import re
from pathlib import Path
from typing import Any

import pytest

from towpath.testing import conformance
from towpath.testing.project import InMemoryProject

pytestmark = pytest.mark.stack

PAGE = Path(__file__).resolve().parents[3] / "docs" / "testing.md"
NAMES: dict[str, Any] = {"__name__": __name__}

for _number, _block in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL), 1):
    _line = PAGE.read_text(encoding="utf-8").split(_block)[0].count("\n")
    exec(compile("\n" * _line + _block, f"docs/testing.md (block {_number})", "exec"), NAMES)
globals().update({name: value for name, value in NAMES.items() if name.startswith("test_")})


def test_the_page_has_its_tests() -> None:
    """Else nothing of it would be run."""
    assert len([name for name in NAMES if name.startswith("test_")]) >= 5


@pytest.mark.parametrize("check", [*conformance.CHECKS, "every_reply_is_shown"])
def test_every_check_is_told(check: str) -> None:
    """By its own name."""
    assert f"| `{check}` |" in PAGE.read_text(encoding="utf-8")


def test_what_a_project_offers_is_told() -> None:
    """Each public method of a project stands on the page."""
    page = PAGE.read_text(encoding="utf-8")
    offered = [name for name, value in vars(InMemoryProject).items() if not name.startswith("_") and callable(value)]
    untold = {name for name in offered if f"{name}(" not in page}
    assert untold == {"instance", "entries", "close"}
