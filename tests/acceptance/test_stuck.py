"""Stuck orders on the whole stack: found, explained, resolved by each action, from the command line and from code."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest

from schemas.records.order import OrderApproved, OrderConfirmed, OrderDeclined
from schemas.records.payment import AuthorisationVoided
from tests.acceptance.shop import LARGE_CENTS, SMALL_CENTS, Shop, await_instance, await_instances, open_shop
from tests.acceptance.verbs import found_here, run_here
from tests.next_steps import step_in
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath.client import Action, Client, InstanceStatus
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.orchestrator.instance_status import KeptInstance
from towpath.orchestrator.records import HistoryEntry
from towpath.project import worker_names
from towpath.settings import load_settings
from towpath.stack.workers import start_workers
from towpath.stream.broker.kafka import read_records

WAIT_SECONDS_MAX = 120.0
HASTY = {"TOWPATH_PROJECT__SAGAS": "tests.acceptance.hasty"}
WORKER = "saga:place_order"
BULK, BULK_LONG = 40, 500
HELD_SECONDS = 4.0
"""Longer than all attempts of the hasty capture take: two of 1.5 s, and a pause of 0.1 s."""
PAST_PIVOT = "the saga is past its point of no return: what was done stays done"


@dataclass(frozen=True, slots=True)
class Desk:
    """A shop, the stack whose sagas give up within seconds, and a client."""

    stack: RunningStack
    shop: Shop
    client: Client

    def order_url(self) -> str:
        """Return the URL of the order service's database."""
        return self.stack.settings.postgres.database_url("order")

    def standing(self, order_id: str) -> InstanceStatus:
        """Return how an order's instance stands, as the client sees it."""
        (standing,) = self.client.find("place_order", order_id)
        return standing

    def asked(self, order_id: str, action: Action, **more: object) -> str | None:
        """Ask for an action by the client, in a transaction of the order service; return why it was refused."""
        with psycopg.connect(self.order_url()) as connection:
            standing = self.standing(order_id)
            sent = self.client.ask(connection, standing, action, actor="ada", reason="by telephone", **more)  # type: ignore[arg-type]
        return self.client.await_answer(sent, timeout_seconds=WAIT_SECONDS_MAX).refusal

    def said(self, order_id: str, action: str, *more: str) -> str | None:
        """Ask for an action by the command line; return why it was refused."""
        asking = ("saga", action, "place_order", order_id, "--reason", "by telephone", "--actor", "grace", *more)
        done = run_here(self.stack, *asking, "--json")
        assert done.returncode in (0, 6), done.stderr
        (outcome,) = json.loads(done.stdout)
        assert outcome["outcome"] == ("refused" if done.returncode else "applied")
        reason: str | None = outcome["reason"]
        return reason

    def ended(self, order_id: str) -> str:
        """Wait until an order's saga has ended; return how."""
        return await_instance(self.stack, order_id, lambda one: one.state.ended).state.status.value

    def workers(self, *names: str) -> None:
        """Start workers of the hasty project."""
        start_workers(load_settings(ROOT), self.stack.client, names, {**os.environ, **self.stack.environment, **HASTY})


@pytest.fixture(scope="module")
def desk(stack: RunningStack) -> Iterator[Desk]:
    """Run place_order in both versions, of which the newer one gives up within seconds."""
    shop = open_shop(stack, on_hand=2 * BULK_LONG)
    stack.client.stop(WORKER)
    with variables(HASTY):
        desk = Desk(stack, shop, Client.load(load_settings(ROOT)))
        desk.workers(WORKER)
        yield desk
        stack.client.stop(WORKER)
    start_workers(stack.settings, stack.client, worker_names(stack.settings))


def order_ids(count: int, what: str = "stuck") -> list[str]:
    """Return ids that no order has."""
    mark = uuid4().hex[:8]
    return [f"{what}-{mark}-{number}" for number in range(count)]


