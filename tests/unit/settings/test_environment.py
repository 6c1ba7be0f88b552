"""Where settings come from, and what wins."""

from pathlib import Path

import pytest

from towpath.errors import ConfigurationError
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


def test_an_address_follows_the_stack_though_its_section_is_set_in_part(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password or a replication factor from outside does not bring back the address of another stack."""
    monkeypatch.setenv("TOWPATH_STACK__POSTGRES_PORT", "3333")
    monkeypatch.setenv("TOWPATH_POSTGRES__PASSWORD", "secret")
    monkeypatch.setenv("TOWPATH_KAFKA__REPLICATION_FACTOR", "3")
    settings = load_settings(project)
    assert settings.postgres.url.endswith(":3333")
    assert settings.kafka.bootstrap_servers.endswith(":2222")


def test_what_the_file_and_the_environment_say_of_one_section_adds_up(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting one field of a section from outside leaves the file's other fields as they are."""
    monkeypatch.setenv("TOWPATH_STACK__BROKERS", "3")
    (project / "towpath.toml").write_text('[project]\nname = "shop"\n[stack]\nconnect_port = 4444\n')
    settings = load_settings(project)
    assert (settings.stack.connect_port, settings.stack.brokers) == (4444, 3)


def test_a_variable_names_the_projects_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A container's command runs wherever it is started."""
    monkeypatch.setenv("TOWPATH_PROJECT_FOLDER", str(project))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_settings().root == project


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("PARTICIPANT", "INBOX_KEEP_DAYS", "1000000"),
        ("OUTBOX", "KEEP_DAYS", "1000000"),
        ("OUTBOX", "AHEAD_DAYS", "100000"),
        ("STREAM", "DEDUP_HORIZON_DAYS", "1e9"),
        ("SAGA", "FINISHED_RETENTION_DAYS", "inf"),
        ("STREAM", "TRANSACTION_TIMEOUT_SECONDS", "inf"),
        ("STREAM", "BATCH_SECONDS_MAX", "nan"),
    ],
)
def test_a_time_that_cannot_be_counted_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, section: str, setting: str, value: str
) -> None:
    """Taken as it came, it failed every batch, or every cleaning, with an overflow."""
    monkeypatch.setenv(f"TOWPATH_{section}__{setting}", value)
    with pytest.raises(ConfigurationError, match=setting.lower()):
        load_settings(project)
