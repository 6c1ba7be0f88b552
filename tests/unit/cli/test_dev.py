"""What `towpath dev` restarts for a save, and how one log shows who says what."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from towpath.cli import dev, dev_processes
from towpath.cli.dev import Session, _alone, _uninterrupted
from towpath.cli.dev_checks import Loaded
from towpath.cli.dev_imports import Imports
from towpath.cli.dev_lines import colour_of, log_lines, proof_line
from towpath.cli.dev_processes import Checks
from towpath.cli.dev_saves import Saves, concerns
from towpath.clock import SystemClock, wait_until
from towpath.errors import ConfigurationError, RefusedError, WorldError
from towpath.scaffold.plan import project_files
from towpath.scaffold.writing import write_missing
from towpath.settings import load_settings
from towpath.stack.client import ProcessFailed, StackClient
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, ProcessStatus, State

FILES = {
    "sagas/__init__.py": "",
    "sagas/place_order.py": "from schemas.records.order import OrderPlaced\nfrom sagas import rules\n",
    "sagas/rules.py": "import schemas.records.payment\n",
    "pipelines/__init__.py": "",
    "pipelines/services/__init__.py": "",
    "pipelines/services/order/__init__.py": "from pipelines.services.order.service import service\n",
    "pipelines/services/order/service.py": "from schemas.records.order import OrderPlaced\n",
    "pipelines/services/payment/__init__.py": "from pipelines.services.payment.service import service\n",
    "pipelines/services/payment/service.py": "def broken(:\n",
    "pipelines/services/stock/__init__.py": "from .service import service\n",
    "pipelines/services/stock/service.py": "from . import rules\nfrom ...shared import units\nimport common.money\n",
    "pipelines/services/stock/rules.py": "",
    "pipelines/shared/units.py": "",
    "common/money.py": "from rounding import half_even\n",
    "rounding.py": "",
    "place_orders.py": "import sagas.place_order\n",
    "schemas/__init__.py": "",
    "schemas/records/__init__.py": "",
    "schemas/records/order.py": "",
    "schemas/records/payment.py": "",
}
WORKERS: dict[str, tuple[str, ...]] = {
    "saga:place_order": ("sagas.place_order",),
    "service:order": ("pipelines.services.order",),
    "service:payment": ("pipelines.services.payment",),
    "service:stock": ("pipelines.services.stock",),
}


def first_of(ask: Callable[[], Iterable[Any] | None], seconds: float) -> list[Any]:
    """Return the first that is found, nothing after so long."""
    found: list[Any] = []

    def asks() -> bool:
        found.extend(ask() or ())
        return bool(found)

    wait_until(SystemClock(), asks, seconds=seconds, every_seconds=0.05)
    return found


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        ("sagas/rules.py", {"saga:place_order"}),
        ("schemas/records/order.py", {"saga:place_order", "service:order"}),
        ("schemas/records/payment.py", {"saga:place_order"}),
        ("pipelines/services/order/service.py", {"service:order"}),
        ("pipelines/services/payment/__init__.py", {"service:payment"}),
        ("schemas/__init__.py", {"saga:place_order", "service:order"}),
        ("pipelines/services/stock/service.py", {"service:stock"}),
        ("pipelines/services/stock/rules.py", {"service:stock"}),
        ("pipelines/shared/units.py", {"service:stock"}),
        ("common/money.py", {"service:stock"}),
        ("rounding.py", {"service:stock"}),
        ("common", {"service:stock"}),
        ("place_orders.py", set()),
    ],
)
def test_a_save_concerns_those_who_import_the_file(tmp_path: Path, changed: str, concerned: set[str]) -> None:
    """Directly, through others, or as a package on the way; a file that is no Python at the moment imports nothing."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    imports = Imports(tmp_path, ("sagas", "pipelines", "schemas"))
    assert imports.concerned(WORKERS, [tmp_path / changed]) == concerned
    assert imports.beside == {"common", "rounding.py"}


@pytest.mark.parametrize(
    ("place", "counts"),
    [
        ("sagas/place_order.py", True),
        ("schemas/avro/order/OrderPlaced.avsc", True),
        ("infra/postgres/order.sql", True),
        ("schemas/records/order.py", False),
        ("schemas/topics/_derived.yaml", False),
        ("sagas/__pycache__/place_order.cpython-311.pyc", False),
        ("sagas/.place_order.py.swp", False),
        ("pipelines/notes.md", False),
    ],
)
def test_only_what_people_write_counts_as_a_save(tmp_path: Path, place: str, counts: bool) -> None:
    """What is generated would else be a save of its own, for ever."""
    assert concerns(tmp_path, tmp_path / place) is counts


