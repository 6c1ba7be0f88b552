"""Whether Kafka answers, asked once by who has much to ask of it, and what to run where it does not.

The one rule: of a broker that does not answer nobody asks anything else. Each question would wait for its own time-out,
and say the same.
"""

from collections.abc import Mapping
from typing import Protocol

from towpath.clock import Clock, SystemClock, wait_until
from towpath.settings import Settings
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stream.broker.admin.kafka import KafkaAdmin
from towpath.stream.broker.port import BrokerAway

ANSWER_SECONDS_MAX = 5.0
"""How long an answer is waited for; a question is asked again after a second."""
PAUSE_SECONDS = 0.1
LOCAL_HOSTS = ("127.0.0.1", "localhost")


class Asked(Protocol):
    """A cluster that can be asked whether it answers."""

    def is_answered(self) -> bool:
        """Return whether it answers within a second."""
        ...


def broker_away(
    settings: Settings, statuses: Mapping[str, ProcessStatus], admin: Asked | None = None, clock: Clock | None = None
) -> BrokerAway | None:
    """Return that Kafka does not answer, with what to run; None where it does. `statuses` are the stack's processes."""
    asked = admin or KafkaAdmin(settings.kafka.client_config())
    answers = wait_until(
        clock or SystemClock(), asked.is_answered, seconds=ANSWER_SECONDS_MAX, every_seconds=PAUSE_SECONDS
    )
    if answers:
        return None
    servers = settings.kafka.bootstrap_servers
    return BrokerAway(f"Kafka at {servers} does not answer", next_step=_next_step(settings, statuses))


def _next_step(settings: Settings, statuses: Mapping[str, ProcessStatus]) -> str:
    """Return what brings Kafka back: of our own brokers, where they are meant, the one that does not do its work."""
    brokers = [one for one in statuses.values() if one.group is Group.PART and one.name.startswith("kafka")]
    if not brokers:
        return "towpath status, or check [kafka] in towpath.toml"
    own = {f"{host}:{port}" for host in (settings.stack.host, *LOCAL_HOSTS) for one in brokers for port in one.ports}
    if own and own.isdisjoint(server.strip() for server in settings.kafka.bootstrap_servers.split(",")):
        return "check [kafka] in towpath.toml: no broker of the stack has that address"
    for one in brokers:
        if one.state is State.FROZEN:
            return f"towpath restart {one.name}"
    at_fault = next((one for one in brokers if one.state is not State.READY), None)
    if at_fault is not None:
        return f"towpath logs {at_fault.name}"
    return f"towpath restart {brokers[0].name}"
