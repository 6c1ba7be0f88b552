"""What the supervisor promises of every process that it runs."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.integration.stack.conftest import SpecMaker, is_gone, kill
from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, stack_environment, variables
from towpath.errors import NotFoundError, RefusedError
from towpath.stack.client import NotRunning, ProcessFailed, StackClient, start_supervisor
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, RestartPolicy, State
from towpath.stack.supervisor.supervisor import SUCCESSOR_SECONDS_MAX
from towpath.stream.engine.worker_status import WorkerStatus

# A death each 50 ms at first, given up after the fourth.
HASTY = RestartPolicy(first_seconds=0.05, deaths_max=4)
RUNS = "ready(); time.sleep(600)"
STOPS_SLOWLY = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), os._exit(0))); ready(); time.sleep(600)"


def eventually(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Tell whether `what` becomes true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def pid_of(client: StackClient, name: str) -> int:
    """Return the pid of a process that runs."""
    pid = client.status()[name].pid
    assert pid is not None
    return pid


def test_a_started_process_is_ready_once_it_says_so(client: StackClient, python: SpecMaker) -> None:
    """A process counts as starting until its probe answers, then as ready."""
    client.start(python("slow", "time.sleep(0.5); ready(); time.sleep(600)"))
    assert client.status()["slow"].state is State.STARTING
    client.wait_ready(["slow"], 10)
    assert client.status()["slow"].state is State.READY


def test_a_killed_process_starts_again(client: StackClient, python: SpecMaker) -> None:
    """After SIGKILL a process runs again under another pid, and its starts are counted."""
    client.start(python("one", RUNS))
    client.wait_ready(["one"], 10)
    first = pid_of(client, "one")
    client.kill("one")
    assert eventually(lambda: client.status()["one"].starts == 2)
    client.wait_ready(["one"], 10)
    assert pid_of(client, "one") != first


def test_a_process_that_keeps_dying_is_left_alone_with_its_reason(client: StackClient, python: SpecMaker) -> None:
    """A process that dies at every start is tried a few times at growing distance, then failed, not looped for ever."""
    client.start(python("doomed", "sys.exit('ERROR no such table')", restart=HASTY))
    with pytest.raises(ProcessFailed, match="died 4 times in a row: ERROR no such table"):
        client.wait_ready(["doomed"], 60, patient=True)
    status = client.status()["doomed"]
    assert (status.state, status.starts, status.pid) == (State.FAILED, 4, None)


def test_waiting_for_a_process_that_dies_at_once_tells_its_last_words(client: StackClient, python: SpecMaker) -> None:
    """Whoever waits for a first start is told at the first death, with the process's own error and where to read on."""
    client.start(python("broken", "print('starting'); raise ValueError('bad settings')"))
    with pytest.raises(ProcessFailed) as caught:
        client.wait_ready(["broken"], 10)
    assert "ValueError: bad settings" in caught.value.cause
    assert caught.value.next_step == "towpath logs broken"


def test_a_failed_process_can_be_started_again(client: StackClient, python: SpecMaker, tmp_path: Path) -> None:
    """Once its cause is fixed, starting a failed process again runs it."""
    line = f"os.path.exists({str(tmp_path / 'fixed')!r}) or sys.exit(1); {RUNS}"
    client.start(python("patient", line, restart=HASTY))
    assert eventually(lambda: client.status()["patient"].state is State.FAILED, 40)
    (tmp_path / "fixed").touch()
    client.start(python("patient", line, restart=HASTY))
    client.wait_ready(["patient"], 10)


def test_a_process_that_never_gets_ready_is_ended(client: StackClient, python: SpecMaker) -> None:
    """A start that hangs past its time is killed and counts as a death: never a hang."""
    client.start(python("hung", "time.sleep(600)", ready_seconds=0.5))
    pid = pid_of(client, "hung")
    with pytest.raises(ProcessFailed, match="not ready after"):
        client.wait_ready(["hung"], 10)
    assert is_gone(pid)


