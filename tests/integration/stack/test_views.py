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
from tests.integration.stack import customers as customers_of
from tests.integration.stack.test_running import COMMAND
from tests.integration.stack.test_supervisor import eventually
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath import cli
from towpath.client import Client
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.registry import load_codec
from towpath.errors import ConfigurationError, NotFoundError, RefusedError, WorldError
from towpath.orchestrator.envelope import headers_of
from towpath.orchestrator.sagas_view import NAME, sagas_view
from towpath.stack.supervisor.spec import State
from towpath.stack.workers import start_workers, worker_process
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import Producer
from towpath.view.reads.postgres import ViewReader
from towpath.view.versions.postgres import published_version

VIEWS = ["tests.integration.stack.customers:first", "tests.integration.stack.customers:second"]
THIRD = "tests.integration.stack.customers:third"
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
    swapped(step_in(built, "views promote x --version x --reason REASON"))
    with variables({"TOWPATH_PROJECT__VIEWS": json.dumps(VIEWS[:1])}):  # somebody takes it out of the project
        told = run(ROOT, "views", "status", "customers").leads_on()
        swapped(step_in(told.text, "views promote x --when-ready --reason REASON"))


def rehearse() -> None:
    """Build in rehearsal: it refuses what the run would refuse, and says as much where it would not."""
    for arguments in (("--dry-run",), ("--reason", "a test")):
        with pytest.raises(ConfigurationError, match="does not say how a row of it is made"):
            views("build", "customers", "--version", "2", "--from", "snapshot", *arguments, "--json")
    rehearsed = views("build", "customers", "--version", "2", "--from", "topic", "--dry-run", "--json")
    assert (rehearsed["done"], rehearsed["from"]) == (False, "topic")
    assert rehearsed["records"] >= CUSTOMERS
    assert views("status", "customers", "--json")[1]["state"] == "not begun"


