"""What `doctor` concludes from what it saw: one function a subject, each with its limits and its fix. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from towpath.capture.connect import ConnectorStatus
from towpath.capture.postgres import SlotState
from towpath.capture.start import after_failure
from towpath.contract.kafka import OpenTransaction, TopicFinding
from towpath.errors import TowpathError
from towpath.settings import StackSettings
from towpath.stack.supervisor.spec import ProcessStatus, State
from towpath.stream.broker.position import HoldKind, PartitionHeld

MEBIBYTE = 1024 * 1024
DISK_BYTES_PROBLEM = 512 * MEBIBYTE
DISK_BYTES_WARNING = 2048 * MEBIBYTE
# Beside its heap a JVM needs class data, code, stacks: 150 MiB measured for each part; PostgreSQL takes 100 MiB.
BESIDE_HEAP_MEBIBYTES = 150
POSTGRES_MEBIBYTES = 100
# A slot this far behind fills the disk in hours at most, or is dropped by `max_slot_wal_keep_size` (2 GB).
LAG_BYTES_WARNING = 256 * MEBIBYTE
# What started again and has run for so long since deserves no attention any more: twice what a worker takes that stalls
# over and over (`STALLED_POLL_INTERVALS`).
STEADY_SECONDS = 600.0

DEAD_LETTERS = "dead letters"
OF_KAFKA = "Kafka at "
"""So begins what a worker waits for where that is Kafka."""


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `fix` is the next thing to do, None where all is well."""

    severity: Severity
    subject: str
    finding: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def _ok(subject: str, finding: str) -> Finding:
    return Finding(Severity.OK, subject, finding)


def _warning(subject: str, finding: str, fix: str) -> Finding:
    return Finding(Severity.WARNING, subject, finding, fix)


def _problem(subject: str, finding: str, fix: str) -> Finding:
    return Finding(Severity.PROBLEM, subject, finding, fix)


def cannot_look(error: TowpathError) -> Finding:
    """Judge a look that failed."""
    return _problem("doctor", error.cause, error.next_step or "towpath status")


def kafka_away(error: TowpathError) -> Finding:
    """Judge that Kafka does not answer, which is asked once: nothing that it has could be looked at."""
    said = f"not looked at: {error.cause}"
    return _problem("connectors, topics, groups, dead letters", said, error.next_step or "towpath status")


def java(version: str) -> Finding:
    """Judge the Java runtime, which is the one that the package brings."""
    return _ok("java", f"runtime {version}")


def disk(subject: str, folder: str, free_bytes: int) -> Finding:
    """Judge the room left on a folder's disk."""
    said = f"{free_bytes // MEBIBYTE:,} MiB free for {folder}"
    if free_bytes < DISK_BYTES_PROBLEM:
        return _problem(f"disk: {subject}", said, f"free space, or set stack.{_setting(subject)} to another disk")
    if free_bytes < DISK_BYTES_WARNING:
        return _warning(f"disk: {subject}", said, f"free space, or set stack.{_setting(subject)} to another disk")
    return _ok(f"disk: {subject}", said)


def _setting(subject: str) -> str:
    return "cache" if subject == "cache" else "home"


def memory(available_bytes: int, stack: StackSettings) -> Finding:
    """Judge whether a stack of this shape fits into the memory that is left."""
    heaps = stack.kafka_heap_mebibytes * stack.brokers + stack.connect_heap_mebibytes + stack.registry_heap_mebibytes
    needed = heaps + BESIDE_HEAP_MEBIBYTES * (stack.brokers + 2) + POSTGRES_MEBIBYTES
    available = available_bytes // MEBIBYTE
    said = f"{available:,} MiB available, the parts take up to {needed:,} MiB"
    if available < needed:
        return _warning("memory", said, "end other programs, or lower stack.kafka_heap_mebibytes and its like")
    return _ok("memory", said)


def taken_port(part: str, port: int, owner: str | None) -> Finding:
    """Judge a port that a part would need and cannot have."""
    return _problem(
        f"port {port}",
        f"{part} needs it, and {owner or 'another process'} holds it",
        f"end that process, or give {part} another port under [stack] in towpath.toml",
    )


