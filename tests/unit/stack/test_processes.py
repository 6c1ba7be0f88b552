"""The parts as processes: what is started, and what it is told."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from towpath.settings import PostgresSettings, ProjectSettings, Settings
from towpath.stack.cache import InstalledParts
from towpath.stack.home import Home
from towpath.stack.kafka_start import Plan
from towpath.stack.lock import load_lock
from towpath.stack.parts import native_placement, stack_parts
from towpath.stack.processes import Machine, part_processes, settings_files
from towpath.stack.supervisor.spec import Deaths, Identity, ProcessSpec, RestartPolicy
from towpath.stack.workers import worker_process

HOME = Home(Path("/home"))
INSTALLED = InstalledParts((Path("/k.jar"),), (Path("/c.jar"),), Path("/plugins"), Path("/registry"))
SETTINGS = Settings(
    root=Path("/project"),
    project=ProjectSettings(name="shop"),
    postgres=PostgresSettings(password=SecretStr("hush")),
)
PARTS = stack_parts(SETTINGS, native_placement(SETTINGS.stack, "/home/data", "/plugins"), load_lock())


def specs(*known: str) -> dict[str, ProcessSpec]:
    """Return the processes on a machine that knows these start caches."""
    machine = Machine(Path("/java"), "25", Path("/pg"), Identity(7, 8), Path("/start"), frozenset(known))
    found = part_processes(PARTS, HOME, INSTALLED, machine, SETTINGS.postgres, {"PATH": "/bin"})
    return {spec.name: spec for spec in found}


def broker_command(*known: str) -> tuple[str, ...]:
    """Return the command of the broker itself."""
    return Plan.from_json(specs(*known)["kafka"].arguments[-1]).broker


def test_no_argument_holds_a_password() -> None:
    """Everybody on a machine can read arguments, so the registry gets its password by its environment."""
    found = specs()
    assert not [word for spec in found.values() for word in spec.arguments if "hush" in word]
    assert found["registry"].environment["APICURIO_DATASOURCE_PASSWORD"] == "hush"
    assert "APICURIO_DATASOURCE_PASSWORD" not in found["kafka"].environment


def test_only_postgres_runs_as_somebody_else() -> None:
    """The identity that the machine found is PostgreSQL's alone."""
    found = specs()
    assert found["postgres"].identity == Identity(7, 8)
    assert {found[name].identity for name in ("kafka", "connect", "registry")} == {None}


def test_the_log_stops_after_those_who_use_it() -> None:
    """Connect and registry stop before Kafka and PostgreSQL, workers before all of them."""
    found = specs()
    assert found["connect"].rank == found["registry"].rank > found["kafka"].rank == found["postgres"].rank
    assert worker_process(SETTINGS, "service:order", environment={}).rank > found["connect"].rank


def test_connect_alone_may_be_woken_late() -> None:
    """It would spin through the last millisecond of each poll; Kafka's own timers are latency."""
    slack = {name: spec.timer_slack_milliseconds for name, spec in specs().items()}
    assert slack == {"kafka": None, "postgres": None, "registry": None, "connect": 2.0}


def test_a_jvm_records_a_start_cache_once_and_then_uses_it() -> None:
    """Without a cache the JVM records one in a folder of its stack; with it, it boots from it."""
    recording = next(word for word in broker_command() if "AOT" in word)
    assert recording.startswith("-XX:AOTCacheOutput=/start/recording-")
    name = recording.rsplit("/", 1)[-1]
    assert f"-XX:AOTCache=/start/{name}" in broker_command(name)
    assert not [word for word in specs(name)["connect"].arguments if word.startswith("-XX:AOTCache=")]


def test_settings_files_are_those_that_processes_read() -> None:
    """Kafka and Connect read properties files in the home; what is rendered there is what the part has."""
    files = settings_files(PARTS, HOME)
    assert {path.name for path in files} == {"kafka.properties", "kafka-controller.properties", "connect.properties"}
    kafka = Path(broker_command()[-1])
    assert "auto.create.topics.enable=false\n" in files[kafka]
    assert "process.roles=broker,controller\n" in files[kafka]


