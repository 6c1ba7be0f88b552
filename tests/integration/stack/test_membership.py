"""A worker whose search for its coordinator never ends says so, and gets another member by itself."""

import json
import time

from tests.integration.stack.test_running import towpath
from tests.integration.stack.test_supervisor import eventually
from tests.kafka_proxy import kafka_proxy
from tests.stack_fixture import RunningStack
from towpath.stack import findings
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import State
from towpath.stack.workers import told_status, worker_process

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

    librdkafka's own member is left as it hangs: its searches go unanswered to the end of the test.
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
                    said.extend(finding.finding for finding in findings.worker(spec.name, told))
                return bool(said)

            assert eventually(is_lost, 60)
            assert said == ["is no member of its group"]
            began = time.monotonic()
            assert eventually(lambda: stack.client.status()[spec.name].state is State.READY, 60)
            # Far sooner than the client library itself would have asked anew: after 60 s, if ever.
            assert time.monotonic() - began < 40
            assert proxy.withheld > 0
            after = stack.client.status()[spec.name]
            assert (after.pid, after.starts) == (before.pid, before.starts)
            groups = {one["group"]: one for one in json.loads(towpath(stack, "status", "--json").stdout)["groups"]}
            members = [one for one in groups[application]["members"] if f"{application}-lost@" in one["client_id"]]
            assert len(members) == 1
        finally:
            stack.client.stop(spec.name)
