"""Builds a worker's loop from its options: the one place where adapters meet."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import structlog

from towpath.clock import SystemClock
from towpath.errors import ConfigurationError
from towpath.settings import KafkaSettings, StreamSettings
from towpath.stream.broker.dead_letter import dead_topic
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.agents import Agents
from towpath.stream.engine.loop import UnitLoop
from towpath.stream.engine.options import StreamOptions, check_topics
from towpath.stream.engine.recovery import Recovery
from towpath.stream.engine.slot import this_process
from towpath.stream.engine.timer_gate import TimerGate
from towpath.stream.engine.transaction import KafkaTransaction, Transaction
from towpath.stream.state.partition_state import MemoryStore, Store
from towpath.stream.state.rocks import open_store, store_folder
from towpath.stream.state.stores import PartitionStores, StoreFactory

log = structlog.get_logger("towpath.stream.faust_app.wiring")


def build_loop(
    options: StreamOptions,
    agents: Agents,
    *,
    open_store: StoreFactory | None = None,
    stores: PartitionStores | None = None,
) -> UnitLoop:
    """Return the loop of one worker, not yet subscribed.

    `open_store` is given where stores lie elsewhere, `stores` by a caller that looks at them (`stores_of`).
    """
    stores = stores or stores_of(options)
    gate, counts_seen = None, dict[str, int]()
    if options.timers_topic is not None:
        gate = TimerGate(
            options.broker,
            stores,
            application=options.application,
            topic=options.timers_topic,
            hold=options.hold_deadlines,
            hold_timer=options.hold_timer,
        )
    return UnitLoop(
        options.broker,
        _transaction_of(options, stores),
        agents,
        Recovery(
            options.broker,
            stores,
            open_store or _store_factory(options),
            options.clock,
            application=options.application,
            slot=options.slot,
        ),
        options.settings,
        options.clock,
        application=options.application,
        slot=options.slot,
        holder=str(this_process()),
        world_errors=options.world_errors,
        learn=options.learn,
        timer_gate=gate,
        gathering=options.gathering,
        keeps_state=bool(options.states),
        on_status=options.on_status,
        check_topics=lambda names: check_counts(options, names, counts_seen),
    )


def stores_of(options: StreamOptions) -> PartitionStores:
    """Return the stores of a worker, of which none is served yet."""
    return PartitionStores(
        options.states, parks=options.parks_keys, limits=options.limits, timers_topic=options.timers_topic
    )


def check_counts(options: StreamOptions, names: list[str], seen: dict[str, int] | None = None) -> None:
    """Raise ConfigurationError where a topic is missing or partition counts differ, BrokerAway where Kafka is away.

    `seen` are the counts of the last time: a topic that has grown since is told, though all of them may still fit.
    """
    dead = [dead_topic(name) for name in names]
    wanted = {*names, *options.states, *dead, *filter(None, [options.timers_topic])}
    counts = options.broker.partition_counts(wanted)
    if seen is not None:
        _tell_growth({topic: counts[topic] for topic in names if topic in counts}, seen)
        seen.update(counts)
    check_topics(counts, inputs=names, states=options.states, timers_topic=options.timers_topic, dead=dead)


def _tell_growth(counts: dict[str, int], seen: dict[str, int]) -> None:
    for topic, count in counts.items():
        if count > seen.get(topic, count):
            log.warning(
                "topic has grown: records of one key lie in two partitions",
                topic=topic,
                partitions_before=seen[topic],
                partitions=count,
            )


def _transaction_of(options: StreamOptions, stores: PartitionStores) -> Callable[[UnitLoop], Transaction]:
    def build(loop: UnitLoop) -> Transaction:
        if options.database is not None:
            from towpath.stream.engine.postgres import DatabaseTransaction

            return DatabaseTransaction(options, loop)
        return KafkaTransaction(
            options.broker,
            stores,
            options.clock,
            application=options.application,
            transactional_id=options.transactional_id,
            in_thread=loop.in_thread,
            limits=options.limits,
        )

    return build


def _store_factory(options: StreamOptions) -> StoreFactory:
    folder = options.state_folder
    if folder is None:
        return lambda _changelog: MemoryStore()

    def build(changelog: TopicPartition) -> Store:
        store, damage = open_store(store_folder(folder, options.application, options.slot, *changelog))
        if damage is not None:
            log.warning("store was damaged and is rebuilt", changelog=str(changelog), reason=damage)
        return store

    return build


def options_from_url(application: str, urls: Any) -> StreamOptions:
    """Return the options of a plain `faust.App` whose broker is `towpath://host:port,.../?slot=NAME`."""
    first = urls[0]
    slot = parse_qs(first.query_string).get("slot", [""])[0]
    if not slot:
        raise ConfigurationError(
            f"{application}: the broker URL names no slot",
            next_step="write it as towpath://host:9092/?slot=NAME, the name stable over restarts and unique per worker",
        )
    servers = ",".join(f"{url.host}:{url.port or 9092}" for url in urls)
    settings = StreamSettings()
    return StreamOptions(
        application=application,
        slot=slot,
        broker=KafkaBroker(KafkaSettings(bootstrap_servers=servers), settings),
        settings=settings,
        clock=SystemClock(),
    )
