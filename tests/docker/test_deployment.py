"""The compose file on a real Engine: everything comes up by health, set up, and closed to the outside.

Where the official images cannot be pulled, these tests run on stand-ins (infra/images/stand-ins): the same versions of
Kafka, Debezium, PostgreSQL and the registry, behind the same paths, users, ports, volumes and variables. They are not
the official images. Such a run proves that docker-compose.yml is right as far as that contract goes: the settings
reach the parts, the probes tell ready from not ready, the order of start holds, passwords from files work, the
project's own image runs read-only and without root. It does not prove what only the originals have: their base
systems, their Java, their entry points' own code, their other architectures. `TOWPATH_IMAGES=official` runs the same
tests on those.
"""

import httpx
import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from tests.docker.conftest import Deployment
from towpath.contract.catalogue import Catalogue
from towpath.project import worker_names
from towpath.stack.compose import Worker
from towpath.stack.config import captured_databases, databases

pytestmark = pytest.mark.docker
PARTS = {"postgres", "kafka", "registry", "connect"}


def test_everything_is_up_and_healthy(deployment: Deployment) -> None:
    """Parts and workers are healthy by their own probes; the set-up ran once and ended well."""
    states = {name: one["State"] for name, one in deployment.containers().items()}
    setup = states.pop("setup")
    assert (setup["Status"], setup["ExitCode"]) == ("exited", 0)
    assert states.keys() == PARTS | {Worker(name).name for name in worker_names(deployment.settings)}
    assert {name: state["Health"]["Status"] for name, state in states.items()} == dict.fromkeys(states, "healthy")
    assert all(one["RestartCount"] == 0 for one in deployment.containers().values())


def test_every_topic_of_the_catalogue_is_there(deployment: Deployment) -> None:
    """The set-up made the topics, and a client on this machine reaches the broker by the outside listener."""
    admin = AdminClient({**deployment.settings.kafka.client_config()})
    topics = admin.list_topics(timeout=10).topics
    declared = Catalogue.load(deployment.settings).topics
    assert declared.keys() <= topics.keys()
    assert {name: len(topics[name].partitions) for name in declared} == {
        name: topic.partitions for name, topic in declared.items()
    }


def test_every_database_is_there_and_wants_its_password(deployment: Deployment) -> None:
    """The set-up made the databases; nobody enters without the password from the secret file."""
    postgres = deployment.settings.postgres
    password = postgres.connection_options()["password"]
    for name in databases(deployment.settings):
        with psycopg.connect(postgres.database_url(name), password=password) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (name,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(postgres.database_url(name))


def test_every_outbox_is_captured(deployment: Deployment) -> None:
    """Each service's connector and its task run, and its configuration names the password's file, not the password."""
    password = deployment.settings.postgres.capture_password
    assert password is not None
    url = f"{deployment.settings.connect.url}/connectors?expand=status&expand=info"
    connectors = httpx.get(url, timeout=10).raise_for_status().json()
    assert len(connectors) == len(captured_databases(deployment.settings))
    for connector in connectors.values():
        assert connector["status"]["connector"]["state"] == "RUNNING"
        assert [task["state"] for task in connector["status"]["tasks"]] == ["RUNNING"]
        assert password.get_secret_value() not in str(connector["info"])


def test_schemas_are_registered_and_survive_the_registry(deployment: Deployment) -> None:
    """The registry keeps them in PostgreSQL, not in itself."""
    url = f"{deployment.settings.registry.url}/subjects"
    before = httpx.get(url, timeout=10).raise_for_status().json()
    assert before
    deployment.compose("restart", "registry")
    deployment.compose("up", "-d", "--wait", "--no-recreate", "registry")
    assert sorted(httpx.get(url, timeout=10).raise_for_status().json()) == sorted(before)


def test_no_port_is_open_to_another_machine(deployment: Deployment) -> None:
    """What is published is bound to 127.0.0.1; the workers publish nothing."""
    for name, one in deployment.containers().items():
        for bindings in (one["HostConfig"]["PortBindings"] or {}).values():
            assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"], name


def test_a_worker_is_nobody_and_writes_nowhere(deployment: Deployment) -> None:
    """The project's image runs without root and without any capability, on a file system that it cannot change."""
    identity = deployment.compose("exec", "-T", "service-catalog", "id", "-u").strip()
    assert identity != "0"
    for path in ("/", "/project", "/opt/towpath", "/var/lib"):
        attempt = f"touch {path}/x 2>/dev/null && echo written || echo refused"
        assert deployment.compose("exec", "-T", "service-catalog", "sh", "-c", attempt).strip() == "refused", path
    capabilities = deployment.compose("exec", "-T", "service-catalog", "grep", "CapEff", "/proc/1/status")
    assert int(capabilities.split()[1], 16) == 0


def test_no_password_shows_in_a_container(deployment: Deployment) -> None:
    """`docker inspect` tells no secret."""
    postgres = deployment.settings.postgres
    passwords = [one.get_secret_value() for one in (postgres.password, postgres.capture_password) if one]
    assert len(passwords) == 2
    shown = str(deployment.containers())
    assert not any(password in shown for password in passwords)


def test_up_again_changes_nothing(deployment: Deployment) -> None:
    """A second `up` runs the set-up again, which finds everything done, and restarts no part."""
    before = {name: one["Id"] for name, one in deployment.containers().items()}
    deployment.start()
    after = deployment.containers()
    assert {name: one["Id"] for name, one in after.items()} == before
    assert after["setup"]["State"]["ExitCode"] == 0
