"""What `doctor` concludes: each finding that is not well has its fix."""

from dataclasses import replace
from typing import Any

import pytest

from towpath.capture.connect import POSITION_GONE, ConnectorStatus, TaskStatus
from towpath.capture.postgres import SlotState
from towpath.contract.kafka import OpenTransaction, TopicFinding
from towpath.errors import WorldError
from towpath.settings import StackSettings, StreamSettings
from towpath.stack import findings
from towpath.stack.findings import Severity
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stream.broker.position import HoldKind
from towpath.stream.engine.stalled import STALLED_POLL_INTERVALS
from towpath.stream.engine.worker_status import HeldPartition, WorkerStatus

MEBIBYTE = 2**20
SLOT = SlotState("shop_order_outbox", "order", True, "reserved", 10, 10, None, None)
PROCESS = ProcessStatus("kafka", Group.PART, State.READY, "4.3.1", (9092,), "kafka.log", 7, 1.0, 1, None)
RUNNING = ConnectorStatus("c", "RUNNING", "w", (TaskStatus(0, "RUNNING", "w"),))


def severity(finding: findings.Finding) -> Severity:
    """Return how bad a finding is; every one that is not well must have a fix."""
    assert (finding.fix is None) == (finding.severity is Severity.OK)
    return finding.severity


@pytest.mark.parametrize(
    ("free", "expected"),
    [(100 * MEBIBYTE, Severity.PROBLEM), (1024 * MEBIBYTE, Severity.WARNING), (9000 * MEBIBYTE, Severity.OK)],
)
def test_disk(free: int, expected: Severity) -> None:
    """A nearly full disk is a problem, a filling one a warning."""
    assert severity(findings.disk("data", "/data", free)) is expected


def test_memory_is_judged_by_the_shape_of_the_stack() -> None:
    """What suffices for one broker is too little for three."""
    available = 1500 * MEBIBYTE
    assert severity(findings.memory(available, StackSettings())) is Severity.OK
    assert severity(findings.memory(available, StackSettings(brokers=3))) is Severity.WARNING


def test_a_taken_port_names_its_owner() -> None:
    """The one who holds the port is told, where that is known."""
    found = findings.taken_port("kafka", 9092, "java (pid 7)")
    assert severity(found) is Severity.PROBLEM
    assert "java (pid 7)" in found.finding


@pytest.mark.parametrize(
    ("state", "starts", "expected"),
    [
        (State.READY, 1, Severity.OK),
        (State.READY, 3, Severity.WARNING),
        (State.STOPPED, 1, Severity.OK),
        (State.WAITING, 2, Severity.WARNING),
        (State.STARTING, 1, Severity.WARNING),
        (State.FAILED, 10, Severity.PROBLEM),
        (State.FROZEN, 1, Severity.PROBLEM),
    ],
)
def test_processes(state: State, starts: int, expected: Severity) -> None:
    """A process that failed is a problem; one that had to be started again deserves a look."""
    assert severity(findings.process(replace(PROCESS, state=state, starts=starts))) is expected


def test_what_started_again_long_ago_is_well() -> None:
    """Ten minutes later it needs nobody any more: a worker that stalls over and over has ended before."""
    status = replace(PROCESS, state=State.READY, starts=3, uptime_seconds=610.0)
    assert findings.process(status) == findings.Finding(Severity.OK, "kafka", "ready")
    assert StreamSettings().poll_interval_seconds_max * STALLED_POLL_INTERVALS < findings.STEADY_SECONDS


