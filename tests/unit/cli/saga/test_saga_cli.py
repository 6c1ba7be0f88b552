"""`towpath saga diagram | record | test | upgrade`, on a project of one saga in a folder of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.next_steps import step_in
from towpath.cli.saga import register
from towpath.errors import ConfigurationError, ContractError, NotFoundError, RefusedError, TowpathError
from towpath.saga.state_snapshot import state_to_snapshot, tree_to_json
from towpath.saga.testing import given, history_of, write_history

SAGA = '''"""One saga."""

from dataclasses import dataclass

from towpath.saga import Participant, Saga, Undo, hours, seconds

desk = Participant("desk")


@dataclass(frozen=True)
class Asked:
    """Starts it."""

    number: int = 1


@dataclass(frozen=True)
class Book:
    """Do."""


@dataclass(frozen=True)
class Booked:
    """Done."""


@dataclass(frozen=True)
class Free:
    """Undo."""


@dataclass(frozen=True)
class Freed:
    """Undone."""


def book(_: Asked) -> Book:
    """Ask."""
    return Book()


def free(_: Asked) -> Free:
    """Take back."""
    return Free()


saga = Saga("visit", version=1, starts_on=Asked, deadline=hours(1))
saga.step(desk, book, undo=Undo(free, succeeds=Freed), succeeds=Booked, within=seconds(10))
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with one saga; its modules are forgotten afterwards."""
    (tmp_path / "towpath.toml").write_text('[project]\nname = "small"\nsagas = "trips"\n', encoding="utf-8")
    (tmp_path / "trips").mkdir()
    (tmp_path / "trips/__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "trips/visit.py").write_text(SAGA, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Two versions of a file, written within a second and of equal length, are one to Python's cache of bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()
    return tmp_path


APP = typer.Typer()
register(APP)


def forget() -> None:
    """Forget the project's modules, as a new process would."""
    for name in [name for name in sys.modules if name.split(".")[0] == "trips"]:
        del sys.modules[name]


def run(*arguments: str) -> Result:
    """Run a verb in this process."""
    return CliRunner().invoke(APP, ["saga", *arguments])


def found(result: Result) -> Any:
    """Return what a verb printed as JSON."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def module() -> Any:
    """Return the project's module as the verbs import it."""
    from towpath.project import load_sagas
    from towpath.settings import load_settings

    load_sagas(load_settings())
    return sys.modules["trips.visit"]


def test_a_diagram_is_printed_or_written(project: Path) -> None:
    """Mermaid on stdout, SVG to a file, either in JSON."""
    assert "s_start --> s_book" in run("diagram", "visit").stdout
    assert "compensating" in found(run("diagram", "visit", "--of", "states", "--json"))["mermaid"]
    path = project / "visit.svg"
    assert run("diagram", "visit", "--form", "svg", "--output", str(path)).exit_code == 0
    assert path.read_text(encoding="utf-8").startswith("<svg")


def test_an_unknown_saga_is_said_with_those_that_there_are(project: Path) -> None:
    """By name and version."""
    result = run("diagram", "trip")
    assert isinstance(result.exception, NotFoundError)
    assert result.exception.next_step == "one of: visit@1"
    assert isinstance(run("diagram", "visit", "--version", "2").exception, NotFoundError)


def test_a_definition_is_recorded_once(project: Path) -> None:
    """The second time there is nothing to write."""
    assert found(run("record", "--json")) == {"written": ["tests/histories/visit/v1/definition.json"]}
    assert found(run("record", "--json")) == {"written": []}
    assert "0 definitions recorded" in run("record").output


def test_what_changed_without_a_new_version_is_named(project: Path) -> None:
    """The recorded definition and the golden history both say so, exit code 3; then it gets a version, as they say."""
    run("record")
    talk = given(module().saga, module().Asked()).expect_anything().when(module().Booked())
    path = project / "tests/histories/visit/v1/booked.jsonl"
    write_history(path, history_of(talk.definition, talk.inputs, talk.decisions))
    (report,) = found(run("test", "--json"))
    assert report == {"saga": "visit", "version": 1, "recorded": True, "histories": 1, "changed": []}
    changed = SAGA.replace("within=seconds(10)", "within=seconds(20)")
    (project / "trips/visit.py").write_text(changed, encoding="utf-8")
    forget()
    result = run("test")
    assert isinstance(result.exception, ContractError)
    assert result.exception.exit_code == 3
    assert "step book: policy.within_milliseconds was 10000 and is 20000" in result.stdout
    assert "input 1 (Started) is decided differently now" in result.stdout
    assert found(run(*step_in(result.exception, "saga record")[1:], "--json")) == {"written": []}, "not overwritten"
    (project / "trips/visit.py").write_text(changed.replace("version=1", "version=2"), encoding="utf-8")
    forget()
    step = step_in(result.exception, "saga record")
    assert found(run(*step[1:], "--json")) == {"written": ["tests/histories/visit/v2/definition.json"]}
    (report,) = found(run("test", "--json"))
    assert (report["version"], report["recorded"], report["changed"]) == (2, True, [])


def test_an_upgrade_is_planned_from_what_was_recorded(project: Path) -> None:
    """Version 1 as recorded, version 2 as the project has it now."""
    run("record")
    upgraded = SAGA.replace("version=1", "version=2").replace("undo=Undo(free, succeeds=Freed)", "undo=NO_EFFECT")
    upgraded = upgraded.replace("import Participant", "import NO_EFFECT, Participant")
    (project / "trips/visit.py").write_text(upgraded, encoding="utf-8")
    forget()
    report = found(run("upgrade", "visit@1", "visit", "--json"))
    assert (report["old"], report["new"], report["instances"]) == (1, 2, None)
    assert report["reachable"]["pin"] > 0
    (pinned,) = [group for group in report["reachable"]["groups"] if group["outcome"] == "pin" and group["count"] > 1]
    assert pinned["reasons"] == ["the undo of book is owed, and there is none any more"]
    text = run("upgrade", "visit@1", "trips/visit.py").stdout
    assert "step book: undo was" in text
    assert f"({report['walked']['states']}, every one of them walked)" in text


def test_every_state_is_walked_unless_they_are_too_many(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the reduced search stands in, and the output says so."""
    run("record")
    (project / "trips/visit.py").write_text(SAGA.replace("version=1", "version=2"), encoding="utf-8")
    forget()
    whole = found(run("upgrade", "visit@1", "visit", "--json"))
    assert whole["walked"]["reduced"] is False
    assert whole["walked"]["states"] == sum(whole["reachable"][name] for name in ("migrate", "pin", "refuse", "ended"))
    monkeypatch.setattr("towpath.cli.saga_upgrade.WHOLE_STATES_MAX", 3)
    assert found(run("upgrade", "visit@1", "visit", "--json"))["walked"]["reduced"] is True
    assert "the reduced search, which leaves combinations out" in run("upgrade", "visit@1", "visit").stdout


def test_real_instances_are_counted_too(project: Path) -> None:
    """One that migrates, one that has ended, one of the new version, one that is of another; the last is refused."""
    run("record")
    running = given(module().saga, module().Asked()).expect_anything()
    ended = given(module().saga, module().Asked()).expect_anything().when(module().Booked())
    lines = [tree_to_json(state_to_snapshot(talk.state)) for talk in (running, ended)]
    lines.append(lines[0] | {"version": 2, "steps": []})
    path = project / "instances.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    (project / "trips/visit.py").write_text(SAGA.replace("version=1", "version=2"), encoding="utf-8")
    forget()
    report = found(run("upgrade", "visit@1", "visit", "--instances", str(path), "--json"))
    assert {name: report["instances"][name] for name in ("migrate", "pin", "refuse", "ended", "already")} == {
        "migrate": 1,
        "pin": 0,
        "refuse": 0,
        "ended": 1,
        "already": 1,
    }
    assert "1 are of version 2 already" in run("upgrade", "visit@1", "visit", "--instances", str(path)).stdout
    path.write_text(json.dumps(lines[0] | {"version": 9, "steps": []}) + "\n", encoding="utf-8")
    result = run("upgrade", "visit@1", "visit", "--instances", str(path), "--json")
    assert isinstance(result.exception, RefusedError)
    (group,) = json.loads(result.stdout)["instances"]["groups"]
    assert group["reasons"] == ["it is an instance of visit version 9"]
    path.write_text("{}\n", encoding="utf-8")
    broken = run("upgrade", "visit@1", "visit", "--instances", str(path))
    assert isinstance(broken.exception, ConfigurationError)
    assert "line 1: not a state of this saga" in broken.exception.cause
    both = run("upgrade", "visit@1", "visit", "--instances", str(path), "--live")
    assert isinstance(both.exception, ConfigurationError)


def test_the_old_version_may_come_from_a_git_ref(project: Path) -> None:
    """As the file was then, with the files that stood around it."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=project, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (project / "trips/visit.py").write_text(SAGA.replace("version=1", "version=2"), encoding="utf-8")
    report = found(run("upgrade", "HEAD:trips/visit.py", "visit", "--json"))
    assert (report["changes"], report["reachable"]["pin"]) == ([], 0)
    assert report["reachable"]["migrate"] > 0
    assert isinstance(run("upgrade", "nowhere:trips/visit.py", "visit").exception, NotFoundError)
    assert isinstance(run("upgrade", "HEAD:trips/none.py", "visit").exception, NotFoundError)


@pytest.mark.parametrize(
    ("old", "new", "kind", "words"),
    [
        ("visit@7", "visit", NotFoundError, "visit@7 is neither in the project nor recorded"),
        ("visti@1", "visit", NotFoundError, "visti@1 is neither in the project nor recorded"),
        ("visit@1", "visit", ContractError, "version 1 does not follow version 1"),
        ("trips/visit.py", "visit", ContractError, "version 1 does not follow version 1"),
        ("trips/__init__.py", "visit", ConfigurationError, "has no Saga called 'saga'"),
        ("trips/none.py", "visit", NotFoundError, "there is no file trips/none.py"),
    ],
)
def test_what_cannot_be_compared_is_said(project: Path, old: str, new: str, kind: type, words: str) -> None:
    """In words, with what to do."""
    result = run("upgrade", old, new)
    assert isinstance(result.exception, TowpathError)
    assert isinstance(result.exception, kind)
    assert words in result.exception.cause
    assert result.exception.next_step
    if "@" in old:
        assert result.exception.next_step.endswith(": visit@1"), "the versions that there are, are named"


@pytest.mark.parametrize("reason", ["", "  "])
def test_instances_are_moved_for_a_reason(project: Path, reason: str) -> None:
    """One that says something, before anything is asked of the stack."""
    (project / "trips/visit_2.py").write_text(SAGA.replace("version=1", "version=2"), encoding="utf-8")
    refused = run("upgrade", "visit@1", "visit", "--apply", "--reason", reason).exception
    assert isinstance(refused, ConfigurationError)
    assert "needs a reason" in refused.cause


def test_what_is_said_of_moving_instances_is_not_passed_over(project: Path) -> None:
    """A limit for a report that moves nothing: whoever says it means to move some."""
    for words in (("--limit", "5"), ("--reason", "it is out"), ("--drain", "--yes"), ("--dry-run",)):
        refused = run("upgrade", "visit@1", "visit", *words).exception
        assert isinstance(refused, ConfigurationError)
        assert "without --apply no instance is moved" in refused.cause


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"a": 1}', b"[]", b"{nope"])
@pytest.mark.parametrize("name", ["definition.json", "run.jsonl"])
def test_a_damaged_record_is_named(project: Path, name: str, content: bytes) -> None:
    """An empty file, other bytes, other JSON: the file, and where a whole one comes from."""
    run("record")
    path = project / "tests/histories/visit/v1" / name
    path.write_bytes(content)
    for arguments in [("test",), ("upgrade", "visit@1", "visit")][: 1 if name == "run.jsonl" else 2]:
        error = run(*arguments).exception
        assert isinstance(error, ConfigurationError)
        assert str(path) in error.cause
        assert error.next_step


def test_a_file_that_cannot_be_read_or_written_is_named(project: Path) -> None:
    """A folder that is not there: no traceback, and no success."""
    missing = project / "nowhere/file"
    drawn = run("diagram", "visit", "--output", str(missing)).exception
    assert isinstance(drawn, ConfigurationError)
    assert str(missing) in drawn.cause
    histories = run("test", "--histories", "nowhere").exception
    assert isinstance(histories, NotFoundError)


def test_states_that_are_not_there_are_named(project: Path) -> None:
    """The file that `--instances` names."""
    run("record")
    (project / "trips/visit.py").write_text(SAGA.replace("version=1", "version=2"), encoding="utf-8")
    forget()
    error = run("upgrade", "visit@1", "visit", "--instances", "nowhere.jsonl").exception
    assert isinstance(error, ConfigurationError)
    assert "nowhere.jsonl cannot be read" in error.cause
