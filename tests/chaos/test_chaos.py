"""Orders flow while everything is killed and frozen, poison comes into every topic, a slot and a state are lost.

At the end, from databases and topics: every order ended once, the books balance, one effect a command, views are folds
of the log, outboxes are complete, every group has read everything, no transaction is open, and quarantine holds the
poison and nothing else. Under a minute of it in CI, ten minutes in `make test-chaos`; a run is one seed.
"""

import json
import os
import random
import time
import uuid
from pathlib import Path

import pytest

from tests.chaos.evidence import Evidence
from tests.chaos.judge import Case
from tests.chaos.nemesis import Nemesis
from tests.chaos.poison import every_kind, expected_letters
from tests.chaos.traffic import REFUSED_ROWS, Poisoner, Traffic
from tests.crash.harness import seed_of_the_run
from tests.stack_fixture import RunningStack
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.errors import TowpathError
from towpath.project import worker_names
from towpath.stack.groups import applications
from towpath.stack.workers import start_workers

SHORT_SECONDS = 45.0
LONG_SECONDS = 600.0
SETTLING_SECONDS_MAX = 300.0
JUDGING_SECONDS = 3.0
FAULTS_OF_SHORT = (
    "kill two workers",
    "freeze a worker",
    "freeze and kill the broker",
    "kill connect",
    "kill postgres",
    "freeze postgres",
    "kill registry",
    "lose a slot",
    "lose a state",
)
OF_WORKERS = {
    # A worker stops where most of what it reads is dead; here that is meant.
    "TOWPATH_STREAM__DEAD_LETTER_SHARE_MAX": "1",
    "TOWPATH_PROJECT__VIEWS": json.dumps(["tests.chaos.failing_view:view"]),
}


def long_seconds() -> float:
    """Return how long the long form runs: ten minutes, unless a variable says otherwise."""
    return float(os.environ.get("TOWPATH_TEST_SECONDS") or LONG_SECONDS)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.chaos)], ids=["short", "long"])
def test_nothing_is_lost_wedged_or_done_twice(stack: RunningStack, tmp_path: Path, long: bool) -> None:
    """Whatever is killed, frozen, dropped or sent."""
    seed = seed_of_the_run()
    chance = random.Random(seed)
    settings, seconds = stack.settings, long_seconds() if long else SHORT_SECONDS
    workers = worker_names(settings)
    for name in set(workers) & stack.client.status().keys():
        stack.client.stop(name)  # it is started anew, with the settings of this test
    start_workers(settings, stack.client, workers, {**os.environ, **stack.environment, **OF_WORKERS})
    catalogue = Catalogue.load(settings)
    codec = load_codec(settings, catalogue)
    topics = {topic.name: topic.partitions for topic in catalogue.topics.values()}
    before = frozenset(Evidence(settings, topics).read().letters)
    run_id = uuid.UUID(int=chance.getrandbits(128)).hex[:8]
    nemesis = Nemesis(stack, workers, chance, tmp_path / "chaos.log")
    traffic, poisoner = Traffic(settings, codec, run_id, 2_000, seed), Poisoner(settings)
    poison = every_kind(topics, codec, chance)
    faults = list(FAULTS_OF_SHORT)
    chance.shuffle(faults)
    try:
        traffic.begin()
        end = time.monotonic() + seconds
        pace = seconds / (len(poison) + 1)
        next_poison, next_fault = time.monotonic(), time.monotonic() + chance.uniform(1, 3)
        while time.monotonic() < end or poison or faults:
            while poison and time.monotonic() >= next_poison:
                poisoner.send(poison.pop())
                next_poison += pace
            if time.monotonic() >= next_fault and (faults or time.monotonic() < end):
                nemesis.inflict(faults.pop() if faults else chance.choice(list(nemesis.faults)))
                next_fault = time.monotonic() + chance.expovariate(1 / 4)
            nemesis.pass_time(0.1)
        nemesis.note("nothing is broken any more")
        traffic.close_shop()
        nemesis.wait_ready()
        poisoner.finish()
        case = Case(
            settings=settings,
            codec=codec,
            run_id=run_id,
            placed=traffic.placed,
            cancelled=traffic.cancelled,
            expected=expected_letters(
                poisoner.sent, {one.worker: name for name, one in applications(settings).items()}
            ),
            poisoned={f"{one.topic}[{one.partition}]@{offset}" for one, offset in poisoner.sent}
            | {position for _, position in before},
            before=before,
        )
        wrongs = judged(case, topics, nemesis)
    finally:
        nemesis.thaw(everything=True)
        poisoner.finish()
        traffic.end()
    nemesis.note(
        f"{len(traffic.placed)} orders, {len(traffic.cancelled)} cancellations, {len(poisoner.sent)} records of "
        f"poison, {traffic.refused_rows.total()} rows refused; troubles: {dict(traffic.troubles)}"
    )
    assert wrongs == []
    assert poisoner.failed == []
    assert traffic.accepted_rows == []
    assert len(traffic.placed) > seconds / 3
    if long:
        assert traffic.refused_rows.keys() == REFUSED_ROWS.keys()
        assert traffic.cancelled


def judged(case: Case, topics: dict[str, int], nemesis: Nemesis) -> list[str]:
    """Return what is wrong once all has settled, or still is after the time that this may take."""
    deadline = time.monotonic() + SETTLING_SECONDS_MAX
    said = -1
    while True:
        try:
            wrongs = case.wrongs(Evidence(case.settings, topics).read())
        except TowpathError as error:
            wrongs = [f"cannot judge: {error}"]
        if len(wrongs) != said:
            said = len(wrongs)
            nemesis.note(f"{said} things are wrong yet{': ' + wrongs[0] if wrongs else ''}")
        if not wrongs:
            return []
        if time.monotonic() > deadline:
            nemesis.tell()
            return wrongs
        time.sleep(JUDGING_SECONDS)
