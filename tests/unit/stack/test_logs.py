"""Log files stay within bounds, and their last words are found."""

from pathlib import Path

from towpath.stack.client import last_words
from towpath.stack.supervisor.logs import START_MARK, LogKeeper, tail

JAVA = """
[main] ERROR k.Kafka$ Exiting Kafka due to fatal exception
java.lang.RuntimeException: outer
	at kafka.Kafka.main(Kafka.scala:87)
Caused by: java.net.BindException: Address already in use
	at java.base/sun.nio.ch.Net.bind0(Native Method)
[main] INFO k.s.Server shutting down
"""
PYTHON = """
Traceback (most recent call last):
  File "x.py", line 1, in <module>
ValueError: bad settings
"""


def test_the_innermost_cause_is_the_reason() -> None:
    """Of a Java trace the last `Caused by` after the last error is told."""
    assert last_words(JAVA.splitlines()) == "Caused by: java.net.BindException: Address already in use"


def test_the_exception_of_a_traceback_is_the_reason() -> None:
    """Of a Python traceback its last line is told, whatever is said after it."""
    assert last_words([*PYTHON.splitlines(), "bye"]) == "ValueError: bad settings"


def test_without_an_exception_the_error_itself_is_the_reason() -> None:
    """PostgreSQL says why in one line."""
    lines = ["LOG:  starting", "FATAL:  could not create any TCP/IP sockets", "LOG:  database system is shut down"]
    assert last_words(lines) == "FATAL:  could not create any TCP/IP sockets"


def test_only_the_last_start_counts() -> None:
    """An error of an earlier start is not taken for the reason of this one."""
    lines = ["ERROR old trouble", f"{START_MARK} kafka 4.3.1, start 2", "all is well", "Killed"]
    assert last_words(lines) == "Killed"
    assert last_words([]) == ""


def test_a_log_that_grew_too_long_is_cut_in_use(tmp_path: Path) -> None:
    """The old part moves aside, and a writer that holds the file in append mode goes on at its beginning."""
    log = tmp_path / "kafka.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 1001)
        LogKeeper(tmp_path, bytes_max=1000).cut()
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert (tmp_path / "kafka.log.1").stat().st_size == 1001


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    """`tail` gives the last lines in order, and nothing where there is no log."""
    log = tmp_path / "one.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)), encoding="utf-8")
    assert tail(log, 2) == ["line 99998", "line 99999"]
    assert tail(tmp_path / "none.log", 2) == []