def decide(desk: Desk, order_id: str, *, approve: bool = True) -> None:
    """Let a clerk decide about an order, in a transaction of the order service."""
    decided = (
        OrderApproved(order_id=order_id, approver="grace")
        if approve
        else OrderDeclined(order_id=order_id, approver="grace", reason="too dear")
    )
    with psycopg.connect(desk.order_url()) as connection:
        desk.client.signal(connection, "place_order", order_id, decided)


def is_stuck(word: str) -> Callable[[KeptInstance], bool]:
    """Return whether an instance is stuck with a step that stands so."""
    return lambda one: one.stuck and any(word in words for words in one.under_way)


def asks_for_approval(one: KeptInstance) -> bool:
    """Say whether an order waits for a clerk, or has waited too long."""
    return any(words.startswith("approval ") for words in one.under_way)


def test_stuck_orders_are_found_explained_and_resolved(desk: Desk) -> None:
    """The card network is dead: captures and an undo are stuck; the order service is: the pivot's outcome is unknown;
    nobody approves: the wait has halted.

    Each is found by `list --stuck`, explained by `why`, and brought to its end by one of the actions: retry, skip and
    resume, cancel and compensate, each from the command line and by the client.
    """
    orders = order_ids(13)
    capture, captured, undo, undone, pivot, pivoted, resumed, again, *halted = orders
    cancelled, cancelled_by_client, given_up, given_up_by_client, approved = halted
    stack, client = desk.stack, desk.stack.client
    desk.shop.place_many(orders, LARGE_CENTS)
    await_instances(stack, orders, asks_for_approval)
    client.stop("service:payment")
    for order_id in (capture, captured, again):
        decide(desk, order_id)
    for order_id in (undo, undone):
        decide(desk, order_id, approve=False)
    await_instances(stack, [capture, captured, again], is_stuck("capture_payment stuck"))
    await_instances(stack, [undo, undone], is_stuck("authorise_payment undo_stuck"))
    client.stop("service:order")
    for order_id in (pivot, pivoted, resumed):
        decide(desk, order_id)
    await_instances(stack, [pivot, pivoted, resumed], is_stuck("confirm_order stuck"))
    await_instances(stack, halted, is_stuck("approval stuck"))
    listed = {one["key"]: one for one in found_here(stack, "saga", "list", "place_order", "--stuck")}
    assert set(orders) <= set(listed)
    for order_id, words, command in (
        (capture, "capture_payment is stuck: its attempts are used up past the pivot", "retry"),
        (undo, "the undo of authorise_payment is stuck: it was not answered in all its attempts", "retry"),
        (pivot, "confirm_order is stuck", "retry"),
        (cancelled, "approval is stuck: no OrderApproved or OrderDeclined came in time", "signal"),
    ):
        told = run_here(stack, "saga", "why", "place_order", order_id).stdout
        assert words in told
        assert f"towpath saga {command} place_order" in told
    with variables({"TOWPATH_PROJECT__SAGAS": "sagas"}):
        told = run_here(stack, "saga", "why", "place_order", pivot).stdout
    assert "no worker's code has version 2 of place_order" in told
    resolve_without_services(desk, captured, undone, pivoted)
    said = run_here(stack, "saga", "why", "place_order", capture).stdout
    retried = run_here(stack, *step_in(said, "saga retry x x --reason ..."))
    assert retried.returncode == 0, retried.stderr
    assert desk.said(pivot, "resume") is None
    assert desk.asked(undo, Action.RETRY, step="authorise_payment") is None
    assert desk.asked(resumed, Action.RESUME) is None
    assert desk.asked(again, Action.RESUME) is None
    desk.workers("service:payment", "service:order")
    assert desk.said(cancelled, "cancel") is None
    assert desk.asked(cancelled_by_client, Action.CANCEL) is None
    assert desk.said(given_up, "compensate") is None
    assert desk.asked(given_up_by_client, Action.COMPENSATE) is None
    assert desk.said(approved, "resume") is None
    decide(desk, approved)
    complete = [capture, captured, again, pivot, pivoted, resumed, approved]
    for order_id in orders:
        assert desk.ended(order_id) == ("completed" if order_id in complete else "compensated"), order_id