def not_running() -> Finding:
    """Judge that nothing runs."""
    return _warning("stack", "it is not running", "towpath up")


def process(status: ProcessStatus) -> Finding:
    """Judge how a process stands."""
    match status.state:
        case State.READY if status.starts > 1 and (status.uptime_seconds or 0.0) <= STEADY_SECONDS:
            return _warning(status.name, f"ready, after {status.starts} starts", f"towpath logs {status.name}")
        case State.READY | State.STOPPED:
            return _ok(status.name, status.state.value)
        case State.FAILED:
            return _problem(status.name, status.reason or "failed", f"towpath logs {status.name}, then towpath up")
        case State.FROZEN:
            return frozen(status.name)
        case _:
            said = f"{status.state.value}{f': {status.reason}' if status.reason else ''}"
            return _warning(status.name, said, f"towpath logs {status.name}")


def frozen(name: str) -> Finding:
    """Judge a process that the operating system has stopped."""
    return _problem(name, "frozen: it was stopped (SIGSTOP), lives and does nothing", f"towpath restart {name}")


def slot(service: str, name: str, state: SlotState | None, away: TowpathError | None = None) -> Finding:
    """Judge the replication slot through which a service's outbox is captured; `away` is that Kafka does not answer.

    Then nobody carries, and Kafka's return is the fix: to recover would fail.
    """
    without_kafka = None if away is None else away.next_step
    subject = f"slot {name}"
    if state is None:
        fix = f"towpath capture recover {service}"
        return _problem(subject, "it does not exist: nothing of this outbox is carried", fix)
    if state.lost:
        why = state.invalidation_reason or "its write-ahead log is gone"
        return _problem(subject, f"lost ({why})", f"towpath capture recover {service}")
    lag = f"{state.lag_bytes // MEBIBYTE:,} MiB not carried yet"
    if not state.active:
        fix = without_kafka or f"towpath capture recover {service} --dry-run"
        return _problem(subject, f"nobody reads it; {lag}", fix)
    if state.lag_bytes > LAG_BYTES_WARNING:
        return _warning(subject, f"{lag}; it is lost once it is 2 GB behind", without_kafka or "towpath logs connect")
    return _ok(subject, f"read; {state.lag_bytes:,} bytes not carried yet")


def commit_times(service: str, *, kept: bool) -> Finding | None:
    """Judge whether the server of an outbox keeps commit times; None where it does."""
    if kept:
        return None
    return _warning(
        f"outbox of {service}",
        "its server keeps no commit times: what is sent again after a lost slot is in order of writing, not of commit",
        "set track_commit_timestamp = on in its postgresql.conf, and restart it",
    )


def skipped(service: str, count: int) -> Finding | None:
    """Judge messages that were stepped over; None where there are none."""
    if not count:
        return None
    said = f"{count} messages that Kafka refused are kept aside"
    return _warning(f"outbox of {service}", said, f"towpath capture skipped {service}")


def connector(service: str, name: str, status: ConnectorStatus | None) -> Finding:
    """Judge a connector and its task."""
    subject = f"connector {name}"
    if status is None:
        return _problem(subject, "Connect does not know it", "towpath provision")
    if status.failure:
        said = status.failure_in_short or ""
        whole = "" if said == status.failure else f" (whole: towpath capture status {service})"
        return _problem(subject, f"{said}{whole}", after_failure(service, status))
    if not status.running:
        tasks = ", ".join(f"task {task.number} {task.state}" for task in status.tasks) or "no task"
        if status.state in ("STOPPED", "PAUSED"):
            return _problem(subject, f"{status.state}; {tasks}", f"towpath capture recover {service}")
        return _warning(subject, f"{status.state}; {tasks}", "towpath logs connect")
    return _ok(subject, "connector and task run")


def topic(found: TopicFinding) -> Finding:
    """Judge a topic that is not as the catalogue has it."""
    return _problem(f"topic {found.topic}", found.problem, found.fix)


