"""A broker that wants TLS and a password, as existing clusters do: a real one, reached by the settings alone.

`secured/broker.pem` is a key with a certificate for 127.0.0.1; they serve this test and nothing else.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.conformance.conftest import SETTINGS
from tests.stack_fixture import free_ports, stack_environment, variables
from towpath.contract.catalogue import Catalogue
from towpath.contract.kafka import compare_topics, ensure_topics
from towpath.errors import WorldError
from towpath.settings import KafkaSettings, Settings, load_settings
from towpath.stack.config import as_properties
from towpath.stack.home import Home
from towpath.stack.parts import PartKind
from towpath.stack.processes import format_command, settings_files
from towpath.stack.up import Silent, make_plan
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.record import ConsumedRecord, TopicPartition

SECURED = Path(__file__).with_name("secured")
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required user_towpath='open sesame';"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
READY_SECONDS_MAX = 120.0

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Return settings that reach a broker by its secured door; the other one is for the broker itself."""
    folder = tmp_path_factory.mktemp("secured")
    (port,) = free_ports(1)
    with variables(stack_environment(folder)):
        settings = load_settings()
    home = Home(settings.stack_home)
    home.make()
    plan = make_plan(settings, home, Silent())
    (part,) = plan.of(PartKind.KAFKA)
    for path, content in settings_files(plan.parts, home).items():
        path.write_text(content, encoding="utf-8")
    door = f"SECURED://{settings.stack.host}:{port}"
    changed = {
        **part.settings,
        "listeners": f"{part.settings['listeners']},{door}",
        "advertised.listeners": f"{part.settings['advertised.listeners']},{door}",
        "listener.security.protocol.map": f"{part.settings['listener.security.protocol.map']},SECURED:SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(SECURED / "broker.pem"),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secured.plain.sasl.jaas.config": LOGIN,
    }
    (home.config / "kafka.properties").write_text(as_properties(changed), encoding="utf-8")
    command = format_command(part, home, plan.installed, plan.machine, CLUSTER_ID)
    subprocess.run(command, check=True, capture_output=True, env=dict(plan.environment))
    kafka = KafkaSettings(
        bootstrap_servers=f"{settings.stack.host}:{port}",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="towpath",
        sasl_password=SecretStr("open sesame"),
        ssl_ca_file=SECURED / "certificate.pem",
    )
    spec = plan.spec(part.name)
    with (home.logs / "kafka.log").open("wb") as log:
        broker = subprocess.Popen(spec.arguments, env=dict(spec.environment), stdout=log, stderr=log)
    try:
        yield settings.model_copy(update={"kafka": kafka})
    finally:
        broker.send_signal(signal.SIGTERM)
        broker.wait(60)


def with_kafka(settings: Settings, **changes: object) -> Settings:
    """Return the settings with something else about Kafka."""
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=changes)})


def test_topics_and_transactions_go_through_the_secured_door(secured: Settings) -> None:
    """What workers and `provision` do with a cluster: topics made and compared, a transaction written and read."""
    catalogue = Catalogue.load(secured)
    deadline = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            ensure_topics(catalogue, secured, timeout_seconds=5)
            break
        except WorldError:
            assert time.monotonic() < deadline
    assert compare_topics(catalogue, secured) == ()
    broker = KafkaBroker(secured.kafka, SETTINGS)
    producer = broker.producer("secured")
    producer.start()
    producer.begin()
    producer.produce("order.events", b"through", partition=0)
    producer.commit({}, None)
    reader, until = broker.reader(TopicPartition("order.events", 0), 0), time.monotonic() + 30
    records: list[ConsumedRecord] = []
    while not records:
        assert time.monotonic() < until
        records, _ = reader.poll(0.2)
    reader.close()
    assert [record.value for record in records] == [b"through"]


@pytest.mark.parametrize(
    "changes",
    [{"sasl_password": SecretStr("sesame")}, {"ssl_ca_file": None}, {"security_protocol": "PLAINTEXT"}],
    ids=["wrong password", "unknown authority", "no TLS"],
)
def test_who_may_not_pass_is_told(secured: Settings, changes: dict[str, object]) -> None:
    """An error with what to look at, within its time, and no topic."""
    settings = with_kafka(secured, **changes)
    with pytest.raises(WorldError) as refused:
        compare_topics(Catalogue.load(settings), settings, timeout_seconds=3)
    assert "[kafka] in towpath.toml" in str(refused.value)