def resolve_without_services(desk: Desk, captured: str, undone: str, pivoted: str) -> None:
    """Say what became of three steps, because a person looked it up: by the command line and by the client.

    What would undo is refused past the pivot, and whoever awaits it learns why.
    """
    capture = {"order_id": captured, "capture_id": "looked-up", "amount_cents": LARGE_CENTS}
    assert desk.said(captured, "skip", "--reply", "PaymentCaptured", "--value", json.dumps(capture)) is None
    assert desk.said(pivoted, "compensate") == PAST_PIVOT
    assert desk.asked(pivoted, Action.CANCEL) == PAST_PIVOT
    voided = AuthorisationVoided(order_id=undone)
    assert desk.asked(undone, Action.SKIP, step="authorise_payment", reply=voided) is None
    confirmed = OrderConfirmed(order_id=pivoted, confirmed_at=desk.standing(pivoted).started_at)
    assert desk.asked(pivoted, Action.SKIP, step="confirm_order", reply=confirmed) is None


def test_a_dead_command_stops_its_attempts_clock_until_it_is_redriven(desk: Desk) -> None:
    """A handler has a bug: the dead letter is named, the attempts last; once it is fixed and redriven, all goes on."""
    stack, (order_id,) = desk.stack, order_ids(1, "dead")
    services = [path for path in stack.settings.project.services if "payment" not in path]
    buggy = {"TOWPATH_PROJECT__SERVICES": json.dumps([*services, "tests.acceptance.buggy:service"])}
    stack.client.stop("service:payment")
    environment = {**os.environ, **stack.environment, **buggy}
    start_workers(stack.settings, stack.client, ["service:payment"], environment)
    try:
        desk.shop.place(order_id, SMALL_CENTS)
        letter = await_letter(desk, order_id)
        assert letter["cause"] == "there is no network"
        await_held(desk, order_id)
        told = run_here(stack, "saga", "why", "place_order", order_id).stdout
        assert f"towpath dead show payment.commands {letter['place']}" in told
        # Where the letter came after the end of its attempt, the next one is parked behind it.
        assert "ZeroDivisionError: there is no network" in told or "its key waits behind the dead letter" in told
    finally:
        stack.client.stop("service:payment")
        start_workers(stack.settings, stack.client, ["service:payment"])
    redrive = ("dead", "redrive", "payment.commands", letter["place"], "--reason", "it is fixed", "--yes")
    done = run_here(stack, *redrive)
    assert done.returncode == 0, done.stderr
    assert desk.ended(order_id) == "completed"
    assert found_here(stack, "saga", "show", "place_order", order_id)["dead_letters"] == []


def await_held(desk: Desk, order_id: str) -> None:
    """Wait until a capture stays as it was sent, for longer than all its attempts would last.

    On a busy machine they may be over before the dead letter was seen: then a person retries, who needs the clock to
    stand still just as well.
    """
    deadline, since, seen = time.monotonic() + WAIT_SECONDS_MAX, time.monotonic(), ("", 0)
    while seen[0] != "sent" or time.monotonic() - since < HELD_SECONDS:
        one = await_instance(desk.stack, order_id, lambda _: True)
        assert time.monotonic() < deadline, one.under_way
        if one.stuck:
            desk.said(order_id, "retry")
        cell = one.state.step("capture_payment")
        if (cell.status.value, cell.attempt) != seen:
            since, seen = time.monotonic(), (cell.status.value, cell.attempt)
        time.sleep(0.2)


