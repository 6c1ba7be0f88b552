"""A worker's word on how it stands: one that serves nothing is not ready, whatever its process does."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stack.workers import stalled_processes, standstill, tell_status, told_status, way_back
from towpath.stream.engine.worker_status import HeldPartition, WorkerStatus

HELD = HeldPartition(partition="in[0]", kind="expired", reason="records expired", next_step="towpath positions accept")


def status(**fields: object) -> WorkerStatus:
    return WorkerStatus(application="app", slot="1", **{"is_member": True, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "ready", "words"),
    [
        (status(serving=("in[0]", "in[1]")), True, "serves 2 partitions"),
        (status(), True, "standby: the other workers of its group have every partition"),
        (status(is_member=False), False, "is no member of its group"),
        (status(is_member=False, serving=("in[0]",)), False, "is no member of its group"),
        (status(serving=("in[1]",), held=(HELD,)), False, "holds in[0] (records expired)"),
        (status(serving=("in[1]",), recovering=("in[0]",)), False, "1 of 2 partitions catch up"),
        (status(serving=("in[1]",), waiting_for="the registry is away"), False, "waits: the registry is away"),
        (status(is_member=False, waiting_for="in[0]@7: has", has_stalled=True), False, "stalled: in[0]@7: has"),
    ],
)
def test_readiness_means_partitions_served_or_a_standby_that_says_so(
    given: WorkerStatus, ready: bool, words: str
) -> None:
    """Each way of not serving is told in words; only a member that serves all it owns, or owns nothing, is ready."""
    assert given.is_ready is ready
    assert given.words == words


def test_the_ready_file_is_there_while_the_worker_is_ready(tmp_path: Path) -> None:
    """It is taken back when the worker loses its group; beside it lies how the worker stands, of this process alone."""
    home = Home(tmp_path)
    home.make()
    ready = home.ready_file("service:order")
    tell_status(ready, status(serving=("in[0]",)))
    assert ready.exists()
    tell_status(ready, status(serving=("in[1]",), held=(HELD,)))
    assert not ready.exists()
    told = told_status(home, "service:order", os.getpid())
    assert told is not None
    assert told["held"][0]["next_step"] == "towpath positions accept"
    assert told_status(home, "service:order", os.getpid() + 1) is None
    assert told_status(home, "service:catalog", os.getpid()) is None
    assert json.dumps(told)


@pytest.mark.parametrize(
    ("processes", "advice"),
    [
        ({}, "towpath run service:payment"),
        ({"service:payment": (State.STOPPED, None)}, "towpath run service:payment"),
        ({"service:payment2": (State.READY, 7)}, "towpath run service:payment"),
        ({"service:payment": (State.FROZEN, 7)}, "towpath restart service:payment"),
        ({"service:payment": (State.READY, 7)}, "towpath restart service:payment"),
        (
            {"service:payment": (State.STOPPED, None), "service:payment/2": (State.UNREADY, 7)},
            "towpath restart service:payment/2",
        ),
        ({"service:payment": (State.STARTING, 7)}, "towpath logs service:payment"),
        ({"service:payment": (State.WAITING, None)}, "towpath logs service:payment"),
        ({"service:payment": (State.FAILED, None)}, "towpath restart service:payment"),
        (
            {"service:payment": (State.FAILED, None), "service:payment/2": (State.WAITING, None)},
            "towpath logs service:payment/2",
        ),
    ],
)
def test_a_worker_that_has_left_its_group_is_brought_back_by_the_stack_that_keeps_it(
    processes: dict[str, tuple[State, int | None]], advice: str
) -> None:
    """A second one beside it would be no cure; one that starts is not there yet, and says for what it waits.

    One that keeps dying says why, and one that was given up is started by the stack, not beside it.
    """
    statuses = {
        name: ProcessStatus(name, Group.WORKER, state, "1", (), "log", pid, 1.0, 1, None)
        for name, (state, pid) in processes.items()
    }
    assert way_back("service:payment", statuses) == advice


def test_a_worker_that_has_stalled_is_not_advised_to_be_restarted(tmp_path: Path) -> None:
    """It would meet the same record; its log says where its handler stands."""
    home = Home(tmp_path)
    home.make()
    name = "service:payment/2"
    statuses = {
        each: ProcessStatus(each, Group.WORKER, State.UNREADY, "1", (), "log", os.getpid(), 1.0, 1, None)
        for each in (name, "service:order")
    }
    tell_status(home.ready_file("service:order"), status(is_member=False))
    tell_status(home.ready_file(name), status(is_member=False, waiting_for="in[0]@7: has", has_stalled=True))
    stalled = stalled_processes(home, statuses)
    assert stalled == {name}
    assert way_back("service:payment", statuses, stalled) == f"towpath logs {name}"
    assert way_back("service:order", statuses, stalled) == "towpath restart service:order"


AT = "in[0]"
AWAY = status(is_member=False, waiting_for="the registry is away")
STALLED = status(is_member=False, waiting_for="in[0]@7: has not come back", has_stalled=True)


@pytest.mark.parametrize(
    ("processes", "why", "fix"),
    [
        ({}, None, None),
        ({"service:order": (State.READY, None)}, None, None),
        ({"service:order": (State.READY, status(serving=(AT,)))}, None, None),
        ({"service:order": (State.STOPPED, None)}, None, None),
        ({"service:order": (State.FROZEN, None)}, "its process is frozen", "towpath restart service:order"),
        ({"service:order": (State.UNREADY, AWAY)}, "waits: the registry is away", "towpath logs service:order"),
        (
            {"service:order": (State.UNREADY, STALLED)},
            "stalled: in[0]@7: has not come back",
            "towpath logs service:order",
        ),
        ({"service:order": (State.WAITING, None)}, "its process is waiting: it died", "towpath logs service:order"),
        ({"service:order": (State.UNREADY, status(held=(HELD,)))}, "it holds in[0] (records expired)", HELD.next_step),
        ({"service:order": (State.UNREADY, status(held=(replace(HELD, partition="in[1]"),)))}, None, None),
        ({"service:order": (State.UNREADY, AWAY), "service:order/2": (State.READY, None)}, None, None),
        ({"service:order2": (State.UNREADY, AWAY)}, None, None),
    ],
)
def test_a_worker_stands_still_where_none_of_its_processes_does_anything(
    tmp_path: Path, processes: dict[str, tuple[State, WorkerStatus | None]], why: str | None, fix: str | None
) -> None:
    """In the partition that is asked about, as they say themselves; with what to run."""
    home = Home(tmp_path)
    home.make()
    statuses = {}
    for name, (state, told) in processes.items():
        if told is not None:
            tell_status(home.ready_file(name), told)
        reason = "it died" if state is State.WAITING else None
        statuses[name] = ProcessStatus(name, Group.WORKER, state, "1", (), "log", os.getpid(), 1.0, 1, reason)
    found = standstill("service:order", home, statuses, AT)
    if why is None or fix is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == why
        assert found[1].startswith(fix)
