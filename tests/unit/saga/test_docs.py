"""The page about sagas is true: its blocks of Python run, and its words are those of the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from towpath.saga.definition import ATTEMPTS_MAX, ITEMS_MAX, RECENT_MAX, STEPS_MAX
from towpath.saga.inputs import Action
from towpath.saga.language import Saga
from towpath.saga.parts import Backoff
from towpath.saga.state import Status

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/sagas.md").read_text(encoding="utf-8")


def test_every_block_of_python_runs() -> None:
    """In their order, one after the other, as a reader would type them."""
    names: dict[str, Any] = {"__name__": "docs"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) > 8
    for number, block in enumerate(blocks, start=1):
        line = PAGE[: PAGE.index(block)].count("\n")
        exec(compile("\n" * line + block, f"docs/sagas.md (block {number})", "exec"), names)


@pytest.mark.parametrize("word", [*Status, *Action])
def test_every_status_and_action_is_told(word: str) -> None:
    """By its own name."""
    assert f"`{word.value}`" in PAGE  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", [name for name in vars(Saga) if not name.startswith("_")])
def test_every_method_is_told(method: str) -> None:
    """What `Saga` offers stands on the page."""
    assert f"saga.{method}" in PAGE or method in ("name",)


def test_the_limits_are_those_of_the_code() -> None:
    """Numbers, too, go stale."""
    for limit in (STEPS_MAX - 1, ITEMS_MAX, ATTEMPTS_MAX, RECENT_MAX):
        assert f" {limit:,} |" in PAGE
    pause = Backoff()
    assert (pause.first.total_seconds(), pause.most.total_seconds(), pause.factor) == (1, 300, 2)
