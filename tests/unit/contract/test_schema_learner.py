"""A running worker asks a registry, over HTTP, for a schema that it does not know."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.unit.orchestrator.desktop import CODEC as CURRENT
from towpath.contract.codec import Codec, UnknownSchema
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.registry import ANSWER_BYTES_MAX, RegistryClient, SchemaLearned, SchemaLearner
from towpath.errors import ConfigurationError, ContractError, WorldError
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
def answering(
    content: bytes, *, status: int = 200, pause_seconds: float = 0.0, seconds: float = 10
) -> Iterator[RegistrySettings]:
    """Run what answers every question with `content`, as a proxy or a page for signing in does; perhaps bit by bit."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):
                if not pause_seconds:
                    self.wfile.write(content)
                    return
                for number in content:
                    self.wfile.write(bytes([number]))
                    time.sleep(pause_seconds)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield RegistrySettings(url=f"http://127.0.0.1:{server.server_port}", timeout_seconds=seconds)
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


@pytest.mark.parametrize("content", [b"{}", b'"x"', b'{"error_code": 200}'])
def test_versions_in_another_form_are_not_none(content: bytes) -> None:
    """An object where a list belongs was read as "nothing is registered", and a check against it found nothing."""
    with answering(content) as settings, RegistryClient(settings) as client, pytest.raises(WorldError, match="a list"):
        client.writers("s")


@pytest.mark.parametrize("content", [b'{"id": -1}', b'{"id": 0}', b'{"id": "seven"}', b'{"id": null}'])
def test_an_id_that_no_record_can_name_is_refused(content: bytes) -> None:
    with (
        answering(content) as settings,
        RegistryClient(settings) as client,
        pytest.raises(WorldError, match="another form"),
    ):
        client.add("s", {"type": "record", "name": "X", "fields": []})


def test_an_answer_has_a_time_and_a_size() -> None:
    """One that comes byte by byte, each within the time-out, or never ends, holds up a build for ever."""
    with (
        answering(b" " * 1000, pause_seconds=0.02, seconds=0.2) as settings,
        RegistryClient(settings) as client,
        pytest.raises(WorldError, match="no whole answer in"),
    ):
        client.writer(1)
    with (
        answering(b" " * (ANSWER_BYTES_MAX + 1)) as settings,
        RegistryClient(settings) as client,
        pytest.raises(WorldError, match="an answer of more than"),
    ):
        client.writer(1)


@pytest.mark.parametrize("content", [b"[]", b"null", b'{"message": null}', b'{"error_code": "x", "message": ""}'])
def test_a_refusal_without_a_reason_is_a_refusal(content: bytes) -> None:
    with (
        answering(content, status=409) as settings,
        RegistryClient(settings) as client,
        pytest.raises(ContractError, match="without a reason"),
    ):
        client.add("s", {"type": "record", "name": "X", "fields": []})


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("http://user:secret@127.0.0.1:9", WorldError),
        ("http://user:a@secret@127.0.0.1:9", WorldError),
        ("user:secret@127.0.0.1:9", WorldError),
        ("http://user:secret/secret@127.0.0.1:9", ConfigurationError),
    ],
)
def test_a_password_in_the_address_is_never_said(address: str, error: type[Exception]) -> None:
    """Nor a part of one: whatever is in it, and with an address that is none because of it."""
    settings = RegistrySettings(url=address, timeout_seconds=1)
    with pytest.raises(error) as caught, RegistryClient(settings) as client:
        client.writer(1)
    assert f"{'http://' if address.startswith('http') else ''}127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_address_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ConfigurationError, match="is no address"):
        RegistryClient(RegistrySettings(url="http://[::1"))


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
