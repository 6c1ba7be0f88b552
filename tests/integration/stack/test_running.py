"""The running stack, looked at and hurt: what `status`, `logs` and `doctor` say, and how parts come back."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.integration.stack.test_supervisor import eventually
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, RunningStack
from towpath.contract.catalogue import Catalogue
from towpath.contract.kafka import compare_topics
from towpath.outbox.names import connector_name, slot_name
from towpath.stack.doctor import examine
from towpath.stack.findings import Severity
from towpath.stack.home import Home
from towpath.stack.prepare import make_connectors, make_topics
from towpath.stack.supervisor.spec import Group, Probe, ProbeKind, ProcessSpec, State

COMMAND = (sys.executable, "-c", "from towpath.cli import main; main()")


def towpath(stack: RunningStack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the command line on the running stack."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def problems(stack: RunningStack) -> dict[str, tuple[str, str | None]]:
    """Return the finding and the fix of each subject that `doctor` calls a problem."""
    found = [one for one in examine(stack.settings) if one.severity is Severity.PROBLEM]
    return {one.subject: (one.finding, one.fix) for one in found}


def test_status_tells_everything_of_each_part(stack: RunningStack) -> None:
    """`status --json` has part, state, pid, ports, memory, version and uptime of each part and of the supervisor."""
    answer = json.loads(towpath(stack, "status", "--json").stdout)
    rows = {row["name"]: row for row in answer["processes"]}
    parts = {"supervisor", "postgres", "kafka", "connect", "registry"}
    assert parts <= set(rows)
    assert {rows[name]["version"] for name in ("kafka", "connect", "registry")} == {"4.3.1", "3.7.0.Final", "3.3.3"}
    for row in (rows[name] for name in sorted(parts)):
        assert row["state"] == "ready"
        assert psutil.pid_exists(row["pid"])
        assert row["memory_bytes"] > 2**20
        assert row["uptime_seconds"] >= 0
    assert rows["postgres"]["ports"] == [stack.settings.stack.postgres_port]
    assert answer["memory_bytes"] == sum(row["memory_bytes"] or 0 for row in rows.values())


def test_the_parts_are_small(stack: RunningStack) -> None:
    """Parts and supervisor together leave room for four services and three workers under 2.5 GiB."""
    answer = json.loads(towpath(stack, "status", "--json").stdout)
    parts = sum(row["memory_bytes"] for row in answer["processes"] if row["group"] != "worker")
    assert parts < 1.4 * 2**30


def test_logs_show_what_a_part_said(stack: RunningStack) -> None:
    """`logs PART` prints the end of its log; an unknown part is answered with those that exist."""
    with (
        psycopg.connect(f"{stack.settings.postgres.url}/postgres", autocommit=True) as connection,
        pytest.raises(psycopg.errors.UndefinedTable),
    ):
        connection.execute("SELECT FROM nobody_made_this")
    said = towpath(stack, "logs", "postgres", "--lines", "1000")
    assert 'relation "nobody_made_this" does not exist' in said.stdout
    unknown = towpath(stack, "logs", "mysql")
    assert unknown.returncode == 5
    assert "postgres" in unknown.stderr


def test_logs_are_json_when_asked(stack: RunningStack) -> None:
    """The part, its file, and as many of the last lines as were asked for."""
    answer = json.loads(towpath(stack, "logs", "kafka", "--lines", "3", "--json").stdout)
    assert answer["part"] == "kafka"
    assert answer["lines"] == Path(answer["file"]).read_text(encoding="utf-8").splitlines()[-3:]


def test_logs_follow_what_a_part_says(stack: RunningStack) -> None:
    """`logs PART --follow` shows a line that is written after it began."""
    command = [*COMMAND, "logs", "postgres", "--follow", "--lines", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=stack.environment, stdout=subprocess.PIPE, text=True) as following:
        try:
            with psycopg.connect(stack.settings.postgres.database_url("views"), autocommit=True) as connection:

                def told() -> bool:
                    with pytest.raises(psycopg.errors.UndefinedTable):
                        connection.execute("SELECT * FROM a_table_that_nobody_made")
                    return True

                assert told()
                assert following.stdout is not None
                # The first request may have come before the command began to follow: repeat it until it shows.
                import selectors

                with selectors.DefaultSelector() as ready:
                    ready.register(following.stdout, selectors.EVENT_READ)
                    assert eventually(lambda: told() and bool(ready.select(0.3)), 30)
                assert "a_table_that_nobody_made" in following.stdout.readline()
        finally:
            following.kill()


@pytest.mark.parametrize("part", ["registry", "connect", "postgres", "kafka"])
def test_a_killed_part_comes_back(stack: RunningStack, part: str) -> None:
    """After SIGKILL each part is started again and answers its protocol; the others go on."""
    before = stack.client.status()
    stack.client.kill(part, signal.SIGKILL)
    assert eventually(lambda: stack.client.status()[part].starts == before[part].starts + 1)
    stack.client.wait_ready([part], 60, patient=True)
    after = stack.client.status()
    assert after[part].pid != before[part].pid
    others = set(before) - {part}
    assert {name: after[name].pid for name in others} == {name: before[name].pid for name in others}
    assert eventually(lambda: not problems(stack), 60), problems(stack)


def test_doctor_finds_no_problem_in_a_sound_stack(stack: RunningStack) -> None:
    """A stack as `up` left it has no problem, and the command says so by its exit code."""
    assert eventually(lambda: not problems(stack), 60), problems(stack)
    answer = towpath(stack, "doctor", "--json")
    assert answer.returncode == 0, answer.stdout
    subjects = {one["subject"] for one in json.loads(answer.stdout)}
    assert {"java", "disk: data", "disk: cache", "memory", "kafka", "topics"} <= subjects


def test_the_logs_that_doctor_names_are_there(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Connect where an outbox is far behind, of the supervisor where a look breaks off."""
    del stack

    def broken(*_: object) -> object:
        raise FileNotFoundError("/no/such/folder")

    monkeypatch.setattr("towpath.stack.findings.LAG_BYTES_WARNING", -1)
    monkeypatch.setattr("towpath.stack.machine.find_machine", broken)
    said = run(ROOT, "doctor").leads_on()
    for step in (step_in(said.text, "logs connect"), step_in(said.text, "logs supervisor")):
        log = run(ROOT, *step).leads_on()
        assert log.code == 0, log.text


