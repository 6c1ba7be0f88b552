"""What a person is told is what was written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from towpath.cli import output, stack
from towpath.errors import ConfigurationError, TowpathError


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


def test_the_status_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Long names, several ports and a long reason stay on one line, whole."""
    row = {"name": "service:" + "n" * 60, "state": "waiting", "pid": 7, "ports": [29_192, 29_193], "starts": 2}
    more = {"memory_bytes": 2**30, "version": "3.7.0.Final", "uptime_seconds": 61.0, "reason": "r" * 90}
    output.show_table(stack._table([{**row, **more}]))
    _, line = capsys.readouterr().out.splitlines()
    for whole in ("n" * 60, "29192, 29193", "3.7.0.Final", "r" * 90):
        assert whole in line


def test_tables_are_shown_by_one_function() -> None:
    """It alone knows how wide one may be."""
    for path in Path(output.__file__).parent.glob("*.py"):
        assert "results.print(table" not in path.read_text(encoding="utf-8") or path.name == "output.py", path.name


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


WRITTEN = r"wrong [/b] price [ref 4711] :bug: \[x] C:\ "


@pytest.mark.parametrize(
    "show",
    [
        output.note,
        lambda text: output.show_rows([{"reason": text}]),
        lambda text: output.show_facts({text: 1}),
        lambda text: output.problem(text, "it is so", None),
        lambda text: output.problem("it", "it is so", text),
        lambda text: output.show_error(TowpathError(text)),
        output.results.print,
        output.notes.print,
    ],
)
def test_what_people_wrote_is_shown_as_it_is(show: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in it are no markup, and colons no emoji."""
    show(WRITTEN)
    told = capsys.readouterr()
    assert WRITTEN.strip() in told.out + told.err


@pytest.mark.parametrize(("number", "said"), [(0, "0 dead letters"), (1, "1 dead letter"), (2, "2 dead letters")])
def test_what_is_counted_is_one_or_several(number: int, said: str) -> None:
    """By the number that stands before it."""
    assert output.counted(number, "dead letter") == said
