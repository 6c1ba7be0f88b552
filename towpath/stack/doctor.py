"""Looks at everything that a stack needs and says what is wrong, each finding with its fix; changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from towpath.capture.connect import ConnectClient
from towpath.capture.postgres import connect, keeps_commit_times, skipped_messages, slots_of
from towpath.clock import SystemClock, epoch_milliseconds
from towpath.contract.catalogue import Catalogue
from towpath.contract.kafka import compare_topics, open_transactions
from towpath.deadletter.quarantine import groups_of
from towpath.deadletter.redrive import read_quarantine
from towpath.errors import TowpathError, WorldError
from towpath.outbox.names import connector_name, slot_name
from towpath.settings import Settings
from towpath.stack import findings as judge
from towpath.stack import machine
from towpath.stack.broker_away import broker_away
from towpath.stack.cache import cache_folder
from towpath.stack.client import StackClient, SupervisorSilent, running
from towpath.stack.config import captured_databases
from towpath.stack.findings import Finding
from towpath.stack.home import Home
from towpath.stack.lock import load_lock
from towpath.stack.parts import native_placement, stack_parts
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stack.workers import stalled_processes, told_status, way_back
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import BrokerAway

GROUP_OFFSETS = "__consumer_offsets"
TRANSACTION_TIMEOUTS = 4
"""How many of its time-outs a transaction may be open before it is one that nobody ends."""

LETTERS_STILL_SECONDS_MAX = 5.0
"""How long the look at the dead letters waits for what a transaction may hide."""
LETTERS_SECONDS_MAX = 20.0
"""How long it may take in all: many letters are for `towpath dead list` to read."""


@dataclass(slots=True)
class _Looked:
    """The groups whose positions could be read, why some of these are held, and that Kafka does not answer."""

    applications: set[str] = field(default_factory=set)
    causes: set[str] = field(default_factory=set)
    away: BrokerAway | None = None


def examine(settings: Settings) -> list[Finding]:
    """Return what was looked at: what is well, what deserves attention, what is a problem."""
    home = Home(settings.stack_home)
    try:
        statuses = running(home)
    except SupervisorSilent as error:  # what runs is not known: only that is said
        return [*_safely(lambda: _machine(settings, home)), judge.cannot_look(error)]
    looked = _Looked()
    looks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _machine(settings, home),
        lambda: _ports(settings, statuses),
        lambda: _processes(home, statuses),
    ]
    if statuses:
        looks += [
            lambda: _of_kafka(settings, home, statuses, looked),  # first: slots and workers depend on what it finds
            lambda: _slots(settings, looked),
            lambda: _workers(home, statuses, looked),
        ]
    return [finding for look in looks for finding in _safely(look)]


def troubles(settings: Settings) -> list[Finding]:
    """Return what is wrong though every process runs: what `status` shows beside the processes."""
    home = Home(settings.stack_home)
    with StackClient(home) as client:
        statuses = client.status()
    looked = _Looked()
    looks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _of_kafka(settings, home, statuses, looked, whole=False),
        lambda: _workers(home, statuses, looked),
    ]
    found = [finding for look in looks for finding in _safely(look)]
    return [finding for finding in found if finding.severity is judge.Severity.PROBLEM]


def _safely(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a look finds; where it cannot look, that is the finding."""
    try:
        yield from look()
    except TowpathError as error:
        yield judge.cannot_look(error)
    except Exception as error:
        # Who asks what is wrong is never answered with a traceback: the other looks go on.
        said = f"a look ended in {type(error).__name__}: {error}"
        yield judge.cannot_look(TowpathError(said, next_step="towpath logs supervisor"))


def _machine(settings: Settings, home: Home) -> Iterator[Finding]:
    found = machine.find_machine(settings.stack, home.data)
    yield judge.java(found.java_version)
    yield judge.disk("data", str(home.data), machine.free_bytes(home.data))
    cache = cache_folder(settings.stack)
    yield judge.disk("cache", str(cache), machine.free_bytes(cache))
    yield judge.memory(machine.available_memory_bytes(), settings.stack)


def _ports(settings: Settings, statuses: dict[str, ProcessStatus]) -> Iterator[Finding]:
    placement = native_placement(settings.stack, "", "")
    for part in stack_parts(settings, placement, load_lock()):
        running = statuses.get(part.name)
        if running is None or running.pid is None:
            for taken in machine.taken_ports(settings.stack.host, part.ports):
                yield judge.taken_port(part.name, taken.port, taken.owner)


def _processes(home: Home, statuses: dict[str, ProcessStatus]) -> Iterator[Finding]:
    if not statuses:
        yield judge.not_running()
    for status in statuses.values():
        told = told_status(home, status.name, status.pid) if status.state is State.UNREADY else None
        if told is None or told["is_ready"]:  # else it says itself why it is not ready
            yield judge.process(status)