def test_a_line_says_who_and_what() -> None:
    """A worker's JSON in words, with its facts; Faust's own services are quiet, and their warnings are not."""
    said = {"event": "upkeep", "level": "info", "logger": "towpath.participant", "service": "order", "held_back": None}
    (line,) = log_lines("service:order", 14, json.dumps(said))
    assert line.plain == "service:order   upkeep  service=order"
    assert colour_of("service:order") in str(line.spans)
    chatter = {"event": "Starting...", "level": "info", "logger": "mode.worker"}
    assert list(log_lines("service:order", 14, json.dumps(chatter))) == []
    theirs = {**chatter, "event": "[^--Consumer]: Starting...", "logger": "towpath.stream.faust_app.transport"}
    assert list(log_lines("service:order", 14, json.dumps(theirs))) == []
    assert len(list(log_lines("service:order", 14, json.dumps({**chatter, "level": "warning"})))) == 1
    assert [line.plain for line in log_lines("a", 1, "Traceback")] == ["a  Traceback"]


def test_what_is_wrong_stands_out() -> None:
    """In red, without the mark that tells it from what is well."""
    wrong, well = proof_line(5, "! saga x: it is stuck"), proof_line(5, "contracts hold: 2 records, 1 topics")
    assert (wrong.plain, well.plain) == ("check  saga x: it is stuck", "check  contracts hold: 2 records, 1 topics")
    assert "red" in str(wrong.spans)
    assert "red" not in str(well.spans)


