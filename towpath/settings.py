"""Every setting of Towpath: one frozen object, read once, from `towpath.toml` and `TOWPATH_*` variables.

A variable wins over the file: `TOWPATH_KAFKA__BOOTSTRAP_SERVERS` sets `[kafka] bootstrap_servers`. Passwords need
neither: `TOWPATH_SECRETS_DIR` names a folder of files (`postgres__password`), each holding one value. The defaults are
those of the stack that `towpath up` starts on this machine; the workers know nothing else of it, so pointing
these settings at an existing cluster is all that it takes to run there.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from towpath.errors import ConfigurationError

PROJECT_FILE = "towpath.toml"


RECORD_PLACE = r"^([A-Za-z0-9._-]+)\[(\d{1,9})\]@(\d{1,18})(?: to (\d{1,18}))?$"
"""A record, or those of one partition from an offset to an offset, as logs write where they lie."""

DAYS_MAX = 36_500
"""A hundred years: what is to be kept for ever. More is past what dates and times can be counted back by."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ProjectSettings(_Section):
    """What the project registers with the engine: import paths are `package.module:attribute`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="Name of the project; prefixes groups and ids.")
    sagas: str = Field("sagas", description="Package whose modules each define one saga, as `saga`.")
    services: tuple[str, ...] = Field(
        (), description="The services, as import paths; by default each folder of pipelines/services, its `service`."
    )
    views: tuple[str, ...] = Field(
        (), description="The views, as import paths; by default each module of pipelines/views, its `view`."
    )
    outsiders: tuple[str, ...] = Field(
        (), description="Producers and consumers of topics that belong to other projects, by the names that topics use."
    )
    schemas: str = Field("schemas", description="Folder of topics, Avro files and examples.")
    records: str = Field("schemas.records", description="Package of the generated record classes.")
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Partitions of each topic that is derived: so many workers of a kind share the work. They never "
        "change once a topic holds records; a file in schemas/topics may say another count.",
    )
    demo: str | None = Field(None, description="The demo that `towpath demo` runs, as import path.")


class KafkaSettings(_Section):
    """How to reach Kafka."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="host:port, comma separated; by default those of the local stack."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="As in librdkafka's `security.protocol`."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password.")
    ssl_ca_file: Path | None = Field(None, description="Certificate authorities, PEM.")
    ssl_certificate_file: Path | None = Field(None, description="Client certificate, PEM.")
    ssl_key_file: Path | None = Field(None, description="Client key, PEM.")
    replication_factor: int = Field(1, ge=1, description="Replicas of each topic that Towpath creates.")

    def client_config(self) -> dict[str, str]:
        """Return what every librdkafka client of this cluster needs, in librdkafka's names."""
        config = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": str(self.ssl_ca_file) if self.ssl_ca_file else None,
            "ssl.certificate.location": str(self.ssl_certificate_file) if self.ssl_certificate_file else None,
            "ssl.key.location": str(self.ssl_key_file) if self.ssl_key_file else None,
            # The Java client's default. By librdkafka's, of ten, a broker that was away long is found so much later.
            "reconnect.backoff.max.ms": "1000",
        }
        return {name: value for name, value in config.items() if value is not None}


class RegistrySettings(_Section):
    """How to reach a schema registry that speaks Confluent's API."""

    url: str = Field("http://127.0.0.1:8081/apis/ccompat/v7", description="Base URL of the Confluent API.")
    username: str | None = Field(None, description="User for basic authentication.")
    password: SecretStr | None = Field(None, description="Password for basic authentication.")
    token: SecretStr | None = Field(None, description="Token for bearer authentication, instead of user and password.")
    subject_strategy: Literal["record", "topic", "topic_record"] = Field(
        "record", description="What schemas are filed under: the record's name, the topic's, or both."
    )
    timeout_seconds: float = Field(10.0, gt=0, description="Longest wait for one answer.")


