"""`towpath dead list | show | redrive | drop`, on the reference project's topics and the memory broker."""

import asyncio
import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from schemas.records.catalog import ReserveStock, StockLine
from tests import next_steps
from tests.commands import CODEC, Asking
from tests.next_steps import step_in
from tests.stack_fixture import ROOT
from tests.tidy.test_advice import commands_in
from tests.unit.orchestrator import test_why
from tests.unit.stream.support import SETTINGS, options_for, working
from towpath.cli.dead import register
from towpath.cli.saga_look import Look
from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError, NotFoundError, PartlyDoneError, RefusedError, TowpathError, WorldError
from towpath.orchestrator.envelope import MalformedHeaders
from towpath.orchestrator.why import explain
from towpath.participant.core import BeyondInbox, Malformed
from towpath.saga.keys import saga_id_of
from towpath.settings import load_settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.unit import KafkaUnit

APP = typer.Typer()
register(APP)
TOPIC = "catalog.commands"


class Stand:
    """The project's topics, and an application that fails for the orders in `bad`."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(SETTINGS)
        for topic in Catalogue.load(load_settings(ROOT, environment=False)).topics.values():
            self.broker.create_topic(topic.name, 1)
        self.broker.create_topic("kept", 1)
        self.bad = {"o-1"}
        self.applied: list[tuple[str, str]] = []

    async def handle(self, unit: KafkaUnit, groups: Groups) -> None:
        """Apply commands."""
        for records in groups.values():
            for record in records:
                order = (record.key or b"").decode()
                if order in self.bad and record.header("attempt") == "1":
                    raise RecordFailed(record, ZeroDivisionError("by [nothing]"))
            self.applied += [((r.key or b"").decode(), r.header("attempt") or "") for r in records]

    def send(self, order: str, *, attempt: int = 1, value: bytes | None = None) -> None:
        """Append a command."""
        asking = Asking(
            ReserveStock(order_id=order, lines=(StockLine(sku="vase", quantity=1),)), key=order, attempt=attempt
        )
        record = asking.arriving()
        self.broker.append(TOPIC, value or record.value, key=record.key, headers=record.headers)

    def work(self) -> None:
        """Let a worker read everything there is."""

        def done() -> bool:
            (last,) = self.broker.records(TOPIC)[-1:]
            return self.broker.committed_offsets("app").get(last.topic_partition, 0) > last.offset

        async def main() -> None:
            async with working(self.handle, options_for(self.broker, states=("kept",)), [TOPIC]) as worker:
                await worker.until(done)

        asyncio.run(main())


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Return a stand with one dead command of an order, and two more parked behind it."""
    found = Stand()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("towpath.stream.broker.kafka.KafkaBroker", lambda *_: found.broker)
    monkeypatch.setattr("towpath.contract.registry.load_codec", lambda *_: CODEC)
    for order, attempt in (("o-1", 1), ("o-1", 2), ("o-2", 1), ("o-1", 3)):
        found.send(order, attempt=attempt)
    found.work()
    assert found.applied == [("o-2", "1")]
    return found


def run(*arguments: str) -> Result:
    """Run a verb in this process."""
    return CliRunner().invoke(APP, ["dead", *arguments])


