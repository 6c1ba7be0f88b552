"""The parts as processes of this machine: which program, which arguments, which files of settings. Pure.

`part_processes` says what to run; whoever calls it writes `settings_files` first.
"""

import hashlib
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from towpath.settings import PostgresSettings
from towpath.stack.cache import InstalledParts
from towpath.stack.config import as_java_arguments, as_postgres_arguments, as_properties
from towpath.stack.home import Home
from towpath.stack.kafka_start import Plan, controller_settings
from towpath.stack.parts import Part, PartKind
from towpath.stack.supervisor.spec import Group, Identity, Probe, ProbeKind, ProcessSpec

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
START_CACHE_SUFFIX = ".aot"
# Kafka and Connect take 1 to 2 s on two cores, the registry less; one that hangs shows its threads and is killed then.
JVM_STOP_SECONDS = 20.0
# A JVM that writes its start cache does so while it stops: 4 to 7 s on an idle core.
JVM_STOP_SECONDS_RECORDING = 60.0
# Without a start cache on a busy machine: 70 s were seen with 40 other programs at work on two cores.
JVM_READY_SECONDS = 240.0
CONNECT_TIMER_SLACK_MILLISECONDS = 2.0
"""Debezium's queue waits in whole milliseconds, and spins through what is left of its poll interval after the last one
(`ChangeEventQueue.poll`). Woken late, four idle connectors take 5 % of a core in place of 10.
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine offers: the Java runtime, PostgreSQL's programs, its user, and the folder of start caches."""

    java: Path
    java_version: str
    postgres_programs: Path
    postgres_identity: Identity | None
    start_caches: Path
    known_start_caches: frozenset[str]


def settings_files(parts: Iterable[Part], home: Home) -> dict[Path, str]:
    """Return the files of settings that the processes read, with their content."""
    files = {
        _properties(part, home): as_properties(part.settings)
        for part in parts
        if part.kind in {PartKind.KAFKA, PartKind.CONNECT}
    }
    alone = {
        _controller_properties(part, home): as_properties(controller_settings(part.settings))
        for part in parts
        if part.kind is PartKind.KAFKA and _is_alone(part)
    }
    return {**files, **alone}


def part_processes(
    parts: Iterable[Part],
    home: Home,
    installed: InstalledParts,
    machine: Machine,
    postgres: PostgresSettings,
    environment: Mapping[str, str],
) -> tuple[ProcessSpec, ...]:
    """Return the process of each part. `environment` is what all of them inherit."""
    makers = {
        PartKind.POSTGRES: lambda part: _postgres(part, home, machine, environment),
        PartKind.KAFKA: lambda part: _kafka(part, home, installed, machine, environment),
        PartKind.CONNECT: lambda part: _connect(part, home, installed, machine, environment),
        PartKind.REGISTRY: lambda part: _registry(part, home, installed, machine, postgres, environment),
    }
    return tuple(makers[part.kind](part) for part in parts)


def format_command(part: Part, home: Home, installed: InstalledParts, machine: Machine, cluster_id: str) -> list[str]:
    """Return the command that lays out a Kafka node's empty data folder."""
    return [
        str(machine.java),
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={LOG_CONFIG}",
        "-cp",
        _class_path(installed.kafka_class_path),
        "kafka.tools.StorageTool",
        "format",
        "-t",
        cluster_id,
        "-c",
        str(_properties(part, home)),
    ]


def postgres_data(home: Home) -> Path:
    """Return PostgreSQL's data folder."""
    return home.data / "postgres"


def _properties(part: Part, home: Home) -> Path:
    return home.config / f"{part.name}.properties"


def _controller_properties(part: Part, home: Home) -> Path:
    return home.config / f"{part.name}-controller.properties"


def _is_alone(part: Part) -> bool:
    return "," not in part.settings["controller.quorum.voters"]


def _class_path(paths: Iterable[Path]) -> str:
    return ":".join(str(path) for path in paths)


def _postgres(part: Part, home: Home, machine: Machine, environment: Mapping[str, str]) -> ProcessSpec:
    return ProcessSpec(
        name=part.name,
        group=Group.PART,
        version=part.version,
        arguments=(
            str(machine.postgres_programs / "postgres"),
            "-D",
            str(postgres_data(home)),
            "-c",
            f"hba_file={postgres_data(home) / 'pg_hba.conf'}",
            # Everybody comes by TCP; a socket file in a shared folder would be one more door.
            "-c",
            "unix_socket_directories=",
            *as_postgres_arguments(part.settings),
        ),
        environment=environment,
        folder=str(home.data),
        log_file=str(home.log_file(part.name)),
        probe=Probe(ProbeKind.POSTGRES, part.address.host, part.address.port),
        ports=part.ports,
        identity=machine.postgres_identity,
        # SIGINT ends sessions and shuts down cleanly; should the supervisor die, SIGQUIT ends all children at once.
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGQUIT,
    )


