"""A changelog that was made anew under a store on disk, and a log that was restored: each goes on by its command."""

import asyncio
import json
import shlex
import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.crash.worker import STREAM
from tests.integration.stack.test_running import towpath
from tests.next_steps import step_in
from tests.stack_fixture import RunningStack
from tests.unit.stream.support import options_for, working
from towpath.stack.home import Home
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import Groups
from towpath.stream.broker.position import HoldKind
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine import holds
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.engine.worker_status import WorkerStatus

RECORDS = 40


class Ground:
    """Topics of a test's own, and a counting worker whose store lies on disk."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.tag = f"rewriting-{uuid.uuid4().hex[:8]}"
        self.topic, self.changelog = f"{self.tag}-in", f"{self.tag}-state"
        self.servers = stack.settings.kafka.bootstrap_servers
        self.admin = AdminClient({"bootstrap.servers": self.servers})
        self.broker = KafkaBroker(stack.settings.kafka, STREAM)
        self.statuses: list[WorkerStatus] = []
        for name in (self.topic, f"{self.topic}.dead", self.changelog):
            self.create(name)
        options = options_for(self.broker, application=self.tag, states=(self.changelog,), settings=STREAM)
        self.options = replace(options, state_folder=folder, on_status=self.statuses.append)

    def create(self, name: str) -> None:
        """Create a topic of one partition."""
        self.admin.create_topics([NewTopic(name, 1, 1)])[name].result()

    def write(self) -> None:
        """Write records of a few keys."""
        producer = Producer({"bootstrap.servers": self.servers})
        for number in range(RECORDS):
            producer.produce(self.topic, b"x", b"k%d" % (number % 4))
        assert producer.flush(30) == 0

    async def count(self, unit: KafkaUnit, groups: Groups) -> None:
        """Count records by key."""
        for partition, records in groups.items():
            state = unit.state(self.changelog, partition.partition)
            for record in records:
                key = record.key or b""
                state.put(key, b"%d" % (int(state.get(key) or 0) + 1))

    def committed(self) -> int:
        """Return how far the group has come."""
        return sum(self.broker.group_offsets(self.tag).values())

    def holds(self, kind: HoldKind) -> bool:
        """Say whether the worker holds its partition for that."""
        return bool(self.statuses) and any(held.kind == kind for held in self.statuses[-1].held)

    def run_printed(self, *more: str, offset: int = 0, after: str = "") -> None:
        """Run the command that the worker's hold names (behind `after`), as it is printed, and what a person adds."""
        printed = next(held.next_step for held in reversed(self.statuses[-1].held)) or ""
        printed = printed.partition(after)[2] if after else printed
        words = shlex.split(printed.partition(" writes ")[0].partition(",")[0])
        words = [str(offset) if word == "OFFSET" else word for word in words]
        words = ["found by a test" if word == "REASON" else word for word in words]
        answer = self._towpath(*words[1:], *more, "--yes", "--json")
        assert answer.returncode == 0, f"{words}: {answer.stderr}"
        assert json.loads(answer.stdout)["reason"] == "found by a test"

    def ask_again(self) -> None:
        """Decide about a partition that is served: its store is in use, and nothing is to be decided."""
        answer = self._towpath("positions", "rewrite", self.tag, self.changelog, "0", "--slot", "a", "--reason", "t")
        assert answer.returncode == 6
        assert "there is nothing to decide while it does" in answer.stderr
        assert self._towpath(*step_in(answer.stderr, "positions list --held")).returncode == 0

    def _towpath(self, *words: str) -> "subprocess.CompletedProcess[str]":
        variables = {**self.stack.environment, "TOWPATH_STREAM__STATE_FOLDER": str(self.folder)}
        return towpath(replace(self.stack, environment=variables), *words)

    def run_printed_beside_another_store(self) -> None:
        """As `run_printed`, where a worker of the same slot was run in another way before: a person says which."""
        elsewhere = Home(self.stack.settings.stack_home).data / "state" / self.tag
        shutil.copytree(self.folder / self.tag, elsewhere)
        try:
            with pytest.raises(AssertionError, match="say which worker's is meant: --state-folder") as refused:
                self.run_printed()
            assert str(self.folder) in str(refused.value)
            self.run_printed("--state-folder", str(self.folder))
        finally:
            shutil.rmtree(elsewhere)