def bring_up_what_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare a version with one that is too far behind for it: refused, and built on as printed."""
    with monkeypatch.context() as few:
        few.setattr("towpath.cli.views.FLUX_RECORDS_MAX", 0)
        far = run(ROOT, "views", "diff", "customers", "--timeout", "1").leads_on()
    assert (far.code, "records apart" in far.text) == (6, True), far.text
    assert run(ROOT, *step_in(far.text, "views build x --version x")).leads_on().code == 0


def show_what_differs(url: str, customer: str) -> None:
    """Falsify a row of the new version: the comparison fails, and the one that it names shows the row."""
    falsify = "UPDATE customers_v2 SET name = %s WHERE customer_id = %s"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(falsify, ("Eve", customer))
        failed = run(ROOT, "views", "diff", "customers", "--fail", "--samples", "0").leads_on()
        assert (failed.code, "Eve" in failed.text) == (1, False), failed.text
        shown = run(ROOT, *step_in(failed.text, "views diff x --samples 100")).leads_on()
        assert (shown.code, "Eve" in shown.text) == (0, True), shown.text
        connection.execute(falsify, ("Ada", customer))


def go_back_to_rows_that_stand_still(stack: RunningStack, worker_of_the_old: str, customers: "Customers") -> None:
    """Take the new version back where nobody folds the old one any more: refused, and done by what is printed."""
    swapped(["views", "promote", "customers", "--version", "2", "--reason", "t"])
    stack.client.stop(worker_of_the_old)
    customers.register(5)
    refused = run(ROOT, "views", "rollback", "customers", "--reason", "t", "--yes", "--timeout", "1").leads_on()
    assert refused.code == 6, refused.text
    swapped(step_in(refused.text, "views rollback x --force --reason REASON"))


def build_what_no_rows_stand_for() -> None:
    """Begin a version with the rows of one that folds a topic less: refused, and built as printed."""
    with variables({"TOWPATH_PROJECT__VIEWS": json.dumps([*VIEWS, THIRD])}):
        snapshot = ("--version", "3", "--from", "snapshot", "--reason", "t")
        refused = run(ROOT, "views", "build", "customers", *snapshot).leads_on()
        assert refused.code == 6, refused.text
        built = run(ROOT, *step_in(refused.text, "views build x --version x --from topic --reason REASON")).leads_on()
        assert built.code == 0, built.text
        assert views("drop", "customers", "--version", "3", "--reason", "t", "--yes", "--json")["done"]


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
def worker(stack: RunningStack, name: str, environment: dict[str, str]) -> Iterator[str]:
    """Run a worker of the project with both versions; yield the name of its process."""
    spec = worker_process(stack.settings, name, "views", environment=environment)
    stack.client.start(spec)
    try:
        stack.client.wait_ready([spec.name], 120)
        yield spec.name
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
        first_worker = running.enter_context(worker(stack, "view:customers", environment))
        customers.register(CUSTOMERS)

        rehearse()

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
        step_in(early.text, "views build x --version x")  # nobody folds it; it is run below
        unknown = run(ROOT, "views", "promote", "customers", "--version", "9", "--reason", "t", "--yes").leads_on()
        assert run(ROOT, *step_in(unknown.text, "views status x")).leads_on().code == 0
        bring_up_what_is_far_behind(monkeypatch)

        running.enter_context(worker(stack, "view:customers@2", environment))
        before = set(customers.ids)
        with reading(url, before) as wrong:
            swap_as_printed(customers, early.text, built.stderr)
        assert wrong == []
        compared = views("diff", "customers", "--json")
        assert (compared["same"], compared["columns_only_new"]) == (True, ["verified"])
        first, second = views("status", "customers", "--json")
        assert (first["published"], second["published"], first["workers"], second["workers"]) == (True, False, 1, 1)
        show_what_differs(url, next(iter(before)))
        go_back_to_rows_that_stand_still(stack, first_worker, customers)
        build_what_no_rows_stand_for()
    dropped = views(*step_in(begun.value, "views drop x --version x --reason REASON")[1:], "--yes", "--json")
    assert dropped["done"]


@contextmanager
def running_as_printed(step: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Run a worker by a step that was printed."""
    with subprocess.Popen([*COMMAND, *step], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def test_what_nobody_may_read_yet_is_served_by_the_worker_that_is_named(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that is not built, and the view of instances as an older release kept it."""
    environment = {**stack.environment, "TOWPATH_PROJECT__VIEWS": json.dumps(VIEWS)}
    monkeypatch.setenv("TOWPATH_PROJECT__VIEWS", json.dumps(VIEWS))
    monkeypatch.chdir(ROOT)
    reader, client = ViewReader(stack.settings, customers_of.first), Client.load()
    url = stack.settings.postgres.database_url("views")
    with psycopg.connect(url, autocommit=True) as connection, dead_letter_topic(stack):
        connection.execute("DROP VIEW IF EXISTS customers")
        with pytest.raises(NotFoundError) as unbuilt:
            reader.get("nobody")
        with running_as_printed(step_in(unbuilt.value, "run view:x"), environment):
            assert eventually(lambda: published_version(connection, "customers") == 1, 60)
        assert reader.get("nobody").row is None

        own = worker_process(stack.settings, "view:sagas").name
        is_running = own in stack.client.status() and stack.client.status()[own].state is State.READY
        if is_running:
            stack.client.stop(own)
        connection.execute(f"DROP VIEW IF EXISTS {NAME}; DROP TABLE IF EXISTS {NAME}_v1")
        connection.execute(
            f"CREATE TABLE {NAME}_v1 (saga_id text PRIMARY KEY, saga text, key text, started_at timestamptz)"
        )
        connection.execute(f"CREATE VIEW {NAME} AS SELECT * FROM {NAME}_v1")
        with pytest.raises(WorldError) as older:
            client.find("place_order", "nobody")
        with running_as_printed(step_in(older.value, "run view:sagas"), environment):
            assert eventually(lambda: published_version(connection, NAME) == sagas_view(["any"]).version, 60)
        assert client.find("place_order", "nobody") == []
        connection.execute(f"DROP TABLE {NAME}_v1")
        if is_running:
            start_workers(stack.settings, stack.client, ["view:sagas"])
