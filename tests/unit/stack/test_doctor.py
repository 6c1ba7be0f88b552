"""Doctor in a project where nothing was ever started, and what it says of dead letters."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.stack_fixture import ROOT
from tests.unit.deadletter.test_redrive import Shop
from tests.unit.stream.support import in_transaction
from towpath.capture.postgres import SlotState
from towpath.clock import ManualClock
from towpath.contract.catalogue import Catalogue
from towpath.outbox.names import slot_name
from towpath.settings import Settings, load_settings
from towpath.stack import doctor
from towpath.stack.broker_away import broker_away
from towpath.stack.findings import Finding, Severity
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stack.workers import tell_status
from towpath.stream.broker.port import BrokerAway
from towpath.stream.engine.worker_status import WorkerStatus


@pytest.fixture
def new_project(tmp_path: Path) -> Settings:
    """Return the settings of a project that has a towpath.toml and nothing else."""
    (tmp_path / "towpath.toml").write_text('[project]\nname = "myshop"\n', encoding="utf-8")
    return load_settings(tmp_path, environment=False)


def test_doctor_answers_in_a_new_project(new_project: Settings) -> None:
    """With what to do first, and without having made anything."""
    findings = doctor.examine(new_project)
    assert Finding(Severity.WARNING, "stack", "it is not running", "towpath up") in findings
    assert [one for one in findings if one.subject == "doctor"] == []
    assert [path.name for path in new_project.root.iterdir()] == ["towpath.toml"]


def test_a_look_that_breaks_is_a_finding(new_project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other looks go on."""

    def broken(*_: object) -> object:
        raise FileNotFoundError("/no/such/folder")

    monkeypatch.setattr("towpath.stack.machine.find_machine", broken)
    findings = doctor.examine(new_project)
    assert any(one.severity is Severity.PROBLEM and "/no/such/folder" in one.finding for one in findings)
    assert any(one.subject == "stack" for one in findings)


OTHER_LOOKS = ("_machine", "_ports", "_slots", "_connectors", "_topics", "_transactions", "_groups", "_workers")


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Return a broker beside a stack that runs, of which doctor sees nothing but this broker's dead letters."""
    found = Shop()
    kafka = ProcessStatus("kafka", Group.PART, State.READY, "4.3.1", (9092,), "kafka.log", None, 1.0, 1, None)
    monkeypatch.setattr(doctor, "running", lambda _: {"kafka": kafka})
    for look in OTHER_LOOKS:
        monkeypatch.setattr(doctor, look, lambda *_: iter(()))
    monkeypatch.setattr(doctor, "KafkaBroker", lambda *_: found.broker)
    monkeypatch.setattr(doctor, "broker_away", lambda *_: None)
    monkeypatch.setattr(Catalogue, "dead_topics", lambda _: ("in.dead", "also.dead"))
    return found


def test_a_broker_that_does_not_answer_is_asked_once_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has, and Connect, which keeps there what it knows, is not looked at: each look waits for a time-out."""
    asked: list[str] = []

    def is_answered(_: object) -> bool:
        asked.append("once")
        return False

    clock = ManualClock()
    monkeypatch.setattr("towpath.stack.broker_away.KafkaAdmin.is_answered", is_answered)
    monkeypatch.setattr("towpath.stack.broker_away.SystemClock", lambda: clock)
    monkeypatch.setattr("towpath.stack.broker_away.ANSWER_SECONDS_MAX", 0.0)
    monkeypatch.setattr(doctor, "_slots", lambda *_: iter(()))

    def looks(*_: object) -> object:
        raise AssertionError("it was looked at")

    for look in ("_connectors", "_topics", "_transactions", "_groups", "_dead_letters"):
        monkeypatch.setattr(doctor, look, looks)
    frozen = ProcessStatus("kafka", Group.PART, State.FROZEN, "4.3.1", (9092,), "kafka.log", 7, 1.0, 1, None)
    monkeypatch.setattr(doctor, "running", lambda _: {"kafka": frozen})
    settings = load_settings(ROOT, environment=False)
    told = [one for one in doctor.examine(settings) if "does not answer" in one.finding]
    servers = settings.kafka.client_config()["bootstrap.servers"]
    words = f"not looked at: Kafka at {servers} does not answer"
    subject = "connectors, topics, groups, dead letters"
    assert told == [Finding(Severity.PROBLEM, subject, words, "towpath restart kafka")]
    assert asked == ["once"]


@pytest.mark.parametrize(
    ("states", "advice"),
    [
        ({}, "towpath status, or check [kafka] in towpath.toml"),
        ({"kafka": State.READY}, "towpath restart kafka"),
        ({"kafka": State.WAITING}, "towpath logs kafka"),
        ({"kafka-1": State.WAITING, "kafka-2": State.FROZEN}, "towpath restart kafka-2"),
    ],
)
def test_what_brings_kafka_back_is_what_its_processes_say(states: dict[str, State], advice: str) -> None:
    """Frozen or hung it is restarted; what does not start says why; of a cluster of others nothing is known."""
    clock = ManualClock()
    settings = load_settings(ROOT, environment=False)
    statuses = {
        name: ProcessStatus(name, Group.PART, state, "4.3.1", (settings.stack.kafka_port,), "log", 7, 1.0, 1, None)
        for name, state in states.items()
    }
    away = broker_away(settings, statuses, Silent(clock), clock)
    assert away is not None
    assert away.next_step == advice
    assert broker_away(settings, statuses, Silent(clock, answers_after=2), clock) is None


@pytest.mark.parametrize("state", [State.READY, State.FROZEN])
def test_a_broker_that_is_not_asked_is_not_restarted(new_project: Settings, state: State) -> None:
    """Where [kafka] names another address than that of the stack's own, it is the setting that leads on."""
    (new_project.root / "towpath.toml").write_text(
        '[project]\nname = "myshop"\n[kafka]\nbootstrap_servers = "127.0.0.1:9999"\n', encoding="utf-8"
    )
    settings, clock = load_settings(new_project.root, environment=False), ManualClock()
    own = ProcessStatus("kafka", Group.PART, state, "4.3.1", (9092, 9093), "log", 7, 1.0, 1, None)
    away = broker_away(settings, {"kafka": own}, Silent(clock), clock)
    assert away is not None
    assert away.next_step == "check [kafka] in towpath.toml: no broker of the stack has that address"


