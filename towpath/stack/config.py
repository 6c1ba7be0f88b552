"""Every setting of every part, written once, and its rendering to the form that a process or an image wants.

Pure. A settings function returns the part's own names (`log.dirs`, `wal_level`); a `as_*` function renders them:
a properties file, command line arguments, or the environment that the official images read. What differs between
the native stack and the containers (addresses, folders) comes in as a placement, nothing else does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from towpath.outbox.names import VIEWS_DATABASE
from towpath.settings import PostgresSettings, Settings

REGISTRY_DATABASE = "registry"

DEFAULT_OWNER = "towpath"
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class BrokerPlacement:
    """Where one Kafka node is.

    `bind_host` is the address that its sockets bind; `inside` is how the other parts reach it and `outside`, where
    that differs (containers), how programs on the host do; `controller` is how the other nodes reach its controller.
    """

    node_id: int
    bind_host: str
    inside: Address
    controller: Address
    data_folder: str
    outside: Address | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where all parts are: `bind_host` for the sockets, addresses as the other parts reach them."""

    bind_host: str
    brokers: tuple[BrokerPlacement, ...]
    connect: Address
    plugin_folder: str
    registry: Address
    postgres: Address
    # The registry's second port, for health and metrics; 0 lets the system choose one.
    registry_management_port: int = 9000

    @property
    def bootstrap_servers(self) -> str:
        """Return the brokers as the other parts reach them, comma separated."""
        return ",".join(str(broker.inside) for broker in self.brokers)


def service_databases(settings: Settings) -> tuple[str, ...]:
    """Return the services' databases: the last name of each service's module (`pipelines.services.order:service`)."""
    return tuple(path.partition(":")[0].rpartition(".")[2] for path in settings.project.services)


def captured_databases(settings: Settings) -> tuple[str, ...]:
    """Return the databases whose outbox is captured: the services', and the views' for their dead letters."""
    return (*service_databases(settings), VIEWS_DATABASE)


def databases(settings: Settings) -> tuple[str, ...]:
    """Return every database of the stack: one for each service, one for the views, one for the registry."""
    return (*captured_databases(settings), REGISTRY_DATABASE)


# --- Kafka -------------------------------------------------------------------------------------------------------


def broker_settings(broker: BrokerPlacement, placement: Placement) -> dict[str, str]:
    """Return the settings of one Kafka node, broker and controller at once, in the names of `server.properties`.

    Three nodes or more replicate three times and take a write once two have it (min ISR 2); fewer cannot.
    """
    replicas = 3 if len(placement.brokers) >= 3 else 1
    in_sync = 2 if replicas == 3 else 1
    return {
        "process.roles": "broker,controller",
        "node.id": str(broker.node_id),
        "controller.quorum.voters": ",".join(f"{one.node_id}@{one.controller}" for one in placement.brokers),
        **_listeners(broker),
        "log.dirs": broker.data_folder,
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": "1",
        # A lone consumer need not wait 3 s for company.
        "group.initial.rebalance.delay.ms": "0",
        # A killed worker's open transaction holds back every read-committed reader: look for them each second.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # Several: others lead 5 s after one died. Alone, nobody could, and a machine that stalls must not end it.
        "broker.session.timeout.ms": "5000" if replicas == 3 else "18000",
        "broker.heartbeat.interval.ms": "1000",
        # Allocated in full at start, default 128 MiB: 16 MiB map 600,000 keys a pass (24 bytes each, 90 % full).
        "log.cleaner.dedupe.buffer.size": str(16 * MEBIBYTE),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
    }


def _listeners(broker: BrokerPlacement) -> dict[str, str]:
    bind = broker.bind_host
    sockets = {"INSIDE": broker.inside, "CONTROLLER": broker.controller}
    if broker.outside:
        sockets["OUTSIDE"] = broker.outside
    advertised = {name: address for name, address in sockets.items() if name != "CONTROLLER"}
    return {
        "listeners": ",".join(f"{name}://{bind}:{address.port}" for name, address in sockets.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in sockets),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INSIDE",
    }


# --- Kafka Connect -----------------------------------------------------------------------------------------------


def connect_settings(placement: Placement) -> dict[str, str]:
    """Return the settings of the Connect worker, in the names of `connect-distributed.properties`."""
    replicas = str(3 if len(placement.brokers) >= 3 else 1)
    return {
        "bootstrap.servers": placement.bootstrap_servers,
        "group.id": "towpath-connect",
        "config.storage.topic": "_connect_configs",
        "config.storage.replication.factor": replicas,
        "offset.storage.topic": "_connect_offsets",
        "offset.storage.replication.factor": replicas,
        "offset.storage.partitions": "1",
        "status.storage.topic": "_connect_status",
        "status.storage.replication.factor": replicas,
        "status.storage.partitions": "1",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "offset.flush.interval.ms": "1000",
        "listeners": f"http://{placement.bind_host}:{placement.connect.port}",
        "rest.advertised.host.name": placement.connect.host,
        "rest.advertised.port": str(placement.connect.port),
        "plugin.path": placement.plugin_folder,
        "plugin.discovery": "service_load",
        "exactly.once.source.support": "disabled",
        # Kafka's default since 4.0 is 5 ms: so long each hop through an outbox would wait for company.
        "producer.linger.ms": "0",
        # One worker: a killed one comes back itself, so its connectors are not held back for five minutes.
        "scheduled.rebalance.max.delay.ms": "0",
        # The least that Kafka allows: a killed worker's ghost leaves the group this long after.
        "session.timeout.ms": "6000",
        "heartbeat.interval.ms": "1500",
        "task.shutdown.graceful.timeout.ms": "3000",
        # Connect boots beside Kafka: it asks again soon, and does not give up while a slow machine boots Kafka.
        "reconnect.backoff.max.ms": "200",
        "default.api.timeout.ms": "180000",
    }


