"""Whole sagas beside their peers: `python -m bench.saga [--json] [--steps 3|5] [--partitions N] [--rate R]`.

Ours is the complete path: start event in an outbox, Debezium, Kafka, orchestrator, a database a service, views. It is
measured (a) draining a backlog, (b) at the highest rate held for 30 s with p99 under 2 s, (c) one at a time. Peers run
the same three steps, each one PostgreSQL transaction with inbox row, business change and reply row, in three
databases of the same server: Restate and DBOS, in Python both. A loop on every core tells how busy the machine was, and
how fast, before and after; `valid` is false where times mean nothing: it was too busy, or slower at one end than at the
other. `machine.rounds_per_second` tells how runs of other days compare. A run takes under eight minutes.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

from bench.saga_forms import form_of
from bench.saga_ours import Ours, our_stack, search
from bench.saga_peers import measure_peers
from bench.saga_processes import calibrate, is_steady, machine_busy_seconds

WARM_SAGAS = 1_000
"""The JVMs compile what is hot with half of their CPU time for the first seconds of load: that is no cost of a saga."""
RATE_SECONDS = 30.0
OTHERS_MAX = 0.1
"""Share of the machine that processes of others took while ours were measured."""


def main() -> int:
    """Measure and print; return 1 where a saga was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--steps", type=int, choices=(3, 5), default=5, help="3: bench/booking; 5: place_order")
    parser.add_argument("--sagas", type=int, default=2_000, help="of the backlog; 0 leaves it out")
    parser.add_argument("--rate", type=float, help="sagas/s to hold; by default found by trial; 0 leaves it out")
    parser.add_argument("--alone", type=int, default=50, help="sagas run one at a time; 0 leaves them out")
    parser.add_argument(
        "--partitions", type=int, default=1, help="of each topic; one worker a role needs no more than 1, the default"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave Restate and DBOS out")
    options = parser.parse_args()
    result = measure(options)
    print(json.dumps(result, indent=None if options.json else 2))
    return 0 if result["complete"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything that is asked for."""
    calibrations = [calibrate()]
    note(f"a busy loop takes {calibrations[0].crowding} times its CPU time")
    peers: dict[str, Any] = {}
    with our_stack(form_of(options.steps), options.partitions) as ours:
        figures, others = measure_ours(ours, options)
        # Asked where nothing of ours works any more: what our own processes take is no crowd.
        ours.only_postgres()
        calibrations.append(calibrate())
        if not options.no_peers:
            peers = measure_peers(ours.settings, options.sagas or 2_000, options.alone or 50, note)
            calibrations.append(calibrate())
    complete = figures.pop("complete")
    return {
        "valid": complete and is_steady(calibrations) and (others is None or others <= OTHERS_MAX),
        "steps": options.steps,
        "partitions": options.partitions,
        "ours": figures,
        **peers,
        "complete": complete,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "towpath": version("towpath"),
            "crowding": [one.crowding for one in calibrations],
            "rounds_per_second": [one.rounds_per_second for one in calibrations],
            "share_taken_by_others": others,
        },
    }


def measure_ours(ours: Ours, options: argparse.Namespace) -> tuple[dict[str, Any], float | None]:
    """Return our figures, and the share of the machine that others took meanwhile."""
    note("warming up")
    warm = ours.backlog(WARM_SAGAS)
    began, busy, spent = time.monotonic(), machine_busy_seconds(), _own_seconds(ours)
    figures: dict[str, Any] = {
        "sagas_per_second": None,
        "alone_p50_milliseconds": None,
        "alone_p99_milliseconds": None,
        "rate_held": None,
        "cpu_milliseconds_per_saga": None,
        "hops": None,
        "processes": None,
        "idle_share_of_a_core": None,
        "idle_share_of_a_core_total": None,
    }
    complete = _whole(warm)
    if options.sagas:
        backlog, idle = ours.backlog(options.sagas), ours.idle()
        note(f"idle: {sum(idle.values()):.1%} of a core")
        figures["idle_share_of_a_core"] = {name: round(share, 4) for name, share in sorted(idle.items())}
        figures["idle_share_of_a_core_total"] = round(sum(idle.values()), 4)
        ours.charge(backlog, idle)
        note(f"backlog: {backlog['sagas_per_second']} sagas/s, {backlog['cpu_milliseconds_per_saga']} ms of CPU a saga")
        for name in ("sagas_per_second", "cpu_milliseconds_per_saga", "processes"):
            figures[name] = backlog[name]
        figures["backlog"] = backlog
        complete &= _whole(backlog)
    rates = _rates(ours, options, (figures["sagas_per_second"] or 100.0))
    figures["rates"] = rates
    figures["rate_held"] = max((one["rate"] for one in rates if one["held"]), default=None)
    complete &= all(one["completed"] == one["verified_in_databases"] for one in rates)
    if options.alone:
        alone = ours.alone(options.alone)
        note(f"one at a time: p50 {alone['p50_milliseconds']} ms, p99 {alone['p99_milliseconds']} ms")
        figures["alone_p50_milliseconds"] = alone["p50_milliseconds"]
        figures["alone_p99_milliseconds"] = alone["p99_milliseconds"]
        figures["hops"], figures["alone"] = alone["hops"], alone
        complete &= alone["completed"] == options.alone
    figures["complete"] = complete
    others = None
    if busy is not None:
        total = (machine_busy_seconds() or 0.0) - busy
        seconds = (time.monotonic() - began) * len(os.sched_getaffinity(0))
        others = round(max(total - (_own_seconds(ours) - spent), 0.0) / seconds, 3)
    return figures, others


def _rates(ours: Ours, options: argparse.Namespace, drained: float) -> list[dict[str, Any]]:
    def one(rate: float) -> dict[str, Any]:
        found = ours.rate(rate, RATE_SECONDS)
        note(f"{found['rate']} a second: {'held' if found['held'] else 'not held'}, {found['start_to_end']}")
        return found

    if options.rate is not None:
        return [one(options.rate)] if options.rate else []
    return search(one, drained)


def _whole(found: dict[str, Any]) -> bool:
    return bool(found["completed"] == found["verified_in_databases"] == found["sagas"])


def _own_seconds(ours: Ours) -> float:
    times = os.times()
    return sum(ours.snapshot().cpu.values()) + times.user + times.system


def note(text: str) -> None:
    """Say how it gets on; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
