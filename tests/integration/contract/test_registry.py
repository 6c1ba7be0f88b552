"""The codec and a real registry: ids that both know, versions that both keep to."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread
from typing import Final

import httpx
import pytest
from pydantic import SecretStr

from tests.integration.conftest import RunningStack
from tests.integration.contract.shop import Shop
from tests.unit.contract.test_compatibility import evolved_pair
from tests.unit.contract.workshop import field
from towpath.contract.catalogue import Catalogue
from towpath.contract.changes import compare
from towpath.contract.codec import Codec, UnknownSchema
from towpath.contract.compatibility import breaks
from towpath.contract.parties import Parties
from towpath.contract.registry import RegistryClient
from towpath.contract.snapshot import Snapshot
from towpath.errors import ConfigurationError, ContractError, WorldError
from towpath.settings import RegistrySettings, Settings

pytestmark = pytest.mark.stack
SEED: Final = 5


@pytest.fixture
def client(settings: Settings) -> Iterator[RegistryClient]:
    """Return a client of the registry."""
    with RegistryClient(settings.registry) as found:
        yield found


def test_what_one_process_writes_another_reads(shop: Shop, client: RegistryClient) -> None:
    """Both fetched the registry's ids; the bytes carry the id that the registry gave."""
    contracts = shop.generate()
    (done,) = client.register(contracts, shop.catalogue())
    assert done.is_new
    writer, reader = (client.load_codec(contracts, shop.catalogue()) for _ in range(2))
    placed = shop.classes().OrderPlaced(order_id="o-1", total=5)
    payload = writer.encode(placed)
    assert int.from_bytes(payload[1:5], "big") == done.schema_id
    assert reader.decode(payload) == placed


def test_registering_again_changes_nothing(shop: Shop, client: RegistryClient) -> None:
    """Ids stay, also when only a sentence of documentation changed."""
    contracts = shop.contracts()
    first = client.register(contracts, shop.catalogue())
    shop.define(field("order_id", doc="The order."), field("total", "int"))
    second = client.register(shop.contracts(), shop.catalogue())
    assert [item.schema_id for item in second] == [item.schema_id for item in first]
    assert not any(item.is_new for item in second)
    assert len(client.writers(shop.record)) == 1


def test_a_dry_run_writes_nothing(shop: Shop, client: RegistryClient) -> None:
    """It says what would be registered, and the subject is still unknown."""
    (done,) = client.register(shop.contracts(), shop.catalogue(), dry_run=True)
    assert (done.is_new, done.schema_id) == (True, None)
    assert client.writers(shop.record) == ()
    assert shop.record not in client.subjects()


def test_released_versions_are_registered_first_and_stay_readable(shop: Shop, client: RegistryClient) -> None:
    """A worker of the old version writes, a worker of the new one reads, and the other way round."""
    old_contracts = shop.generate()
    client.register(old_contracts, shop.catalogue())
    old = client.load_codec(old_contracts, shop.catalogue())
    written_by_old = old.encode(shop.classes().OrderPlaced(order_id="o-1", total=5))
    old_class = shop.classes().OrderPlaced
    shop.define(field("order_id"), field("total", "int"), version=1)
    shop.define(field("order_id"), field("total", "int"), field("currency", default="EUR"))
    contracts = shop.generate()
    done = client.register(contracts, shop.catalogue())
    assert [(item.version, item.is_new) for item in done] == [(1, False), (None, True)]
    new = client.load_codec(contracts, shop.catalogue())
    assert new.decode(written_by_old) == shop.classes().OrderPlaced(order_id="o-1", total=5, currency="EUR")
    written_by_new = new.encode(shop.classes().OrderPlaced(order_id="o-2", total=6, currency="USD"))
    with pytest.raises(UnknownSchema) as caught:
        old.decode(written_by_new)
    writer = client.writer(caught.value.schema_id)
    assert writer is not None
    old.learn(writer)
    assert old.decode(written_by_new) == old_class(order_id="o-2", total=6)


def test_a_schema_that_is_not_registered_is_found_at_start(shop: Shop, client: RegistryClient) -> None:
    """A worker does not begin with a schema that nobody else can look up."""
    with pytest.raises(ContractError) as caught:
        client.load_codec(shop.generate(), shop.catalogue())
    assert caught.value.next_step == "towpath contracts register"


