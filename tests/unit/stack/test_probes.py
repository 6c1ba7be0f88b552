"""What an answer on the wire is taken for."""

import struct

import pytest

from towpath.stack.supervisor.probes import is_ready, question
from towpath.stack.supervisor.spec import Probe, ProbeKind

KAFKA = Probe(ProbeKind.KAFKA, "127.0.0.1", 9092)
POSTGRES = Probe(ProbeKind.POSTGRES, "127.0.0.1", 5432)
HTTP = Probe(ProbeKind.HTTP, "127.0.0.1", 8083, "/health")


def metadata(brokers: int, controller: int) -> bytes:
    """Return a Metadata response, version 1, as a broker sends it."""
    one = struct.pack(">ih", 1, 9) + b"127.0.0.1" + struct.pack(">ih", 9092, -1)
    body = struct.pack(">ii", 7, brokers) + one * brokers + struct.pack(">ii", controller, 0)
    return struct.pack(">i", len(body)) + body


def test_a_broker_is_ready_once_it_lists_itself_and_a_controller() -> None:
    """One unfenced broker and an active controller make Kafka ready."""
    assert is_ready(KAFKA, metadata(1, 1)) is True


@pytest.mark.parametrize(("brokers", "controller"), [(0, 1), (1, -1), (0, -1)])
def test_a_broker_that_is_fenced_or_leaderless_is_not_ready(brokers: int, controller: int) -> None:
    """A broker that answers but may not serve yet is not ready."""
    assert is_ready(KAFKA, metadata(brokers, controller)) is False


def test_half_an_answer_is_waited_for() -> None:
    """Any proper beginning of an answer is no verdict."""
    whole = metadata(3, 1)
    assert {is_ready(KAFKA, whole[:size]) for size in range(len(whole))} == {None}
    assert is_ready(HTTP, b"HTTP/1.1 200 O") is None
    assert is_ready(POSTGRES, b"") is None


def test_nonsense_from_a_port_is_not_ready() -> None:
    """Whatever else listens on Kafka's port is not taken for Kafka."""
    assert is_ready(KAFKA, struct.pack(">i", 8) + b"\xff" * 8) is False


def test_the_question_to_kafka_is_framed() -> None:
    """The request begins with its own length and asks for metadata, version 1, of no topic."""
    asked = question(KAFKA)
    assert struct.unpack_from(">ihh", asked) == (len(asked) - 4, 3, 1)
    assert asked.endswith(struct.pack(">i", 0))


@pytest.mark.parametrize(("answer", "ready"), [(b"R\0\0\0\x08", True), (b"E\0\0\0\x40SFATAL", False)])
def test_postgres_is_ready_when_it_asks_who_we_are(answer: bytes, *, ready: bool) -> None:
    """An authentication request means that connections are taken; an error that they are not yet."""
    assert is_ready(POSTGRES, answer) is ready


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False), (404, False)])
def test_http_is_ready_with_status_200(status: int, *, ready: bool) -> None:
    """Anything but 200 is not ready."""
    assert is_ready(HTTP, f"HTTP/1.1 {status} X\r\n\r\n".encode()) is ready
    assert question(HTTP).startswith(b"GET /health HTTP/1.1\r\n")
