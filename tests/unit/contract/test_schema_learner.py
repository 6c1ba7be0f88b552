"""A running worker asks a registry, over HTTP, for a schema that it does not know."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.unit.orchestrator.desktop import CODEC as CURRENT
from towpath.contract.codec import Codec, UnknownSchema
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.registry import RegistryClient, SchemaLearned, SchemaLearner
from towpath.errors import WorldError
from towpath.settings import RegistrySettings, load_settings

CONTRACTS = load_contracts(schema_sets(load_settings()))
NAME = "craftygoods.order.OrderConfirmed"


@contextmanager
def registry(schemas: dict[int, Any]) -> Iterator[tuple[RegistrySettings, list[str]]]:
    """Run a registry that knows `schemas` by id; yield its settings and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = schemas.get(int(self.path.split("?")[0].rsplit("/", 1)[1]))
            body = {"schema": json.dumps(found)} if found else {"error_code": 40403, "message": "no such schema"}
            content = json.dumps(body).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield RegistrySettings(url=f"http://127.0.0.1:{server.server_port}"), asked
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def answering(content: bytes) -> Iterator[RegistrySettings]:
    """Run what answers every question with 200 and `content`, as a proxy or a page for signing in does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield RegistrySettings(url=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "content", [b"<html>sign in</html>", b"", b"null", b"{}", b'"x"', b"[1, null]", b'{"schema": "{"}']
)
def test_an_answer_in_another_form_is_a_registry_that_is_away(content: bytes) -> None:
    """A worker waits and asks again; a person reads which registry it was. Nobody meets the error of a JSON library."""
    with answering(content) as settings, RegistryClient(settings) as client:
        assert isinstance(SchemaLearner(Codec.of(CONTRACTS), settings)(UnknownSchema(987_654)), WorldError)
        for ask in (
            lambda: client.add("s", {"type": "record", "name": "X", "fields": []}),
            lambda: client.writer(1),
            lambda: client.compatibility("s"),
        ):
            with pytest.raises(WorldError, match="does not answer as it should"):
                ask()


def test_it_is_asked_once_and_then_known() -> None:
    """The codec reads records under the new id from then on."""
    codec = Codec.of(CONTRACTS)
    with registry({987_654: CONTRACTS.schemas.avro(NAME, docs=False)}) as (settings, asked):
        learner = SchemaLearner(codec, settings)
        assert isinstance(learner(UnknownSchema(987_654)), SchemaLearned)
        assert codec.knows(987_654)
        assert isinstance(learner(UnknownSchema(987_654)), SchemaLearned)
        assert len(asked) == 1


def test_an_id_that_does_not_exist_is_asked_for_once_and_its_record_is_dead() -> None:
    """A thousand records under it ask no thousand times; one whose class nobody has is dead, too."""
    stranger = {"type": "record", "name": "Stranger", "namespace": "elsewhere", "fields": []}
    with registry({5: stranger}) as (settings, asked):
        learner = SchemaLearner(CURRENT, settings)
        for schema_id in (4, 5):
            error = UnknownSchema(schema_id)
            assert learner(error) is error
            assert learner(error) is error
        assert len(asked) == 2
        other = ValueError("not about schemas")
        assert learner(other) is other


def test_a_registry_that_is_away_is_waited_for() -> None:
    """Nobody knows then whether the id exists: the record is neither dead nor guessed at."""
    settings = RegistrySettings(url="http://127.0.0.1:9", timeout_seconds=1)
    found = SchemaLearner(Codec.of(CONTRACTS), settings)(UnknownSchema(3))
    assert isinstance(found, WorldError)
    assert not isinstance(found, SchemaLearned)
