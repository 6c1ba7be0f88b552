"""While Connect rebalances it is asked again, however it says so: against a server that answers as Connect does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from towpath.capture.connect import ConnectClient
from towpath.errors import WorldError
from towpath.settings import ConnectSettings

# As Connect 4.3.1 answered a second after its start.
REBALANCE_EXPECTED = (
    500,
    b'{"error_code":500,"message":"Request cannot be completed because a rebalance is expected"}',
)
REBALANCING = (409, b'{"error_code":409,"message":"Cannot complete request because of a conflicting operation"}')
BROKEN = (500, b'{"error_code":500,"message":"Cannot read the config topic"}')
NAMES = (200, b'["orders"]')


@contextmanager
def connect_that_says(*answers: tuple[int, bytes]) -> Iterator[ConnectSettings]:
    """Serve `answers` in turn, the last one for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield ConnectSettings(url=f"http://127.0.0.1:{server.server_port}", timeout_seconds=2.0)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", [REBALANCE_EXPECTED, REBALANCING], ids=["expected", "under-way"])
def test_a_rebalance_is_waited_out(answer: tuple[int, bytes]) -> None:
    """A set-up right after Connect's start does not fail on the rebalance that the start itself causes."""
    with connect_that_says(answer, answer, NAMES) as settings, ConnectClient(settings) as client:
        assert client.names() == ("orders",)


def test_any_other_failure_is_not_waited_out() -> None:
    """What will not fix itself is told at once, in Connect's words."""
    with (
        connect_that_says(BROKEN, NAMES) as settings,
        ConnectClient(settings) as client,
        pytest.raises(WorldError, match="config topic"),
    ):
        client.names()


def test_a_rebalance_that_never_ends_is_an_error() -> None:
    """Waiting has a limit."""
    with (
        connect_that_says(REBALANCE_EXPECTED) as settings,
        ConnectClient(settings.model_copy(update={"timeout_seconds": 0.5})) as client,
        pytest.raises(WorldError, match="rebalance"),
    ):
        client.names()
