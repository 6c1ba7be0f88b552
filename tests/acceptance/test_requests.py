"""What a person asks of real instances, on the whole stack: approve, cancel one, cancel several, and be refused."""

import json
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from schemas.records.order import OrderApproved
from tests.acceptance.shop import await_instance, instance, open_shop, waits_for_approval
from tests.acceptance.verbs import found_here, run_here
from tests.next_steps import step_in
from tests.stack_fixture import RunningStack
from towpath.client import Client, NotAnswered

ORDERS = 5


@pytest.fixture(scope="module")
def waiting(stack: RunningStack) -> list[str]:
    """Place orders above the limit, and return their ids once each waits for a person."""
    shop = open_shop(stack)
    orders = [f"large-{uuid4().hex[:8]}" for _ in range(ORDERS)]
    for order_id in orders:
        shop.place(order_id)
    for order_id in orders:
        await_instance(stack, order_id, waits_for_approval)
    return orders


def test_a_signal_answers_the_wait(stack: RunningStack, waiting: list[str]) -> None:
    """The record is filled from the contract's example, held against the contract, and applied once."""
    order_id = waiting[0]
    value = json.dumps({"order_id": order_id})
    approve = ("saga", "signal", "place_order", order_id, "OrderApproved", "--value", value)
    refused = run_here(stack, *approve)
    assert refused.returncode == 3, refused.stderr
    assert "approver" in refused.stderr
    tried = found_here(stack, *approve, "--like", "--dry-run")
    (seen,) = tried["instances"]
    assert (seen["refusal"], seen["status_after"], tried["kept"]) == (None, "running", False)
    assert next(change[:2] for change in seen["changes"]) == ["approval", "waiting"]
    assert any(sent.startswith("ConfirmOrder") for sent in seen["sends"])
    standing = instance(stack, order_id)
    assert standing is not None
    assert waits_for_approval(standing)
    done = found_here(stack, *approve, "--like")
    assert (done["outcome"], done["reason"]) == ("applied", None)
    assert await_instance(stack, order_id, lambda one: one.state.status == "completed")
    late = run_here(stack, *approve, "--like", "--id", "another")
    assert late.returncode == 6, late.stderr
    assert "the saga has ended" in late.stderr
    shown = run_here(stack, *step_in(late.stderr, "saga show x x"))
    assert (shown.returncode, order_id in shown.stdout) == (0, True), shown.stderr
    (seen,) = found_here(stack, *approve, "--like", "--dry-run")["instances"]
    assert seen["refusal"] == "the saga has ended"
    early = found_here(stack, "saga", "signal", "place_order", "nobody", *approve[4:], "--like", "--dry-run")
    assert (early["instances"], early["kept"]) == ([], True)


def test_who_waits_for_an_answer_in_vain_is_told_where_to_ask(stack: RunningStack, waiting: list[str]) -> None:
    """Here the signal was never sent: its transaction did not commit."""
    client, order_id = Client.load(stack.settings), waiting[-1]
    with psycopg.connect(stack.settings.postgres.database_url("order")) as connection:
        approved = OrderApproved(order_id=order_id, approver="ada")
        unsent = client.signal(connection, "place_order", order_id, approved)
        connection.rollback()
    with pytest.raises(NotAnswered) as waited:
        client.await_answer(unsent, timeout_seconds=0.1)
    why = run_here(stack, *step_in(waited.value, "saga why x x"))
    assert (why.returncode, f"place_order {order_id}" in why.stdout) == (0, True), why.stderr or why.stdout


def test_a_cancelled_order_is_undone_and_a_finished_one_is_not(stack: RunningStack, waiting: list[str]) -> None:
    """The dry run says what the machine would decide; then it is decided so, and the history has the person."""
    order_id = waiting[1]
    asking = ("saga", "cancel", "place_order", order_id, "--reason", "ordered twice", "--actor", "grace")
    (seen,) = found_here(stack, *asking, "--dry-run")
    assert (seen["refusal"], seen["status_after"]) == (None, "compensating")
    assert any(sent.startswith("VoidAuthorisation") for sent in seen["sends"])
    standing = instance(stack, order_id)
    assert standing is not None
    assert standing.state.status == "running"
    (done,) = found_here(stack, *asking)
    assert (done["outcome"], done["reason"]) == ("applied", None)
    await_instance(stack, order_id, lambda one: one.state.status == "compensated")
    told = found_here(stack, "saga", "history", "place_order", order_id)
    (entry,) = [entry for entry in told if entry["actor"]]
    assert (entry["actor"], entry["asked_because"], entry["input_id"]) == ("grace", "ordered twice", done["request_id"])
    again = run_here(stack, *asking)
    assert again.returncode == 6, again.stdout
    assert "the saga has ended" in again.stderr


def test_several_are_cancelled_by_a_list_each_once(stack: RunningStack, waiting: list[str], tmp_path: Path) -> None:
    """A file names them; a report tells each outcome; asking again finds nothing to do."""
    names = tmp_path / "orders.txt"
    names.write_text("\n".join(waiting[2:]), encoding="utf-8")
    asking = ("saga", "cancel", "place_order", "--file", str(names), "--reason", "the shop closes")
    assert run_here(stack, *asking).returncode == 6  # nobody is there to be asked
    done = found_here(stack, *asking, "--yes", "--rate", "50")
    assert [one["outcome"] for one in done] == ["applied"] * (ORDERS - 2)
    for order_id in waiting[2:]:
        await_instance(stack, order_id, lambda one: one.state.status == "compensated")
    assert run_here(stack, *asking, "--yes").returncode == 5


def test_a_persons_mistakes_are_told(stack: RunningStack, waiting: list[str]) -> None:
    """No reason, no such instance, a record that no wait takes, everything at once: each ends with a code."""
    one = ("place_order", waiting[-1])
    assert run_here(stack, "saga", "cancel", *one, "--reason", "  ").returncode == 2
    stepless = run_here(
        stack, "saga", "skip", *one, "--step", "payment", "--reply", "PaymentAuthorised", "--reason", "why"
    )
    assert stepless.returncode == 5, stepless.stderr
    assert "place_order version 1 has no step payment" in stepless.stderr
    assert run_here(stack, "saga", "cancel", "place_order", "nobody", "--reason", "why").returncode == 5
    assert run_here(stack, "saga", "cancel", "place_order", "nobody").returncode == 2
    assert run_here(stack, "saga", "cancel", "place_order", "--reason", "why").returncode == 2
    assert run_here(stack, "saga", "signal", "place_order", "order-1", "OrderPlaced").returncode == 2
    assert run_here(stack, "saga", "signal", "place_order", "order-1", "OrderApproved", "--value", "{").returncode == 2
    for verb in ("retry", "resume", "skip"):
        assert run_here(stack, "saga", verb, "place_order", "--reason", "why", "--yes").returncode == 5
