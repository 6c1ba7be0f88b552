"""`towpath saga check` as it is called: what it prints, what it writes, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from towpath.cli import saga
from towpath.errors import ConfigurationError, ContractError, ExitCode, NotFoundError, TowpathError

ROOT = Path(__file__).resolve().parents[3]

KEEPS_A_LOCK = """
from towpath.saga import NO_EFFECT, Participant, Saga, days, seconds
from tests.unit.saga.check.words import Badly, Begun, Well, ask

saga = Saga("keeps_a_lock", version=1, starts_on=Begun, deadline=days(1))
saga.step(
    Participant("shop"), ask, undo={undo}, holds="stock", succeeds=Well, fails=Badly, within=seconds(10)
)
"""
BREAKS_A_RULE = """
from datetime import timedelta
from towpath.saga import Saga

saga = Saga("breaks_a_rule", version=1, starts_on=str, deadline=timedelta(0))
"""


def run(*arguments: str) -> tuple[str, TowpathError | None]:
    """Call `towpath saga check`; return what it printed, and the error that ended it."""
    app = typer.Typer()
    saga.register(app)
    result = CliRunner().invoke(app, ["saga", "check", *arguments])
    if result.exception is not None and not isinstance(result.exception, TowpathError):
        raise result.exception
    return result.stdout, result.exception


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that modules are imported from and that is no project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_reference_project_is_clean() -> None:
    """Every property holds for the sagas of CraftyGoods, on the examples of their contracts as well."""
    printed, error = run("sagas", "--json")
    assert error is None
    reports = json.loads(printed)
    assert {report["saga"] for report in reports} >= {"place_order", "cancel_order"}
    for report in reports:
        assert report["violations"] == []
        assert report["states"] > 10
        assert report["transitions"] > report["states"]
        assert report["worst_case_seconds"] > 0
        assert report["seconds"] >= 0
        assert report["sampled"]["without_data"] == []
        assert report["bounds"]
        assert report["assumptions"]
        assert all(stuck["person_can"] and stuck["path"] for stuck in report["stuck"])


def test_a_person_is_told_what_was_proved_and_under_which_bounds() -> None:
    """States, longest time, halts and their ways out, bounds and assumptions are all on the page."""
    printed, error = run("--saga", "cancel_order", "--explain")
    assert error is None
    for words in ("every property holds", "states", "at most", "it can halt", "a person can", "bounds", "assumptions"):
        assert words in printed


def test_what_is_green_is_one_line_a_saga() -> None:
    """The same line each time: no seconds, nothing that differs between two machines."""
    first, second = run("sagas"), run("sagas")
    assert first == second
    lines = first[0].splitlines()
    assert [line.split()[0] for line in lines] == ["cancel_order", "place_order"]
    assert all("every property holds" in line and "states, at most" in line for line in lines)


def test_a_violation_ends_in_exit_code_3_and_writes_a_test_that_fails(folder: Path) -> None:
    """The test that is written is run by pytest: it fails, and passes once the saga is fixed."""
    module = folder / "keeps_a_lock.py"
    module.write_text(KEEPS_A_LOCK.format(undo="NO_EFFECT"))
    printed, error = run("keeps_a_lock", "--tests", "written")
    assert isinstance(error, ContractError)
    assert error.exit_code is ExitCode.CONTRACT_BROKEN
    assert "lock_kept ask" in printed
    assert "at keeps_a_lock.py:6" in printed
    (written,) = (folder / "written").iterdir()
    assert _pytest(folder, written) == 1
    module.write_text(KEEPS_A_LOCK.format(undo="NO_EFFECT").replace(', holds="stock"', ""))
    assert _pytest(folder, written) == 0


def _pytest(folder: Path, path: Path) -> int:
    arguments = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": ""}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, check=False).returncode


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    """The violation is told all the same."""
    (folder / "keeps_another_lock.py").write_text(KEEPS_A_LOCK.format(undo="NO_EFFECT"))
    printed, error = run("keeps_another_lock", "--dry-run", "--json")
    assert isinstance(error, ContractError)
    (violation,) = json.loads(printed)[0]["violations"]
    assert violation["property"] == "lock_kept"
    assert violation["test"] == ""
    assert not (folder / "tests").exists()


def test_a_definition_that_breaks_the_language_is_a_violation_too(folder: Path) -> None:
    """What cannot be imported cannot be proved; the report says which rule it breaks and how to fix it."""
    (folder / "breaks_a_rule.py").write_text(BREAKS_A_RULE)
    printed, error = run("breaks_a_rule.py", "--json")
    assert isinstance(error, ContractError)
    (violation,) = json.loads(printed)[0]["violations"]
    assert violation["property"] == "definition"
    assert violation["where"].endswith("breaks_a_rule.py:5")
    assert "deadline" in violation["words"]


def test_a_saga_or_module_that_is_not_there_is_said_so() -> None:
    """Nothing found is not the same as nothing wrong."""
    assert isinstance(run("--saga", "no_such_saga")[1], NotFoundError)
    assert isinstance(run("no_such_module")[1], NotFoundError)


FINE = """
import sys
from towpath.saga import NO_EFFECT, Participant, Saga, days, seconds
from tests.unit.saga.check.words import Badly, Begun, Well, ask

