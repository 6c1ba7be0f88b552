"""A version may join what runs, or the finding says whom it would break and what has to be deployed first."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.unit.contract.workshop import field, record
from towpath.contract.catalogue import Catalogue, Compatibility, Topic, TopicKind
from towpath.contract.deploy import Deployment, Environment, can_deploy, deploy_order, forgotten, with_outsiders
from towpath.contract.deployments import environments, load_environment, recording, save_party
from towpath.contract.finding import Finding
from towpath.contract.parties import Answering, Parties, Party, PartyKind, StepAsking, Use
from towpath.contract.snapshot import schemas_of
from towpath.errors import ContractError, NotFoundError

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
PLACED: Final = "shop.order.OrderPlaced"
PAY, PAID, DECLINED = "shop.order.Pay", "shop.order.Paid", "shop.order.Declined"
ORDER: Final = Party("order", PartyKind.SERVICE, writes=(Use(PLACED, "order.events", "an event"),))
STATUS: Final = Party("status", PartyKind.VIEW, reads=(Use(PLACED, "order.events", "folded"),))
V1: Final = (field("order_id"), field("total", "int"))


def topic(name: str, kind: TopicKind, days: float | None, *values: str) -> Topic:
    """Return a topic that is kept for so many days."""
    return Topic(name, kind, name.split(".", maxsplit=1)[0], "order_id", 4, days, values, (), (), Compatibility.NONE)


CATALOGUE: Final = Catalogue(
    {
        one.name: one
        for one in (
            topic("order.events", TopicKind.EVENTS, 30, PLACED),
            topic("order.events.dead", TopicKind.DEAD, 10, PLACED),
            topic("buy.state", TopicKind.STATE, None),
            topic("payment.commands", TopicKind.COMMANDS, 30, PAY),
            topic("buy.replies", TopicKind.REPLIES, 30, PAID, DECLINED),
        )
    }
)


def version(party: Party, number: str, *fields: dict[str, Any], at: datetime = NOW) -> Deployment:
    """Return a version of `party` for which an order has these fields."""
    avro = record("OrderPlaced", *(fields or V1))
    return Deployment(party, number, {PLACED: schemas_of(PLACED, avro, "test")}, at, "ada")


def judge(new: Deployment, *running: Deployment, here: tuple[Deployment, ...] = ()) -> tuple[Finding, ...]:
    """Return what breaks if `new` joins what runs."""
    environment = Environment("production", running)
    return can_deploy(new, environment, CATALOGUE, here={one.party.name: one for one in here}, now=NOW)


def test_a_version_that_all_can_read_may_be_deployed() -> None:
    """A field with a default, beside the old reader."""
    assert judge(version(ORDER, "2", *V1, field("note", default="")), version(STATUS, "1"), version(ORDER, "1")) == ()


def test_a_writer_that_a_running_reader_cannot_read_is_stopped() -> None:
    """The finding names the version that runs, and shows a record that it could not read."""
    (found,) = judge(version(ORDER, "2", field("order_id")), version(STATUS, "1"))
    assert found.fails
    assert found.problem.startswith("order@2 writes what status@1 cannot read: OrderPlaced.total: the reader needs it")
    assert found.breaks == ("status@1 (reading order.events)",)
    assert found.sample.startswith('{"order_id": "a"}')


def test_a_reader_that_cannot_read_what_is_written_is_stopped() -> None:
    """Before the writer writes what it needs."""
    (found,) = judge(version(STATUS, "2", *V1, field("currency")), version(ORDER, "1"), version(STATUS, "1"))
    assert found.problem.startswith("status@2 cannot read what order@1 writes: OrderPlaced.currency")
    assert found.breaks == ("status@2 (folded, order.events)",)


def test_who_goes_first_is_said_where_that_is_enough() -> None:
    """The writer of this folder writes the new field already: it is deployed first, then the reader."""
    old, new = version(ORDER, "1"), version(ORDER, "this folder", *V1, field("currency"))
    reader = version(STATUS, "2", *V1, field("currency"))
    (found,) = judge(reader, old, version(STATUS, "1"), here=(new, reader))
    # What the old writer wrote is still met: that order alone is not enough.
    assert found.fix.endswith("in two steps, so that old and new can run side by side")
    gone, keeping = version(ORDER, "2", field("order_id")), version(STATUS, "this folder", field("order_id"))
    (found,) = judge(gone, version(STATUS, "1"), here=(gone, keeping))
    assert found.fix == "deploy status as it is in this folder first, then order"


def test_what_a_retired_version_wrote_is_met_for_as_long_as_the_topic_keeps_it() -> None:
    """30 days in the topic, and 10 more in its dead letters; then it is forgotten."""
    reader = version(STATUS, "2", *V1, field("currency"))
    writer = version(ORDER, "2", *V1, field("currency"))
    for days, broken in ((39, True), (41, False)):
        retired = replace(version(ORDER, "1"), until=NOW - timedelta(days=days))
        environment = Environment("production", (writer,), (retired,))
        found = can_deploy(reader, environment, CATALOGUE, here={}, now=NOW)
        assert bool(found) == broken
        assert forgotten(retired, CATALOGUE, NOW, 0) == (not broken)
    assert not forgotten(retired, CATALOGUE, NOW, 5)  # a saga may still carry it


def test_what_lies_in_an_outbox_may_be_sent_again_on_its_last_day() -> None:
    """The topic keeps it from then on; what a saga wrote went to Kafka and lies in no outbox."""
    reader = version(STATUS, "2", *V1, field("currency"))
    by_saga = Party("order", PartyKind.SAGA, writes=ORDER.writes)
    for writer, days, broken in ((ORDER, 47, True), (ORDER, 49, False), (by_saga, 39, True), (by_saga, 41, False)):
        retired = replace(version(writer, "1"), until=NOW - timedelta(days=days))
        environment = Environment("production", (), (retired,), outbox_days=8)
        found = can_deploy(reader, environment, CATALOGUE, here={}, now=NOW)
        assert bool(found) == broken
        assert forgotten(retired, CATALOGUE, NOW, 0, outbox_days=8) == (not broken)


def test_a_saga_meets_what_it_carries_until_its_deadline() -> None:
    """Its state holds the start event as it came, whatever the topic has forgotten since."""
    uses = (Use(PLACED, "buy.state", "kept in its state"),)
    saga = Party("buy", PartyKind.SAGA, reads=uses, deadline_days=60)
    new = version(saga, "2", *V1, field("currency"))
    for days, broken in ((59, True), (61, False)):
        retired = replace(version(ORDER, "1"), until=NOW - timedelta(days=days))
        found = can_deploy(new, Environment("production", (), (retired,)), CATALOGUE, here={}, now=NOW)
        assert bool(found) == broken


def outsiders(*fields: dict[str, Any]) -> Parties:
    """Return a project that another's billing reads, with a reader schema of these fields where there are any."""
    topic_of = replace(CATALOGUE.topic("order.events"), consumers=("billing",))
    kept = {"billing": {PLACED: schemas_of(PLACED, record("OrderPlaced", *fields), "test")}} if fields else {}
    return Parties.of((ORDER, STATUS), Catalogue({**CATALOGUE.topics, topic_of.name: topic_of}), kept)