class ConnectSettings(_Section):
    """How to reach Kafka Connect, and how Connect reaches the databases."""

    url: str = Field("http://127.0.0.1:8083", description="Connect's REST API.")
    poll_interval_milliseconds: int = Field(
        50,
        ge=1,
        description="Debezium's `poll.interval.ms`. Each connector looks so often though nothing happens. While little "
        "happens, what a service answers takes the direct way to Kafka all the same; under load a long interval costs "
        "each step half of it, and less work: at 25 ms in place of 50, Connect took 0.8 ms a saga in place of 0.6.",
    )
    heartbeat_seconds: float = Field(
        2.0,
        gt=0,
        description="How often Debezium beats in each database: an idle slot moves on, and three missing beats hold "
        "the deadlines of sagas. At most a third of the shortest deadline of an attempt.",
    )
    timeout_seconds: float = Field(30.0, gt=0, description="Longest wait for one answer of Connect's REST API.")
    database_host: str | None = Field(None, description="Host of the databases as Connect sees it, if it differs.")
    database_port: int | None = Field(None, description="Their port as Connect sees it, if it differs.")
    capture_password: str | None = Field(
        None,
        description="What a connector's configuration says instead of `[postgres] capture_password`: a reference that "
        "Connect resolves itself, as `${directory:/run/secrets:postgres__capture_password}`.",
    )


class PostgresSettings(_Section):
    """How to reach the databases: one for each service, one for the views.

    A database is `urls[name]` where that is set, else `{url}/{name}`.
    """

    url: str = Field("postgresql://towpath@127.0.0.1:5432", description="Server URL, with neither path nor password.")
    password: SecretStr | None = Field(None, description="Password of the user in `url`.")
    capture_username: str = Field("towpath_capture", description="Role with which Debezium reads outboxes.")
    capture_password: SecretStr | None = Field(None, description="Its password.")
    urls: dict[str, SecretStr] = Field(default_factory=dict, description="Whole URLs of single databases.")

    def database_url(self, name: str) -> str:
        """Return the connection URL of the database called `name` (a service's name, or `views`)."""
        if name in self.urls:
            return self.urls[name].get_secret_value()
        return f"{self.url.rstrip('/')}/{name}"

    def connection_options(self) -> dict[str, str]:
        """Return what psycopg needs beside the URL."""
        return {"password": self.password.get_secret_value()} if self.password else {}


class OutboxSettings(_Section):
    """How long an outbox keeps what it has handed over: the source of a re-emit after a lost slot."""

    keep_days: int = Field(
        7, ge=1, le=DAYS_MAX, description="Days of messages that an outbox keeps, whole days in UTC."
    )
    ahead_days: int = Field(7, ge=1, le=366, description="Days for which partitions are made ahead.")


class ParticipantSettings(_Section):
    """How services answer commands."""

    inbox_keep_days: int = Field(
        180,
        ge=1,
        le=DAYS_MAX,
        description="Days that a recorded reply is kept: longer than a command may lie unread (30 by our topics), be a "
        "dead letter (90), and lie unread once more after its redrive (30), 150 in all; that leaves 30 spare.",
    )
    direct_replies_per_second: float = Field(
        50.0,
        ge=0,
        description="Replies a second that a worker also hands to Kafka itself after their commit, ahead of Debezium, "
        "whose copy is then dropped: each saves 20 to 30 ms and costs a record. Beyond, load, it stays off; 0: never.",
    )


class StackSettings(_Section):
    """The parts that `towpath up` runs on this machine."""

    managed: bool = Field(
        True, description="Whether towpath starts the parts itself; false where they are containers or clusters."
    )
    home: Path = Field(Path(".towpath"), description="Data, logs and sockets; relative to the project.")
    cache: Path | None = Field(None, description="Fetched files; by default the user's own cache folder.")
    maven_repository: str | None = Field(None, description="Where jars are fetched; by default Maven Central.")
    host: str = Field("127.0.0.1", description="Address that every part binds.")
    kafka_port: int = Field(9092, ge=1, le=65535, description="Kafka's port.")
    controller_port: int = Field(9093, ge=1, le=65535, description="Port of the first broker's controller; likewise.")
    connect_port: int = Field(8083, ge=1, le=65535, description="Kafka Connect's port.")
    registry_port: int = Field(8081, ge=1, le=65535, description="The schema registry's port.")
    postgres_port: int = Field(5432, ge=1, le=65535, description="PostgreSQL's port.")
    brokers: int = Field(
        1, ge=1, le=5, description="Kafka brokers; further ones take every second port after the first."
    )
    kafka_heap_mebibytes: int = Field(384, ge=128, description="Heap of each Kafka broker, MiB.")
    kafka_long_lived: bool = Field(
        False,
        description="Whether a broker's JVM also uses its second compiler. It takes 40 % of the broker's processor "
        "time in the first minutes, and makes it faster from then on: for stacks that run for days. In "
        "docker-compose.yml it is on.",
    )
    connect_heap_mebibytes: int = Field(256, ge=128, description="Heap of Kafka Connect, MiB.")
    registry_heap_mebibytes: int = Field(192, ge=96, description="Heap of the registry, MiB.")