def told(*arguments: str) -> Any:
    """Return what a verb printed as JSON."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.exception or result.output
    return json.loads(result.stdout)


def refused(*arguments: str) -> TowpathError:
    """Return the error in which a verb ended."""
    error = run(*arguments).exception
    assert isinstance(error, TowpathError), error
    return error


def test_dead_letters_are_listed_by_cause(stand: Stand) -> None:
    """Once each, with what is parked behind them; in a table as in JSON."""
    (row,) = told("list")
    assert told("list", TOPIC) == told("list", f"{TOPIC}.dead") == [row]
    assert (row["topic"], row["application"], row["kind"], row["error"]) == (
        TOPIC,
        "app",
        "handler",
        "ZeroDivisionError",
    )
    assert (row["cause"], row["dead"], row["parked"], row["example"], row["state"]) == (
        "by [nothing]",
        1,
        2,
        "0:0",
        "waiting",
    )
    assert row["first"] <= row["last"]
    assert told("list", "order.commands") == []
    text = run("list").stdout
    assert row["fingerprint"] in text
    assert "by [nothing]" in text


def test_a_cause_is_told_once_in_a_list(stand: Stand) -> None:
    """By its fingerprint, in however many rows of the list it is."""
    run("drop", TOPIC, "0:0", "--with-parked", "--reason", "a test")
    stand.send("o-1")
    stand.work()
    rows = told("list", "--all")
    (fingerprint,) = {row["fingerprint"] for row in rows}
    assert len(rows) > 1
    causes = [line for line in run("list", "--all").stdout.splitlines() if line.startswith(fingerprint)]
    assert causes == [f"{fingerprint} ZeroDivisionError: by [nothing]"]


def test_a_dead_letter_is_shown_whole(stand: Stand) -> None:
    """By its place, by where it died and by its fingerprint; decoded, with what waits and what to run."""
    (letter,) = told("show", TOPIC, "0:0")
    assert (
        told("show", TOPIC, f"{TOPIC}[0]@0") == told("show", TOPIC, "--fingerprint", letter["fingerprint"]) == [letter]
    )
    assert letter["origin"] == f"{TOPIC}[0]@0"
    assert letter["headers"]["type"] == ReserveStock.SCHEMA_NAME
    assert letter["value"]["content"]["order_id"] == "o-1"
    assert [parked["origin"] for parked in letter["parked"]] == [f"{TOPIC}[0]@1", f"{TOPIC}[0]@3"]
    assert f"towpath dead redrive {TOPIC} 0:0" in letter["next"]
    text = run("show", TOPIC, "0:0").stdout
    for piece in ("ZeroDivisionError: by [nothing]", "attempt: 1", '"sku": "vase"', "0:0, waiting"):
        assert piece in text
    (follower,) = told("show", TOPIC, f"{TOPIC}[0]@1")
    assert follower["follows"] == {"topic": TOPIC, "position": "0:0"}
    assert f"towpath dead redrive {TOPIC} 0:0" in follower["next"]


def test_what_cannot_be_decoded_is_shown_in_hex(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the bytes are at fault or the registry is away."""
    stand.bad.add("o-3")
    stand.send("o-3", value=b"\x00\x00\x00\x00\x01junk")
    stand.work()
    (letter,) = told("show", TOPIC, f"{TOPIC}[0]@4")
    assert letter["value"] == {"hex": b"\x00\x00\x00\x00\x01junk".hex(), "undecodable": "no schema with id 1 is known"}
    assert b"junk".hex() in run("show", TOPIC, f"{TOPIC}[0]@4").stdout

    def away(*_: Any) -> None:
        raise WorldError("the registry is away")

    monkeypatch.setattr("towpath.contract.registry.load_codec", away)
    result = run("show", TOPIC, "0:0")
    assert result.exit_code == 0
    assert "hex" in result.stdout


def test_a_redrive_says_what_it_would_do_and_does_it_once(stand: Stand) -> None:
    """In the order of the key; afterwards it is listed only if one asks for what is settled."""
    steps = told("redrive", TOPIC, "0:0", "--dry-run")
    assert [step["origin"] for step in steps] == [f"{TOPIC}[0]@0", f"{TOPIC}[0]@1", f"{TOPIC}[0]@3"]
    assert told("list")[0]["dead"] == 1
    stand.bad = set()
    done = told("redrive", TOPIC, "0:0", "--wait", "0", "--actor", "kim", "--reason", "fixed")
    assert [each["origin"] for each in done["redriven"]] == [step["origin"] for step in steps]
    assert (done["left"], done["died_again"], done["unread_by"]) == ([], [], ["app"])
    assert told("redrive", TOPIC, "0:0", "--wait", "0")["redriven"] == []
    stand.work()
    assert stand.applied == [("o-2", "1"), ("o-1", "1"), ("o-1", "2"), ("o-1", "3")]
    assert told("list") == []
    (row,) = told("list", "--all")
    assert (row["state"], row["dead"], row["parked"]) == ("redriven", 1, 2)
    (letter,) = told("show", TOPIC, "0:0")
    assert (letter["settled"]["by"], letter["settled"]["reason"], letter["next"]) == ("kim", "fixed", [])
    assert "redriven" in run("show", TOPIC, "0:0").stdout
    assert "nothing was left" in run("redrive", TOPIC, "0:0", "--wait", "0").stderr


def test_what_dies_again_is_an_exit_code(stand: Stand) -> None:
    """With the letter to look at now."""
    run("redrive", TOPIC, "0:0", "--wait", "0")
    stand.work()
    result = run("redrive", TOPIC, "0:0", "--wait", "0")
    assert isinstance(result.exception, PartlyDoneError)
    assert run(*step_in(result.exception, "dead show x x")[1:]).exit_code == 0