def test_an_outsider_is_met_though_no_deployment_records_it() -> None:
    """By the reader schema that it keeps here: what it does not use may change."""
    environment = with_outsiders(Environment("production"), outsiders(field("order_id")), NOW)
    new = version(ORDER, "2", field("order_id"))
    assert can_deploy(new, environment, CATALOGUE, here={}, now=NOW) == ()
    environment = with_outsiders(Environment("production"), outsiders(field("total", "int")), NOW)
    (found,) = can_deploy(new, environment, CATALOGUE, here={}, now=NOW)
    assert found.problem.startswith("order@2 writes what billing (another project's) cannot read: OrderPlaced.total")
    assert found.breaks == ("billing (another project's) (reading order.events)",)


def test_an_outsider_that_keeps_no_reader_schema_lives_with_what_runs() -> None:
    """A form that readers of the running one cannot read breaks it; where nothing runs, nothing can."""
    new = version(ORDER, "2", field("order_id"))
    assert can_deploy(new, with_outsiders(Environment("new"), outsiders(), NOW), CATALOGUE, here={}, now=NOW) == ()
    running = with_outsiders(Environment("production", (version(ORDER, "1"),)), outsiders(), NOW)
    (found,) = can_deploy(new, running, CATALOGUE, here={}, now=NOW)
    assert found.fails
    assert "billing" in found.breaks[0]
    recorded = Deployment(outsiders().by_name["billing"], "7", new.schemas, NOW)
    running = with_outsiders(Environment("production", (version(ORDER, "1"), recorded)), outsiders(), NOW)
    assert [one.label for one in running.running] == ["order@1", "billing@7"]
    assert can_deploy(new, running, CATALOGUE, here={}, now=NOW) == ()


def saga_and_service(fails: frozenset[str], handled: str = PAY) -> tuple[Deployment, Deployment]:
    """Return a saga that declares so many failures, and a service that may decline."""
    asking = StepAsking("pay", "payment", (PAY,), frozenset({PAID}), fails)
    saga = Party("buy", PartyKind.SAGA, asks=(asking,), deadline_days=4)
    service = Party(
        "payment", PartyKind.SERVICE, answers=(Answering(handled, frozenset({PAID}), frozenset({DECLINED})),)
    )
    return version(saga, "1"), version(service, "1")


