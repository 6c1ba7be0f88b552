"""Conducts a run: starts what is not running, drives traffic, kills processes if asked to, waits, and has it judged.

The one rule: it ends. Every wait has a deadline; what has not ended by then is reported as lost or stuck, not awaited.
"""

import signal
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from towpath.clock import Clock, SystemClock, wait_until
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.registry import load_codec
from towpath.deadletter.redrive import read_quarantine
from towpath.demo.demo import Check, Demo, Outcome, Run
from towpath.demo.postgres import ViewsReader
from towpath.demo.timeline import Hop, hops
from towpath.demo.verdict import Ending, Verdict, endings, fold_topics, judge
from towpath.errors import ConfigurationError
from towpath.orchestrator import envelope
from towpath.orchestrator.sagas_view import ENDINGS, own_views
from towpath.project import load_sagas, view_workers, worker_names
from towpath.saga.state import Status
from towpath.settings import Settings
from towpath.stack.client import StackClient
from towpath.stack.home import Home
from towpath.stack.up import UpWatcher, down, up
from towpath.stack.workers import start_workers
from towpath.stream.broker.kafka import KafkaBroker, read_records
from towpath.stream.broker.record import ConsumedRecord
from towpath.view import View
from towpath.view.agent import application_name

ORDERS_PER_SECOND = 100
PLACING_SECONDS = 0.1
FOLLOWING_SECONDS = 0.2
DEADLINE_SECONDS = 120.0
SECONDS_PER_ORDER = 0.1
"""Time that a run may take beside its deadline; a tenth of the rate that two busy cores reach."""
EXACT_SECONDS = 20.0


class Watcher(UpWatcher, Protocol):
    """Who shows how a run gets on."""

    def placing(self, orders: int) -> None:
        """Traffic begins."""
        ...

    def progress(self, placed: int, standing: Mapping[str, int]) -> None:
        """So many orders are placed, and so many sagas have each status."""
        ...

    def killed(self, name: str) -> None:
        """A process was sent SIGKILL."""
        ...

    def judging(self) -> None:
        """All orders have ended, or the deadline has passed; databases and topics are read now."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. With `crash`, one process after another is killed while orders are under way."""

    orders: int = 200
    seed: int = 1
    keep: bool = False
    crash: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a run showed. `journeys` are one completed and one compensated order, hop by hop, by key."""

    verdict: Verdict
    outcomes: Mapping[str, Outcome]
    checks: Collection[Check]
    journeys: Mapping[str, tuple[str, list[Hop]]]


def conduct(settings: Settings, demo: Demo, options: Options, watcher: Watcher, *, run_id: str) -> Report:
    """Run the demo and return what it showed; the stack is stopped after it if it was started for it.

    A stack that is not ours to manage must be up, workers included. Raises WorldError where the stack does not start,
    or is gone in the middle.
    """
    clock = SystemClock()
    begin = clock.monotonic_seconds()
    if options.crash and not settings.stack.managed:
        raise ConfigurationError(
            "only processes of our own stack can be killed", next_step="run the demo without --crash"
        )
    started = up(settings, watcher=watcher) if settings.stack.managed else ()
    try:
        if settings.stack.managed:
            with StackClient(Home(settings.stack_home)) as client:
                start_workers(settings, client, worker_names(settings))
        codec = load_codec(settings, Catalogue.load(settings))
        run = Run(settings, codec, run_id, options.orders, Random(options.seed))  # noqa: S311 - traffic, not secrets
        traffic = _Traffic(demo, run, options, watcher, clock)
        keys = traffic.drive()
        watcher.judging()
        return _judged(demo, run, keys, begin, traffic.seconds, clock)
    finally:
        if started and not options.keep:
            watcher.step("stopping the stack; its data stays")
            down(settings)


class _Traffic:
    """One run's orders, from the first to the last that ended."""

    def __init__(self, demo: Demo, run: Run, options: Options, watcher: Watcher, clock: Clock) -> None:
        self._clock = clock
        self._demo = demo
        self._run = run
        self._options = options
        self._watcher = watcher
        self._keys: set[str] = set()
        self._decided: set[str] = set()
        self._kills = _kills(run.settings, demo.saga, options)
        self.seconds = 0.0

    def drive(self) -> set[str]:
        """Place every order, follow them to their ends, and return their keys."""
        self._demo.prepare(self._run)
        self._watcher.placing(self._options.orders)
        views = ViewsReader(self._run.settings)
        begin = self._clock.monotonic_seconds()
        try:
            self._place_all(views)
            wait_until(
                self._clock,
                lambda: self._follow(views),
                seconds=DEADLINE_SECONDS + SECONDS_PER_ORDER * self._options.orders,
                every_seconds=FOLLOWING_SECONDS,
            )
        finally:
            self.seconds = self._clock.monotonic_seconds() - begin
            views.close()
        return self._keys

    def _place_all(self, views: ViewsReader) -> None:
        followed = self._clock.monotonic_seconds()
        while len(self._keys) < self._options.orders:
            begin = self._clock.monotonic_seconds()
            count = min(int(ORDERS_PER_SECOND * PLACING_SECONDS), self._options.orders - len(self._keys))
            self._keys.update(self._demo.place(self._run, count))
            self._kill_what_is_due()
            if begin - followed > FOLLOWING_SECONDS:
                followed = begin
                self._follow(views)
            self._clock.sleep(max(0.0, PLACING_SECONDS - (self._clock.monotonic_seconds() - begin)))

    def _follow(self, views: ViewsReader) -> bool:
        """Show where the orders stand, and let people decide; return whether every order has come to an end."""
        instances = views.instances(self._demo.saga, self._keys)
        standing = Counter(instance.status for instance in instances)
        self._watcher.progress(len(self._keys), standing)
        waiting = [one for one in instances if one.waiting_for and one.saga_id not in self._decided]
        if waiting:
            self._demo.decide(self._run, waiting)
            self._decided.update(one.saga_id for one in waiting)
        settled = sum(standing[status] for status in (*ENDINGS, Status.STUCK.value))
        return settled >= self._options.orders

    def _kill_what_is_due(self) -> None:
        while self._kills and len(self._keys) >= self._kills[0][0]:
            _, name = self._kills.pop(0)
            with StackClient(Home(self._run.settings.stack_home)) as client:
                client.kill(name, signal.SIGKILL)
            self._watcher.killed(name)