def transaction(found: OpenTransaction, now_milliseconds: int, limit_seconds: float) -> Finding | None:
    """Judge a transaction that is open; None while its producer may still end it."""
    open_seconds = (now_milliseconds - found.began_milliseconds) / 1000
    if open_seconds <= limit_seconds:
        return None
    return _problem(
        f"transaction in {found.topic}[{found.partition}]",
        f"open for {open_seconds:,.0f} s at offset {found.offset}; readers of committed records wait there, "
        f"{found.records_behind:,} records before the end",
        "nobody will end it (KAFKA-20734, if a broker was killed): kafka-transactions.sh --bootstrap-server ... "
        f"abort --topic {found.topic} --partition {found.partition} --start-offset {found.offset}",
    )


def topics_agree(count: int) -> Finding:
    """Judge topics that all are as the catalogue has them."""
    return _ok("topics", f"all {count} are as the catalogue has them")


def group(name: str, members: int, lag: int, way_back: str) -> Finding:
    """Judge a consumer group by its members and by what they have yet to read; `way_back` brings its worker back."""
    subject = f"group {name}"
    unread = f"{lag:,} offsets to read"
    if members:
        return _ok(subject, f"{members} {'member' if members == 1 else 'members'}, {unread}")
    if lag:
        return _warning(subject, f"no member, {unread}", way_back)
    return _ok(subject, "no member, and nothing to read")


def dead_letters(letters: int, applications: int, behind: int) -> Finding:
    """Judge what waits among the dead letters: it stays there until a person redrives or drops it."""
    if not letters and not behind:
        return _ok(DEAD_LETTERS, "none waits")
    said = f"{letters:,} dead {'letter' if letters == 1 else 'letters'} of {applications} "
    said += "application" if applications == 1 else "applications"
    if behind:
        said += f", {behind:,} {'record waits' if behind == 1 else 'records wait'} behind "
        said += "it" if letters == 1 else "them"
    return _warning(DEAD_LETTERS, said, "towpath dead list")


def dead_letters_unread(error: TowpathError) -> Finding:
    """Judge that the dead letters could not be read, or not in the time that there was."""
    return _warning(DEAD_LETTERS, f"not looked at: {error.cause}", error.next_step or "towpath status")


def held_position(application: str, partition: str, held: PartitionHeld) -> Finding:
    """Judge a position that its log does not have."""
    return _problem(f"position of {application} in {partition}", held.cause, held.next_step or "towpath positions list")


def after_stall(name: str) -> str:
    """Return what to do about a worker whose handler does not come back: started again, it meets the same record."""
    return (
        f"towpath logs {name} shows at its end where the handler stands, once the process has ended itself (minutes); "
        "have it raise an error for this record, which is a dead letter then, or give what it waits for a time-out; "
        f"then: towpath restart {name}"
    )


def worker(
    name: str,
    told: Mapping[str, Any],
    *,
    group_was_looked_at: bool,
    told_by_group: Collection[str] = (),
    away: TowpathError | None = None,
) -> Iterator[Finding]:
    """Judge what a worker last said of itself; of its positions its group's finding tells, where that was looked at.

    It was not where the database that keeps them is away, or the worker is of a project that was another one then.
    Where Kafka is `away`, its return is the fix of a worker that says of nothing else that it waits for it.
    """
    if told.get("has_stalled"):
        yield _problem(name, told["words"], after_stall(name))
        return
    by_position = {HoldKind.BEYOND_END, HoldKind.EXPIRED, HoldKind.RECREATED}
    for held in told["held"]:
        if not (group_was_looked_at and (held["kind"] in by_position or held["reason"] in told_by_group)):
            yield _problem(f"{name}: {held['partition']}", held["reason"], held["next_step"] or f"towpath logs {name}")
    if not told["is_ready"] and not told["held"]:
        fix = f"towpath logs {name}"
        if away is not None and (told["waiting_for"] or OF_KAFKA).startswith(OF_KAFKA):
            fix = away.next_step or fix
        yield _warning(name, told["words"], fix)