def test_commands_and_replies_are_a_closed_set_of_what_runs() -> None:
    """Whichever of the two is deployed, it is stopped where the other would not understand it."""
    saga, service = saga_and_service(frozenset())
    (found,) = judge(saga, service)
    assert "service payment may answer it with shop.order.Declined" in found.problem
    assert found.breaks == ("payment@1 beside buy@1",)
    assert [one.problem for one in judge(service, saga)] == [found.problem]
    saga, service = saga_and_service(frozenset({DECLINED}), handled="shop.order.Other")
    (found,) = judge(saga, service)
    assert "which has no handler for it" in found.problem
    assert judge(*saga_and_service(frozenset({DECLINED}))) == ()


def test_a_participant_that_nobody_recorded_is_a_warning() -> None:
    """The first deployment of all is not stopped, and the person knows what is not known."""
    saga, _ = saga_and_service(frozenset({DECLINED}))
    (found,) = judge(saga)
    assert not found.fails
    assert found.fix == "towpath contracts deployed payment@VERSION --to production"


def test_an_order_is_found_where_there_is_one() -> None:
    """Readers before the writer that drops a field; where both need the other first, there is none."""
    running = Environment("production", (version(ORDER, "1"), version(STATUS, "1")))
    writer, reader = version(ORDER, "2", field("order_id")), version(STATUS, "2", field("order_id"))
    assert deploy_order([writer, reader], running, CATALOGUE, NOW) == ((reader, writer), ())
    changed = (field("order_id"), field("total", "string"))
    writer, reader = version(ORDER, "2", *changed), version(STATUS, "2", *changed)
    assert deploy_order([writer, reader], running, CATALOGUE, NOW) == ((), (writer, reader))


def test_a_deployment_replaces_the_one_before_or_runs_beside_it() -> None:
    """What was replaced is remembered with the time; deploying it again makes it run again."""
    first, second = version(ORDER, "1"), version(ORDER, "2", at=NOW + timedelta(days=1))
    environment = Environment("production").deployed(first).deployed(second)
    assert [one.label for one in environment.running] == ["order@2"]
    assert [(one.label, one.until) for one in environment.retired] == [("order@1", second.at)]
    back = environment.deployed(replace(first, at=NOW + timedelta(days=2)))
    assert [one.label for one in back.running] == ["order@1"]
    assert [one.label for one in back.retired] == ["order@2"]
    beside = Environment("production").deployed(first).deployed(second, beside=True)
    assert [one.label for one in beside.running] == ["order@1", "order@2"]


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    """Everything, in a file for each party."""
    saga, service = saga_and_service(frozenset({DECLINED}))
    environment = Environment("production").deployed(saga).deployed(service).deployed(version(ORDER, "1"))
    environment = environment.deployed(version(ORDER, "2", *V1, field("note", default="")))
    for name in ("buy", "payment", "order"):
        assert save_party(tmp_path, environment, name).name == f"{name}.json"
    read = load_environment(tmp_path, "production")
    assert {one.label: one for one in read.running} == {one.label: one for one in environment.running}
    assert read.retired == environment.retired
    assert environments(tmp_path) == ("production",)
    assert load_environment(tmp_path, "staging") == Environment("staging")


def test_a_misspelt_environment_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    """Nothing would run there, and everything could be deployed."""
    save_party(tmp_path, Environment("production").deployed(version(ORDER, "1")), "order")
    with pytest.raises(NotFoundError, match="did you mean 'production'"):
        load_environment(tmp_path, "prodction")
    with pytest.raises(ContractError, match="is no name"):
        load_environment(tmp_path, "../elsewhere")
    (tmp_path / "production/order.json").write_text("[{}]", encoding="utf-8")
    with pytest.raises(ContractError, match="no record of deployments"):
        load_environment(tmp_path, "production")


def test_two_who_record_at_once_take_turns(tmp_path: Path) -> None:
    """Each reads what the other wrote: neither deployment is lost, and no half file is left."""

    def record_one(number: int) -> None:
        with recording(tmp_path):
            environment = load_environment(tmp_path, "production")
            save_party(tmp_path, environment.deployed(version(ORDER, f"1.{number}"), beside=True), "order")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record_one, range(16)))
    assert len(load_environment(tmp_path, "production").running) == 16
    assert [path.name for path in (tmp_path / "production").iterdir()] == ["order.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, '[{"version": "1"}]'])
def test_a_broken_record_is_named_with_the_command_that_brings_it_back(tmp_path: Path, content: str) -> None:
    """git takes the path from anywhere below the repository."""
    path = tmp_path / "production" / "order.json"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ContractError) as refused:
        load_environment(tmp_path, "production")
    assert refused.value.next_step == f"git checkout -- {path}"


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 300, "a\nb"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """It would leave its folder, or be refused by the file system in its own words."""
    with pytest.raises(ContractError, match="is no name of an environment"):
        load_environment(tmp_path, name)