# --- Schema registry ---------------------------------------------------------------------------------------------


def registry_settings(placement: Placement, postgres: PostgresSettings) -> dict[str, str]:
    """Return the settings of Apicurio Registry, in the names of its properties; its schemas live in PostgreSQL.

    The password is not among them: it goes where each form keeps secrets (`registry_password`).
    """
    return {
        "quarkus.http.host": placement.bind_host,
        "quarkus.http.port": str(placement.registry.port),
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "postgresql",
        "apicurio.datasource.url": f"jdbc:postgresql://{placement.postgres}/{REGISTRY_DATABASE}",
        "apicurio.datasource.username": username(postgres),
        "apicurio.datasource.jdbc.initial-size": "1",
        "apicurio.datasource.jdbc.min-size": "1",
        "apicurio.datasource.jdbc.max-size": "10",
        "quarkus.management.host": placement.bind_host,
        "quarkus.management.port": str(placement.registry_management_port),
        "quarkus.http.access-log.enabled": "false",
        "quarkus.log.level": "WARN",
        'quarkus.log.category."io.apicurio".level': "WARN",
    }


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def postgres_settings(placement: Placement) -> dict[str, str]:
    """Return the settings of the PostgreSQL server, in the names of `postgresql.conf`."""
    return {
        "listen_addresses": placement.bind_host,
        "port": str(placement.postgres.port),
        "wal_level": "logical",
        # One slot for each service's outbox, and as many again for those being replaced.
        "max_replication_slots": "20",
        "max_wal_senders": "20",
        # A slot that nobody reads may hold back this much WAL, then it is dropped and its outbox re-emitted.
        "max_slot_wal_keep_size": "2GB",
        # ... in the order in which its transactions committed: 12 bytes a transaction.
        "track_commit_timestamp": "on",
        "max_wal_size": "1GB",
        "max_connections": "120",
        "shared_buffers": "64MB",
        # Rows are small and queries short: neither helper processes nor compiled plans earn their memory here.
        "io_method": "sync",
        "jit": "off",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


def username(postgres: PostgresSettings) -> str:
    """Return the user in the server URL, who owns the databases."""
    return unquote(urlsplit(postgres.url).username or DEFAULT_OWNER)


# --- JVM ---------------------------------------------------------------------------------------------------------


def jvm_options(heap_mebibytes: int, *, quick: bool) -> tuple[str, ...]:
    """Return the options of one JVM.

    The serial collector has the smallest footprint of all, and on heaps of a few hundred MiB no longer pauses.
    `quick` stops at the first compiler: a faster boot and less memory. Kafka's second one takes 40 % of the broker's
    processor time in the first minutes, which is as long as most stacks on one machine live; others say so
    (`[stack] kafka_long_lived`).
    """
    options = (
        f"-Xmx{heap_mebibytes}m",
        f"-Xms{min(heap_mebibytes, 64)}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Xss512k",
        "-Djava.awt.headless=true",
    )
    return (*options, "-XX:TieredStopAtLevel=1") if quick else options


# --- Forms -------------------------------------------------------------------------------------------------------


def as_properties(settings: Mapping[str, str]) -> str:
    """Render a Java properties file."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def as_java_arguments(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Render Java system properties."""
    return tuple(f"-D{name}={value}" for name, value in settings.items())


def as_postgres_arguments(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Render arguments of `postgres`, for a process and for the command of the official image alike."""
    return tuple(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))


def as_kafka_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Render what the apache/kafka image reads: dot to `_`, underscore to `__`, hyphen to `___`, after `KAFKA_`."""
    names = str.maketrans({".": "_", "_": "__", "-": "___"})
    return {f"KAFKA_{name.translate(names).upper()}": value for name, value in settings.items()}


# The debezium/connect entrypoint sets these itself, from variables without the prefix, and would win over ours.
_CONNECT_BARE = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "config.storage.topic",
        "offset.storage.topic",
        "status.storage.topic",
        "key.converter",
        "value.converter",
        "offset.flush.interval.ms",
    }
)
_CONNECT_RENAMED = {
    "rest.advertised.host.name": "ADVERTISED_HOST_NAME",
    "rest.advertised.port": "ADVERTISED_PORT",
    "task.shutdown.graceful.timeout.ms": "SHUTDOWN_TIMEOUT",
}


def as_connect_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Render what the debezium/connect image reads: `CONNECT_` and the name, some names bare or of their own."""

    def variable(name: str) -> str:
        if name in _CONNECT_RENAMED:
            return _CONNECT_RENAMED[name]
        bare = name.replace(".", "_").upper()
        return bare if name in _CONNECT_BARE else f"CONNECT_{bare}"

    return {variable(name): value for name, value in settings.items()}


def as_quarkus_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Render what Quarkus, and so the apicurio-registry image, reads: all but letters and digits to `_`."""
    return {re.sub(r"[^A-Za-z0-9]", "_", name).upper(): value for name, value in settings.items()}


def joined(options: Iterable[str]) -> str:
    """Render JVM options as one variable (`KAFKA_HEAP_OPTS`, `HEAP_OPTS`, `JAVA_OPTS_APPEND`)."""
    return " ".join(options)