class Silent:
    """A cluster that lets each who asks wait for a second; answers only after so many."""

    def __init__(self, clock: ManualClock, answers_after: int = 100) -> None:
        self._clock = clock
        self._left = answers_after

    def is_answered(self) -> bool:
        """Not yet."""
        self._clock.advance(1.0)
        self._left -= 1
        return self._left < 0


def test_a_worker_that_says_why_it_is_not_ready_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_project: Settings
) -> None:
    """By its own words, not by its process's as well."""
    home = Home(new_project.stack_home)
    home.make()
    name = "service:order"
    waits = WorkerStatus(application="app", slot="1", is_member=True, waiting_for="the registry is away")
    tell_status(home.ready_file(name), waits)
    worker = ProcessStatus(name, Group.WORKER, State.UNREADY, "1", (), "log", os.getpid(), 1.0, 1, None)
    monkeypatch.setattr(doctor, "running", lambda _: {name: worker})
    monkeypatch.setattr(doctor, "_slots", lambda *_: iter(()))
    monkeypatch.setattr(
        doctor, "broker_away", lambda *_: BrokerAway("Kafka does not answer", next_step="towpath status")
    )
    told = [one for one in doctor.examine(new_project) if one.subject == name]
    assert told == [Finding(Severity.WARNING, name, "waits: the registry is away", f"towpath logs {name}")]


def test_what_follows_from_a_broker_that_does_not_answer_has_its_fix(
    monkeypatch: pytest.MonkeyPatch, new_project: Settings
) -> None:
    """A slot that nobody reads and a worker without a group: to recover would fail, and logs tell nothing further."""
    home, name = Home(new_project.stack_home), "service:order"
    home.make()
    tell_status(home.ready_file(name), WorkerStatus(application="app", slot="1", is_member=False))
    worker = ProcessStatus(name, Group.WORKER, State.UNREADY, "1", (), "log", os.getpid(), 1.0, 1, None)
    monkeypatch.setattr(doctor, "running", lambda _: {name: worker})
    away = BrokerAway("Kafka does not answer", next_step="towpath restart kafka")
    monkeypatch.setattr(doctor, "broker_away", lambda *_: away)
    monkeypatch.setattr(doctor, "captured_databases", lambda _: ("order",))
    monkeypatch.setattr(doctor, "connect", lambda *_: SimpleNamespace(close=lambda: None))
    unread = SlotState("slot", "order", False, "reserved", 10, 10, None, None)
    monkeypatch.setattr(doctor, "slots_of", lambda _, names: dict.fromkeys(names, unread))
    monkeypatch.setattr(doctor, "keeps_commit_times", lambda _: True)
    monkeypatch.setattr(doctor, "skipped_messages", lambda _: ())
    told = {one.subject: one.fix for one in doctor.examine(new_project)}
    slot = slot_name(new_project.project.name, "order")
    assert (told[f"slot {slot}"], told[name]) == ("towpath restart kafka", "towpath restart kafka")


def said_of_letters() -> Finding:
    """Return what doctor finds of dead letters."""
    (found,) = (one for one in doctor.examine(load_settings(ROOT, environment=False)) if one.subject == "dead letters")
    return found


def test_dead_letters_are_a_warning_with_what_waits_behind_them(shop: Shop) -> None:
    """As many as `towpath dead list` tells of, of all applications; none that is settled."""
    assert said_of_letters() == Finding(Severity.OK, "dead letters", "none waits")
    shop.bad = {"a1", "b1"}
    shop.put("a1", "a2", "a3", "b1", "c1")
    shop.work()
    shop.broker.create_topic("totals", 1)
    shop.work(application="other", states=("totals",))
    words = "4 dead letters of 2 applications, 4 records wait behind them"
    assert said_of_letters() == Finding(Severity.WARNING, "dead letters", words, "towpath dead list")


def test_dead_letters_that_cannot_be_read_were_not_looked_at(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Kafka is away, a transaction hides them, or there are more than doctor has time for."""
    monkeypatch.setattr(doctor, "LETTERS_STILL_SECONDS_MAX", 0.2)
    in_transaction(shop.broker, "in.dead", b"a1")
    hidden = said_of_letters()
    assert (hidden.severity, hidden.fix) == (Severity.WARNING, "run it again in some seconds")
    assert hidden.finding.startswith("not looked at: in.dead[0]: read up to 0 of 1: a transaction is open there")
    monkeypatch.setattr(doctor, "LETTERS_SECONDS_MAX", 0.0)
    assert said_of_letters().fix == "towpath dead list"

    def away(*_: object) -> object:
        raise BrokerAway("Kafka does not answer", next_step="towpath status")

    monkeypatch.setattr(shop.broker, "partition_counts", away)
    words = "not looked at: Kafka does not answer"
    assert said_of_letters() == Finding(Severity.WARNING, "dead letters", words, "towpath status")