def test_each_save_is_imported_anew_and_can_end_nothing(tmp_path: Path) -> None:
    """What a module does at import, it does to a process of its own; what it says next time is what its file says."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    checks = Checks(tmp_path)
    try:
        first = checks.load()
        assert first.problem == ""
        assert "schemas/topics/_derived.yaml" in first.written
        assert sorted(first.workers) == [
            "saga:place_order",
            "service:order",
            "service:payment",
            "view:order_status",
            "view:sagas",
        ]
        saga = tmp_path / "sagas" / "place_order.py"
        good = saga.read_text(encoding="utf-8")
        saga.write_text("import os\nos._exit(3)\n", encoding="utf-8")
        assert "ended the process" in checks.load().problem
        saga.write_text(good.replace("undo=Undo(", "undo=Undoo("), encoding="utf-8")
        assert "name 'Undoo' is not defined" in checks.load().problem
        saga.write_text(good, encoding="utf-8")
        assert checks.load().problem == ""
        checks.prove()
        proved = first_of(checks.proof, 50)
        assert any("every property holds" in line for line in proved)
        assert checks.proof() is None  # it is told once
        checks.prove()  # and is not waited for
    finally:
        checks.close()


def test_an_interrupt_waits_for_no_check(tmp_path: Path) -> None:
    """Ctrl-C while the project is imported, however long that takes: what imports it is ended."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    begun = tmp_path / "begun"
    slow = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)\n"
    (tmp_path / "sagas" / "place_order.py").write_text(slow, encoding="utf-8")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def press(main: int) -> None:
        wait_until(SystemClock(), begun.exists, seconds=50, every_seconds=0.05)
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    threading.Thread(target=press, args=(threading.get_ident(),)).start()
    checks = Checks(tmp_path)
    try:
        with pytest.raises(KeyboardInterrupt):
            checks.load()
        checks.close()
        assert time.time() - begun.stat().st_mtime < 50
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_import_that_hangs_is_given_up_for_the_save_that_fixes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and what was generated before it counts; threads that a project leaves hold up nobody."""
    monkeypatch.setattr(dev_processes, "LOAD_SECONDS", 1.0)
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    saga, long = tmp_path / "sagas" / "place_order.py", list[str]()
    good = saga.read_text(encoding="utf-8")
    saga.write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    checks = Checks(tmp_path)
    try:
        found = checks.load(lambda: bool(long), lambda: long.append("it takes long"))
        assert found.was_cut
        assert "schemas/records/order.py" in found.written
        assert long == ["it takes long"]
        saga.write_text(f"import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n{good}")
        assert checks.load().problem == ""
    finally:
        checks.close()


class Stack(StackClient):
    """A stack in which each worker stands as it is told, READY unless told otherwise."""

    def __init__(self, **states: State) -> None:
        self.states = dict.fromkeys(WORKERS, State.READY) | {f"service:{name}": one for name, one in states.items()}
        self.orders: list[str] = []

    def status(self) -> dict[str, ProcessStatus]:
        return {
            name: ProcessStatus(name, Group.WORKER, state, "1", (), "", 1, 1.0, 1, "was killed by SIGKILL")
            for name, state in self.states.items()
        }

    def stop(self, name: str) -> None:
        self.orders.append(f"stop {name}")

    def failure(self, name: str, what: str) -> ProcessFailed:
        return ProcessFailed(what)


class Unproved(Checks):
    """Checks that find nothing."""

    def prove(self) -> None:
        pass


class Told(Session):
    """A session whose project stands as it is told, and which notes what it does and says."""

    def __init__(self, root: Path) -> None:
        super().__init__(load_settings(root))
        self._checks = Unproved(root)
        self.stands = Loaded(workers=WORKERS)
        self.refuses = False
        self.restarted: list[str] = []
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.said: list[str] = []

    def say(self, who: str, text: str, style: str = "") -> None:
        self.said.append(f"{who} {text}")

    def _look(self) -> Loaded:
        return self.stands

    def _provide(self, *_: object) -> None:
        if self.refuses:
            raise ConfigurationError("a migration is wrong")

    def _side_by_side(self, order: Callable[[StackClient, str], None], names: Iterable[str]) -> None:
        if order is StackClient.stop:
            self.stopped = sorted(names)
        else:
            self.restarted = sorted(names)

    def _start(self, client: StackClient, names: Iterable[str]) -> None:
        self.started = sorted(names)


@pytest.fixture
def session(tmp_path: Path) -> Told:
    """Return a session over `FILES`."""
    for name, text in {**FILES, "towpath.toml": '[project]\nname = "shop"\n'}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Told(tmp_path)


@pytest.mark.parametrize("wrong", ["a file cannot be imported", "a migration cannot be applied"])
def test_what_was_saved_while_another_file_was_wrong_runs_once_that_is_mended(
    session: Told, tmp_path: Path, wrong: str
) -> None:
    """Its worker went on with the old code, and nothing said so: only the file that was saved last counted."""
    client = Stack()
    session._take(client, session.stands)
    session.stands = Loaded("sagas.rules cannot be imported" if "import" in wrong else "", workers=WORKERS)
    session.refuses = "migration" in wrong
    session._saved(client, [tmp_path / "pipelines/services/order/service.py"])
    assert session.restarted == []
    session.stands, session.refuses = Loaded(workers=WORKERS), False
    session._saved(client, [tmp_path / "sagas/rules.py"])
    assert session.restarted == ["saga:place_order", "service:order"]
    session._saved(client, [tmp_path / "sagas/rules.py"])
    assert session.restarted == ["saga:place_order"]


def test_workers_that_ran_already_begin_anew(session: Told) -> None:
    """They ran what the files had said when another session began them, and nothing said so."""
    session._take(Stack(order=State.STOPPED), session.stands)
    assert session.stopped == ["saga:place_order", "service:payment", "service:stock"]
    assert session.started == sorted(WORKERS)


def test_a_worker_that_died_is_tried_at_once_after_a_save(session: Told, tmp_path: Path) -> None:
    """The save may be its fix: it waited out the pause before its next start, and was told as dead again."""
    session._take(Stack(), session.stands)
    session._saved(Stack(order=State.WAITING, payment=State.FAILED), [tmp_path / "sagas/rules.py"])
    assert session.restarted == ["saga:place_order", "service:order"]
    assert session.started == ["service:payment"]


@pytest.mark.parametrize("is_a_version", [True, False])
def test_a_file_that_was_removed_concerns_those_who_ran_it(session: Told, tmp_path: Path, is_a_version: bool) -> None:
    """A saga's version, or a module that another one imports only where it is there: its worker went on with it."""
    rules, client = tmp_path / "sagas/rules.py", Stack()
    if is_a_version:
        session.stands = Loaded(workers={**WORKERS, "saga:place_order": ("sagas.place_order", "sagas.rules")})
    session._take(client, session.stands)
    rules.unlink()
    session.stands = Loaded(workers=WORKERS)
    session._saved(client, [rules])
    assert session.restarted == ["saga:place_order"]


