"""What `towpath saga` says of real instances, and makes of them: exports, plans and golden histories."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.verbs import found_here, run_here
from tests.next_steps import step_in
from tests.stack_fixture import ROOT, RunningStack

ORDERS = 30
STEPS_CHANGED = {"version=1": "version=2", "authorise_payment": "block_amount"}


def run(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from towpath.cli import main; main()", *arguments],
        cwd=ROOT,
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def found(stack: RunningStack, *arguments: str) -> Any:
    """Return what a verb prints as JSON."""
    done = run(stack, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def instances(stack: RunningStack) -> list[dict[str, Any]]:
    """Return the instances of place_order after some orders."""
    done = run(stack, "demo", "--keep", "--json", "--orders", str(ORDERS), "--seed", "9")
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = found(stack, "saga", "list", "place_order")
    return listed


def test_every_order_is_listed_as_it_ended(stack: RunningStack, instances: list[dict[str, Any]]) -> None:
    """From the state topic alone; an instance is shown by its id or by its order's."""
    assert len(instances) >= ORDERS
    assert {instance["status"] for instance in instances} >= {"completed", "compensated"}
    assert found(stack, "saga", "list", "--stuck") == []
    one = instances[0]
    for name in (one["saga_id"], one["key"]):
        shown = found(stack, "saga", "show", "place_order", name)
        assert (shown["saga_id"], shown["state"]["status"]) == (one["saga_id"], one["status"])
    assert run(stack, "saga", "show", "place_order", "nobody").returncode == 5


def test_a_list_is_filtered_sorted_and_counted(stack: RunningStack, instances: list[dict[str, Any]]) -> None:
    """By what a person may know of instances; a table in a pipe is as wide as its content."""
    listing = ("saga", "list", "place_order")
    by_key = [one["key"] for one in found_here(stack, *listing, "--sort", "key")]
    assert by_key == sorted(one["key"] for one in instances)
    completed = found_here(stack, *listing, "--status", "completed", "--sort", "changed", "--limit", "3")
    assert {one["status"] for one in completed} == {"completed"}
    assert [one["since"] for one in completed] == sorted(one["since"] for one in completed)
    assert len(completed) == 3
    one = instances[0]
    assert [each["saga_id"] for each in found_here(stack, *listing, "--key", one["key"])] == [one["saga_id"]]
    assert found_here(stack, *listing, "--key", one["key"], "--version", "9") == []
    assert found_here(stack, *listing, "--older-than", str(86_400 * 365)) == []
    causes = {str(each["cause"]) for each in instances if each["status"] == "compensated"}
    for each in found_here(stack, *listing, "--cause", "declined"):
        assert each["cause"] in causes
        assert "declined" in each["cause"].lower()
    rows = found_here(stack, *listing, "--count")
    assert {row["status"]: row["instances"] for row in rows if row["version"] == 1} == Counter(
        each["status"] for each in instances if each["version"] == 1
    )
    table = run_here(stack, *listing, "--key", one["key"]).stdout
    assert one["saga_id"] in table
    assert one["key"] in table


