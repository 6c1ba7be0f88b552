"""What a person is told is what was written."""

import pytest

from towpath.cli import output
from towpath.errors import ConfigurationError


def test_words_in_brackets_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would take them for markup, and swallow the section of the settings or the extra that is to be installed."""
    output.show_error(
        ConfigurationError(
            "[postgres] url is empty",
            kept="[outbox] as it was",
            next_step='pip install "towpath[console]", or check [kafka] in towpath.toml',
        )
    )
    output.note("[participant] inbox_keep_days [/] [bold]")
    output.problem("topic [a]", "[b] is [/c]", "fix [d]")
    said = capsys.readouterr().err
    for words in ("[postgres] url", "[outbox] as", 'pip install "towpath[console]", or check [kafka] in towpath.toml'):
        assert words in said
    assert "[participant] inbox_keep_days [/] [bold]" in said
    assert "problem: topic [a]: [b] is [/c]" in said
    assert "next: fix [d]" in said


def test_a_table_in_a_pipe_is_as_wide_as_its_content(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a long id is folded or cut, whatever a terminal would have shown."""
    long = "x" * 300
    output.show_rows([{"id": long, "cause": long}])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["id", "cause"], [long, long]]


def test_a_watch_shows_again_until_it_is_interrupted() -> None:
    """Once without it."""
    shown: list[int] = []

    def sleep(seconds: float) -> None:
        assert seconds == 2.0
        if len(shown) == 3:
            raise KeyboardInterrupt

    output.repeat(lambda: shown.append(1), None)
    assert len(shown) == 1
    with pytest.raises(KeyboardInterrupt):
        output.repeat(lambda: shown.append(1), 2.0, sleep)
    assert len(shown) == 3