def await_letter(desk: Desk, order_id: str) -> dict[str, str]:
    """Wait until `saga show` names the dead letter of an order's command; return it."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        done = run_here(desk.stack, "saga", "show", "place_order", order_id, "--json")
        letters = json.loads(done.stdout)["dead_letters"] if done.returncode == 0 else []
        own = [one for one in letters if one["follows"] is None]
        if own:
            assert (own[0]["topic"], own[0]["type"], own[0]["step"]) == (
                "payment.commands",
                "CapturePayment",
                "capture_payment",
            )
            found: dict[str, str] = own[0]
            return found
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.5)


@pytest.mark.parametrize("count", [BULK, pytest.param(BULK_LONG, marks=pytest.mark.crash)])
def test_many_are_resolved_at_once_each_acted_on_once(desk: Desk, count: int) -> None:
    """The run is killed in the middle, before anything of it was decided, and repeated: no order is asked twice."""
    stack, orders = desk.stack, order_ids(count, "bulk")
    pattern = f"{orders[0].rpartition('-')[0]}-*"
    stack.client.stop("service:order")
    desk.shop.place_many(orders, SMALL_CENTS)
    await_instances(stack, orders, is_stuck("confirm_order stuck"), WAIT_SECONDS_MAX)
    stack.client.stop(WORKER)
    (unread,) = order_ids(1, "unread")
    desk.shop.place(unread, SMALL_CENTS)
    await_words(desk, unread, "at order.events[", f", and {WORKER} has no worker in its group")
    asking = ("saga", "retry", "place_order", "--step", "confirm_order", "--key", pattern)
    because = ("--reason", "the order service is back", "--wait", "0", "--yes", "--json")
    kill_in_the_middle(stack, *asking, *because, "--rate", str(count // 4))
    done = run_here(stack, *asking, *because)
    assert done.returncode == 0, done.stderr
    asked = {one["request_id"]: one["key"] for one in json.loads(done.stdout)}
    assert sorted(asked.values()) == sorted(orders)
    await_words(desk, unread, "OrderPlaced lies at order.events[", f", and {WORKER} has no worker in its group")
    desk.workers("service:order", WORKER)
    assert desk.ended(unread) == "completed"
    ended = await_instances(stack, orders, lambda one: one.state.ended, WAIT_SECONDS_MAX)
    assert {one.state.status.value for one in ended} == {"completed"}
    sent = Counter(record.header("id") for record in read_records(stack.settings, ["place_order.operator"]))
    twice = [id_ for id_ in asked if sent[id_] == 2]
    assert all(sent[id_] in (1, 2) for id_ in asked)
    assert 0 < len(twice) < count, "it was not killed in the middle"
    codec = load_codec(stack.settings, Catalogue.load(stack.settings), ["place_order.history"])
    told = [codec.decode(record.value or b"") for record in read_records(stack.settings, ["place_order.history"])]
    of_requests = [one for one in told if isinstance(one, HistoryEntry) and one.input_id in asked]
    assert Counter(one.input_id for one in of_requests if one.happened != "refused") == Counter(list(asked))
    assert Counter(one.input_id for one in of_requests if one.happened == "refused") == Counter(twice)
    sent = Counter(
        (record.key or b"").decode()
        for record in read_records(stack.settings, ["order.commands"])
        if (record.header("step"), record.header("attempt")) == ("confirm_order", "3")
    )
    assert {order_id: sent[order_id] for order_id in orders} == dict.fromkeys(orders, 1)


def await_words(desk: Desk, order_id: str, *words: str) -> None:
    """Ask why an order hangs until the answer has these words."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        done = run_here(desk.stack, "saga", "why", "place_order", order_id)
        if all(one in done.stdout for one in words):
            return
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.5)


def kill_in_the_middle(stack: RunningStack, *arguments: str) -> None:
    """Run a verb in a process of its own, and kill it once the first of its transactions is told of."""
    with subprocess.Popen(
        [sys.executable, "-c", "from towpath.cli import main; main()", *arguments],
        cwd=ROOT,
        env={**os.environ, **stack.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " sent" in line:
                break
        assert process.poll() is None, lines
        process.kill()
    assert process.returncode == -9
