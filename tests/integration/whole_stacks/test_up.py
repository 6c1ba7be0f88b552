"""Whole stacks that go wrong on purpose, each in a home of its own: never a hang, never an orphan, always a cause."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.stack.test_supervisor import eventually
from tests.next_steps import step_in
from tests.stack_fixture import ROOT, stack_environment, variables
from towpath.errors import RefusedError, WorldError
from towpath.settings import Settings, load_settings
from towpath.stack.client import ProcessFailed, StackClient
from towpath.stack.supervisor.launch import before_exec
from towpath.stack.supervisor.spec import Identity, State
from towpath.stack.up import down, up

pytestmark = pytest.mark.stack
NOBODY = 65534
COMMAND = (sys.executable, "-c", "from towpath.cli import main; main()")


@pytest.fixture
def own() -> Iterator[Settings]:
    """Return the settings of a stack of this test's own, which is down before and after."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-"))
    folder.chmod(0o755)  # PostgreSQL's own user passes it
    with variables(stack_environment(folder / "home")):
        settings = load_settings(ROOT)
        try:
            yield settings
        finally:
            down(settings)
            shutil.rmtree(folder, ignore_errors=True)


def processes_of(home: Path) -> list[int]:
    """Return the pids of all processes that were started for the stack in `home`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.pid != os.getpid() and any(str(home) in word for word in words):
            found.append(process.pid)
    return found


def commands_of(home: Path) -> list[str]:
    """Return what these are, for whoever looks for why they run."""
    with suppress(psutil.Error):
        return [" ".join(psutil.Process(pid).cmdline()) for pid in processes_of(home)]
    return []


def towpath(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the command line, as a person would."""
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_a_taken_port_is_named_with_its_owner_and_nothing_is_started(own: Settings) -> None:
    """`up` on a port that somebody holds ends at once, in words, with who holds it and which setting to change."""
    with closing(socket.create_server((own.stack.host, own.stack.registry_port))):
        ended = towpath("up")
    assert ended.returncode == 1
    assert f"port {own.stack.registry_port} of registry is taken by" in ended.stderr
    assert f"pid {os.getpid()}" in ended.stderr
    assert ended.stderr.rstrip().splitlines()[-1].startswith("next: ")
    assert processes_of(own.stack_home) == []


def test_an_up_that_fails_half_way_stops_what_it_started_and_tells_the_cause(own: Settings) -> None:
    """Where one part cannot start, the others are stopped and the failing part's own error is the cause."""
    broken = own.stack_home / "data" / "kafka" / "meta.properties"
    broken.parent.mkdir(parents=True)
    broken.write_text("version=1\ncluster.id=another\nnode.id=7\n", encoding="ascii")
    (broken.parent / "bootstrap.checkpoint").touch()
    with pytest.raises(ProcessFailed, match="Stored node id 7 doesn't match previous node id 1"):
        up(own)
    assert eventually(lambda: processes_of(own.stack_home) == [], 10), commands_of(own.stack_home)


