"""Orders in flight go on under the next version, on the whole stack: those that the proof says, and their histories."""

import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from schemas.records.order import OrderApproved
from tests.acceptance.newer.place_order import saga as newer
from tests.acceptance.shop import LARGE_CENTS, SMALL_CENTS, await_instances, open_shop, waits_for_approval
from tests.acceptance.verbs import found_here, run_here
from tests.next_steps import step_in
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath.client import Client
from towpath.orchestrator.instance_status import KeptInstance
from towpath.project import worker_names
from towpath.saga.upgrade import Outcome, judge
from towpath.settings import load_settings
from towpath.stack.workers import start_workers

WAIT_SECONDS_MAX = 180.0
NEWER = {"TOWPATH_PROJECT__SAGAS": "tests.acceptance.newer"}
WORKER = "saga:place_order"
VERSIONS = ("place_order@1", "place_order")
ORDERS, ORDERS_LONG = 20, 200


@pytest.fixture
def deployed(stack: RunningStack) -> Iterator[dict[str, str]]:
    """Return the environment in which both versions are deployed; leave no instance of the newer one behind."""
    environment = {**os.environ, **stack.environment, **NEWER}
    try:
        yield environment
    finally:
        start_workers(stack.settings, stack.client, ["service:order"])
        with variables(NEWER):
            left = run_here(
                stack, "saga", "cancel", "place_order", "--version", "2", "--reason", "the test ends", "--yes"
            )
            assert left.returncode in (4, 5), "the test ended before its orders did"
        stack.client.stop(WORKER)
        start_workers(stack.settings, stack.client, worker_names(stack.settings))


def is_before_the_pivot_or_past_it(one: KeptInstance) -> bool:
    """Say whether an order waits for a clerk, or for the order service, which does not run."""
    return waits_for_approval(one) or any(words.startswith("confirm_order ") for words in one.under_way)


@pytest.mark.parametrize("count", [ORDERS, pytest.param(ORDERS_LONG, marks=pytest.mark.crash)])
def test_instances_move_as_the_proof_says_and_all_end_well(
    stack: RunningStack, deployed: dict[str, str], count: int
) -> None:
    """Half of them wait for a clerk and can be verified once more; half are being confirmed, and stay as they began."""
    shop = open_shop(stack, on_hand=count)
    mark = uuid4().hex[:8]
    small = [f"small-{mark}-{number}" for number in range(count // 2)]
    large = [f"large-{mark}-{number}" for number in range(count // 2)]
    stack.client.stop("service:order")
    shop.place_many(small, SMALL_CENTS)
    shop.place_many(large, LARGE_CENTS)
    standing = await_instances(stack, small + large, is_before_the_pivot_or_past_it, WAIT_SECONDS_MAX)
    from sagas.place_order import saga

    judged = {one.state.key: judge(saga.definition, newer.definition, one.state) for one in standing}
    assert {key for key, verdict in judged.items() if verdict.outcome is Outcome.MIGRATE} == set(large)
    stack.client.stop(WORKER)
    with variables(NEWER):
        settings = load_settings(ROOT)
        start_workers(settings, stack.client, [WORKER], deployed)
        assert version_row(stack, 1)["need_it"] >= count
        kept = {one["key"]: one for one in found_here(stack, "saga", "upgrade", *VERSIONS, "--drain")}
        for key, verdict in judged.items():
            assert kept[key]["under_new"] == verdict.outcome.value
            assert kept[key]["because"] == "\n".join(verdict.reasons)
        moving = ("saga", "upgrade", *VERSIONS, "--apply", "--reason", "version 2 is out", "--yes")
        some = found_here(stack, *moving, "--limit", str(count // 4))
        rest = found_here(stack, *moving)
        assert [one["outcome"] for one in some + rest] == ["applied"] * len(some + rest)
        assert len(some) == count // 4
        moved = {one["key"]: one for one in some + rest}
        assert set(large) == set(moved) & set(judged)
        nothing_left = run_here(stack, *moving)
        assert nothing_left.returncode == 5, "what was moved is moved again"
        drained = run_here(stack, *step_in(nothing_left.stderr, "saga upgrade x x --drain"))
        assert "keep version 1 of place_order alive" in drained.stderr
        listed = {one["key"]: one["version"] for one in found_here(stack, "saga", "list", "place_order")}
        assert {key: listed[key] for key in judged} == {**dict.fromkeys(small, 1), **dict.fromkeys(large, 2)}
        finish(stack, settings, large)
        ended = await_instances(stack, small + large, lambda one: one.state.ended, WAIT_SECONDS_MAX)
        assert {one.state.status.value for one in ended} == {"completed"}
        told = found_here(stack, "saga", "history", "place_order", large[0])
        (entry,) = [entry for entry in told if entry["happened"] == "upgraded"]
        assert (entry["detail"], entry["version"]) == ("to version 2", 2)
        assert entry["asked_because"] == "version 2 is out"
        assert [one["seconds"] for one in told] == sorted(one["seconds"] for one in told)
        assert "verify_again" in [one["step"] for one in told]
        of_small = found_here(stack, "saga", "history", "place_order", small[0])
        assert {one["version"] for one in of_small} == {1}
        last = version_row(stack, 1)
        assert last["may_be_removed"] is (last["need_it"] == 0)


def finish(stack: RunningStack, settings: Any, large: list[str]) -> None:
    """Let the order service run again, and a clerk approve what waits."""
    start_workers(stack.settings, stack.client, ["service:order"])
    client = Client.load(settings)
    with psycopg.connect(settings.postgres.database_url("order")) as connection:
        for order_id in large:
            approved = OrderApproved(order_id=order_id, approver="grace")
            client.signal(connection, "place_order", order_id, approved)


def version_row(stack: RunningStack, version: int) -> dict[str, Any]:
    """Return what `saga versions` says of a version of place_order."""
    rows: list[dict[str, Any]] = found_here(stack, "saga", "versions", "place_order")
    return next(row for row in rows if row["version"] == version)
