"""What a command tells a person to run next, run as printed: in a new project, and in this one without a stack."""

from pathlib import Path

import pytest

from tests.next_steps import follow, run
from tests.stack_fixture import ROOT, stack_environment

ELSEWHERE = {"up": "tests/integration/stack/test_up.py", "demo": "tests/acceptance/test_demo.py"}
"""Needs the parts; the ring on real parts runs it."""


@pytest.fixture
def new_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that has a towpath.toml and nothing else."""
    for name, value in stack_environment(tmp_path / "stack").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "towpath.toml").write_text('[project]\nname = "myshop"\n', encoding="utf-8")
    return tmp_path


@pytest.fixture
def without_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this project, whose stack was never started."""
    for name, value in stack_environment(tmp_path / "stack").items():
        monkeypatch.setenv(name, value)
    return ROOT


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("status",), 1, "towpath up"),
        (("down",), 0, "it was not running"),
        (("doctor",), 0, "towpath up"),
        (("logs", "kafka"), 5, "towpath up"),
        (("run",), 0, ""),
        (("capture", "status", "order"), 2, "there is no service order"),
        (("saga", "show", "place_order", "x"), 3, "no topic is declared"),
        (("contracts", "test"), 3, "put the Avro files there"),
        (("demo",), 2, "this project has no demo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_new_project_is_led_on(new_project: Path, words: tuple[str, ...], code: int, says: str) -> None:
    """Whatever is tried first, what it says is understood and leads on."""
    first, _ = follow(run, new_project, *words, elsewhere=ELSEWHERE)
    assert first.code == code, first.text
    assert says in first.text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("status",), 1, "towpath up"),
        (("down",), 0, "it was not running"),
        (("logs", "kafka"), 5, "towpath up"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_project_without_a_stack_is_led_on(without_stack: Path, words: tuple[str, ...], code: int, says: str) -> None:
    """Where the parts are not there, that is said, and what to run is understood."""
    first, _ = follow(run, without_stack, *words, elsewhere=ELSEWHERE)
    assert first.code == code, first.text
    assert says in first.text
