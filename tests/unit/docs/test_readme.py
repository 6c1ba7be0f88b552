"""What the README shows of the verbs that need no stack is what they print."""

import re

import pytest
from typer.testing import CliRunner

from tests.stack_fixture import ROOT
from towpath import cli

PAGE = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["saga check sagas", "contracts test"])
def test_the_readme_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Line by line, the versions of other people's libraries aside."""
    monkeypatch.chdir(ROOT)
    cli._register()
    shown = re.search(rf"^\$ towpath {command}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    done = CliRunner().invoke(cli.app, command.split())
    assert done.exit_code == 0, done.output
    printed = {plain(line) for line in done.output.splitlines()}
    for line in shown[1].splitlines():
        assert plain(line) in printed, done.output


def plain(line: str) -> str:
    """Return a line without the versions of libraries, and without trailing blanks."""
    return re.sub(r"\b(fastavro|avro) [0-9.]+", r"\1", line).rstrip()
