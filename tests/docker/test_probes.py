"""The probe of the containers fails when its part does: against small servers that answer as a broken part would."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
PROBE = Path(__file__).resolve().parents[2] / "infra" / "compose" / "healthy.sh"


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Listen on a port of this machine and give each caller `answer`, whatever it asks."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller, suppress(OSError):
                    caller.recv(1024)
                    caller.sendall(answer)
                    caller.shutdown(socket.SHUT_WR)
                    while caller.recv(1024):  # a question may come in two pieces: hear it out before hanging up
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def probe(*arguments: str) -> int:
    """Run the probe as a container's health check does, and return its exit code."""
    return subprocess.run(["bash", PROBE, *arguments], check=False, capture_output=True, timeout=10).returncode


def metadata(live_brokers: int) -> bytes:
    """Return the beginning of a broker's answer to a metadata request: length, correlation id, live brokers."""
    return (8).to_bytes(4, "big") + (1).to_bytes(4, "big") + live_brokers.to_bytes(4, "big")


def test_a_page_that_answers_200_is_ready() -> None:
    """Connect and the registry answer so once they can serve."""
    with answering(b"HTTP/1.1 200 OK\r\n\r\n{}") as port:
        assert probe("http", str(port), "/health") == 0


@pytest.mark.parametrize(
    "status", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n", b""]
)
def test_any_other_answer_is_not_ready(status: bytes) -> None:
    """A part that is up but still starting, or broken, says so; silence is no answer either."""
    with answering(status) as port:
        assert probe("http", str(port), "/health") != 0


def test_a_broker_with_itself_among_the_live_ones_is_ready() -> None:
    """A live broker counts at least itself."""
    with answering(metadata(live_brokers=1)) as port:
        assert probe("kafka", str(port)) == 0


def test_a_fenced_broker_is_not_ready() -> None:
    """A broker that its controller has not let in answers, but counts no live broker."""
    with answering(metadata(live_brokers=0)) as port:
        assert probe("kafka", str(port)) != 0


def test_a_broker_that_hangs_up_is_not_ready() -> None:
    """An open port is no broker."""
    with answering(b"") as port:
        assert probe("kafka", str(port)) != 0


def test_a_closed_port_is_not_ready() -> None:
    """Neither protocol mistakes nobody for somebody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    assert probe("kafka", port) != 0
    assert probe("http", port, "/") != 0


def test_a_worker_is_ready_once_it_says_so(tmp_path: Path) -> None:
    """A process that answers but has not joined its group yet serves nobody."""
    ready = tmp_path / "ready"
    with answering(b"HTTP/1.0 200 OK\r\n\r\n") as port:
        assert probe("worker", str(port), str(ready)) != 0
        ready.touch()
        assert probe("worker", str(port), str(ready)) == 0


def test_a_worker_that_answers_no_more_is_not_ready(tmp_path: Path) -> None:
    """Having been ready once is not enough."""
    (tmp_path / "ready").touch()
    with answering(b"") as port:
        assert probe("worker", str(port), str(tmp_path / "ready")) != 0
