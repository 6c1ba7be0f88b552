"""A worker whose search for its coordinator never ends says so, and gets another member by itself."""

from pathlib import Path

import pytest

from tests.integration.stack.test_supervisor import eventually
from tests.kafka_proxy import kafka_proxy
from tests.stack_fixture import RunningStack
from towpath.stack import findings
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import State
from towpath.stack.workers import told_status, worker_process
from towpath.stream.broker.kafka import KafkaBroker

pytestmark = pytest.mark.crash
"""The short form is tests/unit/stream/test_membership.py: waiting for a real session to end takes its time."""
WORKER = "view:order_status"
SESSION_SECONDS, LOST_SECONDS_MAX = 6.0, 4.0
FAST = {
    "TOWPATH_STREAM__BATCH_SECONDS_MAX": "2",
    "TOWPATH_STREAM__TRANSACTION_TIMEOUT_SECONDS": "4",
    "TOWPATH_STREAM__SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
    "TOWPATH_STREAM__MEMBERSHIP_SECONDS_MAX": str(LOST_SECONDS_MAX),
}


def test_a_member_that_never_finds_its_coordinator_is_replaced(stack: RunningStack) -> None:
    """As after a broker was frozen and killed: not ready meanwhile, by every word; then served again, never restarted.

    librdkafka's own member is left as it hangs: on its connections no search is answered to the end of the test.
    """
    home = Home(stack.settings.stack_home)
    with kafka_proxy(stack.settings.kafka.bootstrap_servers) as proxy:
        environment = {**stack.environment, **FAST, "TOWPATH_KAFKA__BOOTSTRAP_SERVERS": proxy.address}
        spec = worker_process(stack.settings, WORKER, "lost", environment=environment)
        stack.client.start(spec)
        try:
            stack.client.wait_ready([spec.name], 120)
            before = stack.client.status()[spec.name]
            application = (told_status(home, spec.name, before.pid) or {})["application"]
            proxy.lose(application)
            said: list[str] = []

            def is_lost() -> bool:
                now = stack.client.status()[spec.name]
                told = told_status(home, spec.name, now.pid)
                if now.state is State.UNREADY and told is not None and not told["is_member"]:
                    said.extend(
                        finding.finding for finding in findings.worker(spec.name, told, group_was_looked_at=True)
                    )
                return bool(said)

            assert eventually(is_lost, 60)
            assert said == ["is no member of its group"]
            assert eventually(lambda: b"member is replaced" in Path(spec.log_file).read_bytes(), 60)
            assert proxy.withheld > 0
            proxy.answer_new_connections()
            assert eventually(lambda: stack.client.status()[spec.name].state is State.READY, 60)
            after = stack.client.status()[spec.name]
            assert (after.pid, after.starts) == (before.pid, before.starts)
            broker = KafkaBroker(stack.settings.kafka, stack.settings.stream)
            members = broker.group_members(application)
            assert [one.client_id.startswith(f"{application}-lost@") for one in members].count(True) == 1
        finally:
            stack.client.stop(spec.name)
