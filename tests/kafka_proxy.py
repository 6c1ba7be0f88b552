"""A proxy between clients and one real broker, which can withhold what the broker would be asked, or answer.

It stands for what cannot be had at will: librdkafka's search for its coordinator that never ends (state `query-coord`,
coordinator -1), seen after a broker was frozen and then killed; a batch that is refused while the next is taken. The
broker's own address in its answers is replaced by the proxy's, so that clients stay with it.
"""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PRODUCE, METADATA, FIND_COORDINATOR, HEARTBEAT, DESCRIBE_CLUSTER = 0, 3, 10, 12, 60
"""Numbers of Kafka's requests (KIP-482's table)."""
NOT_LEADER_OR_FOLLOWER = 6
COORDINATOR_NOT_AVAILABLE = 15
TELLING_ADDRESSES = frozenset({METADATA, FIND_COORDINATOR, DESCRIBE_CLUSTER})


@dataclass(eq=False)
class _Connection:
    """One client's connection, and which request each of its numbers was."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    requests: dict[int, int] = field(default_factory=dict)
    is_sick: bool = False

    def close(self) -> None:
        self.client.close()
        self.broker.close()


class KafkaProxy:
    """Forwards every request and answer, but for those of the client that is being lost."""

    def __init__(self, broker: str) -> None:
        host, _, port = broker.rpartition(":")
        self._host, self._port = host, int(port)
        self.port = 0
        self.withheld = 0
        """How many searches for a coordinator were never answered."""
        self._losing: str | None = None
        self._denied = self._healed = False
        self._losing_write_to: bytes | None = None
        self.lost_write: int | None = None
        """The number of the request that was not carried out, while it waits for its answer."""
        self._next_write: int | None = None
        self._connections: set[_Connection] = set()

    @property
    def address(self) -> str:
        """Return what clients connect to."""
        return f"{self._host}:{self.port}"

    def lose(self, client_id: str) -> None:
        """Have the member whose client id begins so lose its coordinator for good.

        Its next heartbeat is not answered, and its connections end, as those of a broker that is killed; its first
        search is told that there is no coordinator yet, as by a broker that starts; the next ones are told nothing.
        """
        self._losing, self._denied, self._healed = client_id, False, False

    def answer_new_connections(self) -> None:
        """Answer whoever connects from now on; the connections of the lost member stay as they are."""
        self._healed = True

    def lose_first_write(self, topic: str) -> None:
        """Do not carry out the first batch to partition 0 of a topic that has no other.

        It is answered "not leader" just before the answer to the next batch, which is carried out: as by a broker that
        starts, and has come to the partition between the two.
        """
        self._losing_write_to = topic.encode()

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Forward until told to stop."""
        server = await asyncio.start_server(self._accept, self._host, 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await stop.wait()
            for connection in list(self._connections):
                connection.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        connection = _Connection(writer, far_writer)
        self._connections.add(connection)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._requests(connection, reader))
                    both.create_task(self._answers(connection, far_reader))
        except ExceptionGroup:
            pass  # either side ended
        finally:
            self._connections.discard(connection)
            connection.close()

    async def _requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while True:
            frame = await _frame(reader)
            kind, _, number, length = struct.unpack_from(">hhih", frame)
            client_id = frame[10 : 10 + max(length, 0)].decode()
            if self._losing is not None and client_id.startswith(self._losing) and self._withholds(connection, kind):
                if kind == FIND_COORDINATOR and not self._denied:
                    self._denied = True
                    _write(connection.client, _no_coordinator(number))
                continue
            if kind == PRODUCE and self._losing_write_to is not None and self._losing_write_to in frame:
                if self.lost_write is None:
                    self.lost_write = number
                    continue
                self._next_write = number if self._next_write is None else self._next_write
            connection.requests[number] = kind
            _write(connection.broker, frame)
            await connection.broker.drain()

    def _withholds(self, connection: _Connection, kind: int) -> bool:
        """Say whether the client that is being lost gets no true answer to this."""
        if kind == HEARTBEAT and not self._denied:
            for one in self._connections:
                one.close()
            return True
        if kind != FIND_COORDINATOR:
            return False
        connection.is_sick = connection.is_sick or not self._healed
        self.withheld += connection.is_sick and self._denied
        return connection.is_sick

    async def _answers(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        told = self._host.encode() + struct.pack(">i", self._port)
        own = self._host.encode() + struct.pack(">i", self.port)
        while True:
            frame = await _frame(reader)
            (number,) = struct.unpack_from(">i", frame)
            if connection.requests.pop(number, None) in TELLING_ADDRESSES:
                frame = frame.replace(told, own)
            if number == self._next_write and self._losing_write_to is not None and self.lost_write is not None:
                _write(connection.client, _not_leader(frame, self._losing_write_to, self.lost_write))
                self._losing_write_to = None
            _write(connection.client, frame)
            await connection.client.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _write(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)


def _no_coordinator(number: int) -> bytes:
    """Return the answer (FindCoordinator 1 and 2, which librdkafka asks for) of a broker that has just started."""
    return struct.pack(">iihhihi", number, 0, COORDINATOR_NOT_AVAILABLE, -1, -1, 0, -1)


def _not_leader(answer: bytes, topic: bytes, number: int) -> bytes:
    """Return the answer to a produce request that was not carried out, made of one to a request that was.

    Of a partition it has (Produce 3 and later) the number, an error and the first offset.
    """
    at = answer.index(struct.pack(">ih", 0, 0), answer.index(topic) + len(topic)) + 4
    refused = struct.pack(">hq", NOT_LEADER_OR_FOLLOWER, -1)
    return struct.pack(">i", number) + answer[4:at] + refused + answer[at + len(refused) :]


@contextmanager
def kafka_proxy(broker: str) -> Iterator[KafkaProxy]:
    """Run a proxy before a broker, in a thread of its own."""
    proxy, started = KafkaProxy(broker), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy.serve(started, stop),), name="kafka-proxy")
    thread.start()
    try:
        assert started.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
