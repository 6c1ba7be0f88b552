"""Whole orders through the whole stack, as a newcomer sees them: `towpath demo`, judged by its own JSON.

Its verdict is itself put to the test: each invariant is broken on purpose in the real databases, and must be seen.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest

from tests.stack_fixture import ROOT, RunningStack

KEYS = {
    "orders", "completed", "compensated", "stuck", "lost", "executed_twice", "money_conserved", "stock_conserved",
    "view_exact", "order_seconds_p50", "order_seconds_p99", "traffic_seconds", "elapsed_seconds",
    "stepped_over",
}  # fmt: skip
DEMO_SECONDS_MAX = 400


def demo(stack: RunningStack, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the demo; return its exit code and its verdict."""
    done = subprocess.run(
        [sys.executable, "-c", "from towpath.cli import main; main()", "demo", "--keep", "--json", *options],
        cwd=ROOT,
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS_MAX,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_orders_complete_or_are_compensated_and_every_invariant_holds(stack: RunningStack) -> None:
    """Through four services, Debezium, Kafka and two views; some fail, none is lost."""
    code, verdict = demo(stack, "--orders", "80", "--seed", "7")
    assert verdict.keys() == KEYS
    assert code == 0, verdict
    assert verdict["orders"] == 80
    assert verdict["completed"] + verdict["compensated"] == 80
    assert verdict["completed"] > 0
    assert verdict["compensated"] > 0
    assert (verdict["lost"], verdict["stuck"], verdict["executed_twice"]) == (0, 0, 0)
    assert verdict["money_conserved"] is verdict["stock_conserved"] is verdict["view_exact"] is True


def test_nothing_is_lost_or_done_twice_when_workers_and_connect_are_killed(stack: RunningStack) -> None:
    """SIGKILL for the orchestrator, a participant and Connect while orders are under way."""
    before = {name: status.starts for name, status in stack.client.status().items()}
    code, verdict = demo(stack, "--orders", "60", "--seed", "8", "--crash")
    after = {name: status.starts for name, status in stack.client.status().items()}
    for name in ("saga:place_order", "service:payment", "connect"):
        assert after[name] > before.get(name, 0), f"{name} was not killed"
    assert code == 0, verdict
    assert (verdict["lost"], verdict["stuck"], verdict["executed_twice"]) == (0, 0, 0)


@contextmanager
def broken(stack: RunningStack, database: str, breaking: LiteralString, fix: LiteralString) -> Iterator[None]:
    """Break something in a real database, and fix it afterwards."""
    url = stack.settings.postgres.database_url(database)
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(breaking).rowcount > 0
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute(fix).rowcount > 0


BREAKAGES: list[Any] = [
    pytest.param(
        "payment",
        "INSERT INTO authorisation (order_id, hold_key, authorisation_id, customer_id, amount_cents, currency)"
        " VALUES ('planted', gen_random_uuid(), 'planted', 'nobody', 1, 'EUR')",
        "DELETE FROM authorisation WHERE order_id = 'planted'",
        {"money_conserved": False},
        id="money",
    ),
    pytest.param(
        "catalog",
        "INSERT INTO stock_movement SELECT gen_random_uuid(), 'planted', sku, 1 FROM product LIMIT 1",
        "DELETE FROM stock_movement WHERE order_id = 'planted'",
        {"stock_conserved": False},
        id="stock",
    ),
    pytest.param(
        "identity",
        "INSERT INTO verification SELECT key, 'planted', 'nobody' FROM (SELECT gen_random_uuid() AS key) AS one,"
        " generate_series(1, 2)",
        "DELETE FROM verification WHERE order_id = 'planted'",
        {"executed_twice": 1},
        id="twice",
    ),
    pytest.param(
        "views",
        "INSERT INTO order_status_v1 VALUES ('planted', 'nobody', 'placed', 1, 0, NULL, now(), now())",
        "DELETE FROM order_status_v1 WHERE order_id = 'planted'",
        {"view_exact": False},
        id="view",
    ),
    pytest.param(
        "order",
        "INSERT INTO customer_order (order_id, customer_id, total_cents, currency, placed_at, changed_at)"
        " VALUES ('planted', 'nobody', 1, 'EUR', now(), now())",
        "DELETE FROM customer_order WHERE order_id = 'planted'",
        {"lost": 1},
        id="lost",
    ),
]


@pytest.mark.parametrize(("database", "breaking", "fix", "seen"), BREAKAGES)
def test_the_verdict_sees_what_is_broken(
    stack: RunningStack, database: str, breaking: LiteralString, fix: LiteralString, seen: dict[str, Any]
) -> None:
    """And ends with exit code 1."""
    with broken(stack, database, breaking, fix):
        code, verdict = demo(stack, "--orders", "5", "--seed", "9")
    assert code == 1
    for name, value in seen.items():
        assert verdict[name] == value
