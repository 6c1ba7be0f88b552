"""What a type checker says of definitions: nothing of right ones, and one error on each wrong line."""

import re
from pathlib import Path

import mypy.api
import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = Path(__file__).parent / "typing_cases"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    """Return the lines with errors by file, as the strict checker finds them."""
    cache = tmp_path_factory.mktemp("mypy")
    paths = [str(CASES / name) for name in ("right.py", "wrong.py")]
    output, problems, _ = mypy.api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache), "--no-pretty", *paths]
    )
    assert not problems, problems
    lines: dict[str, set[int]] = {"right.py": set(), "wrong.py": set()}
    for match in re.finditer(r"([^/\s]+\.py):(\d+): error:", output):
        lines.setdefault(match[1], set()).add(int(match[2]))
    return lines


def test_right_definitions_pass(found: dict[str, set[int]]) -> None:
    """No error, and every handle has the type that the file asserts."""
    assert found["right.py"] == set()


def marked() -> list[tuple[int, str]]:
    """Return line and reason of everything that is marked wrong."""
    lines = (CASES / "wrong.py").read_text(encoding="utf-8").splitlines()
    return [(number, line.split("# E: ")[1]) for number, line in enumerate(lines, start=1) if "# E: " in line]


@pytest.mark.parametrize(("line", "reason"), marked(), ids=[reason for _, reason in marked()])
def test_a_wrong_definition_is_found(found: dict[str, set[int]], line: int, reason: str) -> None:
    """The checker marks its line."""
    assert line in found["wrong.py"], f"line {line} passes, though it {reason}"


def test_nothing_else_is_found(found: dict[str, set[int]]) -> None:
    """Every error has its mark."""
    assert found["wrong.py"] == {line for line, _ in marked()}
    assert found.keys() == {"right.py", "wrong.py"}
