"""Passwords come from files, one value each, as container platforms mount them."""

from pathlib import Path

import pytest

from towpath.errors import ConfigurationError
from towpath.settings import load_settings


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "towpath.toml").write_text('[project]\nname = "shop"\n[postgres]\npassword = "from the file"\n')
    return tmp_path


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("TOWPATH_SECRETS_DIR", str(folder))
    return folder


def test_a_secret_file_wins_over_the_project_file(project: Path, secrets: Path) -> None:
    """A file named section__field sets that field, without the newline that an editor left at its end."""
    (secrets / "postgres__password").write_text("from the secret\n")
    password = load_settings(project).postgres.password
    assert password is not None
    assert password.get_secret_value() == "from the secret"


def test_a_variable_wins_over_a_secret_file(project: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator can override a mounted file without touching it."""
    (secrets / "postgres__password").write_text("from the secret")
    monkeypatch.setenv("TOWPATH_POSTGRES__PASSWORD", "from the variable")
    password = load_settings(project).postgres.password
    assert password is not None
    assert password.get_secret_value() == "from the variable"


def test_files_that_name_no_setting_are_left_alone(project: Path, secrets: Path) -> None:
    """A folder of secrets may hold other programs' as well."""
    (secrets / "card_network_key").write_text("another program's")
    assert load_settings(project).project.name == "shop"


def test_a_folder_that_is_not_there_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker must not start without its passwords because a mount was forgotten."""
    monkeypatch.setenv("TOWPATH_SECRETS_DIR", "/nowhere/at/all")
    with pytest.raises(ConfigurationError, match="/nowhere/at/all"):
        load_settings(project)


def test_no_password_is_ever_printed(project: Path, secrets: Path) -> None:
    """Settings may be logged whole."""
    (secrets / "postgres__password").write_text("hunter2")
    assert "hunter2" not in repr(load_settings(project))
