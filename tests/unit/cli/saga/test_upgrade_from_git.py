"""`saga upgrade GITREF:FILE` in a project of which some file at the top has a blank, or an umlaut, in its name."""

import subprocess
from pathlib import Path

import pytest

from towpath.cli.saga_upgrade import _outline
from towpath.settings import ProjectSettings, Settings

SAGA = """
from dataclasses import dataclass
from towpath.saga import Participant, Saga, hours, seconds
@dataclass(frozen=True)
class Begun: pass
@dataclass(frozen=True)
class Do: pass
@dataclass(frozen=True)
class Done: pass
def act(begun: Begun) -> Do:
    return Do()
saga = Saga("plain", version=1, starts_on=Begun, deadline=hours(1))
saga.retriable(Participant("service"), act, succeeds=Done, within=seconds(10))
"""


@pytest.mark.parametrize("name", ["notes.md", "release notes.md", "größe.md", "a[b]*.md", "-x.md", "two\nlines"])
def test_a_definition_is_read_at_a_git_ref(tmp_path: Path, name: str) -> None:
    """Whatever else lies beside it."""
    (tmp_path / "sagas").mkdir()
    (tmp_path / "sagas" / "plain.py").write_text(SAGA, encoding="utf-8")
    (tmp_path / name).write_text("x", encoding="utf-8")
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    settings = Settings(root=tmp_path, project=ProjectSettings(name="shop"))
    assert _outline(settings, "HEAD:sagas/plain.py")["saga"] == "plain"
