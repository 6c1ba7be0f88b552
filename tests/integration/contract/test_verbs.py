"""The verbs of `towpath contracts` that ask a broker and a registry, as a person runs them, on the real ones."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from tests import next_steps as follow
from tests.integration.contract.shop import Shop
from tests.next_steps import step_in
from tests.unit.contract.workshop import field
from towpath.cli.contracts import contracts_app
from towpath.contract.kafka import ensure_topics
from towpath.contract.registry import RegistryClient
from towpath.errors import ContractError, TowpathError

pytestmark = pytest.mark.stack


@pytest.fixture
def project(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Return the shop as a project that knows the running broker and registry; go to its folder."""
    settings = shop.settings
    (shop.folder / "towpath.toml").write_text(
        f'[project]\nname = "{shop.name}"\nrecords = "{shop.package}"\nschemas = "."\noutsiders = ["order", "view"]\n'
        f'[kafka]\nbootstrap_servers = "{settings.kafka.bootstrap_servers}"\n'
        f'[registry]\nurl = "{settings.registry.url}"\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(shop.folder)
    monkeypatch.delenv("TOWPATH_PROJECT", raising=False)
    example(shop, {"order_id": "o-1", "total": 5})
    assert run(shop, "generate")[0] == 0
    return shop


def example(shop: Shop, content: dict[str, Any]) -> None:
    """Write the good example that every record has."""
    path = shop.folder / "examples/order/OrderPlaced/good/usual.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def run(shop: Shop, *arguments: str) -> tuple[int, str]:
    """Run a verb in this process; return its exit code, and what it wrote."""
    for module in [name for name in sys.modules if name.split(".")[0] == shop.package]:
        del sys.modules[module]
    done = CliRunner().invoke(contracts_app, arguments)
    if isinstance(done.exception, TowpathError):
        return int(done.exception.exit_code), done.stdout
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def versions(shop: Shop) -> list[str]:
    """Return the released versions that lie in files."""
    return sorted(path.name for path in (shop.folder / "avro").rglob("versions/*"))


def test_registering_is_releasing(project: Shop) -> None:
    """What is registered may run, so its form is kept; a dry run keeps nothing, a second run finds nothing to do."""
    code, text = run(project, "register", "--dry-run", "--json")
    assert (code, [item["is_new"] for item in json.loads(text)], versions(project)) == (0, [True], [])
    with RegistryClient(project.settings.registry) as client:
        assert client.writers(project.record) == ()
        code, text = run(project, "test")
        assert code == 0
        code, text = run(project, *step_in(text, "contracts register")[1:], "--json")
        (first,) = json.loads(text)
        assert (code, first["is_new"], versions(project)) == (0, True, ["OrderPlaced.v1.avsc"])
        assert [writer.schema_id for writer in client.writers(project.record)] == [first["schema_id"]]
        code, text = run(project, "register", "--json")
        assert (code, [item["is_new"] for item in json.loads(text)], len(versions(project))) == (0, [False], 1)
        project.define(field("order_id"), field("total", "int"), field("note", default=""))
        assert run(project, "generate")[0] == 0
        assert run(project, "register", "--no-release")[0] == 0
        assert (len(client.writers(project.record)), len(versions(project))) == (2, 1)
        project.define(field("order_id"))
        assert run(project, "generate")[0] == 0
        assert run(project, "register")[0] == 3
        assert (len(client.writers(project.record)), len(versions(project))) == (2, 1)


def test_a_change_is_held_against_the_registry(project: Shop) -> None:
    """Exit code 0 for what is registered, 3 for what its readers could not read, with who breaks."""
    assert run(project, "register", "--no-release")[0] == 0
    assert run(project, "check", "--against", "registry")[0] == 0
    project.define(field("order_id"), field("total", "string"))
    assert run(project, "generate")[0] == 0
    with RegistryClient(project.settings.registry) as client, pytest.raises(ContractError) as refused:
        client.register(project.contracts(), project.catalogue())
    code, text = run(project, *step_in(refused.value, "contracts check --against registry")[1:], "--json")
    (found,) = json.loads(text)["findings"]
    assert (code, found["place"]) == (3, "OrderPlaced.total")
    assert "view (reading" in found["breaks"][0]


def test_the_records_of_a_topic_are_read_as_each_reader_does(project: Shop) -> None:
    """Those that lie there now, under the schemas of the registry; the newest alone where a limit says so."""
    assert run(project, "register", "--no-release")[0] == 0
    ensure_topics(project.catalogue(), project.settings)
    with RegistryClient(project.settings.registry) as client:
        codec = client.load_codec(project.contracts(), project.catalogue())
    producer = Producer({**project.settings.kafka.client_config(), "log_level": 2})
    for number in range(5):
        order = project.classes().OrderPlaced(order_id=f"o-{number}", total=number)
        producer.produce(project.topic_name, codec.encode(order), key=order.order_id)
    producer.produce(project.topic_name, None, key="o-1")
    assert producer.flush(30) == 0
    assert run(project, "check", "--from-topic", project.topic_name)[0] == 0
    project.define(field("order_id"), field("total", "int"), field("currency"))
    assert run(project, "generate")[0] == 0
    code, text = run(project, "check", "--from-topic", project.topic_name, "--json")
    (found,) = json.loads(text)["findings"]
    assert (code, found["rule"], found["subject"]) == (3, "real-record", project.record)
    assert found["problem"].startswith(f"{project.topic_name}/")
    assert found["problem"].endswith("currency: not written, and without a default (5 of 5 records)")
    code, text = run(project, "check", "--from-topic", project.topic_name, "--limit", "2", "--json")
    assert "of 2 records" in json.loads(text)["findings"][0]["problem"] or "of 1 records" in text


def test_records_that_a_release_cannot_decode_lead_to_their_readers(project: Shop) -> None:
    """The command that `replay plan --decode` prints names who cannot read them."""
    assert run(project, "register", "--no-release")[0] == 0
    ensure_topics(project.catalogue(), project.settings)
    producer = Producer({**project.settings.kafka.client_config(), "log_level": 2})
    producer.produce(project.topic_name, b"no Avro", key="o-1")
    assert producer.flush(30) == 0
    unreadable = follow.run(project.folder, "replay", "plan", "--topic", project.topic_name, "--decode").leads_on()
    assert unreadable.code == 3, unreadable.text
    code, text = run(project, *step_in(unreadable.text, "contracts check --from-topic x")[1:], "--json")
    assert (code, "wire format" in json.loads(text)["findings"][0]["problem"]) == (3, True), text


def test_subjects_of_a_registry_come_into_a_new_project(project: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all their versions; generated there, they read what was written here."""
    assert run(project, "register", "--no-release")[0] == 0
    with RegistryClient(project.settings.registry) as client:
        written = client.load_codec(project.contracts(), project.catalogue()).encode(
            project.classes().OrderPlaced(order_id="o-1", total=5)
        )
        project.define(field("order_id"), field("total", "int"), field("note", default=""))
        assert run(project, "generate")[0] == 0
        assert run(project, "register", "--no-release")[0] == 0
    new = Shop(project.folder / "new", project.settings, project.name)
    for path in (new.folder / "avro").rglob("*.avsc"):
        path.unlink()
    toml = (project.folder / "towpath.toml").read_text(encoding="utf-8").replace(project.package, new.package)
    (new.folder / "towpath.toml").write_text(toml, encoding="utf-8")
    monkeypatch.chdir(new.folder)
    assert run(new, "import", "registry", "--subject", "no.such.subject")[0] == 5
    code, text = run(new, "import", "registry", "--subject", f"shop.{project.name}.*", "--json")
    done = json.loads(text)
    assert (code, done["refused"], done["kept"]) == (0, [], [])
    assert sorted(Path(path).name for path in done["written"]) == [
        "OrderPlaced.avsc", "OrderPlaced.v1.avsc", "OrderPlaced.v2.avsc"
    ]  # fmt: skip
    assert run(new, "generate")[0] == 0
    with RegistryClient(project.settings.registry) as client:
        read: Any = client.load_codec(new.contracts(), new.catalogue()).decode(written)
    assert (read.order_id, read.total, read.note) == ("o-1", 5, "")
