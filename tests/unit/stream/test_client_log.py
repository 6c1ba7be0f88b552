"""What librdkafka has to say goes into our log: a command's own error stands alone on the terminal."""

import logging
import time

import pytest
from confluent_kafka import Producer

from towpath.stream.broker.admin.kafka import quiet

SECONDS_MAX = 10.0


@pytest.mark.parametrize("which", ["as a client of ours", "as one that says everything"])
def test_a_client_writes_nothing_past_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """Of no broker, of being fenced, of whatever: librdkafka would write it to stderr as it comes."""
    config = quiet({"bootstrap.servers": "127.0.0.1:1"})
    says_everything = which == "as one that says everything"
    if says_everything:
        config["log_level"] = 7
    client = Producer(config)
    with caplog.at_level(logging.DEBUG):
        deadline = time.monotonic() + (SECONDS_MAX if says_everything else 0.5)
        while time.monotonic() < deadline and not _refused(caplog):
            client.poll(0.1)
    assert capfd.readouterr().err == ""
    assert _refused(caplog) == says_everything


def _refused(caplog: pytest.LogCaptureFixture) -> bool:
    """Return whether librdkafka's own lines tell of the connection; its errors are logged by us as well, in time."""
    return any("Connection refused" in one.getMessage() for one in caplog.records if one.name == "towpath.librdkafka")


def test_where_no_log_is_set_up_nothing_is_written() -> None:
    """Python would write an error of a logger without handlers to stderr."""
    assert any(isinstance(handler, logging.NullHandler) for handler in quiet({})["logger"].handlers)
