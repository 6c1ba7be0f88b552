"""Two workers in one slot: the second gives way before it joins, and says to whom."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.stream.support import memory_broker
from towpath.clock import SystemClock
from towpath.errors import ExitCode
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.broker.port import GroupMember
from towpath.stream.engine import slot
from towpath.stream.engine.slot import (
    Holder,
    SlotTaken,
    client_id,
    holder_in,
    is_alive,
    read_holder,
    this_process,
    wait_for_slot,
)

ELSEWHERE = Holder("other-host", 7, 1, "another-machine")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and allow no margin."""
    monkeypatch.setattr(slot, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(slot, "MARGIN_SECONDS", 0.0)


def holding(holder: str, application: str = "app", name: str = "a") -> MemoryBroker:
    """Return a broker whose group has a member in slot a."""
    broker = memory_broker()
    broker.member(application, client_id=client_id(application, name, holder), slot=name).subscribe(["in"])
    return broker


def wait(broker: MemoryBroker, session_seconds: float = 0.1) -> None:
    asyncio.run(wait_for_slot(broker, "app", "a", this_process(), session_seconds, SystemClock()))


def test_a_worker_of_this_machine_that_lives_keeps_its_slot() -> None:
    """The second ends at once, with exit code 6, and names the process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = int(Path(f"/proc/{other.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        own = this_process()
        holder = Holder(own.host, other.pid, started, own.machine)
        broker = holding(str(holder))
        with pytest.raises(SlotTaken, match=f"slot a is held by process {other.pid} on {own.host}") as refused:
            wait(broker, session_seconds=60)
        assert refused.value.exit_code is ExitCode.REFUSED
        other.kill()
        other.wait()
    # Its session has not ended, and its process has: its successor joins at once.
    wait(broker, session_seconds=60)


def test_a_worker_of_another_machine_keeps_its_slot_while_its_session_lasts() -> None:
    """Whether it lives only its session tells: the second waits for so long, then gives way, or has the slot."""
    broker = holding(str(ELSEWHERE))
    with pytest.raises(SlotTaken, match="held by process 7 on other-host"):
        wait(broker)

    async def main() -> None:
        waiting = asyncio.create_task(wait_for_slot(broker, "app", "a", this_process(), 60, SystemClock()))
        await asyncio.sleep(0.1)
        with broker.changed:
            broker.group("app").members.clear()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(main())


def test_other_slots_other_groups_and_oneself_are_in_nobodys_way() -> None:
    """A group is full of members in slots of their own; a worker that joins anew meets its own earlier member."""
    wait(holding(str(ELSEWHERE), name="b"))
    wait(holding(str(this_process())))
    assert holder_in(GroupMember("m", client_id("app-a", "1", "h"), "/127.0.0.1"), "app", "a") is None


def test_a_holder_is_read_as_it_was_written() -> None:
    """Host names may hold anything; what names no process, of a client of another make, may live or not."""
    own = this_process()
    assert read_holder(str(own)) == own
    assert is_alive(own, own) is True
    assert is_alive(ELSEWHERE, own) is None
    assert read_holder("somebody") is None
    with pytest.raises(SlotTaken, match="held by somebody"):
        wait(holding("somebody"))


PROGRAM = """
import sys
from pathlib import Path
from tests.unit.stream.support import memory_broker
from tests.unit.stream.test_agents import make_app
from towpath.cli import main, run
from towpath.stream.engine.slot import client_id, this_process

own = this_process()
holder = f"{own.host}/{parent}/{started}/{own.machine}"
broker = memory_broker()
broker.member("app", client_id=client_id("app", "a", holder), slot="a").subscribe(["in"])
app = make_app(broker, Path(sys.argv[1]))

@app.agent(app.topic("in"))
async def agent(stream):
    async for value in stream:
        pass

run._build_when_possible = lambda *_: app
sys.argv = ["towpath", "run", "service:order"]
main()
"""


def test_the_command_that_finds_its_slot_taken_ends_in_words(tmp_path: Path) -> None:
    """With exit code 6 and what to do, and without the frames of our own code."""
    own = this_process()
    program = PROGRAM.replace("{parent}", str(own.pid)).replace("{started}", str(own.started))
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == ExitCode.REFUSED, ended.stderr
    assert f"error: app: slot a is held by process {own.pid} on {own.host}" in ended.stderr
    assert "Traceback" not in ended.stderr