def test_a_process_that_ignores_its_stop_signal_is_killed(client: StackClient, python: SpecMaker) -> None:
    """Stopping ends with SIGKILL when the process takes longer than it may."""
    line = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {RUNS}"
    client.start(python("stubborn", line, stop_seconds=0.3))
    client.wait_ready(["stubborn"], 10)
    pid = pid_of(client, "stubborn")
    client.stop("stubborn")
    assert is_gone(pid)
    assert client.status()["stubborn"].state is State.STOPPED


def test_a_part_that_is_ended_by_force_says_before_where_it_stood(
    client: StackClient, home: Home, python: SpecMaker
) -> None:
    """`towpath down` names it, and the command that it prints shows its threads."""
    line = (
        "import faulthandler; faulthandler.register(signal.SIGQUIT);"
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {RUNS}"
    )
    client.start(python("hangs", line, stop_seconds=0.3, group=Group.PART))
    client.start(python("ends", RUNS, group=Group.PART))
    client.wait_ready(["hangs", "ends"], 10)
    with variables({"TOWPATH_STACK__HOME": str(home.root)}):
        said = run(ROOT, "down").leads_on()
        assert (said.code, "hangs did not end by itself" in said.text, "ends did" in said.text) == (0, True, False)
        shown = run(ROOT, *step_in(said.text, "logs x")).leads_on()
    assert (shown.code, "ended by force: hangs" in shown.text, "most recent call first" in shown.text) == (
        0,
        True,
        True,
    )


def test_a_stack_whose_folder_is_gone_still_ends(client: StackClient, home: Home, python: SpecMaker) -> None:
    """Somebody removed it in place of `towpath down`: what does not end by itself held its port for good."""
    line = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {RUNS}"
    client.start(python("stubborn", line, stop_seconds=0.3, group=Group.PART))
    client.wait_ready(["stubborn"], 10)
    pid, supervisor = pid_of(client, "stubborn"), int(home.lock.read_text(encoding="ascii"))
    shutil.rmtree(home.root)
    os.kill(supervisor, signal.SIGTERM)
    assert eventually(lambda: is_gone(pid) and is_gone(supervisor))


def test_what_a_process_leaves_behind_is_ended_with_it(client: StackClient, python: SpecMaker, tmp_path: Path) -> None:
    """A child that outlives a killed process is ended before the process starts again."""
    note = tmp_path / "pid"
    line = (
        "child = subprocess.Popen(['sleep', '600']);"
        f"os.path.exists({str(note)!r}) or open({str(note)!r}, 'w').write(str(child.pid)); {RUNS}"
    )
    client.start(python("parent", line))
    client.wait_ready(["parent"], 10)
    child = int(note.read_text(encoding="ascii"))
    client.kill("parent")
    assert eventually(lambda: is_gone(child))


def test_a_frozen_orphan_in_a_session_of_its_own_is_ended_too(
    client: StackClient, python: SpecMaker, tmp_path: Path
) -> None:
    """PostgreSQL's backends are such: one that was stopped kept the shared memory, and no server could start again."""
    note = tmp_path / "pid"
    line = (
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True); os.kill(child.pid, signal.SIGSTOP);"
        f"os.path.exists({str(note)!r}) or open({str(note)!r}, 'w').write(str(child.pid)); {RUNS}"
    )
    client.start(python("other", RUNS))
    client.start(python("parent", line))
    client.wait_ready(["other", "parent"], 10)
    other, child = pid_of(client, "other"), int(note.read_text(encoding="ascii"))
    client.kill("parent")
    assert eventually(lambda: is_gone(child))
    assert pid_of(client, "other") == other


def test_a_frozen_worker_is_told_and_restarted_by_what_is_printed(
    client: StackClient, home: Home, python: SpecMaker
) -> None:
    """It was ready to the end: nobody but the operating system knows that it does nothing any more."""
    client.start(python("service:payment", RUNS, stop_seconds=0.3))
    client.wait_ready(["service:payment"], 10)
    pid = pid_of(client, "service:payment")
    with variables({"TOWPATH_STACK__HOME": str(home.root)}):
        assert run(ROOT, "status").leads_on().code == 0
        os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: client.status()["service:payment"].state is State.FROZEN)
        said = run(ROOT, "status").leads_on()
        assert (said.code, "frozen" in said.text, " ready" in said.text.split("service:payment")[1]) == (1, True, False)
        assert run(ROOT, *step_in(said.text, "restart x")).leads_on().code == 0
        assert run(ROOT, "status").leads_on().code == 0
    assert (client.status()["service:payment"].state, is_gone(pid)) == (State.READY, True)