def test_doctor_finds_a_topic_that_is_not_as_the_catalogue_has_it(stack: RunningStack) -> None:
    """A retention that somebody changed is named, with its fix."""
    topic = next(iter(Catalogue.load(stack.settings).live())).name
    admin = AdminClient({**stack.settings.kafka.client_config()})
    resource = ConfigResource(ResourceType.TOPIC, topic)
    change = ConfigEntry("retention.ms", "12345", incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(change)
    admin.incremental_alter_configs([resource])[resource].result()
    try:
        found = problems(stack)
        assert "retention.ms" in found[f"topic {topic}"][0]
        assert found[f"topic {topic}"][1]
    finally:
        wanted = Catalogue.load(stack.settings).topics[topic].kafka_config()["retention.ms"]
        resource = ConfigResource(ResourceType.TOPIC, topic)
        change = ConfigEntry("retention.ms", wanted, incremental_operation=AlterConfigOpType.SET)
        resource.add_incremental_config(change)
        admin.incremental_alter_configs([resource])[resource].result()
    make_topics(stack.settings)
    assert compare_topics(Catalogue.load(stack.settings), stack.settings) == ()


def test_doctor_finds_a_connector_that_is_gone_or_rests(stack: RunningStack) -> None:
    """A removed connector and the slot that nobody reads then are problems; what is printed for one fixes both."""
    name = connector_name(stack.settings.project.name, "identity")
    slot = slot_name(stack.settings.project.name, "identity")
    httpx.delete(f"{stack.settings.connect.url}/connectors/{name}", timeout=30).raise_for_status()
    try:
        assert eventually(lambda: f"slot {slot}" in problems(stack), 30)
        found = problems(stack)
        assert found[f"connector {name}"] == ("Connect does not know it", "towpath provision")
        assert found[f"slot {slot}"][0].startswith("nobody reads it")
        said = run(ROOT, "doctor").leads_on()
        assert (said.code, ("provision",) in said.next_steps()) == (1, True), said.text
        assert ("capture", "recover", "identity", "--dry-run") in said.next_steps()
        looked = run(ROOT, "capture", "recover", "identity", "--dry-run").leads_on()
        assert looked.code == 0, looked.text
        assert ("provision",) in run(ROOT, "status").leads_on().next_steps()
        assert run(ROOT, "provision").leads_on().code == 0
        assert eventually(lambda: not problems(stack), 30), problems(stack)
    finally:
        make_connectors(stack.settings)
    assert eventually(lambda: not problems(stack), 30), problems(stack)


def test_doctor_finds_a_process_that_failed(stack: RunningStack, tmp_path: Path) -> None:
    """What keeps dying is a problem, with its reason and where to read on."""
    spec = ProcessSpec(
        name="doomed",
        group=Group.WORKER,
        version="1",
        arguments=("/bin/sh", "-c", "echo no such table; exit 1"),
        environment={},
        folder="/",
        log_file=str(Home(stack.settings.stack_home).log_file("doomed")),
        probe=Probe(ProbeKind.FILE, path=str(tmp_path / "never")),
    )
    stack.client.start(spec)
    try:
        assert eventually(lambda: stack.client.status()["doomed"].state is State.WAITING)
        warned = next(one for one in examine(stack.settings) if one.subject == "doomed")
        assert "ended with exit code 1" in warned.finding
        assert warned.fix == "towpath logs doomed"
        said = run(ROOT, "doctor").leads_on()
        assert ("logs", "doomed") in said.next_steps(), said.text
        said = run(ROOT, "logs", "doomed").leads_on()
        assert (said.code, "no such table" in said.text) == (0, True), said.text
    finally:
        stack.client.stop("doomed")