def test_a_controller_alone_comes_before_a_killed_broker() -> None:
    """It knows its own listener only, forgets a silent broker soon, and records no start cache."""
    plan = Plan.from_json(specs()["kafka"].arguments[-1])
    assert plan.data_folder == "/home/data/kafka"
    assert not [word for word in plan.controller if "AOTCacheOutput" in word]
    lines = settings_files(PARTS, HOME)[Path(plan.controller[-1])].splitlines()
    assert {"process.roles=controller", "broker.session.timeout.ms=500"} <= set(lines)
    assert [line for line in lines if line.startswith("listeners=")] == ["listeners=CONTROLLER://127.0.0.1:9093"]
    assert not [line for line in lines if line.startswith("advertised")]


def test_of_several_brokers_each_starts_by_itself() -> None:
    """They lead for each other, and one controller of three cannot decide alone."""
    settings = SETTINGS.model_copy(update={"stack": SETTINGS.stack.model_copy(update={"brokers": 3})})
    parts = stack_parts(settings, native_placement(settings.stack, "/home/data", "/plugins"), load_lock())
    machine = Machine(Path("/java"), "25", Path("/pg"), None, Path("/start"), frozenset())
    found = {spec.name: spec for spec in part_processes(parts, HOME, INSTALLED, machine, settings.postgres, {})}
    assert found["kafka-2"].arguments[-2:] == ("kafka.Kafka", "/home/config/kafka-2.properties")
    assert not [path for path in settings_files(parts, HOME) if "controller" in path.name]


def test_a_spec_survives_the_wire() -> None:
    """What the supervisor is told is what was meant."""
    for spec in [*specs().values(), worker_process(SETTINGS, "saga:place_order", "2", {"A": "b"})]:
        assert ProcessSpec.from_json(spec.to_json()) == spec


def test_a_worker_knows_its_project_and_how_to_say_that_it_is_ready() -> None:
    """A worker is `towpath run NAME --slot SLOT` in the project's folder, and is told which file to make."""
    spec = worker_process(SETTINGS, "service:order", "2", {"TOWPATH_LOG_LEVEL": "debug"})
    assert spec.name == "service:order/2"
    assert spec.arguments[-4:] == ("run", "service:order", "--slot", "2")
    assert spec.environment["TOWPATH_READY_FILE"] == spec.probe.path == "/project/.towpath/run/service-order-2.ready"
    assert spec.environment["TOWPATH_PROJECT_FOLDER"] == spec.folder == "/project"
    assert spec.environment["TOWPATH_LOG_LEVEL"] == "debug"


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.2), (2, 0.4), (3, 0.8), (7, 10.0), (9, 10.0), (10, None)])
def test_restarts_grow_apart_and_end(deaths: int, seconds: float | None) -> None:
    """The first restart is almost at once, later ones wait twice as long, and after ten that fail none follows."""
    said = RestartPolicy().delay_seconds(Deaths(unsteady=deaths, unready=deaths))
    assert said == (pytest.approx(seconds) if seconds else None)


def test_a_steady_run_forgives_earlier_deaths() -> None:
    """A process that was ready for long and dies begins anew; one that never got ready does not."""
    policy, before = RestartPolicy(), Deaths(unsteady=4, unready=4)
    assert policy.after(before, 60.0, was_ready=True) == Deaths(unsteady=1, unready=0)
    assert policy.after(before, 60.0, was_ready=False) == Deaths(unsteady=5, unready=5)
    assert policy.after(before, 1.0, was_ready=True) == Deaths(unsteady=5, unready=0)


def test_what_gets_ready_is_never_given_up() -> None:
    """A broker that something killed ten times within minutes was left alone, though it could run each time."""
    policy, deaths = RestartPolicy(), Deaths()
    for _ in range(2_000):
        deaths = policy.after(deaths, 3.0, was_ready=True)
    assert policy.delay_seconds(deaths) == policy.seconds_max
    for _ in range(policy.deaths_max):
        assert policy.delay_seconds(deaths) is not None
        deaths = policy.after(deaths, 3.0, was_ready=False)
    assert policy.delay_seconds(deaths) is None