def of(name, command=ask):
    made = Saga(name, version=1, starts_on=Begun, deadline=days(1))
    made.step(Participant("shop"), command, key="ask", undo=NO_EFFECT, succeeds=Well, fails=Badly, within=seconds(10))
    return made

saga = of("{name}")
"""


def test_a_module_is_found_by_any_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here, from the root of the file system, and from a folder beside it."""
    (folder / "here").mkdir()
    (folder / "found_by_path.py").write_text(FINE.replace("{name}", "found_by_path"))
    monkeypatch.chdir(folder / "here")
    for path in ("../found_by_path.py", str(folder / "found_by_path.py")):
        printed, error = run(path)
        assert error is None
        assert "found_by_path version 1: every property holds" in printed


@pytest.mark.parametrize("name", [".", "", "/", "../nothing.py"])
def test_what_names_no_module_is_told_so(folder: Path, name: str) -> None:
    """Not as a module without a name."""
    _, error = run(name)
    assert isinstance(error, NotFoundError)
    assert error.next_step == "name a package, a module or a file"


def test_a_folder_without_a_module_is_no_success(folder: Path) -> None:
    """Nothing was proved there."""
    (folder / "no_sagas_here").mkdir()
    _, error = run("no_sagas_here")
    assert isinstance(error, NotFoundError)
    assert "no_sagas_here: it has no module" in error.cause


def test_a_second_saga_of_a_module_is_not_passed_over(folder: Path) -> None:
    """Nothing proves or runs it; one that is imported from elsewhere is no such saga."""
    (folder / "alone.py").write_text(FINE.replace("{name}", "alone"))
    (folder / "beside.py").write_text(FINE.replace("{name}", "beside") + 'import alone\nother = of("another")\n')
    _, error = run("beside.py")
    assert isinstance(error, ConfigurationError)
    assert error.cause.startswith("beside: saga another is called 'other' there")
    (folder / "imports.py").write_text("from alone import saga as alone\n" + FINE.replace("{name}", "imports"))
    assert run("imports.py")[1] is None


@pytest.mark.parametrize("does", ["1 / 0", "raise SystemExit(0)"])
def test_a_module_that_cannot_be_imported_is_told_with_its_line(folder: Path, does: str) -> None:
    """Also where it would end this program, silently."""
    name = "divides" if does[-1] == "0" else "leaves"
    (folder / f"{name}.py").write_text(f"x = 1\n{does}\n")
    _, error = run(f"{name}.py")
    assert isinstance(error, ConfigurationError)
    assert error.cause.endswith(f"at {folder / f'{name}.py'}:2")


def test_a_function_that_leaves_the_program_is_a_violation(folder: Path) -> None:
    """It would end the worker as well."""
    (folder / "leaving.py").write_text(
        FINE.replace("{name}", "a_saga") + 'saga = of("leaving", lambda _: sys.exit(0))\n'
    )
    printed, error = run("leaving.py", "--dry-run")
    assert isinstance(error, ContractError)
    assert "raises SystemExit" in printed


@pytest.mark.parametrize("returned", ["Well", "(1,)"])
def test_what_is_no_record_is_no_command(folder: Path, returned: str) -> None:
    """Also where there are no contracts to hold it against."""
    name = f"returns_{len(returned)}"
    (folder / f"{name}.py").write_text(FINE.replace("{name}", "a") + f'saga = of("{name}", lambda _: {returned})\n')
    printed, error = run(f"{name}.py", "--dry-run")
    assert isinstance(error, ContractError)
    assert "not a record" in printed


def test_what_a_module_prints_is_no_part_of_the_report(folder: Path) -> None:
    """Else nothing could read the JSON."""
    (folder / "printing.py").write_text(FINE.replace("{name}", "printing") + 'print("hello")\n')
    printed, error = run("printing.py", "--json")
    assert error is None
    assert [report["saga"] for report in json.loads(printed)] == ["printing"]
