"""A worker that runs meets records of a schema that was registered after it started, on a real broker and registry."""

import asyncio
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from tests.conformance.conftest import SETTINGS
from tests.integration.contract.shop import Shop
from tests.unit.contract.workshop import field as avro_field
from tests.unit.stream.test_agents import started, until
from towpath.contract.codec import Codec
from towpath.contract.kafka import ensure_topics, read_to_end
from towpath.contract.registry import RegistryClient, SchemaLearner
from towpath.settings import RegistrySettings, Settings
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.stream.faust_app.agent import StreamApp, create_app

pytestmark = pytest.mark.stack
NOBODYS_ID = 2**31 - 1


@dataclass
class Door:
    """What stands before the registry: what was asked for, and whether anybody answers."""

    url: str
    asked: list[str] = field(default_factory=list)
    is_open: bool = True

    def asked_for(self, schema_id: int) -> int:
        """Return how often a schema was asked for by its id."""
        return sum(path.split("?")[0].endswith(f"/schemas/ids/{schema_id}") for path in self.asked)


@contextmanager
def door_before(registry: str) -> Iterator[Door]:
    """Put a door in front of a registry."""
    base, door = httpx.URL(registry), Door(registry)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            door.asked.append(self.path)
            if not door.is_open:
                return  # the connection ends without an answer
            answer = httpx.get(base.copy_with(raw_path=self.path.encode()))
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    door.url = str(base.copy_with(port=server.server_port))
    try:
        yield door
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Reading:
    """A worker that decodes what it reads, and what it has read."""

    def __init__(self, shop: Shop, settings: Settings, codec: Codec, door: Door) -> None:
        self.shop, self.settings, self.codec = shop, settings, codec
        self.learn = SchemaLearner(codec, RegistrySettings(url=door.url, timeout_seconds=2))
        self.read: list[str] = []
        self.statuses: list[WorkerStatus] = []
        self.producer = Producer({**settings.kafka.client_config(), "log_level": 2})

    def app(self) -> StreamApp:
        """Return the application; it sends nothing, so that what is counted is what was committed or tried again."""
        stream = SETTINGS.model_copy(update={"dead_letter_share_max": 1.0, "state_folder": Path("state")})
        app = create_app(
            f"reading-{uuid.uuid4().hex[:8]}",
            self.settings.model_copy(update={"stream": stream, "root": self.shop.folder}),
            slot="a",
            parks_keys=False,
            learn=self.learn,
            on_status=self.statuses.append,
        )

        @app.agent(app.batch_topic(self.shop.topic_name))
        async def read(stream: Any) -> None:
            async for batch in stream:
                found: list[Any] = [self.codec.decode(record.value) for record in batch]
                self.read += [one.order_id for one in found]

        return app

    def send(self, *values: bytes) -> None:
        """Write records into one partition."""
        for value in values:
            self.producer.produce(self.shop.topic_name, value, b"k", partition=0)
        assert self.producer.flush(30) == 0

    def dead(self) -> list[dict[str, Any]]:
        """Return what quarantine says of each record in it."""
        letters = read_to_end(self.settings, [f"{self.shop.topic_name}.dead"])
        return [json.loads(dict(message.headers() or [])["dead"]) for message in letters]


def test_a_running_worker_asks_the_registry_for_what_it_meets(
    shop: Shop, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each id; away: it waits and says so; no such id: that record alone is dead. Never started anew."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    shop.topic("dead: {partitions: 3, retention_days: 2}\n")
    ensure_topics(shop.catalogue(), settings)
    newer = [Shop(tmp_path / name, settings, shop.name) for name in ("second", "third")]
    with RegistryClient(settings.registry) as client, door_before(settings.registry.url) as door:
        contracts = shop.generate()
        client.register(contracts, shop.catalogue())
        reading = Reading(shop, settings, client.load_codec(contracts, shop.catalogue()), door)
        app = reading.app()

        def writes(count: int) -> Callable[[str], bytes]:
            """Register the record with so many fields more, and return who writes it."""
            more = [avro_field(f"more_{number}", default="") for number in range(count)]
            newer[count - 1].define(avro_field("order_id"), avro_field("total", "int"), *more)
            newer_contracts = newer[count - 1].generate()
            client.register(newer_contracts, shop.catalogue())
            codec, kind = client.load_codec(newer_contracts, shop.catalogue()), newer[count - 1].classes().OrderPlaced
            return lambda order_id: codec.encode(kind(order_id=order_id, total=1, **{one["name"]: "x" for one in more}))

        def known(order_id: str) -> bytes:
            return reading.codec.encode(shop.classes().OrderPlaced(order_id=order_id, total=1))

        async def main() -> None:
            async with started(app):
                reading.send(known("o-1"))
                await until(app, lambda: reading.read == ["o-1"], 60)
                second = await asyncio.to_thread(writes, 1)
                values = [second("o-2"), second("o-3"), known("o-4"), second("o-5")]
                schema_id = int.from_bytes(values[0][1:5], "big")
                assert not reading.codec.knows(schema_id)
                reading.send(*values)
                await until(app, lambda: reading.read[1:] == ["o-2", "o-3", "o-4", "o-5"], 60)
                assert door.asked_for(schema_id) == 1
                third = await asyncio.to_thread(writes, 2)
                door.is_open = False
                reading.send(third("o-6"))
                await until(app, lambda: "registry" in (reading.statuses[-1].waiting_for or ""), 60)
                assert not reading.statuses[-1].is_ready
                assert reading.read[-1] == "o-5"
                door.is_open = True
                await until(app, lambda: reading.read[5:] == ["o-6"] and reading.statuses[-1].is_ready, 60)
                assert reading.dead() == []
                reading.send(b"\0" + NOBODYS_ID.to_bytes(4, "big") + b"x", known("o-7"))
                await until(app, lambda: reading.read[6:] == ["o-7"], 60)

        asyncio.run(main())
        assert door.asked_for(NOBODYS_ID) == 1
        (letter,) = reading.dead()
        assert str(NOBODYS_ID) in letter["cause"]