def test_an_up_that_is_killed_leaves_no_orphan(own: Settings) -> None:
    """SIGKILL for `towpath up` while parts boot takes them and the supervisor down."""
    running = subprocess.Popen([*COMMAND, "up"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert eventually((own.stack_home / "logs" / "kafka.log").exists, 30)
    running.kill()
    running.wait()
    assert eventually(lambda: processes_of(own.stack_home) == [], 30)


def test_a_full_disk_is_a_clear_error(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` looks at the room on the disk before it starts anything, and says how much is needed."""
    usage = shutil.disk_usage(own.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 * 2**20))
    with pytest.raises(WorldError, match="10 MiB are free on its disk, and 2048 MiB are needed"):
        up(own)
    assert processes_of(own.stack_home) == []


def test_the_life_of_a_stack(own: Settings) -> None:
    """Data survives `down` and `up`; a second `up` changes nothing; other settings are refused; `--fresh` forgets.

    It begins where a first `up` was killed while it made the data folders: they are made anew.
    """
    leave_half_made_folders(own.stack_home / "data")
    assert up(own) == ("postgres", "kafka", "connect", "registry")
    remember(own)
    down(own)
    assert processes_of(own.stack_home) == []

    rests = towpath("status")
    assert rests.returncode == 1
    assert towpath(*step_in(rests.stdout + rests.stderr, "up")).returncode == 0
    assert remembered(own) == ("kept", b"kept", True)

    assert up(own) == ()
    other_port = {"TOWPATH_STACK__POSTGRES_PORT": str(own.stack.postgres_port + 1)}
    with variables(other_port), pytest.raises(RefusedError, match="runs with other settings: postgres on port"):
        up(load_settings(ROOT))
    with (
        variables({"TOWPATH_STACK__BROKERS": "3"}),
        pytest.raises(RefusedError, match=r"1 Kafka broker\(s\), not of 3") as other_shape,
    ):
        up(load_settings(ROOT))
    with variables({"TOWPATH_STACK__BROKERS": "3"}):
        as_it_was = towpath(*step_in(other_shape.value, "up --brokers x"), "--json")
    assert (as_it_was.returncode, json.loads(as_it_was.stdout)["started"]) == (0, []), as_it_was.stderr
    assert remembered(own) == ("kept", b"kept", True)

    refused = towpath(*step_in(other_shape.value, "up --fresh"))
    assert refused.returncode == 6
    assert "towpath up --fresh --yes" in refused.stderr
    done = towpath("up", "--fresh", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["started"] == ["postgres", "kafka", "connect", "registry"]
    assert remembered(own) == (None, None, False)


def leave_half_made_folders(data: Path) -> None:
    """Leave what an `up` leaves that was killed while it prepared the data folders."""
    for name, content in {"kafka/meta.properties": "version=1\n", "postgres/PG_VERSION": "18\n"}.items():
        path = data / name
        path.parent.mkdir(parents=True)
        path.write_text(content, encoding="ascii")


def remember(settings: Settings) -> None:
    """Leave something in PostgreSQL, in Kafka and in the registry."""
    with psycopg.connect(settings.postgres.database_url("views"), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'kept' AS what")
    admin = AdminClient({**settings.kafka.client_config()})
    admin.create_topics([NewTopic("kept", 1)])["kept"].result()
    producer = Producer({**settings.kafka.client_config(), "log_level": 2})
    producer.produce("kept", b"kept")
    assert producer.flush(20) == 0
    register = f"{settings.registry.url}/subjects/kept/versions"
    answer = subprocess.run(
        ["curl", "-sf", "-H", "Content-Type: application/json", "-d", '{"schema": "\\"string\\""}', register],
        capture_output=True,
        check=True,
    )
    assert b"id" in answer.stdout


def remembered(settings: Settings) -> tuple[str | None, bytes | None, bool]:
    """Return what is left of it."""
    with psycopg.connect(settings.postgres.database_url("views"), autocommit=True) as connection:
        there = connection.execute("SELECT to_regclass('kept')").fetchone()
        row = connection.execute("SELECT what FROM kept").fetchone() if there and there[0] else None
    consumer = Consumer({**settings.kafka.client_config(), "group.id": "kept", "auto.offset.reset": "earliest"})
    known = "kept" in consumer.list_topics(timeout=20).topics
    value = None
    if known:
        consumer.assign([TopicPartition("kept", 0, 0)])
        message = consumer.poll(20)
        value = message.value() if message else None
    consumer.close()
    subjects = subprocess.run(["curl", "-sf", f"{settings.registry.url}/subjects"], capture_output=True, check=True)
    return (row[0] if row else None), value, "kept" in json.loads(subjects.stdout)


def test_three_brokers_lose_nothing_when_one_dies(own: Settings) -> None:
    """With `--brokers 3` each record is on two brokers before it counts, and a broker's death loses none."""
    with variables({"TOWPATH_STACK__BROKERS": "3"}):
        settings = load_settings(ROOT)
        up(settings)
        try:
            assert settings.kafka.replication_factor == 3
            admin = AdminClient({**settings.kafka.client_config()})
            described = admin.list_topics(timeout=20).topics["order.events"].partitions[0]
            assert len(described.replicas) == 3
            producer = Producer(
                {**settings.kafka.client_config(), "acks": "all", "enable.idempotence": True, "log_level": 2}
            )
            admin.create_topics([NewTopic("busy", 1, 3, config={"min.insync.replicas": "2"})])["busy"].result()
            for number in range(500):
                producer.produce("busy", str(number).encode(), partition=0)
                producer.poll(0)
            leader = leader_of("busy", admin)
            with StackClient(settings.stack_home) as client:
                client.kill(f"kafka-{leader}", signal.SIGKILL)
                for number in range(500, 1000):
                    producer.produce("busy", str(number).encode(), partition=0)
                    producer.poll(0.001)
                assert producer.flush(60) == 0
                client.wait_ready([f"kafka-{leader}"], 60, patient=True)
                assert client.status()[f"kafka-{leader}"].state is State.READY
            assert values_of("busy", settings, 1000) == [str(number).encode() for number in range(1000)]
        finally:
            down(settings)


def leader_of(topic: str, admin: AdminClient) -> int:
    """Return the broker that leads the only partition of a topic, once there is one."""
    found: list[int] = []

    def known() -> bool:
        partitions = admin.list_topics(topic, timeout=20).topics[topic].partitions
        found[:] = [partition.leader for partition in partitions.values() if partition.leader >= 0]
        return bool(found)

    assert eventually(known, 30)
    return found[0]


def values_of(topic: str, settings: Settings, count: int) -> list[bytes]:
    """Read `count` values of a topic with one partition."""
    consumer = Consumer({**settings.kafka.client_config(), "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    end = time.monotonic() + 60
    while len(values) < count and time.monotonic() < end:
        values += [message.value() or b"" for message in consumer.consume(count - len(values), 1.0)]
    consumer.close()
    return values


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_root_may_keep_a_stack_where_only_root_may_enter(own: Settings) -> None:
    """PostgreSQL runs as a user of its own even in a folder that this user could not enter by itself."""
    own.stack_home.parent.chmod(0o700)
    up(own)
    with StackClient(own.stack_home) as client:
        postgres = psutil.Process(client.status()["postgres"].pid)
    assert postgres.username() != "root"
    with psycopg.connect(own.postgres.database_url("views")) as connection:
        connection.execute("CREATE TABLE written AS SELECT 1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_an_ordinary_user_can_run_the_stack(own: Settings) -> None:
    """Everything works as an ordinary user, with a home and a cache of its own.

    So that it finds Python and this checkout wherever they lie, it may pass and read all folders; it owns nothing.
    """
    mine = own.stack_home.parent / "mine"
    mine.mkdir()
    os.chown(mine, NOBODY, NOBODY)
    environment = {
        **os.environ,
        "HOME": str(mine),
        "TOWPATH_STACK__HOME": str(mine / "home"),
        "TOWPATH_STACK__CACHE": str(mine / "cache"),
        "TOWPATH_PROJECT_FOLDER": str(ROOT),
    }

    def as_nobody(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd="/",
            env=environment,
            preexec_fn=before_exec(Identity(NOBODY, NOBODY, reads_anywhere=True), signal.SIGTERM),
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    started = as_nobody("up", "--json")
    try:
        assert started.returncode == 0, started.stderr
        postgres = next(one for one in json.loads(started.stdout)["processes"] if one["name"] == "postgres")
        assert psutil.Process(postgres["pid"]).uids().real == NOBODY
        assert json.loads(as_nobody("status", "--json").stdout)["running"] is True
    finally:
        stopped = as_nobody("down", "--json")
        assert stopped.returncode == 0
    assert json.loads(stopped.stdout) == {"stopped": True, "ended_by_force": []}
    assert json.loads(as_nobody("down", "--json").stdout) == {"stopped": False, "ended_by_force": []}
    assert processes_of(mine) == []