def test_a_transaction_that_nobody_ends_is_a_problem() -> None:
    """One that its producer may still end is none; for the others the tool that ends them is named."""
    found = OpenTransaction("order.events", 2, 17, 40, 1_000_000)
    assert findings.transaction(found, 1_030_000, 32.0) is None
    finding = findings.transaction(found, 1_040_000, 32.0)
    assert finding is not None
    assert finding.severity is Severity.PROBLEM
    assert "40 records" in finding.finding
    assert finding.fix is not None
    assert "--topic order.events --partition 2 --start-offset 17" in finding.fix


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, Severity.PROBLEM),
        (SLOT, Severity.OK),
        (replace(SLOT, active=False), Severity.PROBLEM),
        (replace(SLOT, wal_status="lost"), Severity.PROBLEM),
        (replace(SLOT, lag_bytes=300 * MEBIBYTE), Severity.WARNING),
    ],
)
def test_slots(state: SlotState | None, expected: Severity) -> None:
    """A slot that is missing, lost or unread is a problem; one far behind a warning."""
    assert severity(findings.slot("order", "shop_order_outbox", state)) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, Severity.PROBLEM),
        (RUNNING, Severity.OK),
        (replace(RUNNING, tasks=()), Severity.WARNING),
        (replace(RUNNING, state="PAUSED"), Severity.PROBLEM),
        (replace(RUNNING, state="STOPPED", tasks=()), Severity.PROBLEM),
        (replace(RUNNING, tasks=(TaskStatus(0, "FAILED", "w", "Oops\nCaused by: gone"),)), Severity.PROBLEM),
    ],
)
def test_connectors(status: ConnectorStatus | None, expected: Severity) -> None:
    """A connector that is missing, failed or at rest is a problem; one that has no task yet a warning."""
    assert severity(findings.connector("order", "c", status)) is expected


@pytest.mark.parametrize(
    ("trace", "fix"),
    [
        (f"io.debezium.DebeziumException: ..., but this is {POSITION_GONE}.", "towpath capture recover order"),
        (
            "Caused by: org.apache.kafka.common.errors.RecordTooLargeException",
            "towpath capture recover order --dry-run",
        ),
        ("Caused by: out of disk", "remove the cause, then: towpath capture restart order"),
    ],
)
def test_a_failed_connector_is_mended_by_what_ended_it(trace: str, fix: str) -> None:
    """The advice names the service, which is what the verbs of capture take."""
    failed = replace(RUNNING, tasks=(TaskStatus(0, "FAILED", "w", trace),))
    assert findings.connector("order", "craftygoods-order-outbox", failed).fix == fix


def test_a_long_cause_is_told_by_its_beginning_and_its_end() -> None:
    """Debezium tells of every schema between; what it was is in `capture status`. A short one is told whole."""
    told = f"io.debezium.DebeziumException: the position {'Schema{} ' * 200}, but this is {POSITION_GONE}."
    finding = findings.connector("order", "c", replace(RUNNING, tasks=(TaskStatus(0, "FAILED", "w", told),)))
    assert len(finding.finding) < 320
    assert finding.finding.startswith("io.debezium.DebeziumException: the position Schema{}")
    assert f"but this is {POSITION_GONE}. (whole: towpath capture status order)" in finding.finding
    assert finding.fix == "towpath capture recover order"
    short = findings.connector("order", "c", replace(RUNNING, tasks=(TaskStatus(0, "FAILED", "w", "out of disk"),)))
    assert short.finding == "out of disk"


def test_an_outbox_says_what_a_person_should_know() -> None:
    """Messages that were stepped over, and a server on which a re-emit cannot keep the order of commit."""
    assert findings.skipped("order", 0) is None
    assert findings.commit_times("order", kept=True) is None
    for finding in (findings.skipped("order", 2), findings.commit_times("order", kept=False)):
        assert finding is not None
        assert severity(finding) is Severity.WARNING


def test_topics_and_looks_that_fail() -> None:
    """A topic that differs, and a part that cannot be asked, are problems; agreement is not."""
    assert severity(findings.topic(TopicFinding("t", "3 partitions, not 4", "a new generation"))) is Severity.PROBLEM
    assert severity(findings.cannot_look(WorldError("Connect is away"))) is Severity.PROBLEM
    assert severity(findings.topics_agree(3)) is Severity.OK
    assert severity(findings.not_running()) is Severity.WARNING


def test_what_follows_from_kafka_being_away_has_its_fix() -> None:
    """A slot that nobody reads, or is behind, cannot be mended before; nor a worker that waits for nothing else."""
    away = WorldError("Kafka at kafka:9092 does not answer", next_step="towpath restart kafka")
    for state in (replace(SLOT, active=False), replace(SLOT, lag_bytes=300 * MEBIBYTE)):
        assert findings.slot("order", "s", state, away).fix == "towpath restart kafka"
        assert findings.slot("order", "s", state).fix != "towpath restart kafka"
    assert findings.slot("order", "s", SLOT, away) == findings.slot("order", "s", SLOT)
    for waiting_for, fix in (
        (None, "towpath restart kafka"),
        ("Kafka at kafka:9092 did not answer within 10 s", "towpath restart kafka"),
        ("the registry is away", "towpath logs view:v"),
    ):
        told = WorkerStatus(application="app", slot="1", is_member=False, waiting_for=waiting_for).to_json()
        (found,) = findings.worker("view:v", told, group_was_looked_at=False, away=away)
        assert (found.severity, found.fix) == (Severity.WARNING, fix)


