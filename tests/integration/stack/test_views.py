"""A view's new version on the real stack, by command: built beside the old one, promoted, taken back, dropped."""

import json
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from schemas.records.identity import CustomerRegistered
from tests.integration.stack.test_running import COMMAND
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath import cli
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.registry import load_codec
from towpath.errors import ConfigurationError, RefusedError
from towpath.orchestrator.envelope import headers_of
from towpath.stack.workers import worker_process
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import Producer

VIEWS = ["tests.integration.stack.customers:first", "tests.integration.stack.customers:second"]
CUSTOMERS = 400


def views(*arguments: str) -> Any:
    """Run a verb of `views` in this process; return its JSON."""
    if not cli.app.registered_groups:
        cli._register()
    answer = CliRunner().invoke(cli.app, ["views", *arguments])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return json.loads(answer.stdout)


def swapped(step: list[str]) -> str:
    """Let readers see another version by a step that is printed; return what is printed then."""
    said = run(ROOT, *step, "--yes", "--timeout", "60").leads_on()
    assert said.code == 0, said.text
    return said.text


def swap_as_printed(customers: "Customers", early: str, built: str) -> None:
    """Promote the new version and take it back, each time by another step that was printed.

    `early` was printed when it was behind, `built` when it had been built.
    """
    customers.register(20)
    promote = step_in(early, "views promote x --version x --when-ready --reason REASON")
    back = swapped(promote)
    customers.register(20)
    swapped(step_in(back, "views rollback x --reason REASON"))
    twice = run(ROOT, "views", "rollback", "customers", "--reason", "t", "--yes").leads_on()
    promote = step_in(twice.text, "views promote x --version VERSION --reason REASON", VERSION="2")
    swapped(step_in(swapped(promote), "views rollback x --reason REASON"))
    swapped(step_in(built, "views promote x --reason REASON"))
    with variables({"TOWPATH_PROJECT__VIEWS": json.dumps(VIEWS[:1])}):  # somebody takes it out of the project
        told = run(ROOT, "views", "status", "customers").leads_on()
        swapped(step_in(told.text, "views promote x --when-ready --reason REASON"))


@contextmanager
def flowing(send: Callable[[], None], *, every_seconds: float) -> Iterator[None]:
    """Send again and again meanwhile, from a thread of its own."""
    stopped = threading.Event()

    def flow() -> None:
        while not stopped.wait(every_seconds):
            send()

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Customers:
    """Registers customers straight into the topic."""

    def __init__(self, stack: RunningStack) -> None:
        self._codec: Codec = load_codec(stack.settings, Catalogue.load(stack.settings), ["identity.events"])
        self._producer: Producer = KafkaBroker(stack.settings.kafka, stack.settings.stream).producer("test-views")
        self._producer.start()
        self.ids: set[str] = set()

    def register(self, count: int) -> None:
        """Register `count` customers in one transaction."""
        self._producer.begin()
        for _ in range(count):
            id_ = str(uuid.uuid4())
            record = CustomerRegistered(customer_id=id_, name="Ada", verified=True)
            headers = headers_of(id=f"event-of-{id_}", type=record.SCHEMA_NAME)
            self._producer.produce("identity.events", self._codec.encode(record), key=id_.encode(), headers=headers)
            self.ids.add(id_)
        self._producer.commit({}, None)

    def close(self) -> None:
        """Close what was opened."""
        self._producer.close()


@contextmanager
def dead_letter_topic(stack: RunningStack) -> Iterator[None]:
    """Give the topic, which has no consumer in the reference project, what a consumer needs."""
    admin = AdminClient({"bootstrap.servers": stack.settings.kafka.bootstrap_servers})
    for future in admin.create_topics([NewTopic("identity.events.dead", 4, 1)]).values():
        future.result()
    try:
        yield
    finally:
        for deleted in admin.delete_topics(["identity.events.dead"]).values():
            deleted.result()


@contextmanager
def worker(stack: RunningStack, name: str, environment: dict[str, str]) -> Iterator[None]:
    """Run a worker of the project with both versions."""
    spec = worker_process(stack.settings, name, "views", environment=environment)
    stack.client.start(spec)
    try:
        stack.client.wait_ready([spec.name], 120)
        yield
    finally:
        stack.client.stop(spec.name)


