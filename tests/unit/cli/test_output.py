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
    output.problem("topic [a]", "[b] is [/c]", "mend [d]")
    said = capsys.readouterr().err
    for words in ("[postgres] url", "[outbox] as", 'pip install "towpath[console]", or check [kafka] in towpath.toml'):
        assert words in said
    assert "[participant] inbox_keep_days [/] [bold]" in said
    assert "problem: topic [a]: [b] is [/c]" in said
    assert "next: mend [d]" in said