@pytest.mark.parametrize("asked", ["doctor", "capture status"])
def test_a_frozen_broker_is_told_and_restarted_by_what_is_printed(
    client: StackClient, home: Home, python: SpecMaker, asked: str
) -> None:
    """By who needs it, too: no question waits for its own time-out, and none blames Connect, or a worker."""
    told = WorkerStatus(application="app", slot="1", is_member=False).to_json()
    told_in = f"{home.ready_file('service:payment')}.json"
    outside = f"import json; ready(); open({told_in!r}, 'w').write(json.dumps({{'pid': os.getpid(), **{told!r}}}));"
    client.start(python("kafka", RUNS, stop_seconds=0.3, group=Group.PART))
    client.start(python("service:payment", f"{outside} {RUNS}", stop_seconds=0.3))
    client.wait_ready(["kafka", "service:payment"], 10)
    pid = pid_of(client, "kafka")
    with variables(stack_environment(home.root)):
        os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: client.status()["kafka"].state is State.FROZEN)
        said = run(ROOT, *asked.split()).leads_on()
        times = len(re.findall(r"Kafka at 127\.0\.0\.1:\d+ does not answer", said.text))
        assert (said.code, times == 1 if asked == "doctor" else times > 0) == (1, True), said.text
        assert "towpath logs " not in said.text
        assert "is no member of its group" in said.text or asked != "doctor"
        assert run(ROOT, *step_in(said.text, "restart x")).leads_on().code == 0
    assert (client.status()["kafka"].state, is_gone(pid)) == (State.READY, True)


