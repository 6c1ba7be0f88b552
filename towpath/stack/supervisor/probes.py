"""What "ready" means, on the wire: the bytes that a part is asked and the judgement of its answer. Pure.

- PostgreSQL: a start-up message (protocol 3.0); an authentication request means that it takes connections, an
  error that it is still starting or stopping (pg_isready judges the same way).
- Kafka: a Metadata request, version 1; ready once at least one broker and an active controller are listed: a broker
  that is still fenced is not.
- HTTP: status 200.
"""

import struct

from towpath.stack.supervisor.spec import Probe, ProbeKind

_METADATA_KEY = 3
_CLIENT = b"towpath"
_CORRELATION = 7


def question(probe: Probe) -> bytes:
    """Return what to send to the part."""
    match probe.kind:
        case ProbeKind.POSTGRES:
            body = struct.pack(">i", 3 << 16) + b"user\0towpath\0database\0postgres\0\0"
            return struct.pack(">i", len(body) + 4) + body
        case ProbeKind.KAFKA:
            header = struct.pack(">hhih", _METADATA_KEY, 1, _CORRELATION, len(_CLIENT)) + _CLIENT
            body = header + struct.pack(">i", 0)  # no topics
            return struct.pack(">i", len(body)) + body
        case _:
            return f"GET {probe.path} HTTP/1.1\r\nHost: {probe.host}\r\nConnection: close\r\n\r\n".encode()


def is_ready(probe: Probe, answer: bytes) -> bool | None:
    """Judge what has arrived so far: True ready, False not ready, None more bytes are needed."""
    match probe.kind:
        case ProbeKind.POSTGRES:
            return None if not answer else answer.startswith(b"R")
        case ProbeKind.KAFKA:
            return _kafka_is_ready(answer)
        case _:
            head = answer.split(b"\r\n", 1)[0].split(b" ")
            return None if b"\r\n" not in answer else len(head) > 1 and head[1] == b"200"


def _kafka_is_ready(answer: bytes) -> bool | None:
    if len(answer) < 4 or len(answer) < 4 + struct.unpack_from(">i", answer)[0]:
        return None
    try:
        correlation, brokers = struct.unpack_from(">ii", answer, 4)
        position = 12
        for _ in range(brokers):
            position += 4  # node id
            position = _after_string(answer, position) + 4  # host, port
            position = _after_string(answer, position)  # rack
        (controller,) = struct.unpack_from(">i", answer, position)
    except struct.error:
        return False
    return bool(correlation == _CORRELATION and brokers > 0 and controller >= 0)


def _after_string(data: bytes, position: int) -> int:
    length: int = struct.unpack_from(">h", data, position)[0]
    return position + 2 + max(length, 0)