def test_the_registry_itself_holds_the_promise(shop: Shop, client: RegistryClient) -> None:
    """Whoever goes past `contracts test` is refused by the registry, which was told what the topics promise."""
    client.register(shop.contracts(), shop.catalogue())
    shop.define(field("order_id"), field("total", "int"), field("currency"))
    with pytest.raises(ContractError, match="the registry refuses"):
        client.add(shop.record, shop.contracts().schemas.avro(shop.record))


def test_what_our_rules_let_pass_the_registry_accepts(shop: Shop, client: RegistryClient) -> None:
    """On random pairs of versions that read each other by our rules, the Java registry finds no break either."""
    chance = Random(SEED)
    accepted = 0
    for turn in range(150):
        old, new = evolved_pair(chance)
        if breaks("shop.order.A", reader=new, writer=old) or breaks("shop.order.A", reader=old, writer=new):
            continue
        subject = f"{shop.record}.{turn}"
        client.add(subject, old.avro("shop.order.A"))
        client.set_compatibility(subject, "FULL_TRANSITIVE")
        try:
            client.add(subject, new.avro("shop.order.A"))
        except ContractError as error:
            raise AssertionError(f"seed {SEED}, turn {turn}: {old} and {new}: {error}") from error
        accepted += 1
    assert accepted > 15


def test_an_id_that_was_never_given_is_none(client: RegistryClient) -> None:
    """A record with such an id is a dead letter, not a crash."""
    assert client.writer(2_000_000_000) is None


def test_a_registry_that_is_away_is_the_worlds_fault(shop: Shop) -> None:
    """The error says what to look at; nothing was half registered."""
    with (
        RegistryClient(RegistrySettings(url="http://127.0.0.1:9/apis/ccompat/v7", timeout_seconds=2)) as away,
        pytest.raises(WorldError, match="does not answer"),
    ):
        away.register(shop.contracts(), shop.catalogue())


