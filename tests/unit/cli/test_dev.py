"""What `towpath dev` restarts for a save, and how one log shows who says what."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from towpath.cli.dev import Session, _alone, _concerns, _uninterrupted
from towpath.cli.dev_checks import Loaded
from towpath.cli.dev_imports import Imports
from towpath.cli.dev_lines import colour_of, log_lines, proof_line
from towpath.cli.dev_processes import Checks
from towpath.clock import SystemClock, wait_until
from towpath.errors import ConfigurationError, RefusedError
from towpath.scaffold.plan import project_files
from towpath.scaffold.writing import write_missing
from towpath.settings import load_settings
from towpath.stack.client import StackClient
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
    "schemas/__init__.py": "",
    "schemas/records/__init__.py": "",
    "schemas/records/order.py": "",
    "schemas/records/payment.py": "",
}
WORKERS: dict[str, tuple[str, ...]] = {
    "saga:place_order": ("sagas.place_order",),
    "service:order": ("pipelines.services.order",),
    "service:payment": ("pipelines.services.payment",),
}


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        ("sagas/rules.py", {"saga:place_order"}),
        ("schemas/records/order.py", {"saga:place_order", "service:order"}),
        ("schemas/records/payment.py", {"saga:place_order"}),
        ("pipelines/services/order/service.py", {"service:order"}),
        ("pipelines/services/payment/__init__.py", {"service:payment"}),
        ("schemas/__init__.py", {"saga:place_order", "service:order"}),
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
    assert _concerns(tmp_path, tmp_path / place) is counts


def test_a_line_says_who_and_what() -> None:
    """A worker's JSON in words, with its facts; Faust's own services are quiet, and their warnings are not."""
    said = {"event": "upkeep", "level": "info", "logger": "towpath.participant", "service": "order", "held_back": None}
    (line,) = log_lines("service:order", 14, json.dumps(said))
    assert line.plain == "service:order   upkeep  service=order"
    assert colour_of("service:order") in str(line.spans)
    chatter = {"event": "Starting...", "level": "info", "logger": "mode.worker"}
    assert list(log_lines("service:order", 14, json.dumps(chatter))) == []
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
        assert any("every property holds" in line for line in checks.prove()())
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


class Ready(StackClient):
    """A stack in which each worker runs."""

    def __init__(self) -> None:
        pass

    def status(self) -> dict[str, ProcessStatus]:
        return {name: ProcessStatus(name, Group.WORKER, State.READY, "1", (), "", 1, 1.0, 1, None) for name in WORKERS}


class Unproved(Checks):
    """Checks that find nothing."""

    def prove(self) -> Callable[[], tuple[str, ...]]:
        return tuple


class Saves(Session):
    """A session whose project stands as it is told, and which notes what it restarts."""

    def __init__(self, root: Path) -> None:
        super().__init__(load_settings(root))
        self._checks = Unproved(root)
        self.stands = Loaded(workers=WORKERS)
        self.refuses = False
        self.restarted: list[str] = []

    def _look(self) -> Loaded:
        return self.stands

    def _provide(self, *_: object) -> None:
        if self.refuses:
            raise ConfigurationError("a migration is wrong")

    def _restart(self, names: Iterable[str]) -> None:
        self.restarted = sorted(names)

    def _start(self, *_: object) -> None:
        pass

    def _await(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("wrong", ["a file cannot be imported", "a migration cannot be applied"])
def test_what_was_saved_while_another_file_was_wrong_runs_once_that_is_mended(tmp_path: Path, wrong: str) -> None:
    """Its worker went on with the old code, and nothing said so: only the file that was saved last counted."""
    for name, text in {**FILES, "towpath.toml": '[project]\nname = "shop"\n'}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    session, client = Saves(tmp_path), Ready()
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