class StreamSettings(_Section):
    """Units of work. batch seconds < transaction timeout <= session timeout < poll interval, checked at start."""

    batch_records_max: int = Field(2_000, ge=1, description="Most records in one unit of work.")
    batch_seconds_aimed: float = Field(
        0.1, gt=0, description="A unit of work takes as many records as are handled and committed in this time."
    )
    batch_seconds_max: float = Field(5.0, gt=0, description="Longest time that one unit of work may take.")
    transaction_timeout_seconds: float = Field(8.0, gt=0, description="Kafka's `transaction.timeout.ms`.")
    session_timeout_seconds: float = Field(10.0, gt=0, description="Kafka's `session.timeout.ms`.")
    poll_interval_seconds_max: float = Field(60.0, gt=0, description="Kafka's `max.poll.interval.ms`.")
    membership_seconds_max: float = Field(
        5.0,
        gt=0,
        description="How long a worker may be no member of its group, while the cluster answers, before its member is "
        "given up for a new one.",
    )
    fetch_wait_milliseconds: int = Field(
        100,
        ge=1,
        description="Kafka's `fetch.wait.max.ms`: how often an idle worker asks; what comes is sent at once.",
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic",
        description="Kafka's `group.protocol`; under `consumer` (KIP-848) the broker sets the session timeout.",
    )
    state_folder: Path = Field(
        Path(".towpath/state"), description="Where workers keep their state stores; relative to the project."
    )
    dedup_horizon_days: float = Field(
        14.0,
        gt=0,
        le=DAYS_MAX,
        description="How long applied ids are remembered, in the time of the records, in days: longer than an outbox "
        "keeps what it may emit again (`[outbox] keep_days` and the day that has begun, 8); that leaves 6 spare.",
    )
    handler_attempts_max: int = Field(3, ge=1, description="Runs of a failing handler before its record is dead.")
    handler_retry_seconds: float = Field(
        0.1,
        ge=0,
        description="Wait before a failing record's second run, four times as long before each further one: what is "
        "committed may reach capture before other connections see it, and a command outrun the row that it is about.",
    )
    expired_records: Literal["hold", "skip"] = Field(
        "hold",
        description="What is done where records expired before they were read: hold the partition until a person "
        "accepts the loss, or skip them, which a metric counts.",
    )
    dead_letter_share_max: float = Field(
        0.5, gt=0, le=1, description="Share of the last 100 records that may be dead before the worker stops."
    )
    dead_records: dict[str, tuple[Annotated[str, StringConstraints(pattern=RECORD_PLACE)], ...]] = Field(
        {},
        description="Records that are dead without a run of their handler, by application, as logs write positions "
        "(`payment.commands[0]@42`, `... to 57`): for a handler that never comes back from one, or ends the process.",
    )

    @field_validator("dead_records")
    @classmethod
    def _have_ranges_in_order(cls, named: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for place in (place for places in named.values() for place in places):
            found = re.fullmatch(RECORD_PLACE, place)
            if found is None or int(found[4] or found[3]) < int(found[3]):
                raise ValueError(f"{place} ends before it begins")
        return named


class SagaSettings(_Section):
    """How orchestrators keep sagas."""

    finished_retention_days: float = Field(
        45.0,
        gt=0,
        le=DAYS_MAX,
        description="How long a finished saga is remembered, in days: longer than the topic of its start events keeps "
        "them (30 by our topics), for they are read again where offsets are lost; that leaves 15 spare.",
    )
    dead_commands_hold_attempts: bool = Field(
        True,
        description="Whether a command that is a dead letter stops its attempt's clock until it is redriven or "
        "dropped: what a handler's bug holds up is not undone before a person could act. The saga's deadline goes on.",
    )


class TracingSettings(_Section):
    """Where spans go."""

    exporter: Literal["none", "otlp"] = Field(
        "none", description="otlp sends spans to a collector by HTTP; it needs the extra `tracing`."
    )
    endpoint: str = Field("http://127.0.0.1:4318", description="The collector's address, without /v1/traces.")
    share: float = Field(
        1.0, ge=0, le=1, description="Share of traces that are recorded, decided where a trace begins."
    )


class Settings(BaseSettings):
    """All settings, frozen. Build it with `load_settings`, or directly in a test."""

    model_config = SettingsConfigDict(
        env_prefix="TOWPATH_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
    )

    root: Path = Field(description="Folder of the project: the one that holds towpath.toml.")
    project: ProjectSettings
    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    connect: ConnectSettings = ConnectSettings()
    postgres: PostgresSettings = PostgresSettings()
    outbox: OutboxSettings = OutboxSettings()
    participant: ParticipantSettings = ParticipantSettings()
    stack: StackSettings = StackSettings()
    stream: StreamSettings = StreamSettings()
    saga: SagaSettings = SagaSettings()
    tracing: TracingSettings = TracingSettings()
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_json: bool = Field(False, description="Log as JSON lines instead of for people.")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="First port for metrics: each worker of a machine takes the first that is free from there on.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let variables win over secret files, and those over the file, whose content arrives as keyword arguments."""
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=os.environ.get("TOWPATH_SECRETS_DIR"),
            secrets_dir_missing="error",
            secrets_prefix="",
            secrets_nested_delimiter="__",
        )
        return env_settings, secrets, init_settings

    @model_validator(mode="before")
    @classmethod
    def _follow_the_local_stack(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Where an address is not set, it is that of the local stack, whatever ports the stack was given."""
        stack = StackSettings.model_validate(data.get("stack", {}))
        last = stack.kafka_port + 2 * (stack.brokers - 1)
        brokers = ",".join(f"{stack.host}:{port}" for port in range(stack.kafka_port, last + 1, 2))
        defaults: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": brokers, "replication_factor": 3 if stack.brokers >= 3 else 1},
            "registry": {"url": f"http://{stack.host}:{stack.registry_port}/apis/ccompat/v7"},
            "connect": {"url": f"http://{stack.host}:{stack.connect_port}"},
            "postgres": {"url": f"postgresql://towpath@{stack.host}:{stack.postgres_port}"},
        }
        # A section that was built beforehand says all it wants.
        open_ = {name: section for name, section in defaults.items() if not isinstance(data.get(name), BaseModel)}
        return {**data, **{name: {**section, **data.get(name, {})} for name, section in open_.items()}}

    @model_validator(mode="before")
    @classmethod
    def _find_services_and_views(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Where the file lists no services or views, they are those that lie in the project's folders."""
        project, root = data.get("project"), data.get("root")
        if not isinstance(project, dict) or not isinstance(root, Path):
            return data
        services = root / "pipelines" / "services"
        views = root / "pipelines" / "views"
        found = {
            "services": tuple(
                f"pipelines.services.{one.parent.name}:service" for one in sorted(services.glob("[!_]*/__init__.py"))
            ),
            "views": tuple(f"pipelines.views.{one.stem}:view" for one in sorted(views.glob("[!_]*.py"))),
        }
        return {**data, "project": {**found, **project}}

    @property
    def stack_home(self) -> Path:
        """Return the absolute folder in which the local stack lives."""
        return (self.root / self.stack.home).resolve()


def find_project(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: the working directory) that holds `towpath.toml`.

    Raises ConfigurationError where there is none. `TOWPATH_PROJECT_FOLDER` names it outright.
    """
    named = os.environ.get("TOWPATH_PROJECT_FOLDER")
    here = Path(named) if named else (start or Path.cwd())
    for folder in (here, *here.resolve().parents):
        if (folder / PROJECT_FILE).is_file():
            return folder.resolve()
    raise ConfigurationError(
        f"no {PROJECT_FILE} in {here} or any folder above it",
        next_step="go to a project, or set TOWPATH_PROJECT_FOLDER to its folder",
    )


class _FileSettings(Settings):
    """The settings that every machine has: `towpath.toml` alone."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the file's content, which arrives as keyword arguments, and nothing else."""
        return (init_settings,)


def load_settings(root: Path | None = None, *, environment: bool = True) -> Settings:
    """Read `towpath.toml` and, unless told otherwise, the environment. Raises ConfigurationError naming what is wrong.

    What is written into the project (docker-compose.yml) must not depend on the shell that wrote it.
    """
    root = root or find_project()
    try:
        content = tomllib.loads((root / PROJECT_FILE).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{root / PROJECT_FILE}: {error}", next_step="fix the file") from error
    return _build(Settings if environment else _FileSettings, {**content, "root": root})


def _build(kind: type[Settings], content: dict[str, Any]) -> Settings:
    try:
        return kind(**content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ConfigurationError(
            f"settings: {problems}", next_step=f"fix {PROJECT_FILE} or the TOWPATH_ variable of that name"
        ) from error
    except SettingsError as error:
        raise ConfigurationError(
            f"settings: {error}",
            next_step="let TOWPATH_SECRETS_DIR name the folder of the secret files, or unset it; write a TOWPATH_ "
            "variable of several values as JSON",
        ) from error


__all__ = ["Settings", "find_project", "load_settings"]
