"""What a command tells a person to run next, run as printed: in a new project, and in this one without a stack."""

import asyncio
from pathlib import Path

import fastavro
import pytest

from tests.commands import CODEC
from tests.next_steps import Case, Step, check, follow, run, step_in
from tests.stack_fixture import ROOT, stack_environment
from tests.unit.stream.support import SETTINGS
from towpath.contract.catalogue import Catalogue
from towpath.errors import ProgrammerError
from towpath.settings import load_settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.faust_app.transport import Consumer

ELSEWHERE = {"up": "tests/integration/whole_stacks/test_up.py", "demo": "tests/acceptance/test_demo.py"}
"""Needs the parts; the ring on real parts runs it."""

OF_THIS_PROJECT = (
    Case("run nobody", 5, (Step("run", says="saga:place_order"),)),
    Case("migrate order", 1, (Step("status", 1, "not running"),)),
    Case("provision", 1, (Step("logs postgres", 5, "towpath up"),)),
    Case("capture status order", 1, (Step("status", 1, "not running"),)),
    Case("views list", 1, (Step("status", 1, "not running"),)),
    Case("contracts diff HERE/unread.json HERE/unread.json", 3, (Step("contracts snapshot HERE/unread.json"),)),
    Case("contracts diff HERE/other.json HERE/other.json", 3, (Step("contracts snapshot FILE"),)),
    Case("saga upgrade place_order@77 place_order@78", 5, ()),
    Case("contracts release nothing", 3, (Step("contracts test", says="every promise holds"),)),
    Case("saga show nobody o-1", 5, ()),
    Case("saga list nobody", 5, ()),
    Case("saga skip place_order o-1 --reason t --reply PaymentAuthorised --value '{bad'", 2, ()),
    Case("saga signal place_order o-1 OrderApproved --value '{bad'", 2, ()),
    Case("saga cancel place_order --file HERE/none --reason t", 2, ()),
)
"""In this project, whose stack was never started; HERE is a folder of the test's own."""

WITH_NOTHING_ORDERED = (
    Case("saga show place_order o-1", 5, (Step("saga list place_order"),)),
    Case("saga history place_order o-1", 5, (Step("saga list place_order"),)),
    Case("saga cancel place_order o-1 --reason t", 5, (Step("saga list place_order"),)),
    Case("saga retry place_order --reason t", 5, (Step("saga list place_order --stuck"),)),
    Case("dead show catalog.commands 0:0", 5, (Step("dead list catalog.commands"),)),
    Case("saga why nobody o-1", 5, (Step("saga list"),)),
    Case("dead show catalog.comands 0:0", 5, (Step("dead list"),)),
    Case("dead show identity.events 0:0", 5, (Step("dead list"),)),
    Case(
        "replay shadow place_order --with place_order --from HERE/none",
        5,
        (Step("replay capture NAME --output FILE", says="0 runs"),),
    ),
    Case(
        "saga upgrade place_order@1 tests/acceptance/newer/place_order.py --instances HERE/none",
        2,
        (Step("saga export NAME --output FILE"),),
    ),
    Case(
        "saga upgrade place_order@1 tests/acceptance/newer/place_order.py --apply --reason t --yes",
        5,
        (Step("saga versions place_order"),),
    ),
    Case("replay plan --topic catalog.commands.dead", 6, (Step("dead redrive catalog.commands --all", 6, "--yes"),)),
    Case("replay plan --from HERE/none", 5, (Step("replay plan --topic TOPIC --to-file FILE"),)),
    Case("replay plan --from HERE/other.avro", 2, (Step("replay plan --topic TOPIC --to-file FILE.avro"),)),
)
"""In this project, with topics that hold nothing yet (a broker in memory)."""

IN_A_FOLDER = (Case("compose --check", 3, (Step("compose", says="wrote docker-compose.yml"),)),)
"""In a folder that has a towpath.toml and nothing else."""

CASES = (*OF_THIS_PROJECT, *WITH_NOTHING_ORDERED, *IN_A_FOLDER)


@pytest.fixture
def new_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that has a towpath.toml and nothing else."""
    for name, value in stack_environment(tmp_path / "stack").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "towpath.toml").write_text('[project]\nname = "myshop"\n', encoding="utf-8")
    return tmp_path


@pytest.fixture
def without_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this project, whose stack was never started."""
    for name, value in stack_environment(tmp_path / "stack").items():
        monkeypatch.setenv(name, value)
    return ROOT


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("status",), 1, "towpath up"),
        (("down",), 0, "it was not running"),
        (("doctor",), 0, "towpath up"),
        (("logs", "kafka"), 5, "towpath up"),
        (("run",), 0, ""),
        (("capture", "status", "order"), 2, "there is no service order"),
        (("saga", "show", "place_order", "x"), 3, "no topic is declared"),
        (("contracts", "test"), 3, "put the Avro files there"),
        (("demo",), 2, "this project has no demo"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_new_project_is_led_on(new_project: Path, words: tuple[str, ...], code: int, says: str) -> None:
    """Whatever is tried first, what it says is understood and leads on."""
    first, _ = follow(run, new_project, *words, elsewhere=ELSEWHERE)
    assert first.code == code, first.text
    assert says in first.text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("status",), 1, "towpath up"),
        (("down",), 0, "it was not running"),
        (("logs", "kafka"), 5, "towpath up"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_project_without_a_stack_is_led_on(without_stack: Path, words: tuple[str, ...], code: int, says: str) -> None:
    """Where the parts are not there, that is said, and what to run is understood."""
    first, _ = follow(run, without_stack, *words, elsewhere=ELSEWHERE)
    assert first.code == code, first.text
    assert says in first.text


@pytest.mark.parametrize("case", OF_THIS_PROJECT, ids=lambda case: case.words)
def test_what_this_project_prints_without_a_stack_is_run_as_printed(
    without_stack: Path, tmp_path: Path, case: Case
) -> None:
    """Each next step of the table, in the state in which it is printed."""
    (tmp_path / "unread.json").write_text("{", encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    check(case.at(tmp_path), run, without_stack, tmp_path)


@pytest.mark.parametrize("case", IN_A_FOLDER, ids=lambda case: case.words)
def test_what_is_printed_in_a_new_folder_is_run_as_printed(new_project: Path, case: Case) -> None:
    """Each next step of the table."""
    check(case, run, new_project, new_project)


@pytest.mark.parametrize("case", WITH_NOTHING_ORDERED, ids=lambda case: case.words)
def test_what_is_printed_where_nothing_was_ordered_is_run_as_printed(
    without_stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """Each next step of the table."""
    broker = MemoryBroker(SETTINGS)
    for topic in Catalogue.load(load_settings(ROOT, environment=False)).topics.values():
        broker.create_topic(topic.name, 1)
    monkeypatch.setattr("towpath.stream.broker.kafka.KafkaBroker", lambda *_: broker)
    monkeypatch.setattr("towpath.stream.broker.kafka.read_records", lambda *_: iter(()))
    monkeypatch.setattr("towpath.contract.registry.load_codec", lambda *_: CODEC)
    with (tmp_path / "other.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Other", "fields": []}, [])
    check(case.at(tmp_path), run, without_stack, tmp_path)


def test_an_agent_that_seeks_is_sent_to_the_noun_that_replays() -> None:
    """Its verbs are shown."""
    with pytest.raises(ProgrammerError) as refused:
        asyncio.run(Consumer.seek_wait(object.__new__(Consumer), {}))
    said = run(ROOT, *step_in(refused.value, "replay")).leads_on()
    assert ("plan" in said.text, "shadow" in said.text) == (True, True), said.text