@pytest.mark.parametrize("kind", [Malformed, MalformedHeaders, BeyondInbox])
def test_the_next_step_of_a_dead_records_own_error_finds_it(stand: Stand, kind: type[TowpathError]) -> None:
    """It names the record where it lay; show and drop take that."""
    record = stand.broker.records(TOPIC)[0]
    if kind is BeyondInbox:
        done = run(*step_in(BeyondInbox(record), "dead drop x x --reason REASON")[1:], "--yes")
    else:
        error = Malformed(record, "odd") if kind is Malformed else MalformedHeaders(record, "odd")
        done = run(*step_in(error, "dead show x x")[1:])
    assert done.exit_code == 0, done.exception or done.output


def test_all_of_a_topic_is_asked_about(stand: Stand) -> None:
    """Nobody answers here, so nothing is done without --yes."""
    assert "nothing was done" in refused("redrive", TOPIC, "--all").cause
    assert len(stand.broker.records(TOPIC)) == 4
    assert len(told("redrive", TOPIC, "--all", "--yes", "--wait", "0")["redriven"]) == 3


def test_a_drop_frees_the_key_without_applying(stand: Stand) -> None:
    """It wants a reason, which stays; what was parked goes on."""
    assert run("drop", TOPIC, "0:0").exit_code == 2
    done = told("drop", TOPIC, "0:0", "--reason", "a test order", "--wait", "0")
    assert (len(done["dropped"]), len(done["redriven"])) == (1, 2)
    stand.work()
    assert stand.applied == [("o-2", "1"), ("o-1", "2"), ("o-1", "3")]
    assert [row["state"] for row in told("list", "--all")] == ["dropped", "redriven"]
    assert told("show", TOPIC, "0:0")[0]["settled"]["reason"] == "a test order"


def test_a_drop_says_that_the_saga_tries_its_command_again(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is done as after, with what gives the saga up; a redrive and what is no saga's command say nothing."""
    order = saga_id_of("place_order", "o-1")
    said = f"ReserveStock is a command of place_order {order}: dropped, it counts as unanswered there"
    dropping = ("drop", TOPIC, "0:0", "--reason", "a test order", "--wait", "0")
    assert said not in run("redrive", TOPIC, "0:0", "--dry-run").stderr
    assert said in run(*dropping, "--dry-run").stderr
    done = run(*dropping)
    assert done.stderr.count(said) == 1
    monkeypatch.setattr("towpath.stream.broker.kafka.read_records", lambda *_: iter(()))
    cancelled = next_steps.run(ROOT, *step_in(done.stderr, "saga cancel x x --reason ...")).leads_on()
    assert "has no instance" in cancelled.text


def test_a_cause_is_dropped_with_or_without_what_is_parked(stand: Stand) -> None:
    """By fingerprint, asked about; what nobody named stays."""
    (row,) = told("list")
    arguments = ("drop", TOPIC, "--fingerprint", row["fingerprint"], "--reason", "all void")
    assert "nothing was done" in refused(*arguments).cause
    assert [step["would_be"] for step in told(*arguments, "--dry-run")] == ["dropped", "redriven", "redriven"]
    assert len(told(*arguments, "--with-parked", "--yes", "--wait", "0")["dropped"]) == 3
    stand.work()
    assert [record.value for record in stand.broker.records(TOPIC)][4:] == [None, None, None]
    assert stand.applied == [("o-2", "1")]


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        pytest.param(("list", "catalog.comands"), NotFoundError, "catalog.commands", id="misspelt topic"),
        pytest.param(("list", "catalog.events"), NotFoundError, "no dead-letter topic", id="no dead-letter topic"),
        pytest.param(("show", TOPIC, "0:77"), NotFoundError, "no dead letter", id="nothing there"),
        pytest.param(("show", TOPIC, f"{TOPIC}[0]@77"), NotFoundError, "no dead letter", id="never died"),
        pytest.param(("show", TOPIC, "seven"), ConfigurationError, "no position", id="no position"),
        pytest.param(("show", TOPIC, "order.events[0]@1"), ConfigurationError, "another topic", id="another topic"),
        pytest.param(("show", TOPIC), ConfigurationError, "one of POSITION", id="neither"),
        pytest.param(("redrive", TOPIC, "0:0", "--all"), ConfigurationError, "one of POSITION", id="both"),
        pytest.param(("redrive", TOPIC, "--fingerprint", "0"), NotFoundError, "fingerprint", id="unknown fingerprint"),
        pytest.param(("redrive", TOPIC, f"{TOPIC}[0]@3"), RefusedError, "waits itself", id="out of turn"),
    ],
)
def test_a_mistake_is_told(stand: Stand, arguments: tuple[str, ...], kind: type[TowpathError], says: str) -> None:
    """With the exit code of its kind, and what to run instead; nothing was sent."""
    error = refused(*arguments)
    assert isinstance(error, kind)
    assert says in error.cause
    assert error.next_step
    assert len(stand.broker.records(TOPIC)) == 4