def test_a_worker_is_awaited_beside_the_saves(session: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that dies is told once, and when it runs after all; one that is only slow, too."""
    client = Stack(order=State.WAITING, payment=State.STARTING)
    session._await(client, ["service:order", "service:payment", "service:stock"], None)
    for _ in range(2):
        session._tell_started(client)
    assert session.said == ["service:order service:order was killed by SIGKILL", "service:stock runs"]
    monkeypatch.setattr(dev, "READY_SECONDS_MAX", 0.0)
    session._await(client, ["service:payment"], None)
    session._tell_started(client)
    assert "is not ready after" in session.said[-1]
    client.states.update({"service:order": State.READY, "service:payment": State.READY})
    session._tell_started(client)
    assert session.said[-2:] == ["service:order runs", "service:payment runs"]
    assert session._awaited == {}


def test_what_earlier_sessions_said_is_not_shown_again(session: Told) -> None:
    """It looked as if it happened now."""
    log = Home(session._settings.stack_home).log_file("service:order")
    log.parent.mkdir(parents=True)
    log.write_text("of yesterday\n", encoding="utf-8")
    session._pass_earlier_logs()
    with log.open("a", encoding="utf-8") as file:
        file.write("of now\n")
    assert session._read_on(log) == ["of now"]


def test_every_way_to_save_is_seen(session: Told, tmp_path: Path) -> None:
    """Also where an editor puts a new file in its place, what is imported from beside, and what is there only later."""
    session.stands = Loaded(workers=WORKERS)
    saves = Saves(tmp_path)
    saves.follow(Imports(tmp_path, dev.CODE).beside)
    saves.begin()

    def swap(name: str) -> None:
        (tmp_path / ".new").write_text(f"# {time.monotonic_ns()}", encoding="utf-8")
        (tmp_path / ".new").replace(tmp_path / name)

    def seen(name: str, seconds: float = 10.0) -> bool:
        return first_of(saves.take, seconds) == [tmp_path / name]

    try:
        time.sleep(0.5)
        for name in ("towpath.toml", "towpath.toml", "rounding.py", "rounding.py", "common/money.py", "sagas/rules.py"):
            swap(name)
            assert seen(name), name
        (tmp_path / "towpath.toml").unlink()
        assert seen("towpath.toml")
        swap("towpath.toml")
        assert seen("towpath.toml")
        (tmp_path / "infra/postgres").mkdir(parents=True)
        swap("infra/postgres/order.sql")
        assert seen("infra/postgres/order.sql")
        (tmp_path / "sagas/4913").touch()  # as vim does, to see whether it may
        (tmp_path / "sagas/4913").unlink()
        (tmp_path / "sagas/__pycache__").mkdir()
        old = tmp_path / "pipelines/services/order"
        old.rename(old.with_name("orders"))
        moved = {folder / name for folder in (old, old.with_name("orders")) for name in ("__init__.py", "service.py")}
        assert set(first_of(saves.take, 10.0)) == moved
        swap("place_orders.py")
        assert not seen("place_orders.py", 1.0)
    finally:
        saves.close()


def test_what_is_saved_while_another_folder_begins_to_be_watched_is_seen(
    session: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost: between two watches there are no events. So was what went with its folder."""
    session.stands = Loaded(workers=WORKERS)
    service = tmp_path / "pipelines/services/order"
    schema = tmp_path / "infra/postgres/order.sql"
    watch = watchfiles.watch

    def watch_late(*folders: Path, **options: Any) -> Iterable[Any]:
        if schema.parent in folders:
            service.rename(service.with_name("orders"))
        return watch(*folders, **options)

    monkeypatch.setattr(watchfiles, "watch", watch_late)
    saves = Saves(tmp_path)
    saves.begin()
    try:
        schema.parent.mkdir(parents=True)
        schema.write_text("", encoding="utf-8")
        moved = [
            folder / name for folder in (service, service.with_name("orders")) for name in ("__init__.py", "service.py")
        ]
        seen = first_of(saves.take, 10.0)
        if len(seen) < 1 + len(moved):  # a look may come between the two
            seen += first_of(saves.take, 10.0)
        assert sorted(seen) == sorted([schema, *moved])
        assert first_of(saves.take, 1.0) == []
    finally:
        saves.close()


def test_what_cannot_be_watched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system's limit of watches is reached: it ended in a traceback."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", refuse)
    saves = Saves(tmp_path)
    saves.begin()
    with pytest.raises(WorldError, match="watch limit") as refused:
        saves.any(10.0)
    assert "WATCHFILES_FORCE_POLLING=1 towpath dev" in str(refused.value.next_step)


def test_one_stack_has_one_dev_at_a_time(tmp_path: Path) -> None:
    """A second one ran beside the first, and its Ctrl-C stopped the workers of both."""
    with _alone(tmp_path):
        with pytest.raises(RefusedError) as refused, _alone(tmp_path):
            pass
        assert str(os.getpid()) in refused.value.cause
    with _alone(tmp_path):
        pass


def test_a_syntax_error_is_told_with_its_place_in_the_file(tmp_path: Path) -> None:
    """It named a line of Python's own importer."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    service = tmp_path / "pipelines/services/payment/service.py"
    service.write_text("def broken(:\n", encoding="utf-8")
    checks = Checks(tmp_path)
    problem = checks.load().problem
    checks.close()
    assert f"({service}:1)" in problem
    assert "importlib" not in problem


def test_a_second_interrupt_does_not_cut_the_stop_short() -> None:
    """It left half of the workers running, without a word; once all has stopped, interrupts are interrupts again."""
    # Where these tests run in the background of a shell, they have begun with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with _uninterrupted():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
