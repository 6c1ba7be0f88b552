"""Every next step of the code is run as printed by a test, in the state in which it is printed.

Each command that a text of the code names is in a table of cases (`tests/next_steps.py`), or is run as printed by
another test, which takes it out of what is printed (`step_in`) or is named here. To be parsed (`test_advice.py`) is not
enough.
"""

import ast
import shlex
from functools import cache

import pytest

from tests.integration.stack.test_next_steps import CASES as ON_THE_STACK
from tests.next_steps import Case, is_one_of
from tests.tidy.test_advice import ROOT, advices
from tests.unit.cli.test_next_steps import CASES as WITHOUT_A_STACK

CASES: tuple[Case, ...] = (*WITHOUT_A_STACK, *ON_THE_STACK)

_CAPTURE, _RUNNING = "tests/integration/capture/test_cli.py", "tests/integration/stack/test_running.py"
_DEAD, _UP = "tests/unit/cli/dead/test_dead_cli.py", "tests/integration/whole_stacks/test_up.py"
_WHY = "tests/acceptance/test_why.py"
_LETTERS = f"{_DEAD}::test_each_next_step_is_run_as_printed_down_to_the_redriving"
ELSEWHERE: dict[str, str] = {
    "capture recover x": f"{_CAPTURE}::test_a_lost_slot_is_told_by_status_and_doctor_and_recovered_by_what_they_say",
    "capture skip x x --reason ...": f"{_CAPTURE}::test_a_row_that_kafka_refuses_is_stepped_over_by_what_is_said",
    "dead drop x x --reason ...": _LETTERS,
    "dead redrive x x": _LETTERS,
    "dead release x x --application x --reason ...": f"{_DEAD}::test_the_release_that_is_printed_lets_the_key_go_on",
    "dead show TOPIC EXAMPLE": _LETTERS,
    "dev": "tests/acceptance/test_own_project.py::test_the_page_of_the_first_project_holds",
    "provision": f"{_RUNNING}::test_doctor_finds_a_connector_that_is_gone_or_rests",
    "saga signal x x x --value '{...}'": f"{_WHY}::test_it_waits_for_a_person_and_then_it_has_ended",
    "up --fresh --yes": f"{_UP}::test_the_life_of_a_stack",
}
"""Next step, as the code has it -> the test that runs it as printed."""

NAMED_ONLY: dict[str, str] = {
    "demo": "a setting's description names the command that reads it; tests/acceptance/test_demo.py runs it",
    "saga check": "heads a file that the command has written, which says who wrote it",
}
"""Command that a text names without telling anybody to run it -> why."""


def shapes() -> dict[str, str]:
    """Return every next step of the code, and one place that names it."""
    return {shlex.join(advice.words): advice.where for advice in advices()}


def followed() -> set[str]:
    """Return the next steps of the code that the cases run."""
    printed = {step.printed.removeprefix("towpath ") for case in CASES for step in case.steps}
    return {shape for shape in shapes() if any(is_one_of(step, shape) for step in printed)}


@cache
def taken() -> dict[str, str]:
    """Return the shapes that tests take out of what is printed (`step_in`), and a place that does so."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "step_in(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "step_in":
                shape = node.args[1]
                assert isinstance(shape, ast.Constant), f"{path}:{node.lineno}: the shape is written out"
                found[str(shape.value)] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def test_every_next_step_is_followed() -> None:
    """One that a text is given is run by a test in the same change."""
    alone = sorted(shapes().keys() - followed() - taken().keys() - ELSEWHERE.keys() - NAMED_ONLY.keys())
    assert not alone, {shape: shapes()[shape] for shape in alone}


def test_the_table_of_other_tests_names_what_the_code_prints() -> None:
    """What the code no longer has, or a case follows, is in no table of what is run elsewhere or only named."""
    tables = ELSEWHERE.keys() | NAMED_ONLY.keys()
    assert tables <= shapes().keys()
    assert not tables & followed()


def test_what_a_test_takes_out_of_a_text_is_what_the_code_prints() -> None:
    """A shape that the code no longer has is followed by nobody."""
    gone = taken().keys() - shapes().keys()
    assert not gone, {shape: taken()[shape] for shape in gone}


@pytest.mark.parametrize("node", sorted(set(ELSEWHERE.values())))
def test_a_test_that_is_named_exists(node: str) -> None:
    """By its file and its function."""
    path, _, name = node.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert any(isinstance(one, ast.FunctionDef) and one.name == name for one in tree.body), node


def test_a_step_is_known_by_its_shape() -> None:
    """Values and what is left to a person fit, other words do not."""
    assert is_one_of("capture recover order", "capture recover x")
    assert is_one_of("add topic billing.events", "add topic x.events")
    assert not is_one_of("capture recover order --dry-run", "capture recover x")
    assert not is_one_of("capture restart order", "capture recover x")