def test_a_broker_that_is_away_is_said(stand: Stand) -> None:
    """As an error with what to run, not a traceback."""
    stand.broker.faults.order("metadata", WorldError("no answer"))
    error = refused("list")
    assert isinstance(error, WorldError)
    assert error.next_step == "towpath status"


def forget_the_head(stand: Stand) -> None:
    """Let retention take what the key of o-1 waits for."""
    stand.broker.log_of(TopicPartition(f"{TOPIC}.dead", 0)).expire(1)
    stand.bad = set()


def released(stand: Stand, *arguments: str) -> list[str]:
    """Release the key of o-1 and let its worker read in turn; return what each run ended in."""
    ends = []
    for _ in range(3):
        result = run("release", TOPIC, "o-1", "--reason", "too old", "--wait", "0", *arguments)
        ends.append(type(result.exception).__name__ if result.exception else "done")
        stand.work()
    return ends


def test_a_key_is_released_whose_first_letter_is_gone(stand: Stand) -> None:
    """Redriving says so; the release says what it would do, and does it in as many runs as its worker is late."""
    forget_the_head(stand)
    error = refused("redrive", TOPIC, f"{TOPIC}[0]@1")
    command = f'towpath dead release {TOPIC} o-1 --application app --reason "..."'
    assert isinstance(error, RefusedError)
    assert command in (error.next_step or "")
    assert command in told("show", TOPIC, f"{TOPIC}[0]@1")[0]["next"]
    steps = told("release", TOPIC, "o-1", "--reason", "too old", "--dry-run")
    assert [(step["origin"], step["would_be"]) for step in steps] == [
        (f"{TOPIC}[0]@1", "redriven"),
        (f"{TOPIC}[0]@3", "redriven"),
    ]
    assert len(stand.broker.records(TOPIC)) == 4
    assert released(stand) == ["PartlyDoneError", "PartlyDoneError", "done"]
    assert stand.applied == [("o-2", "1"), ("o-1", "2"), ("o-1", "3")]
    assert told("list") == []
    stand.send("o-1", attempt=4)
    stand.work()
    assert stand.applied[-1] == ("o-1", "4")


def test_a_release_can_give_up_what_is_parked_too(stand: Stand) -> None:
    """Named with its application, where the key waits in several."""
    forget_the_head(stand)
    released(stand, "--with-parked", "--application", "app")
    assert stand.applied == [("o-2", "1")]
    assert {row["state"] for row in told("list", "--all")} >= {"dropped"}


def test_what_is_half_released_is_neither_redriven_nor_dropped(stand: Stand) -> None:
    """What it holds is about to be counted anew; the release is what goes on."""
    forget_the_head(stand)
    run("release", TOPIC, "o-1", "--reason", "too old", "--wait", "0")
    error = refused("drop", TOPIC, f"{TOPIC}[0]@1", "--reason", "x")
    assert isinstance(error, RefusedError)
    assert "release has begun" in error.cause
    assert "towpath dead release" in (error.next_step or "")


def test_what_may_still_come_is_not_released(stand: Stand) -> None:
    """Nothing has ever left the dead-letter topic, so the head is on its way out of a service's database."""
    assert run("release", TOPIC, "o-1").exit_code == 2
    assert isinstance(refused("release", TOPIC, "o-7", "--reason", "x"), NotFoundError)
    assert isinstance(refused("release", TOPIC, "o-1", "--reason", "x", "--application", "b"), NotFoundError)
    stand.broker.create_topic(f"{TOPIC}.dead", 1)  # as if the first letters were not there yet
    stand.send("o-1", attempt=5)
    stand.work()
    error = refused("release", TOPIC, "o-1", "--reason", "x")
    assert isinstance(error, RefusedError)
    assert "towpath capture status" in (error.next_step or "")


def steps(result: Result) -> list[list[str]]:
    """Return the next steps of `dead` that a verb printed, or that its error names."""
    error = result.exception
    text = result.output + (f"\n{error}" if isinstance(error, TowpathError) else "")
    return [[*words[1:]] for line in text.splitlines() for words in commands_in(line) if words[:1] == ("dead",)]