def _slots(settings: Settings, looked: _Looked) -> Iterator[Finding]:
    for service in captured_databases(settings):
        yield from _safely(partial(_slot, settings, service, looked))  # a database that is away hides no other


def _slot(settings: Settings, service: str, looked: _Looked) -> Iterator[Finding]:
    slot = slot_name(settings.project.name, service)
    with closing(connect(settings, service)) as connection:
        yield judge.slot(service, slot, slots_of(connection, [slot]).get(slot), looked.away)
        yield from filter(
            None,
            (
                judge.commit_times(service, kept=keeps_commit_times(connection)),
                judge.skipped(service, len(skipped_messages(connection))),
            ),
        )


def _of_kafka(
    settings: Settings, home: Home, statuses: dict[str, ProcessStatus], looked: _Looked, *, whole: bool = True
) -> Iterator[Finding]:
    """Look at what Kafka has, and Connect, which keeps all that it knows there; at its topics too, where `whole`."""
    looked.away = broker_away(settings, statuses)
    if looked.away is not None:
        yield judge.kafka_away(looked.away)
        return
    further: list[Callable[[], Iterator[Finding]]] = [lambda: _topics(settings), lambda: _transactions(settings)]
    looks = [
        lambda: _connectors(settings),
        *(further if whole else []),
        lambda: _groups(settings, home, statuses, looked),
        *([lambda: _dead_letters(settings)] if whole else []),
    ]
    for look in looks:
        yield from _safely(look)


def _connectors(settings: Settings) -> Iterator[Finding]:
    with ConnectClient(settings.connect) as client:
        known = set(client.names())
        for service in captured_databases(settings):
            name = connector_name(settings.project.name, service)
            yield judge.connector(service, name, client.status(name) if name in known else None)


def _topics(settings: Settings) -> Iterator[Finding]:
    catalogue = Catalogue.load(settings)
    differing = compare_topics(catalogue, settings)
    for one in differing:
        yield judge.topic(one)
    if not differing:
        yield judge.topics_agree(len(catalogue.topics))


def _transactions(settings: Settings) -> Iterator[Finding]:
    limit_seconds = TRANSACTION_TIMEOUTS * settings.stream.transaction_timeout_seconds
    now_milliseconds = epoch_milliseconds(SystemClock())
    topics = [*Catalogue.load(settings).topics, GROUP_OFFSETS]
    for one in open_transactions(settings, topics):
        finding = judge.transaction(one, now_milliseconds, limit_seconds)
        if finding is not None:
            yield finding


def _groups(settings: Settings, home: Home, statuses: dict[str, ProcessStatus], looked: _Looked) -> Iterator[Finding]:
    """Judge each group; note in `looked` those whose positions could be read, and what they tell."""
    from towpath.stack.groups import group_reports  # what it imports takes a second, and Kafka

    stalled = stalled_processes(home, statuses)
    said: set[str] = set()
    for report in group_reports(settings, KafkaBroker(settings.kafka, settings.stream)):
        if report.away is not None:
            if report.away.cause not in said:
                said.add(report.away.cause)
                yield judge.cannot_look(report.away)
            continue
        application = report.application
        looked.applications.add(application.name)
        advice = way_back(application.worker, statuses, stalled)
        yield judge.group(application.name, len(report.members), report.lag, advice)
        for standing in report.held:
            assert standing.held is not None
            looked.causes.add(standing.held.cause)
            yield judge.held_position(standing.application, str(standing.partition), standing.held)


def _dead_letters(settings: Settings) -> Iterator[Finding]:
    try:
        topics = Catalogue.load(settings).dead_topics()
        quarantine = read_quarantine(
            KafkaBroker(settings.kafka, settings.stream),
            topics,
            seconds=LETTERS_STILL_SECONDS_MAX,
            whole_seconds=LETTERS_SECONDS_MAX,
        )
    except WorldError as error:
        yield judge.dead_letters_unread(error)
        return
    groups = groups_of(quarantine, topics)
    yield judge.dead_letters(
        letters=sum(len(one.dead) for one in groups),
        applications=len({one.application for one in groups}),
        behind=sum(len(one.parked) for one in groups),
    )


def _workers(home: Home, statuses: dict[str, ProcessStatus], looked: _Looked) -> Iterator[Finding]:
    for status in statuses.values():
        told = told_status(home, status.name, status.pid)
        if status.group is Group.WORKER and told is not None:
            known = told["application"] in looked.applications
            yield from judge.worker(
                status.name, told, group_was_looked_at=known, told_by_group=looked.causes, away=looked.away
            )
