"""The configuration of the connector that captures a service's outbox. Pure: settings and catalogue in, dict out.

The one rule: nothing here is typed twice. Names come from the outbox room, addresses from the settings, and what a
service may write from the catalogue. Defaults of Debezium 3.7 are stated only where they were found to matter.
"""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError
from towpath.outbox.message import HEADER_COLUMNS
from towpath.outbox.names import (
    HEARTBEAT_TABLE,
    OUTBOX_TABLE,
    PUBLICATION,
    VIEWS_DATABASE,
    connector_name,
    slot_name,
    topic_prefix,
)
from towpath.outbox.topics import writable_topics
from towpath.settings import Settings

QUEUE_BYTES_MAX = 16 * 1024 * 1024
"""Of each connector's queue. Four of them take 64 MiB at most, a quarter of Connect's heap of 256 MiB."""

VIEWS_POLL_MILLISECONDS = 250


@dataclass(frozen=True, slots=True)
class Connector:
    """A connector's name and its configuration, as Connect's REST API takes them."""

    name: str
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, in the parts that Debezium wants."""

    host: str
    port: int
    database: str
    ssl_mode: str


def outbox_connector(settings: Settings, catalogue: Catalogue, service: str) -> Connector:
    """Return the connector that captures the outbox of `service`.

    Raises ConfigurationError for a service to which no topic of the catalogue gives leave to write, and for a
    database URL that Debezium could not use. The views' database is captured for its dead letters alone.
    """
    if service != VIEWS_DATABASE and not writable_topics(catalogue, service):
        raise ConfigurationError(
            f"service {service}: no topic of the catalogue names it as a producer, so there is nothing to capture",
            next_step=f"add {service} to `producers` in schemas/topics, or remove the service from towpath.toml",
        )
    project = settings.project.name
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "topic.prefix": topic_prefix(project, service),
        **_database(settings, service),
        **_slot(slot_name(project, service)),
        **_heartbeat(settings),
        **_event_router(),
        **_converters(),
        "poll.interval.ms": str(_poll_milliseconds(settings, service)),
        "max.queue.size.in.bytes": str(QUEUE_BYTES_MAX),
        # The database may be away for a while, at start too: it is tried again for ever, and often.
        "errors.max.retries": "-1",
        "retriable.restart.connector.wait.ms": "1000",
    }
    return Connector(connector_name(project, service), config)


def _poll_milliseconds(settings: Settings, service: str) -> int:
    """Return how often the connector looks: for the views' dead letters, which nobody waits for, seldom."""
    often = settings.connect.poll_interval_milliseconds
    return max(often, VIEWS_POLL_MILLISECONDS) if service == VIEWS_DATABASE else often


def parse_address(url: str) -> Address:
    """Return the parts of a database URL. Raises ConfigurationError where it lacks a host or a database."""
    parts = urlsplit(url)
    database = unquote(parts.path.lstrip("/"))
    if not parts.hostname or not database:
        raise ConfigurationError(
            "a database URL without host or database name cannot be captured",
            next_step="write it as postgresql://user@host:port/database in [postgres] of towpath.toml",
        )
    ssl_mode = parse_qs(parts.query).get("sslmode", ["prefer"])[-1]
    return Address(parts.hostname, parts.port or 5432, database, ssl_mode)


def _database(settings: Settings, service: str) -> dict[str, str]:
    address = parse_address(settings.postgres.database_url(service))
    secret = settings.postgres.capture_password
    password = settings.connect.capture_password or (secret.get_secret_value() if secret else "")
    return {
        "database.hostname": settings.connect.database_host or address.host,
        "database.port": str(settings.connect.database_port or address.port),
        "database.dbname": address.database,
        "database.user": settings.postgres.capture_username,
        "database.password": password,
        "database.sslmode": address.ssl_mode,
    }


def _slot(slot: str) -> dict[str, str]:
    return {
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "slot.drop.on.stop": "false",
        "publication.name": PUBLICATION,
        # The capture role owns nothing, and so could not make one.
        "publication.autocreate.mode": "disabled",
        "table.include.list": f"public.{OUTBOX_TABLE}",
        # The slot exists before the first message does, and so is where reading begins: there is nothing to copy.
        "snapshot.mode": "no_data",
        # The default moves a slot that is behind the stored offset up to it, over rows never sent.
        "offset.mismatch.strategy": "trust_offset",
        # How often PostgreSQL is told what has arrived: what it keeps for us, and how soon an audit is sure.
        "status.update.interval.ms": "1000",
    }


def _heartbeat(settings: Settings) -> dict[str, str]:
    return {
        "heartbeat.interval.ms": str(round(settings.connect.heartbeat_seconds * 1000)),
        # A write of our own, so that the slot of a database where nothing happens moves on with the server.
        "heartbeat.action.query": f"INSERT INTO public.{HEARTBEAT_TABLE} DEFAULT VALUES",
    }


def _event_router() -> dict[str, str]:
    return {
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.by.field": "topic",
        "transforms.outbox.route.topic.replacement": "${routedByValue}",
        "transforms.outbox.table.field.event.id": "id",
        "transforms.outbox.table.field.event.key": "key",
        "transforms.outbox.table.field.event.payload": "payload",
        "transforms.outbox.table.field.event.timestamp": "created_at",
        "transforms.outbox.table.fields.additional.placement": ",".join(f"{name}:header" for name in HEADER_COLUMNS),
        "transforms.outbox.table.expand.json.payload": "false",
        "tombstones.on.delete": "false",
        "skipped.operations": "u,d,t",
        # Debezium's own context headers: a third of a small record, and nobody here reads them.
        "extended.headers.enabled": "false",
    }


def _converters() -> dict[str, str]:
    return {
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "header.converter": "org.apache.kafka.connect.storage.StringConverter",
        "binary.handling.mode": "bytes",
        # The payload is Avro already. The delegate is for what is no outbox row: Debezium's heartbeats.
        "value.converter": "io.debezium.converters.BinaryDataConverter",
        "value.converter.delegate.converter.type": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.delegate.converter.type.schemas.enable": "false",
    }
