"""docker-compose.yml follows the settings of the parts, and keeps the promises of docs/deploy.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from towpath.project import worker_names
from towpath.settings import Settings, load_settings
from towpath.stack.compose import COMPOSE_FILE, METRICS_PORT, Worker, container_placement, render_compose
from towpath.stack.config import (
    as_connect_environment,
    as_kafka_environment,
    as_quarkus_environment,
    service_databases,
)
from towpath.stack.lock import PartsLock, load_lock
from towpath.stack.parts import PartKind, stack_parts

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("postgres", "kafka", "registry", "connect")


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT, environment=False)


@pytest.fixture(scope="module")
def lock() -> PartsLock:
    return load_lock()


@pytest.fixture(scope="module")
def workers(settings: Settings) -> tuple[Worker, ...]:
    return tuple(map(Worker, worker_names(settings)))


@pytest.fixture(scope="module")
def text(settings: Settings, lock: PartsLock, workers: tuple[Worker, ...]) -> str:
    return render_compose(settings, lock, [worker.what for worker in workers])


@pytest.fixture(scope="module")
def services(text: str) -> Mapping[str, Any]:
    services: Mapping[str, Any] = yaml.safe_load(text)["services"]
    return services


def test_the_committed_file_is_not_stale(text: str) -> None:
    """Whoever changes a part's setting renders the file anew: `towpath compose`."""
    assert (ROOT / COMPOSE_FILE).read_text(encoding="utf-8") == text


def test_every_setting_of_a_part_reaches_its_image(
    settings: Settings, lock: PartsLock, services: Mapping[str, Any]
) -> None:
    """The native stack and the containers differ in placement only: nothing is left out, nothing is typed twice."""
    forms = {
        PartKind.KAFKA: as_kafka_environment,
        PartKind.CONNECT: as_connect_environment,
        PartKind.REGISTRY: as_quarkus_environment,
    }
    for part in stack_parts(settings, container_placement(settings), lock):
        if part.kind is PartKind.POSTGRES:
            command = services["postgres"]["command"]
            assert {f"{name}={value}" for name, value in part.settings.items()} <= set(command)
            continue
        environment = services[part.kind.value]["environment"]
        assert forms[part.kind](part.settings).keys() <= environment.keys()


def test_a_broker_in_a_container_is_there_for_long(services: Mapping[str, Any]) -> None:
    """A developer's own stack has the first compiler alone; a container's would be slow for as long as it runs."""
    assert "TieredStopAtLevel" not in services["kafka"]["environment"]["KAFKA_JVM_PERFORMANCE_OPTS"]


def test_images_are_pinned_to_the_locked_versions(lock: PartsLock, services: Mapping[str, Any]) -> None:
    """An image of a moving tag would be another part than the one that was tested."""
    assert services["kafka"]["image"] == f"apache/kafka:{lock.version('org.apache.kafka:kafka_2.13')}"
    for name in PARTS:
        _, _, tag = services[name]["image"].rpartition(":")
        assert tag.count(".") >= 1, services[name]["image"]


def test_ports_are_published_on_this_machine_only(services: Mapping[str, Any]) -> None:
    """Nothing of the stack can be reached from another machine."""
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) == len(PARTS)
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_what_stays_up_is_watched_and_bounded(services: Mapping[str, Any]) -> None:
    """Every container has a limit on its memory, and every one that stays up a probe."""
    for name, service in services.items():
        assert service["mem_limit"].endswith("m"), name
        assert ("healthcheck" in service) == (name not in {"setup", "demo"}), name


def test_the_start_order_is_by_health(services: Mapping[str, Any], workers: tuple[Worker, ...]) -> None:
    """Nothing starts before what it needs answers: the set-up after all parts, the workers after the set-up."""
    setup = services["setup"]["depends_on"]
    assert {name: need["condition"] for name, need in setup.items()} == dict.fromkeys(PARTS, "service_healthy")
    for worker in workers:
        needs = services[worker.name]["depends_on"]
        assert needs == {"setup": {"condition": "service_completed_successfully"}}
    demo = services["demo"]["depends_on"]
    assert demo == {worker.name: {"condition": "service_healthy"} for worker in workers}


def test_our_own_image_runs_without_privileges(services: Mapping[str, Any], workers: tuple[Worker, ...]) -> None:
    """The workers write to nothing but their state and /tmp, and can gain no right."""
    for name in ("setup", "demo", *(worker.name for worker in workers)):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_passwords_are_files(services: Mapping[str, Any]) -> None:
    """No password is in the file or in a container's environment, where `docker inspect` would show it."""
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert "/run/secrets" in value, f"{name}: {variable}"


def test_each_service_saga_and_view_has_a_worker(
    settings: Settings, services: Mapping[str, Any], workers: tuple[Worker, ...]
) -> None:
    """What towpath.toml registers runs, in the profiles that run workers."""
    commands = {
        service["command"][1]
        for service in services.values()
        if service.get("command") and service["command"][0] == "run"
    }
    assert {f"service:{name}" for name in service_databases(settings)} <= commands
    assert {"saga:place_order", "view:order_status", "view:sagas"} <= commands
    for worker in workers:
        assert services[worker.name]["profiles"] == ["core", "demo"]


def test_the_outside_listener_follows_its_published_port(services: Mapping[str, Any]) -> None:
    """Kafka tells its clients where it is, so another port on the host must reach the broker's own settings."""
    kafka = services["kafka"]
    variable = "${TOWPATH_STACK__KAFKA_PORT:-9092}"
    assert kafka["ports"] == [f"127.0.0.1:{variable}:{variable}"]
    assert f"OUTSIDE://127.0.0.1:{variable}" in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"OUTSIDE://0.0.0.0:{variable}" in kafka["environment"]["KAFKA_LISTENERS"]


def test_workers_are_probed_where_they_serve(services: Mapping[str, Any]) -> None:
    """The probe's port and the worker's setting are one number."""
    assert services["service-catalog"]["environment"]["TOWPATH_METRICS_PORT"] == str(METRICS_PORT)
    assert str(METRICS_PORT) in services["service-catalog"]["healthcheck"]["test"]
