"""Starts capture for services, and returns once Debezium really reads their outboxes.

The one rule: Connect says RUNNING before a task has reached its database, so what counts is the slot in use.
"""

from collections.abc import Iterable

from towpath.capture import postgres
from towpath.capture.connect import ConnectClient, ConnectorStatus
from towpath.capture.connector import outbox_connector
from towpath.capture.kafka import ensure_heartbeat_topics
from towpath.clock import Clock, SystemClock, wait_until
from towpath.contract.catalogue import Catalogue
from towpath.errors import NotFoundError, WorldError
from towpath.outbox.names import connector_name, slot_name
from towpath.settings import Settings

POLL_SECONDS = 0.05
RESTART_SECONDS = 5.0
"""For so long after a restart Connect may still tell of the failure before it."""


def start_capture(
    settings: Settings,
    catalogue: Catalogue,
    services: Iterable[str],
    *,
    timeout_seconds: float = 30.0,
    clock: Clock | None = None,
) -> tuple[str, ...]:
    """Create or update the connector of each service, restart what failed, and wait until every outbox is read.

    Returns the names of the connectors that were new or changed. Raises WorldError with Debezium's own cause for
    one that cannot work, ConfigurationError for one that Connect refuses.
    """
    services = tuple(services)
    ensure_heartbeat_topics(settings, services)
    with ConnectClient(settings.connect) as connect:
        connectors = [outbox_connector(settings, catalogue, service) for service in services]
        changed = tuple(connector.name for connector in connectors if connect.apply(connector))
        failed = [one.name for one in connectors if one.name not in changed and connect.status(one.name).failure]
        for name in failed:
            connect.restart(name)
        for service in services:
            restarted = connector_name(settings.project.name, service) in failed
            wait_until_captured(
                connect, settings, service, timeout_seconds=timeout_seconds, restarted=restarted, clock=clock
            )
    return changed


def wait_until_captured(
    connect: ConnectClient,
    settings: Settings,
    service: str,
    *,
    timeout_seconds: float,
    restarted: bool = False,
    clock: Clock | None = None,
) -> None:
    """Wait until Debezium reads the outbox of `service`. Raises WorldError with the cause where it does not.

    A failure ends the wait; of a connector that was `restarted` only once it cannot be that of before.
    """
    clock = clock or SystemClock()
    believed = clock.monotonic_seconds() + (RESTART_SECONDS if restarted else 0.0)

    def failed(status: ConnectorStatus | None) -> bool:
        return status is not None and status.failure is not None and clock.monotonic_seconds() >= believed

    name = connector_name(settings.project.name, service)
    slot = slot_name(settings.project.name, service)
    with postgres.connect(settings, service) as connection:
        state, status = wait_until(
            clock,
            lambda: (postgres.slot_state(connection, slot), _status(connect, name)),
            holds=lambda found: _reads(*found) or failed(found[1]),
            seconds=timeout_seconds,
            every_seconds=POLL_SECONDS,
        )
    failure = status.failure if status else None
    if not _reads(state, status):
        raise WorldError(
            f"connector {name} does not read {service}'s outbox: {failure or 'no sign of it in the database'}",
            kept="every message, in the outbox",
            next_step=next_step(service, status, state),
        )


def _reads(slot: postgres.SlotState | None, status: ConnectorStatus | None) -> bool:
    return slot is not None and slot.active and status is not None and status.running


def next_step(service: str, status: ConnectorStatus | None, slot: postgres.SlotState | None) -> str | None:
    """Return what to run where the outbox of `service` is not read; None where it is."""
    if slot is None or slot.lost:
        return f"towpath capture recover {service}"
    if status is None:
        return "towpath provision"
    if status.failure:
        return after_failure(service, status)
    if status.state in ("STOPPED", "PAUSED"):
        return f"towpath capture recover {service}"
    return None if status.running and slot.active else "towpath logs connect"


def after_failure(service: str, status: ConnectorStatus) -> str:
    """Return what to run where the connector of `service` has failed."""
    if status.position_gone:
        return f"towpath capture recover {service}"
    if status.refused_by_kafka:
        return f"towpath capture recover {service} --dry-run"
    return f"remove the cause, then: towpath capture restart {service}"


def _status(connect: ConnectClient, name: str) -> ConnectorStatus | None:
    try:
        return connect.status(name)
    except NotFoundError:  # its first status comes a moment after its configuration
        return None
