"""`towpath dead` on the real stack: records that died go back once, in order, to the application that lost them."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from psycopg.rows import dict_row

from schemas.records.identity import VerifyCustomer
from tests.commands import Asking
from tests.conformance.conftest import SETTINGS, KafkaCluster
from tests.integration.conftest import RunningStack
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT
from tests.unit.stream.support import options_for, working
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.outbox.message import HEADER_COLUMNS
from towpath.stream.broker.dead_letter import read_dead_letter
from towpath.stream.broker.port import Groups
from towpath.stream.broker.reader.ranges import read_range
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.stream.engine.options import DatabaseOptions, StreamOptions
from towpath.stream.engine.postgres import DatabaseUnit
from towpath.stream.engine.unit import KafkaUnit

pytestmark = pytest.mark.stack
TOPIC = "identity.commands"
PARTITIONS = 4


def towpath(*arguments: str) -> tuple[int, Any, str]:
    """Run a verb of `dead`; return its exit code, its JSON, and what it said on stderr."""
    command = [sys.executable, "-c", "from towpath.cli import main; main()", "dead", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


class Bench:
    """Customers of one test among the project's commands, and an application that fails for `bad` ones."""

    def __init__(self, stack: RunningStack) -> None:
        self.servers = stack.settings.kafka.bootstrap_servers
        self.cluster = KafkaCluster(self.servers)
        self.run = uuid.uuid4().hex[:8]
        self.state = self.cluster.topic(PARTITIONS)
        self.codec = load_codec(stack.settings, Catalogue.load(stack.settings), [TOPIC])
        self.bad: set[tuple[str, int]] = set()
        self.out = self.cluster.topic(1)
        self.application = f"t-{self.run}"

    def send(self, *attempts: tuple[str, int]) -> None:
        """Write commands about customers of this test."""
        producer = Producer({"bootstrap.servers": self.servers, "partitioner": "murmur2_random", "log_level": 2})
        for customer, attempt in attempts:
            key = f"{self.run}-{customer}"
            command = VerifyCustomer(order_id=key, customer_id=key, total_cents=1, currency="EUR")
            record = Asking(command, key=key, attempt=attempt).arriving()
            headers: list[Any] = list(record.headers)
            producer.produce(TOPIC, self.codec.encode(command), key, headers=headers)
        producer.flush()

    def named(self, record: ConsumedRecord) -> tuple[str, int] | None:
        """Return customer and attempt of a command of this test."""
        run, _, customer = (record.key or b"").decode("utf-8", "replace").partition("-")
        return (customer, int(record.header("attempt") or 0)) if run == self.run else None

    def check(self, record: ConsumedRecord) -> tuple[str, int] | None:
        """Return what `record` asks. Raises RecordFailed for a bad one."""
        name = self.named(record)
        if name in self.bad:
            raise RecordFailed(record, ZeroDivisionError(f"of {self.run}"))
        return name

    async def apply(self, unit: KafkaUnit, groups: Groups) -> None:
        """Apply commands."""
        found = [self.check(record) for records in groups.values() for record in records]
        for name in found:
            if name is not None:
                unit.send(self.out, json.dumps(name).encode(), key=name[0].encode())

    @property
    def applied(self) -> list[tuple[str, int]]:
        """Return what was applied, in its order: a unit that was cut off has applied nothing."""
        place = TopicPartition(self.out, 0)
        end = self.cluster.broker.end_offsets([place])[place]
        records = read_range(
            self.cluster.broker, place, 0, end, silence_seconds_max=30.0, kept="everything", next_step="towpath status"
        )
        return [(customer, attempt) for customer, attempt in (json.loads(record.value or b"") for record in records)]

    def options(self, **changes: Any) -> StreamOptions:
        """Return the options of the application's worker."""
        settings = SETTINGS.model_copy(update={"dead_letter_share_max": 1.0})
        values = {"application": self.application, "states": (self.state,), "settings": settings, **changes}
        return options_for(self.cluster.broker, **values)

    def work(self, until: Callable[[], bool], **changes: Any) -> None:
        """Run a worker until something holds."""

        async def main() -> None:
            handle = changes.pop("handle", self.apply)
            async with working(handle, self.options(**changes), [TOPIC]) as worker:
                while not await asyncio.to_thread(until):
                    await worker.until(lambda: True)
                    await asyncio.sleep(0.1)

        asyncio.run(asyncio.wait_for(main(), 60))

    def letters(self) -> list[dict[str, Any]]:
        """Return the groups of dead letters of this test."""
        code, rows, said = towpath("list", TOPIC)
        assert code == 0, said
        return [row for row in rows if row["application"] == self.application]

    def died(self, dead: int, parked: int) -> bool:
        """Return whether so many records are in quarantine."""
        return [(row["dead"], row["parked"]) for row in self.letters()] == [(dead, parked)]