def test_a_worker_that_has_stalled_is_a_problem_of_doctor_and_led_on_by_what_is_printed(
    client: StackClient, home: Home, python: SpecMaker
) -> None:
    """Its log, and, once its handler is fixed, a restart; both commands exist and do what is said of them."""
    words = "in[0]@7: has not come back from a handler, or what it waits for, for 60 s"
    told = WorkerStatus(application="app", slot="1", is_member=False, waiting_for=words, has_stalled=True).to_json()
    ready = home.ready_file("service:payment")
    stalls = (
        f"import json; {told!r}; print('stands at line 7', flush=True); ready();"
        f"open({str(ready)!r} + '.json', 'w').write(json.dumps({{'pid': os.getpid(), **{told!r}}})); {RUNS}"
    )
    client.start(python("service:payment", stalls, stop_seconds=0.3))
    client.wait_ready(["service:payment"], 10)
    pid = pid_of(client, "service:payment")
    with variables({**stack_environment(home.root), "TOWPATH_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}):
        said = run(ROOT, "doctor").leads_on()
        told_of = next(line for line in said.text.splitlines() if "stalled: " in line)
        assert (said.code, "problem" in told_of, "in[0]@7" in told_of) == (1, True, True), said.text
        log = run(ROOT, *step_in(told_of, "logs x")).leads_on()
        assert (log.code, "stands at line 7" in log.text) == (0, True), log.text
        assert run(ROOT, *step_in(told_of, "restart x")).leads_on().code == 0
    assert is_gone(pid)


def test_a_process_that_waits_to_begin_has_a_successor_that_waits(
    client: StackClient, python: SpecMaker, tmp_path: Path
) -> None:
    """It takes over, by a restart or a death; killed as it waits, it is missed by nobody; it goes with the process."""
    notes = tmp_path / "waiting"
    notes.mkdir()
    line = f"open(os.path.join({str(notes)!r}, str(os.getpid())), 'w'); sys.stdin.readline() or sys.exit(9); {RUNS}"

    def waiting() -> set[int]:
        """Return who has come as far as to wait, and is neither gone nor the process itself."""
        return {int(path.name) for path in notes.iterdir()} - {pid_of(client, "quick")} - gone

    def runs_as(pid: int) -> bool:
        return client.status()["quick"].pid == pid

    gone: set[int] = set()
    client.start(python("quick", line, waits_to_begin=True))
    client.wait_ready(["quick"], 10)
    for end in (client.restart, client.kill):
        assert eventually(lambda: len(waiting()) == 1)
        before, (successor,) = pid_of(client, "quick"), waiting()
        end("quick")
        assert eventually(partial(runs_as, successor))
        client.wait_ready(["quick"], 10)
        gone.add(before)
    assert eventually(lambda: len(waiting()) == 1)
    (killed,) = waiting()
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: is_gone(killed))
    gone.add(killed)
    client.restart("quick")
    client.wait_ready(["quick"], 10)
    assert eventually(lambda: len(waiting()) == 1)
    (left,) = waiting()
    client.stop("quick")
    assert is_gone(left)
    assert client.status()["quick"].starts == 4


def waiting(client: StackClient, name: str) -> int | None:
    """Return who waits to take over from a process."""
    return client.status()[name].successor_pid


def test_a_successor_waits_as_soon_as_nobody_starts(client: StackClient, python: SpecMaker) -> None:
    """The next save may come at once; where others restart they have the processor first, for a while."""
    begins = f"sys.stdin.readline(); {RUNS}"
    client.start(python("first", begins, waits_to_begin=True))
    client.wait_ready(["first"], 10)
    assert eventually(lambda: waiting(client, "first") is not None, SUCCESSOR_SECONDS_MAX / 2)
    client.start(python("slow", "sys.stdin.readline(); time.sleep(600)", waits_to_begin=True))
    client.restart("first")
    client.wait_ready(["first"], 10)
    ready = time.monotonic()
    assert eventually(lambda: waiting(client, "first") is not None)
    assert time.monotonic() - ready > SUCCESSOR_SECONDS_MAX / 2


def test_no_successor_comes_after_a_stop(client: StackClient, python: SpecMaker) -> None:
    """One was begun for each run, and that of a run that had died came later: to a process that was stopped."""
    begins = f"sys.stdin.readline(); {RUNS}"
    client.start(python("slow", "sys.stdin.readline(); time.sleep(600)", waits_to_begin=True))
    client.start(python("quick", begins, waits_to_begin=True, restart=HASTY))
    client.wait_ready(["quick"], 10)
    client.kill("quick")
    assert eventually(lambda: client.status()["quick"].starts == 2)
    client.wait_ready(["quick"], 10)
    assert waiting(client, "quick") is None
    client.stop("quick")
    time.sleep(SUCCESSOR_SECONDS_MAX + 0.5)
    assert waiting(client, "quick") is None


def test_a_process_may_be_woken_late(client: StackClient, python: SpecMaker, tmp_path: Path) -> None:
    """As late as its spec says, its threads too; what is started besides, as late as ever."""
    reads = "pathlib.Path(f'/proc/{threading.get_native_id()}/timerslack_ns').read_text().strip()"
    said = (tmp_path / "late", tmp_path / "as_ever")
    for path, slack in zip(said, (2.0, None), strict=True):
        code = f"import pathlib, threading; tell = lambda: pathlib.Path('{path}').write_text({reads})"
        spec = python(path.name, f"{code}; one = threading.Thread(target=tell); one.start(); one.join(); {RUNS}")
        client.start(replace(spec, timer_slack_milliseconds=slack))
    client.wait_ready([path.name for path in said], 30)
    own = Path("/proc/self/timerslack_ns").read_text().strip()
    assert [path.read_text() for path in said] == ["2000000", own]


def test_nothing_outlives_a_killed_supervisor(client: StackClient, python: SpecMaker) -> None:
    """When the supervisor itself gets SIGKILL, the kernel ends every process that it ran."""
    for name in ("one", "two"):
        client.start(python(name, f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {RUNS}"))
    client.wait_ready(["one", "two"], 10)
    pids = [pid_of(client, "one"), pid_of(client, "two")]
    kill(client.supervisor().pid or 0)
    assert eventually(lambda: all(is_gone(pid) for pid in pids))


def test_a_stale_socket_and_pid_file_do_not_hinder_the_next_start(client: StackClient, home: Home) -> None:
    """What a killed supervisor left behind is recognised by the lock that nobody holds."""
    first = client.supervisor().pid or 0
    kill(first)
    assert eventually(lambda: is_gone(first))
    assert home.socket.exists()
    assert home.lock.read_text(encoding="ascii") == str(first)
    with pytest.raises(NotRunning):
        StackClient(home)
    with start_supervisor(home) as second:
        assert second.supervisor().pid != first


def test_a_second_supervisor_of_one_home_is_not_started(client: StackClient, home: Home, python: SpecMaker) -> None:
    """Whoever starts the supervisor of a home that has one gets a connection to that one."""
    client.start(python("one", RUNS))
    with start_supervisor(home) as again:
        assert again.supervisor().pid == client.supervisor().pid
        assert "one" in again.status()


def test_an_up_that_is_cut_off_leaves_nothing_running(home: Home, python: SpecMaker) -> None:
    """A connection that began and ends without commit takes all processes and the supervisor down."""
    starting = start_supervisor(home)
    starting.begin()
    starting.start(python("one", RUNS))
    starting.wait_ready(["one"], 10)
    pids = [pid_of(starting, "one"), starting.supervisor().pid or 0]
    starting.close()
    assert eventually(lambda: all(is_gone(pid) for pid in pids))


def test_a_committed_up_stays(home: Home, python: SpecMaker) -> None:
    """After commit the connection may end and everything runs on."""
    with start_supervisor(home) as starting:
        starting.begin()
        starting.start(python("one", RUNS))
        starting.wait_ready(["one"], 10)
        starting.commit()
    with StackClient(home) as later:
        assert later.status()["one"].state is State.READY


def test_higher_ranks_stop_first(client: StackClient, python: SpecMaker, tmp_path: Path) -> None:
    """What uses a part is gone before the part is told to stop."""
    order = tmp_path / "order"
    line = (
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep({pause}),"
        " open({path!r}, 'a').write({name!r}), os._exit(0))); ready(); time.sleep(600)"
    )
    ranked = {"database": (0, 0.0), "capture": (1, 0.2), "worker": (2, 0.4)}
    for name, (rank, pause) in ranked.items():
        client.start(python(name, line.format(pause=pause, path=str(order), name=f"{name} "), rank=rank))
    client.wait_ready(ranked, 10)
    client.shutdown()
    assert order.read_text(encoding="ascii").split() == ["worker", "capture", "database"]


@contextmanager
def restarting(client: StackClient, name: str) -> Iterator[None]:
    """Restart a process from a connection of its own; what is done meanwhile finds it stopping."""

    def restart() -> None:
        with suppress(NotRunning), StackClient(client.home) as other:
            other.restart(name)

    thread = threading.Thread(target=restart)
    thread.start()
    assert eventually(lambda: client.status()[name].state is State.STOPPING)
    yield
    thread.join()


def test_a_restart_under_way_does_not_hold_up_the_end(client: StackClient, home: Home, python: SpecMaker) -> None:
    """Ctrl-C a moment after a save: the worker that the save concerns stops with all others, and stays stopped."""
    client.start(python("slow", STOPS_SLOWLY))
    client.wait_ready(["slow"], 10)
    supervisor = client.supervisor().pid
    assert supervisor is not None
    with restarting(client, "slow"):
        began = time.monotonic()
        client.shutdown()
        assert time.monotonic() - began < 60
    assert is_gone(supervisor)
    with pytest.raises(NotRunning):
        StackClient(home)


def test_what_is_stopped_during_its_restart_stays_stopped(client: StackClient, python: SpecMaker) -> None:
    """Each who asks is answered in turn: the restart, then the stop."""
    client.start(python("slow", STOPS_SLOWLY))
    client.wait_ready(["slow"], 10)
    with restarting(client, "slow"):
        client.stop("slow")
    found = client.status()["slow"]
    assert (found.state, found.pid) == (State.STOPPED, None)


def test_sigterm_to_the_supervisor_is_an_orderly_stop(client: StackClient, python: SpecMaker, home: Home) -> None:
    """A machine that shuts down gives every process its own stop signal."""
    client.start(python("one", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye'))); " + RUNS))
    client.wait_ready(["one"], 10)
    supervisor = client.supervisor().pid or 0
    os.kill(supervisor, signal.SIGTERM)
    assert eventually(lambda: is_gone(supervisor))
    assert "bye" in home.log_file("one").read_text(encoding="utf-8")


def test_only_its_owner_may_talk_to_a_supervisor(client: StackClient, home: Home) -> None:
    """The control socket runs programs, so neither group nor others may reach it."""
    assert client.status() == {}
    assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.run.stat().st_mode) == 0o700


def test_a_home_may_lie_deep(tmp_path: Path) -> None:
    """A home whose socket path is longer than a socket address allows works all the same."""
    home = Home(tmp_path / "/".join(["a-rather-long-folder-name"] * 6))
    with start_supervisor(home) as client:
        assert client.status() == {}
        client.shutdown()


def test_unknown_names_and_verbs_are_answered(client: StackClient, home: Home) -> None:
    """A request that cannot be carried out is refused in words; the supervisor goes on."""
    with pytest.raises(NotFoundError, match="no process is called 'nobody'"):
        client.restart("nobody")
    with socket.socket(socket.AF_UNIX) as raw, home.short_socket_path() as path:
        raw.connect(path)
        raw.sendall(b'{"verb": "dance"}\n')
        assert json.loads(raw.makefile("rb").readline()) == {"ok": False, "error": "no verb 'dance'"}
        raw.sendall(b"this is not JSON\n")
        assert raw.recv(1) == b""
    assert client.status() == {}


def test_a_request_that_cannot_be_read_is_answered(client: StackClient, home: Home, python: SpecMaker) -> None:
    """A spec of another version's form is refused in words, and the stack runs on."""
    client.start(python("one", RUNS))
    with socket.socket(socket.AF_UNIX) as raw, home.short_socket_path() as path:
        raw.settimeout(10)
        raw.connect(path)
        raw.sendall(json.dumps({"verb": "start", "spec": {"name": "x"}}).encode() + b"\n")
        answer = json.loads(raw.makefile("rb").readline())
    assert not answer["ok"]
    assert "cannot be read" in answer["error"]
    client.wait_ready(["one"], 10)


def test_a_supervisor_of_another_version_is_told_apart(
    client: StackClient, python: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that writes specs of another form says so, and sends none."""
    monkeypatch.setattr("towpath.stack.client.PROTOCOL", -1)
    with pytest.raises(RefusedError, match="another version") as refused:
        client.start(python("one", RUNS))
    assert client.status() == {}
    pid = client.supervisor().pid
    assert pid is not None
    with variables({"TOWPATH_STACK__HOME": str(client.home.root)}):
        done = run(ROOT, *step_in(refused.value, "down")).leads_on()
    assert (done.code, is_gone(pid)) == (0, True), done.text


def test_a_frozen_supervisor_is_ended_by_what_every_command_says(
    client: StackClient, home: Home, python: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by `doctor`, which sends nobody back to itself; then nothing runs, and `up` is told."""
    client.start(python("one", RUNS))
    client.wait_ready(["one"], 10)
    pid, one = client.supervisor().pid, pid_of(client, "one")
    assert pid is not None
    monkeypatch.setattr("towpath.stack.client.ANSWER_SECONDS", 0.5)
    os.kill(pid, signal.SIGSTOP)
    with variables({"TOWPATH_STACK__HOME": str(home.root)}):
        for verb in ("status", "doctor", "down"):
            said = run(ROOT, verb).leads_on()
            assert (said.code, said.next_steps()) == (1, [("up",)]), said.text
            (kill,) = re.findall("kill -KILL [0-9]+", said.text)
        subprocess.run(shlex.split(kill), check=True)
        assert eventually(lambda: is_gone(pid) and is_gone(one))
        said = run(ROOT, "status")
        assert ("not running" in said.text, said.next_steps()) == (True, [("up",)]), said.text


def test_an_idle_supervisor_costs_next_to_nothing(client: StackClient, python: SpecMaker) -> None:
    """With its processes ready a supervisor does not poll: under 2 % of a core over two seconds."""
    client.start(python("one", RUNS))
    client.wait_ready(["one"], 10)
    ticks = Path(f"/proc/{client.supervisor().pid}/stat")

    def used_seconds() -> float:
        fields = ticks.read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used_seconds()
    time.sleep(2)
    assert used_seconds() - before < 0.04