def test_a_group_without_members_is_told_by_what_is_unread() -> None:
    """Nobody has to run where there is nothing to read; where there is, what brings its worker back is the fix."""
    fix = "towpath run view:v"
    assert findings.group("g", 2, 7, fix).finding == "2 members, 7 offsets to read"
    assert findings.group("g", 0, 0, fix).severity is Severity.OK
    idle = findings.group("g", 0, 7, fix)
    assert (idle.severity, idle.fix) == (Severity.WARNING, fix)


def test_what_a_worker_holds_is_a_problem_and_what_it_waits_for_a_warning() -> None:
    """A lost position is told by its group alone, so that it does not stand there twice."""

    def told(**fields: Any) -> dict[str, Any]:
        return WorkerStatus(application="app", slot="1", **{"is_member": True, **fields}).to_json()

    version = HeldPartition(partition="in[0]", kind="version", reason="version 3 is missing", next_step="deploy it")
    expired = HeldPartition(partition="in[1]", kind="expired", reason="gone", next_step="towpath positions accept")
    (problem,) = findings.worker("saga:s", told(held=(version, expired)), group_was_looked_at=True)
    assert (problem.severity, problem.subject, problem.fix) == (Severity.PROBLEM, "saga:s: in[0]", "deploy it")
    (warning,) = findings.worker("saga:s", told(is_member=False), group_was_looked_at=True)
    assert (warning.severity, warning.finding) == (Severity.WARNING, "is no member of its group")
    assert list(findings.worker("saga:s", told(serving=("in[0]",)), group_was_looked_at=True)) == []


def test_a_worker_whose_handler_does_not_come_back_is_a_problem() -> None:
    """`status` ends with 1 as well. A restart alone meets the same record: first its handler is to be fixed."""
    words = "in[0]@7: has not come back from a handler, or what it waits for, for 60 s"
    told = WorkerStatus(application="app", slot="1", is_member=False, waiting_for=words, has_stalled=True).to_json()
    (problem,) = findings.worker("service:payment", told, group_was_looked_at=True)
    assert (severity(problem), problem.finding) == (Severity.PROBLEM, f"stalled: {words}")
    assert problem.fix is not None
    assert problem.fix.startswith("towpath logs service:payment shows at its end")
    assert problem.fix.endswith("then: towpath restart service:payment")


@pytest.mark.parametrize("kind", HoldKind)
def test_a_hold_of_any_kind_is_told_where_its_group_was_not_looked_at(kind: HoldKind) -> None:
    """The database that keeps the positions is away, or the worker is of another project: only the worker knows."""
    held = HeldPartition(partition="in[0]", kind=kind.value, reason="why", next_step="towpath do this")
    told = WorkerStatus(application="app", slot="1", is_member=True, held=(held,)).to_json()
    (problem,) = findings.worker("saga:s", told, group_was_looked_at=False)
    assert problem == findings.Finding(Severity.PROBLEM, "saga:s: in[0]", "why", "towpath do this")
    by_group = kind in (HoldKind.EXPIRED, HoldKind.BEYOND_END, HoldKind.RECREATED)
    assert len(list(findings.worker("saga:s", told, group_was_looked_at=True))) == (0 if by_group else 1)
    assert list(findings.worker("saga:s", told, group_was_looked_at=True, told_by_group={"why"})) == []


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((1, 1, 0), "1 dead letter of 1 application"),
        ((1, 1, 1), "1 dead letter of 1 application, 1 record waits behind it"),
        ((3, 2, 5), "3 dead letters of 2 applications, 5 records wait behind them"),
    ],
)
def test_dead_letters_wait_for_a_person(counts: tuple[int, int, int], words: str) -> None:
    """Nothing else moves them, nor what waits behind them."""
    found = findings.dead_letters(*counts)
    assert (severity(found), found.finding, found.fix) == (Severity.WARNING, words, "towpath dead list")
