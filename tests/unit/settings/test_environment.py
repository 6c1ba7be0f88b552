"""Where settings come from, and what wins."""

from pathlib import Path

import pytest

from towpath.settings import load_settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "towpath.toml").write_text('[project]\nname = "shop"\n[stack]\nkafka_port = 1111\n')
    monkeypatch.setenv("TOWPATH_STACK__KAFKA_PORT", "2222")
    return tmp_path


def test_a_variable_wins_over_the_project_file(project: Path) -> None:
    """One machine may differ from the project without editing it, and the addresses follow."""
    settings = load_settings(project)
    assert settings.stack.kafka_port == 2222
    assert settings.kafka.bootstrap_servers == "127.0.0.1:2222"


def test_what_every_machine_shares_is_read_without_the_environment(project: Path) -> None:
    """A file that is rendered into the project is the same whoever renders it."""
    assert load_settings(project, environment=False).stack.kafka_port == 1111