def test_an_upgrade_is_planned_for_what_was_exported(
    stack: RunningStack, instances: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The step is renamed and keeps its key; what was exported and what is read live give the same counts."""
    text = (ROOT / "sagas/place_order.py").read_text(encoding="utf-8")
    for old, new in STEPS_CHANGED.items():
        assert old in text
        text = text.replace(old, new)
    # The call of `saga.step` names the function on a line of its own.
    text = text.replace("    block_amount,\n", '    block_amount,\n    key="authorise_payment",\n', 1)
    (tmp_path / "newer.py").write_text(text, encoding="utf-8")
    exported = tmp_path / "instances.jsonl"
    assert run_here(stack, "saga", "export", "place_order", "--all", "--output", str(exported)).returncode == 0
    assert len(exported.read_text(encoding="utf-8").splitlines()) == len(instances)
    versions = ("saga", "upgrade", "place_order@1", str(tmp_path / "newer.py"))
    from_file = found_here(stack, *versions, "--instances", str(exported))
    assert from_file["instances"] == found_here(stack, *versions, "--live")["instances"]
    assert from_file["instances"]["ended"] + from_file["instances"]["migrate"] == len(instances)
    assert (from_file["walked"]["reduced"], from_file["reachable"]["pin"]) == (False, 0)


@pytest.mark.parametrize("status", ["completed", "compensated"])
def test_a_run_in_production_becomes_a_golden_history(
    stack: RunningStack, instances: list[dict[str, Any]], tmp_path: Path, status: str
) -> None:
    """It is decided again from its history alone, comes out as it was recorded, and is replayed from then on."""
    from sagas import place_order
    from towpath.saga.testing import read_history, replay

    one = next(instance for instance in instances if instance["status"] == status)
    path = tmp_path / "run.jsonl"
    told = found_here(stack, "saga", "history", "place_order", one["saga_id"], "--golden", str(path))
    golden = read_history(path)
    replay(place_order.saga.definition, golden)
    assert [entry["input"]["input"] for entry in golden["entries"]] == [entry["input"] for entry in told]
    assert golden["entries"][-1]["decision"]["status"] == status
    assert run_here(stack, "saga", "history", "place_order", one["key"], "--golden", str(path)).returncode == 6
    damaged, again = tmp_path / "histories/place_order/v1/run.jsonl", tmp_path / "again.jsonl"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{}\n", encoding="utf-8")
    refused = run_here(stack, "saga", "test", "--histories", str(tmp_path / "histories"))
    taking = step_in(refused.stderr, "saga history NAME ID --golden FILE", ID=one["saga_id"], FILE=str(again))
    assert run_here(stack, *taking).returncode == 0, refused.stderr
    assert read_history(again) == golden


def test_a_changed_saga_decides_over_real_runs(
    stack: RunningStack, instances: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Live and from a captured file alike; the same definition changes nothing, a stricter one what it must."""
    captured, stricter = tmp_path / "runs.jsonl", tmp_path / "stricter.py"
    text = (ROOT / "sagas/place_order.py").read_text(encoding="utf-8")
    stricter.write_text(text.replace("APPROVAL_ABOVE_CENTS = 1_000_00", "APPROVAL_ABOVE_CENTS = 1"), encoding="utf-8")
    assert run_here(stack, "replay", "capture", "place_order", "--output", str(captured)).returncode == 0
    assert run_here(stack, "replay", "capture", "place_order", "--output", str(captured)).returncode == 6
    shadow = ("replay", "shadow", "place_order", "--with")
    same = found_here(stack, *shadow, "place_order")
    assert (same["instances"], same["same"], same["left_out"]) == (len(instances), len(instances), {})
    live = found_here(stack, *shadow, str(stricter))
    assert live == found_here(stack, *shadow, str(stricter), "--from", str(captured))
    changed = {one["saga_id"] for one in live["different_instances"]}
    failing = run_here(stack, *shadow, str(stricter), "--from", str(captured), "--fail-on", "possibly")
    look = step_in(failing.stderr, "saga history NAME ID", ID=min(changed))
    assert run_here(stack, *look).returncode == 0, failing.stderr
    completed = {one["saga_id"] for one in instances if one["status"] == "completed"}
    assert completed
    assert changed & completed


@pytest.mark.crash
def test_an_instance_is_shown_as_it_stood_with_what_lay_beside_it(
    stack: RunningStack, instances: list[dict[str, Any]]
) -> None:
    """Its order's row folded up to then, and what services had recorded for it."""
    one = next(instance for instance in instances if instance["status"] == "completed")
    shown = found(stack, "saga", "show", "place_order", one["saga_id"], "--step", "--beside")
    first = found(
        stack, "saga", "show", "place_order", one["key"], "--at", str(shown["steps"][0]["offset"]), "--beside"
    )
    assert (first["later"], first["steps"]) == (len(shown["steps"]) - 1, shown["steps"][:1])
    assert first["beside"]["inboxes"] == []
    rows = {told["view"]: told["row"] for told in first["beside"]["views"]}
    assert rows["order_status"] is None or rows["order_status"]["status"] == "placed"
    (row,) = (told["row"] for told in shown["beside"]["views"] if told["view"] == "order_status")
    url = stack.settings.postgres.database_url
    with psycopg.connect(url("views")) as connection:
        query = "SELECT status, total_cents, customer_id FROM order_status WHERE order_id = %s"
        wanted = connection.execute(query, (one["key"],)).fetchone()
    assert (row["status"], row["total_cents"], row["customer_id"]) == wanted
    recorded = {(told["service"], told["step"]) for told in shown["beside"]["inboxes"]}
    for service in ("identity", "catalog", "payment", "order"):
        with psycopg.connect(url(service)) as connection:
            steps = connection.execute("SELECT step FROM inbox WHERE saga_id = %s", (one["saga_id"],)).fetchall()
        assert {step for _, step in recorded if (service, step) in recorded} >= {step for (step,) in steps}
