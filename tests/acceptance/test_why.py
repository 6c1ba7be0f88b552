"""`towpath saga why` on the whole stack: what holds an order up is planted, and must be named."""

import os
import subprocess
import sys
import time
from uuid import uuid4

import pytest

from tests.acceptance.shop import LARGE_CENTS, Shop, await_instance, open_shop, waits_for_approval
from tests.acceptance.verbs import found_here, run_here
from tests.next_steps import step_in
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath.capture.connect import ConnectClient
from towpath.cli.saga_look import Look
from towpath.outbox.names import connector_name
from towpath.stack.workers import start_workers
from towpath.stream.broker.kafka import read_records

WAIT_SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def shop(stack: RunningStack) -> Shop:
    """Open the shop."""
    return open_shop(stack)


def reasons(stack: RunningStack, order_id: str) -> str:
    """Return the sentences and their commands."""
    return "\n".join(
        f"{line['sentence']} | {line['command']}" for line in found_here(stack, "saga", "why", "place_order", order_id)
    )


def await_reason(stack: RunningStack, order_id: str, words: str) -> str:
    """Ask until the answer has these words, and return it whole."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        done = run_here(stack, "saga", "why", "place_order", order_id, "--json")
        if words in done.stdout:
            return reasons(stack, order_id)
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(1)


def records_of_its_topics(stack: RunningStack) -> int:
    """Return how many records there are in the topic of states."""
    return sum(1 for _ in read_records(stack.settings, ["place_order.state"]))


def order_id() -> str:
    """Return an id that no order has."""
    return f"why-{uuid4().hex[:8]}"


def test_nobody_asked_for_it(stack: RunningStack, shop: Shop) -> None:
    """No outbox, no topic and no dead letter has it: exit code 5, and the sentence."""
    del shop
    done = run_here(stack, "saga", "why", "place_order", "nobody")
    assert done.returncode == 5, done.stderr
    assert "no start event for it was found" in done.stdout


def test_it_waits_for_a_person_and_then_it_has_ended(stack: RunningStack, shop: Shop) -> None:
    """The command that is printed answers the wait."""
    order = order_id()
    shop.place(order)
    await_instance(stack, order, waits_for_approval)
    look = Look(stack.settings, "place_order")
    assert look.at(order).state is not None
    assert 0 < look.reader.records < records_of_its_topics(stack), "more was read than its key's partition"
    told = reasons(stack, order)
    assert "approval waits for OrderApproved or OrderDeclined, until" in told
    assert f"towpath saga signal place_order {order} OrderApproved --value" in told
    found_here(
        stack,
        "saga",
        "signal",
        "place_order",
        order,
        "OrderApproved",
        "--value",
        f'{{"order_id": "{order}"}}',
        "--like",
    )
    await_instance(stack, order, lambda one: one.state.status == "completed")
    ended = reasons(stack, order)
    assert "it has ended: nothing moves it any more" in ended
    assert run_here(stack, *step_in(ended, "saga history x x")).returncode == 0


def test_its_event_is_not_captured(stack: RunningStack, shop: Shop) -> None:
    """The connector of the order service is paused: the event lies committed in the outbox."""
    order = order_id()
    with ConnectClient(stack.settings.connect) as connect:
        name = connector_name(stack.settings.project.name, "order")
        connect.pause(name)
        try:
            while connect.status(name).tasks and connect.status(name).tasks[0].state != "PAUSED":
                time.sleep(0.2)
            shop.place(order, LARGE_CENTS // 100)
            told = await_reason(stack, order, "the connector of order is paused")
            assert "OrderPlaced lies in the outbox of order, committed, and is not in order.events yet" in told
            with variables({"TOWPATH_CONNECT__URL": "http://127.0.0.1:9"}):
                assert "Kafka Connect does not answer | towpath status" in reasons(stack, order)
        finally:
            connect.resume(name)
    await_instance(stack, order, lambda one: one.state.status == "completed")


def test_a_participant_does_not_run(stack: RunningStack, shop: Shop) -> None:
    """The catalog's worker is stopped: its command lies unread, and the worker to start is named."""
    order = order_id()
    stack.client.stop("service:catalog")
    try:
        shop.place(order, LARGE_CENTS // 100)
        told = await_reason(stack, order, "service:catalog has no worker in its group")
        assert "reserve_stock waits for catalog to answer (attempt" in told
        assert "ReserveStock lies at catalog.commands[" in told
        command = [sys.executable, "-c", "from towpath.cli import main; main()", *step_in(told, "run x")]
        environment = {**os.environ, **stack.environment}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as worker:
            try:
                # On a busy machine its attempts may be used up by now; then it has compensated.
                await_instance(stack, order, lambda one: one.state.ended)
            finally:
                worker.terminate()
    finally:
        start_workers(stack.settings, stack.client, ["service:catalog"])


def test_the_reply_is_recorded_and_not_captured(stack: RunningStack, shop: Shop) -> None:
    """The catalog has carried the command out; its reply waits for a connector that is paused."""
    order = order_id()
    stack.client.stop("service:catalog")
    # Without load replies are handed to Kafka directly: here they must take the way through capture.
    alone = {**os.environ, **stack.environment, "TOWPATH_PARTICIPANT__DIRECT_REPLIES_PER_SECOND": "0"}
    start_workers(stack.settings, stack.client, ["service:catalog"], alone)
    with ConnectClient(stack.settings.connect) as connect:
        name = connector_name(stack.settings.project.name, "catalog")
        connect.pause(name)
        try:
            while connect.status(name).tasks and connect.status(name).tasks[0].state != "PAUSED":
                time.sleep(0.2)
            shop.place(order, LARGE_CENTS // 100)
            told = await_reason(stack, order, "the connector of catalog is paused")
            assert "catalog has carried it out and recorded its reply" in told
        finally:
            connect.resume(name)
            stack.client.stop("service:catalog")
            start_workers(stack.settings, stack.client, ["service:catalog"])
    # On a busy machine its attempts may be used up by now; then it has compensated.
    await_instance(stack, order, lambda one: one.state.ended)