@pytest.fixture
def ground(stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """Return a worker on the stack, which tries soon again what it holds."""
    monkeypatch.setattr(holds, "RETRY_SECONDS_FIRST", 2.0)
    monkeypatch.setattr(holds, "RETRY_SECONDS_MAX", 2.0)
    return Ground(stack, tmp_path)


def test_a_store_on_disk_is_written_back_by_the_printed_command(ground: Ground) -> None:
    """The worker runs on beside it, and takes it up by itself; every count is what it would have been."""

    async def main() -> None:
        ground.write()
        async with working(ground.count, ground.options, [ground.topic]) as worker:
            await worker.until(lambda: ground.committed() == RECORDS, 60)
        ground.admin.delete_topics([ground.changelog], operation_timeout=10)[ground.changelog].result()
        await asyncio.sleep(0.5)
        ground.create(ground.changelog)
        ground.write()
        async with working(ground.count, ground.options, [ground.topic]) as worker:
            await worker.until(lambda: ground.holds(HoldKind.CHANGELOG), 60)
            assert ground.committed() == RECORDS
            await asyncio.to_thread(ground.run_printed_beside_another_store)
            await worker.until(lambda: ground.committed() == 2 * RECORDS, 60)
            await asyncio.to_thread(ground.ask_again)

    asyncio.run(main())
    place = TopicPartition(ground.changelog, 0)
    end, latest, reached = ground.broker.end_offsets([place])[place], dict[bytes, bytes | None](), 0
    reader = ground.broker.reader(place, 0)
    while reached < end:
        records, reached = reader.poll(0.2)
        latest |= {record.key or b"": record.value for record in records if record.key and record.key[:1] != b"\0"}
    reader.close()
    assert latest == {b"k%d" % number: b"20" for number in range(4)}


@pytest.mark.crash
def test_a_changelog_made_anew_is_held_where_the_store_is_gone_too(ground: Ground) -> None:
    """The group's offsets tell; the printed command gives the state up, and the worker begins with none."""

    async def main() -> None:
        ground.write()
        async with working(ground.count, ground.options, [ground.topic]) as worker:
            await worker.until(lambda: ground.committed() == RECORDS, 60)
        ground.admin.delete_topics([ground.changelog], operation_timeout=10)[ground.changelog].result()
        shutil.rmtree(ground.folder / ground.tag)
        await asyncio.sleep(0.5)
        ground.create(ground.changelog)
        ground.write()
        async with working(ground.count, ground.options, [ground.topic]) as worker:
            await worker.until(lambda: ground.holds(HoldKind.CHANGELOG), 60)
            assert ground.committed() == RECORDS
            await asyncio.to_thread(lambda: ground.run_printed(after="go on without the state: "))
            await worker.until(lambda: ground.committed() == 2 * RECORDS, 60)

    asyncio.run(main())


def test_a_log_of_other_leaders_is_held_until_a_person_says_where_it_goes_on(ground: Ground) -> None:
    """The group's offset was reached under a leader that this log never had: a backup, say, that was put back."""

    async def main() -> None:
        ground.write()
        async with working(ground.count, ground.options, [ground.topic]) as worker:
            await worker.until(lambda: ground.committed() == RECORDS, 60)
        place = TopicPartition(ground.topic, 0)
        member = ground.broker.member(ground.tag, client_id="test")
        member.committed([place])
        known = member.epochs[place]
        member.close()
        producer = ground.broker.producer(f"{ground.tag}-test")
        producer.start()
        producer.begin()
        producer.commit_for_group(ground.tag, {place: RECORDS}, {place: known + 7})
        producer.close()
        ground.write()
        async with working(ground.count, ground.options, [ground.topic]) as worker:
            await worker.until(lambda: ground.holds(HoldKind.RESTORED), 60)
            assert ground.committed() == RECORDS
            await asyncio.to_thread(lambda: ground.run_printed(offset=RECORDS))
            await worker.until(lambda: ground.committed() == 2 * RECORDS, 60)

    asyncio.run(main())