def test_each_next_step_is_run_as_printed_down_to_the_redriving(stand: Stand) -> None:
    """From the list to a letter, from the letter to what moves it; a mistake leads back to the list."""
    (row,) = told("list")
    assert ["show", "TOPIC", "EXAMPLE"] in steps(run("list"))
    (topic, example) = (row["topic"], row["example"])
    shown = run("show", topic, example)
    redrive = next(words for words in steps(shown) if words[0] == "redrive")
    drop = next(words for words in steps(shown) if words[0] == "drop")
    lost = run("show", topic, "0:99")
    assert steps(lost) == [["list", topic]]
    assert run(*steps(lost)[0]).exit_code == 0
    both = run("redrive", topic, example, "--all")
    assert steps(both) == [["list", topic]]
    stand.bad.clear()
    done = run(*redrive, "--wait", "0", "--yes")
    assert done.exit_code == 0, done.exception or done.output
    assert "3 redriven" in done.output
    stand.work()
    assert [text for _, text in stand.applied] == ["1", "1", "2", "3"]
    assert "it was redriven or dropped before" in run(*drop, "--yes").output
    assert run("list").exit_code == 0


def test_the_release_that_is_printed_lets_the_key_go_on(stand: Stand) -> None:
    """Retention has taken the first letter; what is told instead of redriving is run as told."""
    forget_the_head(stand)
    refusing = run("redrive", TOPIC, f"{TOPIC}[0]@1", "--wait", "0", "--yes")
    (release,) = [words for words in steps(refusing) if words[0] == "release"]
    for _ in range(3):
        run(*release, "--wait", "0")
        stand.work()
    assert stand.applied == [("o-2", "1"), ("o-1", "2"), ("o-1", "3")]


def why_of(stand: Stand, monkeypatch: pytest.MonkeyPatch, attempt: str) -> str:
    """Return what `saga why` says of a command of o-1, which its saga waits for."""
    monkeypatch.setattr(Look, "_group", lambda *_: "app")
    monkeypatch.setattr(Look, "_processes", {})
    sent_before = (record for record in stand.broker.records(TOPIC) if record.key == b"o-1")
    record = next(each for each in sent_before if each.header("attempt") == attempt)
    look = Look(load_settings(ROOT, environment=False), "place_order")
    command = look._message("ReserveStock", TOPIC, record, None, None, "service:catalog")
    said = explain(test_why.facts(state=test_why.sent(), asked=test_why.asked(command)))
    return "\n".join(f"{line.sentence}\n{line.command or ''}" for line in said)


def test_why_leads_to_the_letter_that_a_parked_command_waits_for(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its place among the dead letters; of one that is dead itself to that."""
    assert "ReserveStock is a dead letter of payment, 0:0" in why_of(stand, monkeypatch, "1")
    parked = why_of(stand, monkeypatch, "3")
    assert "ReserveStock is parked: its key waits behind the dead letter 0:0" in parked
    shown = run(*step_in(parked, "dead show x x")[1:])
    assert "ZeroDivisionError" in shown.output


def test_why_leads_on_where_the_letter_that_a_command_waits_for_has_expired(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the release of its key, which ends as it is printed; nobody is said to be at work on it."""
    forget_the_head(stand)
    said = why_of(stand, monkeypatch, "3")
    assert f"its key waits behind {TOPIC}[0]@0, whose dead letter retention has taken" in said
    release = step_in(said, "dead release x x --application x --reason ...")
    for _ in range(3):
        run(*release[1:], "--wait", "0")
        stand.work()
    assert stand.applied == [("o-2", "1"), ("o-1", "2"), ("o-1", "3")]


def test_a_letter_whose_record_is_gone_is_dropped_as_printed(stand: Stand) -> None:
    """The record was too large to go with its letter, and has expired where it died."""
    stand.bad = {"o-9"}
    value = CODEC.encode(ReserveStock(order_id="o-9", lines=(StockLine(sku="v" * 1_048_400, quantity=1),)))
    stand.send("o-9", value=value)
    stand.work()
    stand.broker.log_of(TopicPartition(TOPIC, 0)).expire(5)
    shown = run("show", TOPIC, f"{TOPIC}[0]@4")
    done = run(*step_in(shown.output, "dead drop x x --reason 'its record is no longer at x'")[1:], "--yes")
    assert done.exit_code == 0, done.exception or done.output