@pytest.fixture
def bench(stack: RunningStack) -> Bench:
    return Bench(stack)


def test_a_dead_command_and_what_is_parked_behind_it_go_back_once(bench: Bench) -> None:
    """Listed, shown decoded, redriven twice: applied once and in order, and the key goes on."""
    bench.bad = {("a", 1)}
    bench.send(("a", 1), ("a", 2), ("b", 1), ("a", 3))
    bench.work(lambda: len(bench.applied) == 1 and bench.died(1, 2))
    (row,) = bench.letters()
    code, (letter,), _ = towpath("show", TOPIC, row["example"])
    assert code == 0
    assert letter["value"]["content"]["customer_id"] == f"{bench.run}-a"
    assert len(letter["parked"]) == 2

    bench.bad = set()
    code, done, said = towpath("redrive", TOPIC, row["example"], "--wait", "0")
    assert (code, len(done["redriven"]), done["unread_by"]) == (0, 3, [bench.application]), said
    code, done, said = towpath("redrive", TOPIC, row["example"], "--wait", "0")
    assert (code, done["redriven"]) == (0, []), said
    bench.send(("a", 4))
    bench.work(lambda: ("a", 4) in bench.applied)
    assert bench.applied == [("b", 1), ("a", 1), ("a", 2), ("a", 3), ("a", 4)]
    code, done, said = towpath("redrive", TOPIC, row["example"])
    assert (code, done["redriven"], done["unread_by"]) == (0, [], []), said
    assert bench.letters() == []


def test_a_redrive_beside_a_worker_waits_for_it_and_tells_what_died_again(bench: Bench) -> None:
    """Exit code 4 as long as something is left; a drop then frees the key."""
    bench.bad = {("a", 1)}
    bench.send(("a", 1), ("a", 2))
    bench.work(lambda: bench.died(1, 1))
    (row,) = bench.letters()
    results: list[tuple[int, Any, str]] = []

    def redriven() -> bool:
        results.append(towpath("redrive", TOPIC, row["example"]))
        return True

    bench.work(redriven)
    code, done, said = results[0]
    assert (code, len(done["redriven"]), len(done["died_again"]), done["unread_by"]) == (4, 2, 2, []), said
    (again,) = bench.letters()
    assert again["example"] != row["example"]

    def dropped() -> bool:
        results.append(towpath("drop", TOPIC, again["example"], "--reason", "a test"))
        return True

    bench.work(dropped)
    code, done, said = results[1]
    assert (code, len(done["dropped"]), len(done["redriven"]), done["unread_by"]) == (0, 1, 1, []), said
    bench.send(("a", 3))
    bench.work(lambda: ("a", 3) in bench.applied)
    assert bench.applied == [("a", 2), ("a", 3)]


def test_a_key_whose_dead_letter_retention_has_taken_goes_on(bench: Bench) -> None:
    """What is still in quarantine of it is applied in order, once, and the key is free."""
    bench.bad = {("a", 1)}
    bench.send(("a", 1), ("a", 2), ("a", 3))
    bench.work(lambda: bench.died(1, 2))
    (row,) = bench.letters()
    partition, _, offset = row["example"].partition(":")
    up_to = Place(f"{TOPIC}.dead", int(partition), int(offset) + 1)
    (gone,) = bench.cluster.admin.delete_records([up_to]).values()
    gone.result(10)
    (left,) = bench.letters()
    code, _, said = towpath("redrive", TOPIC, left["example"])
    looked = run(ROOT, *step_in(said, "capture status")).leads_on()
    assert (code, "identity" in looked.text) == (6, True), said + looked.text
    results: list[tuple[int, Any, str]] = []

    def released() -> bool:
        results.append(towpath("release", TOPIC, f"{bench.run}-a", "--reason", "a test"))
        return True

    bench.work(released)
    code, done, said = results[0]
    assert (code, done["unread_by"]) == (0, []), said
    bench.send(("a", 4))
    bench.work(lambda: ("a", 4) in bench.applied)
    assert bench.applied == [("a", 2), ("a", 3), ("a", 4)]
    assert bench.letters() == []