def _jvm(
    part: Part,
    home: Home,
    machine: Machine,
    environment: Mapping[str, str],
    program: list[str],
    probe: Probe,
    rank: int,
) -> ProcessSpec:
    cache = _start_cache(part, home, machine, program)
    is_recording = any(option.startswith(_RECORD) for option in cache)
    return ProcessSpec(
        name=part.name,
        group=Group.PART,
        version=part.version,
        arguments=(
            str(machine.java),
            *part.jvm_options,
            *cache,
            f"-Dlog4j2.configurationFile={LOG_CONFIG}",
            *program,
        ),
        environment=environment,
        folder=str(home.run),
        log_file=str(home.log_file(part.name)),
        probe=probe,
        ports=part.ports,
        rank=rank,
        ready_seconds=JVM_READY_SECONDS,
        stop_seconds=JVM_STOP_SECONDS_RECORDING if is_recording else JVM_STOP_SECONDS,
    )


def _start_cache(part: Part, home: Home, machine: Machine, program: Iterable[str]) -> list[str]:
    """Return the options that use the part's start cache or, on the first run on a machine, record it (JEP 514).

    With it Kafka boots in 0.9 s instead of 3.7 s and takes 1.4 s of CPU instead of 3.0 s. A cache is good for
    one runtime and one class path only, so both are in its name; a JVM refuses one that does not fit and starts
    without.
    """
    key = f"{machine.java_version} {part.version} {' '.join(one for one in program if '.jar' in one)}"
    name = f"{part.kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}{START_CACHE_SUFFIX}"
    if name in machine.known_start_caches:
        return [f"-XX:AOTCache={machine.start_caches / name}", *_QUIET]
    recording = machine.start_caches / recording_folder(home)
    return [f"{_RECORD}{recording / part.name / name}", *_QUIET]


_RECORD = "-XX:AOTCacheOutput="
_QUIET = ("-Xlog:aot*=off", "-Xlog:cds*=off")


def recording_folder(home: Home) -> str:
    """Return the name of the folder in which the JVMs of this stack record their start caches."""
    return f"recording-{hashlib.sha256(str(home.root).encode()).hexdigest()[:16]}"


def _kafka(
    part: Part, home: Home, installed: InstalledParts, machine: Machine, environment: Mapping[str, str]
) -> ProcessSpec:
    program = ["-cp", _class_path(installed.kafka_class_path), "kafka.Kafka", str(_properties(part, home))]
    probe = Probe(ProbeKind.KAFKA, part.address.host, part.address.port)
    broker = _jvm(part, home, machine, environment, program, probe, rank=0)
    if not _is_alone(part):
        return broker
    records = f"{_RECORD}{machine.start_caches}"  # what a controller's boot needs would not do for a broker's
    controller = [one for one in broker.arguments[:-1] if not one.startswith(records)]
    plan = Plan(part.settings["log.dirs"], broker.arguments, (*controller, str(_controller_properties(part, home))))
    return replace(broker, arguments=(sys.executable, "-P", "-m", "towpath.stack.kafka_start", plan.to_json()))


def _connect(
    part: Part, home: Home, installed: InstalledParts, machine: Machine, environment: Mapping[str, str]
) -> ProcessSpec:
    program = [
        "-cp",
        _class_path(installed.connect_class_path),
        "org.apache.kafka.connect.cli.ConnectDistributed",
        str(_properties(part, home)),
    ]
    probe = Probe(ProbeKind.HTTP, part.address.host, part.address.port, "/health")
    connect = _jvm(part, home, machine, environment, program, probe, rank=1)
    return replace(connect, timer_slack_milliseconds=CONNECT_TIMER_SLACK_MILLISECONDS)


def _registry(
    part: Part,
    home: Home,
    installed: InstalledParts,
    machine: Machine,
    postgres: PostgresSettings,
    environment: Mapping[str, str],
) -> ProcessSpec:
    program = [*as_java_arguments(part.settings), "-jar", str(installed.registry_folder / "quarkus-run.jar")]
    probe = Probe(ProbeKind.HTTP, part.address.host, part.address.port, "/apis/ccompat/v7/subjects")
    # By the environment, since every user of the machine can read arguments.
    password = postgres.password.get_secret_value() if postgres.password else "none"
    secret = {"APICURIO_DATASOURCE_PASSWORD": password}
    return _jvm(part, home, machine, {**environment, **secret}, program, probe, rank=1)
