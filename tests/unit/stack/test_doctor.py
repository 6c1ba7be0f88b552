"""Doctor in a project where nothing was ever started."""

from pathlib import Path

import pytest

from towpath.settings import Settings, load_settings
from towpath.stack import doctor
from towpath.stack.findings import Finding, Severity


@pytest.fixture
def new_project(tmp_path: Path) -> Settings:
    """Return the settings of a project that has a towpath.toml and nothing else."""
    (tmp_path / "towpath.toml").write_text('[project]\nname = "myshop"\n', encoding="utf-8")
    return load_settings(tmp_path, environment=False)


def test_doctor_answers_in_a_new_project(new_project: Settings) -> None:
    """With what to do first, and without having made anything."""
    findings = doctor.examine(new_project)
    assert Finding(Severity.WARNING, "stack", "it is not running", "towpath up") in findings
    assert [one for one in findings if one.subject == "doctor"] == []
    assert [path.name for path in new_project.root.iterdir()] == ["towpath.toml"]


def test_a_look_that_breaks_is_a_finding(new_project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other looks go on."""

    def broken(*_: object) -> object:
        raise FileNotFoundError("/no/such/folder")

    monkeypatch.setattr("towpath.stack.machine.find_machine", broken)
    findings = doctor.examine(new_project)
    assert any(one.severity is Severity.PROBLEM and "/no/such/folder" in one.finding for one in findings)
    assert any(one.subject == "stack" for one in findings)
