"""Doctor in a project where nothing was ever started, and what it says of dead letters."""

from pathlib import Path

import pytest

from tests.stack_fixture import ROOT
from tests.unit.deadletter.test_redrive import Shop
from tests.unit.stream.support import in_transaction
from towpath.contract.catalogue import Catalogue
from towpath.settings import Settings, load_settings
from towpath.stack import doctor
from towpath.stack.findings import Finding, Severity
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stream.broker.port import BrokerAway


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
    monkeypatch.setattr(Catalogue, "dead_topics", lambda _: ("in.dead", "also.dead"))
    return found


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