def test_a_redrive_that_is_killed_is_finished_by_the_next(bench: Bench) -> None:
    """SIGKILL at a random moment, ten times; no command is applied twice, none is lost."""
    customers = [str(number) for number in range(30)]
    bench.bad = {(customer, 1) for customer in customers}
    bench.send(*((customer, attempt) for attempt in (1, 2) for customer in customers))
    bench.work(lambda: bench.died(30, 30))
    (row,) = bench.letters()
    bench.bad = set()
    arguments = ["redrive", TOPIC, "--fingerprint", row["fingerprint"], "--wait", "0", "--json"]
    command = [sys.executable, "-c", "from towpath.cli import main; main()", "dead", *arguments]
    for kill in range(10):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=0.6 + kill * 0.12)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    code, _, said = towpath(*arguments[:-1])
    assert code in {0, 5}, said  # 5: one of those that were killed had done it all
    bench.work(lambda: len(bench.applied) >= 60)
    bench.work(lambda: bench.letters() == [])
    assert sorted(bench.applied) == sorted((customer, attempt) for customer in customers for attempt in (1, 2))
    assert all(bench.applied.index((customer, 1)) < bench.applied.index((customer, 2)) for customer in customers)


def test_a_dead_letter_of_the_database_form_goes_back_with_its_own_headers(
    bench: Bench, connection: psycopg.Connection[Any], database_url: str
) -> None:
    """It leaves through an outbox, whose columns do not hold all of it; what it was is sent back all the same."""
    bench.bad = {("a", 1)}
    bench.send(("a", 1), ("a", 2))
    database = {
        "unit_of_work": "database",
        "states": (),
        "database": DatabaseOptions(url=database_url, connection_options={}),
    }
    came: list[ConsumedRecord] = []

    async def apply(unit: DatabaseUnit, groups: Groups) -> None:
        for records in groups.values():
            came.extend([record for record in records if bench.check(record) is not None])

    def rows() -> list[dict[str, Any]]:
        with connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute("SELECT * FROM outbox WHERE dead IS NOT NULL").fetchall()
        connection.rollback()
        return sorted(found, key=lambda row: read_dead_letter(row["dead"]).offset)

    bench.work(lambda: len(rows()) == 2, handle=apply, **database)
    carry(bench, rows())
    assert bench.died(1, 1)
    (row,) = bench.letters()
    carry(bench, rows())  # Debezium may repeat
    bench.bad = set()
    code, done, said = towpath("redrive", TOPIC, row["example"], "--wait", "0")
    assert (code, len(done["redriven"])) == (0, 2), said
    assert towpath("redrive", TOPIC, "--all", "--yes", "--wait", "0")[1]["redriven"] == []
    bench.send(("a", 3))
    bench.work(lambda: len(came) == 3, handle=apply, **database)
    assert [bench.named(record) for record in came] == [("a", 1), ("a", 2), ("a", 3)]
    first, last = (dict(came[index].headers) for index in (0, 2))
    assert first.keys() - last.keys() == {"redrive"}
    assert first["id"] != last["id"]
    assert first["saga_id"] == last["saga_id"]
    assert connection.execute("SELECT count(*) FROM towpath_parked").fetchall() == [(0,)]
    assert towpath("redrive", TOPIC, row["example"])[1]["unread_by"] == []


def carry(bench: Bench, rows: list[dict[str, Any]]) -> None:
    """Do as Debezium does with rows of an outbox: key, payload, and every other column as a header."""
    producer = Producer({"bootstrap.servers": bench.servers, "partitioner": "murmur2_random", "log_level": 2})
    for row in rows:
        names = ("id", *HEADER_COLUMNS)
        headers: list[Any] = [(name, None if row[name] is None else str(row[name]).encode()) for name in names]
        producer.produce(row["topic"], row["payload"], row["key"], headers=headers)
    producer.flush()