def _kills(settings: Settings, saga: str, options: Options) -> list[tuple[int, str]]:
    """Return whom to kill after how many orders: the orchestrator, a participant, Connect, the orchestrator again."""
    if not options.crash:
        return []
    services = [name for name in worker_names(settings) if name.startswith("service:")]
    victims = [f"saga:{saga}", services[-1], "connect", f"saga:{saga}"]
    return [(options.orders * (place + 1) // (len(victims) + 1), name) for place, name in enumerate(victims)]


def _judged(demo: Demo, run: Run, keys: set[str], begin: float, traffic_seconds: float, clock: Clock) -> Report:
    settings, codec = run.settings, run.codec
    catalogue = Catalogue.load(settings)
    views: list[View[Any]] = [*view_workers(settings).values(), *own_views(load_sagas(settings))]
    stepped_over: set[str] = set()
    exact = _views_are_exact(settings, codec, views, clock, stepped_over)
    records = _records(settings, [topic.name for topic in catalogue.live()])
    history = [record for record in records if record.topic == envelope.topic_of(demo.saga, envelope.HISTORY)]
    instances = endings(history, codec, demo.saga, stepped_over)
    outcomes, checks = demo.outcomes(settings), demo.checks(settings)
    verdict = judge(
        run_keys=keys,
        placed=demo.placed_keys(settings),
        instances=instances,
        outcomes=outcomes,
        checks=checks,
        executed_twice=demo.executed_twice(settings),
        views_exact=exact,
        traffic_seconds=traffic_seconds,
        elapsed_seconds=clock.monotonic_seconds() - begin,
        stepped_over=len(stepped_over),
    )
    journeys = {}
    for status in (Status.COMPLETED.value, Status.COMPENSATED.value):
        key = _typical(instances, keys, status)
        if key is not None:
            journeys[key] = (status, hops(records, key, demo.saga))
    return Report(verdict, {key: outcomes[key] for key in keys if key in outcomes}, checks, journeys)


def _views_are_exact(
    settings: Settings, codec: Codec, views: list[View[Any]], clock: Clock, stepped_over: set[str]
) -> bool:
    """Say whether every view equals the fold of its topics, once it has had the time to read them.

    What lies in its quarantine, or did, is no part of the fold: its position goes into `stepped_over`.
    """
    topics = {topic for view in views for topic in view.topics}
    reader = ViewsReader(settings)

    def are_exact() -> bool:
        rows = reader.rows(views)
        records, dead = _records(settings, topics), _dead(settings)
        stepped_over.clear()
        exact = True
        for view in views:
            positions = dead[application_name(settings, view)]
            try:
                exact &= (
                    fold_topics(view, records, codec, dead=positions, stepped_over=stepped_over) == rows[view.table]
                )
            except Exception:  # a record that cannot be folded, and whose letter is not there yet
                exact = False
        return exact

    try:
        return wait_until(clock, are_exact, seconds=EXACT_SECONDS, every_seconds=FOLLOWING_SECONDS)
    finally:
        reader.close()


def _dead(settings: Settings) -> Mapping[str, set[str]]:
    """Return where each application's dead letters, and what waits behind them, lay in their topics, settled or not."""
    broker = KafkaBroker(settings.kafka, settings.stream)
    found: dict[str, set[str]] = defaultdict(set)
    for dead in read_quarantine(broker, Catalogue.load(settings).dead_topics()).letters():
        found[dead.letter.application].add(dead.letter.position)
    return found


def _records(settings: Settings, topics: Iterable[str]) -> list[ConsumedRecord]:
    """Return the committed records of `topics`, those of each partition in their order."""
    return sorted(read_records(settings, topics), key=lambda record: (record.topic, record.partition, record.offset))


def _typical(instances: Mapping[str, list[Ending]], keys: set[str], status: str) -> str | None:
    """Return the key of the order that took the median time among those that ended so."""
    found = [
        (ending.seconds or 0.0, ending.key)
        for key in keys
        for ending in instances.get(key, [])
        if ending.status == status
    ]
    return sorted(found)[len(found) // 2][1] if found else None