@contextmanager
def reading(url: str, customers: set[str]) -> Iterator[list[str]]:
    """Poll the view by its stable name all the while; yield what was missing or torn."""
    wrong: list[str] = []
    stopped = threading.Event()

    def poll() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stopped.wait(0.02):
                try:
                    rows = connection.execute("SELECT customer_id, name, registrations FROM customers").fetchall()
                except psycopg.Error as error:
                    wrong.append(str(error))
                    return
                if missing := customers - {row[0] for row in rows}:
                    wrong.append(f"{len(missing)} rows are missing")
                wrong.extend(f"{row} is torn" for row in rows if row[0] in customers and row[1:] != ("Ada", 1))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield wrong
    finally:
        stopped.set()
        thread.join()


def test_a_new_version_is_built_promoted_taken_back_and_dropped_by_command(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While customers register, its build killed on the way; who reads the stable name sees no row missing or torn."""
    environment = {**stack.environment, "TOWPATH_PROJECT__VIEWS": json.dumps(VIEWS)}
    monkeypatch.setenv("TOWPATH_PROJECT__VIEWS", json.dumps(VIEWS))
    monkeypatch.chdir(ROOT)
    url = stack.settings.postgres.database_url("views")
    customers = Customers(stack)
    with ExitStack() as running:
        running.callback(customers.close)
        running.enter_context(dead_letter_topic(stack))
        running.enter_context(worker(stack, "view:customers", environment))
        customers.register(CUSTOMERS)

        # A rehearsal refuses what the run would refuse, and says as much where it would not.
        for arguments in (("--dry-run",), ("--reason", "a test")):
            with pytest.raises(ConfigurationError, match="does not say how a row of it is made"):
                views("build", "customers", "--version", "2", "--from", "snapshot", *arguments, "--json")
        rehearsed = views("build", "customers", "--version", "2", "--from", "topic", "--dry-run", "--json")
        assert (rehearsed["done"], rehearsed["from"]) == (False, "topic")
        assert rehearsed["records"] >= CUSTOMERS
        assert views("status", "customers", "--json")[1]["state"] == "not begun"

        # What is printed is run as printed, from here to the end.
        unbuilt = run(ROOT, "views", "promote", "customers", "--version", "2", "--reason", "t", "--yes").leads_on()
        assert unbuilt.code == 5, unbuilt.text
        command = [*COMMAND, *step_in(unbuilt.text, "views build x --version x"), "--json"]
        options: dict[str, Any] = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **options, stderr=subprocess.PIPE) as killed:
            assert killed.stderr is not None
            assert any("offsets" in line for line in killed.stderr)
            killed.send_signal(signal.SIGKILL)
        # Each transaction ends with a marker: what follows each other closely keeps nobody from having caught up.
        with flowing(lambda: customers.register(1), every_seconds=0.4):
            built = subprocess.run(command, **options, stderr=subprocess.PIPE, check=False, timeout=60)
        assert built.returncode == 0, built.stderr
        assert json.loads(built.stdout)["rows"] >= CUSTOMERS
        for arguments in (("--dry-run",), ("--reason", "a test")):
            with pytest.raises(RefusedError, match="has begun") as begun:
                views("build", "customers", "--version", "2", "--from", "topic", *arguments, "--json")
        assert views(*step_in(begun.value, "views build x --version x")[1:], "--json")["rows"] >= CUSTOMERS
        assert run(ROOT, *step_in(built.stderr, "views diff x")).leads_on().code == 0
        customers.register(20)
        early = run(ROOT, "views", "promote", "customers", "--reason", "t", "--yes", "--timeout", "1").leads_on()
        assert early.code == 6, early.text
        assert run(ROOT, *step_in(early.text, "views status x")).leads_on().code == 0

        running.enter_context(worker(stack, "view:customers@2", environment))
        before = set(customers.ids)
        with reading(url, before) as wrong:
            swap_as_printed(customers, early.text, built.stderr)
        assert wrong == []
        compared = views("diff", "customers", "--json")
        assert (compared["same"], compared["columns_only_new"]) == (True, ["verified"])
        first, second = views("status", "customers", "--json")
        assert (first["published"], second["published"], first["workers"], second["workers"]) == (True, False, 1, 1)
    dropped = views(*step_in(begun.value, "views drop x --version x --reason REASON")[1:], "--yes", "--json")
    assert dropped["done"]