def test_the_verb_registers_what_is_new_and_tells_ids(stack: RunningStack) -> None:
    """The stack registered the project's schemas when it came up, so the verb finds every one of them there."""
    command = [
        sys.executable,
        "-c",
        "from towpath.cli import main; main()",
        "contracts",
        "register",
        "--dry-run",
        "--json",
    ]
    done = subprocess.run(command, cwd=stack.settings.root, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {item["subject"] for item in found} == set(Catalogue.load(stack.settings).values())
    assert not [item["subject"] for item in found if item["is_new"] or not item["schema_id"]]


@contextmanager
def guarded(registry: str, wanted: str) -> Iterator[str]:
    """Put a door in front of a registry that lets in only who is authorised as `wanted` says."""
    base = httpx.URL(registry)

    class Door(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.end_headers()
                return
            headers = {"Content-Type": self.headers.get("Content-Type", "")}
            answer = httpx.request(
                self.command, base.copy_with(raw_path=self.path.encode()), content=body, headers=headers
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = _pass  # noqa: N815 - the names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield str(base.copy_with(port=server.server_port))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_registry_behind_basic_authentication(shop: Shop, settings: Settings) -> None:
    """With name and password it works as without; with a wrong one the error names the settings, not the password."""
    wanted = "Basic " + base64.b64encode(b"towpath:secret").decode()
    with guarded(settings.registry.url, wanted) as url:
        right = RegistrySettings(url=url, username="towpath", password=SecretStr("secret"))
        with RegistryClient(right) as client:
            contracts = shop.generate()
            client.register(contracts, shop.catalogue())
            assert isinstance(client.load_codec(contracts, shop.catalogue()), Codec)
        wrong = RegistrySettings(url=url, username="towpath", password=SecretStr("wrong-one"))
        with RegistryClient(wrong) as client, pytest.raises(ConfigurationError) as caught:
            client.subjects()
        assert "[registry] username and password" in str(caught.value)
        assert "wrong-one" not in str(caught.value)


def test_a_registry_behind_a_token(shop: Shop, settings: Settings) -> None:
    """Bearer authentication, by the settings alone; a wrong token is not told."""
    with guarded(settings.registry.url, "Bearer right-one") as url:
        with RegistryClient(RegistrySettings(url=url, token=SecretStr("right-one"))) as client:
            assert client.register(shop.contracts(), shop.catalogue())
        with (
            RegistryClient(RegistrySettings(url=url, token=SecretStr("wrong-one"))) as client,
            pytest.raises(ConfigurationError) as caught,
        ):
            client.subjects()
        assert "or token" in str(caught.value)
        assert "wrong-one" not in str(caught.value)


def test_a_refusal_says_what_cannot_be_read(shop: Shop, client: RegistryClient) -> None:
    """The registry names nothing; the error names the version that it holds, the field, and what to run."""
    client.register(shop.contracts(), shop.catalogue())
    shop.define(field("order_id"), field("total", "int"), field("currency"))
    with pytest.raises(ContractError) as caught:
        client.register(shop.contracts(), shop.catalogue())
    assert "holds " + shop.record + " to FULL_TRANSITIVE and refuses the form of today" in caught.value.cause
    assert "cannot read what the registry's version 1 wrote: OrderPlaced.currency" in caught.value.cause
    assert caught.value.next_step is not None
    assert "towpath contracts check --against registry" in caught.value.next_step
    assert len(client.writers(shop.record)) == 1


def test_what_was_deleted_softly_can_still_be_read(shop: Shop, client: RegistryClient, settings: Settings) -> None:
    """Its records lie in topics; a new form is not held against it any more."""
    contracts = shop.generate()
    client.register(contracts, shop.catalogue())
    codec = client.load_codec(contracts, shop.catalogue())
    old = codec.encode(shop.classes().OrderPlaced(order_id="o-1", total=5))
    shop.define(field("order_id"), field("total", "int"), field("note", default=""))
    contracts = shop.generate()
    client.register(contracts, shop.catalogue())
    httpx.delete(f"{settings.registry.url}/subjects/{shop.record}/versions/1").raise_for_status()
    assert len(client.writers(shop.record, deleted=False)) == 1
    assert len(client.writers(shop.record)) == 2
    read = client.load_codec(contracts, shop.catalogue()).decode(old)
    assert read == shop.classes().OrderPlaced(order_id="o-1", total=5, note="")


def test_a_schema_that_refers_to_other_subjects_is_read_whole(
    shop: Shop, client: RegistryClient, settings: Settings
) -> None:
    """As others register them; the same schema is found although we write it out."""
    space = f"shop.{shop.name}"
    line = {"type": "record", "name": "OrderLine", "namespace": space, "fields": [field("sku")]}
    client.add(f"{space}.OrderLine", line)
    lines = field("lines", {"type": "array", "items": f"{space}.OrderLine"})
    order = {"type": "record", "name": "OrderPlaced", "namespace": space, "fields": [field("order_id"), lines]}
    reference = {"name": f"{space}.OrderLine", "subject": f"{space}.OrderLine", "version": 1}
    answer = httpx.post(
        f"{settings.registry.url}/subjects/{shop.record}/versions",
        json={"schema": json.dumps(order), "references": [reference]},
    ).raise_for_status()
    whole = {**order, "fields": [field("order_id"), field("lines", {"type": "array", "items": line})]}
    (writer,) = client.writers(shop.record)
    assert writer.avro == whole
    assert client.find(shop.record, whole) == answer.json()["id"]


def test_subjects_may_be_named_by_topic(shop: Shop, settings: Settings) -> None:
    """By topic, and by topic and record: the same bytes are read, whatever the registry calls their subject."""
    contracts = shop.generate()
    placed = shop.classes().OrderPlaced(order_id="o-1", total=5)
    for strategy, subject in (
        ("topic", f"{shop.topic_name}-value"),
        ("topic_record", f"{shop.topic_name}-{shop.record}"),
    ):
        chosen = settings.registry.model_copy(update={"subject_strategy": strategy})
        with RegistryClient(chosen) as client:
            (done,) = client.register(contracts, shop.catalogue())
            assert done.subject == subject
            codec = client.load_codec(contracts, shop.catalogue())
            assert codec.decode(codec.encode(placed)) == placed


def test_what_is_registered_is_compared_with_the_files(shop: Shop, client: RegistryClient) -> None:
    """`check --against registry` sees a form that runs and that no file here keeps."""
    client.register(shop.contracts(), shop.catalogue())
    assert client.compatibility(shop.record) == "FULL_TRANSITIVE"
    shop.define(field("order_id"), field("total", "string"))
    here = Snapshot.of("here", shop.contracts(), shop.catalogue())
    (found,) = compare(client.snapshot(shop.catalogue()), here, Parties.of((), shop.catalogue()))
    assert "readers of the registry's latest version cannot read" in found.problem
    assert found.place == "OrderPlaced.total"
