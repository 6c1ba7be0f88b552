"""A handler that never comes back: nobody but another thread can tell, so the process ends and names the record."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.unit.stream.support import SETTINGS, copy, memory_broker, options_for, values, working
from tests.unit.stream.test_handler_exits import as_written
from towpath.clock import ManualClock
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import Work
from towpath.stream.engine.stalled import StallWatch, TurnProgress
from towpath.stream.engine.unit import KafkaUnit
from towpath.stream.engine.worker_status import WorkerStatus

STALLING = SETTINGS.model_copy(
    update={
        "batch_seconds_max": 0.7,
        "transaction_timeout_seconds": 0.8,
        "session_timeout_seconds": 0.9,
        "poll_interval_seconds_max": 1.0,
    }
)
PROGRAM = """
import json, re, threading
from pathlib import Path
from tests.unit.stream.test_agents import make_app
from tests.unit.stream.test_handler_exits import three
from tests.unit.stream.test_stalled import STALLING

def tell(status):
    with Path({folder!r}, "told").open("a") as told:
        told.write(json.dumps(status.to_json()) + chr(10))

app = make_app(three(), Path({folder!r}), stream=STALLING, on_status=tell)

def never_comes_back():
    {act}

@app.agent(app.topic("in"))
async def agent(stream):
    async for value in stream:
        if value == b"BAD":
            never_comes_back()
        app.unit.send("out", value)

app.run_worker()
print("came to an end")
"""


def run_to_its_end(program: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=Path.cwd()
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_worker_whose_handler_never_comes_back_ends_and_names_its_record(tmp_path: Path) -> None:
    """Its status says so before; then the process ends, non-zero, with the line of code that each thread stands at."""
    code, said = run_to_its_end(PROGRAM.format(folder=str(tmp_path), act="threading.Event().wait()"))
    assert code == 1, said
    assert "in[0]@0 to 2: has not come back from a handler" in said
    assert "in never_comes_back" in said
    assert "came to an end" not in said
    assert as_written(said).dead_records == {"app": ("in[0]@0 to 2",)}
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert told[-2]["is_ready"]
    assert (told[-1]["is_ready"], told[-1]["is_member"], told[-1]["has_stalled"]) == (False, False, True)
    assert told[-1]["words"].startswith("stalled: ")
    assert "in[0]@0 to 2: has not come back" in told[-1]["words"]


def test_a_handler_that_holds_the_interpreter_itself_ends_the_process_too(tmp_path: Path) -> None:
    """No other thread of Python runs beside a regular expression that backtracks without end."""
    act = 're.match(r"(a|a)*$", "a" * 100 + "b")'
    code, said = run_to_its_end(PROGRAM.format(folder=str(tmp_path), act=act))
    assert code == 1, said
    assert "Timeout (0:00:05)!" in said
    assert "in never_comes_back" in said


WATCHED = """
import time
from tests.unit.stream.test_stalled import STALLING
from towpath.clock import SystemClock
from towpath.stream.engine.stalled import TurnProgress, StallWatch, end_process, watching

progress, clock = TurnProgress("app"), SystemClock()

def tell(cause, goes_on):
    raise OSError("the disk is full")

watch = StallWatch(progress, STALLING, clock, tell, end_process)
with watching(lambda: watch, STALLING):
    progress.begins(clock.monotonic_seconds())
    time.sleep(1.6)
    for _ in range(30):
        progress.begins(clock.monotonic_seconds())
        time.sleep(0.2)
print("came to an end")
"""


def test_a_status_that_cannot_be_written_ends_no_worker() -> None:
    """It was late once; who looks goes on looking, or the timer would end it though it has long come back."""
    code, said = run_to_its_end(WATCHED)
    assert (code, "came to an end" in said, "the disk is full" in said) == (0, True, True), said


def test_each_step_of_a_turn_has_its_time() -> None:
    """A hung member's time-out and then a slow unit are two steps: told once each, ended where one takes too long."""
    clock, progress = ManualClock(), TurnProgress("app")
    told: list[str] = []
    ended: list[str] = []
    watch = StallWatch(progress, STALLING, clock, lambda cause, _: told.append(cause), lambda e: ended.append(e.cause))

    def passes(seconds: float) -> None:
        clock.advance(seconds)
        watch.look()

    passes(100.0)  # between two turns
    progress.begins(clock.monotonic_seconds())
    passes(0.9)
    assert told == []
    passes(3.0)
    passes(1.0)
    progress.begins(
        clock.monotonic_seconds(), Work({TopicPartition("in", 0): [ConsumedRecord("in", 0, 7, 0, None, b"")]})
    )
    passes(4.9)
    assert ended == []
    passes(0.1)
    assert [cause.split(":")[0] for cause in told] == ["the worker", "in[0]@7"]
    assert ended == ["in[0]@7: has not come back from a handler, or what it waits for, for 5 s"]
    progress.ends()
    passes(100.0)
    assert len(ended) == 1


def test_a_worker_that_comes_back_is_ready_again() -> None:
    """One that was only late says so while it is held, once, and then how it stands anew."""
    told: list[WorkerStatus] = []
    broker = memory_broker(partitions=1)  # in no hurry: the group still has the worker, and nothing else changes
    broker.append("in", b"late")
    late = True

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        nonlocal late
        if late:
            late = False
            time.sleep(1.5)
        await copy(unit, groups)

    def look(watch: StallWatch, done: threading.Event) -> None:
        while not done.wait(0.02):
            watch.look()

    async def main() -> None:
        options = options_for(broker, settings=STALLING, on_status=told.append)
        async with working(handler, options, ["in"]) as worker:
            done = threading.Event()
            looking = threading.Thread(target=look, args=(worker.loop.stall_watch(), done))
            looking.start()
            try:
                await worker.until(lambda: values(broker.records("out")) == ["late"] and told[-1].is_ready)
            finally:
                done.set()
                looking.join()

    asyncio.run(main())
    reasons = [status.waiting_for for status in told if "in[0]@0: has not come back" in (status.waiting_for or "")]
    assert len(reasons) == 1
