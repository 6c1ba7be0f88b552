"""What is written down of replays, in a real database: by the run that began last, and for as long as it lives."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from tests.unit.replay.test_sending import TOPIC, broker_with, planned
from towpath.cli import replay_plans
from towpath.errors import RefusedError
from towpath.replay import postgres
from towpath.replay.plan import Plan, Target
from towpath.replay.progress import Progress
from towpath.replay.selection import Selection
from towpath.settings import load_settings
from towpath.stream.engine.postgres import create_stream_tables

pytestmark = pytest.mark.stack

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the verbs find this test's database."""
    found = load_settings(environment=False)
    own = found.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    monkeypatch.setattr(replay_plans, "load_settings", lambda: found.model_copy(update={"postgres": own}))


def begun(connection: Connection, plan: Plan) -> postgres.Begun:
    """Begin a run of a plan."""
    return postgres.begin(connection, plan, actor="ada", reason="a test", forced=False)


def test_a_plan_is_kept_whatever_its_keys_are(connection: Connection) -> None:
    """Numbers of eight bytes, texts that no database takes: jsonb has neither \\u0000 nor half of a pair."""
    plan = planned(broker_with(3), Selection(keys=frozenset({"\0", "\ud800"}), headers={"a\0": "\\u0000"}))
    odd = {"\0\0\0\7": 1, "\udc80": 1}
    plan = Plan.from_text("plan", json.dumps({**plan.to_json(), "counted": {**plan.counted, "top_keys": odd}}))
    assert begun(connection, plan) == postgres.Begun("r1", 1, 0)
    kept = postgres.show(connection, plan.replay_id).plan
    assert kept["counted"]["top_keys"] == {"\ufffd\ufffd\ufffd\7": 1, "?": 1}
    assert kept["selection"]["headers"] == {"a\ufffd": "\\u0000"}


def test_a_run_that_another_one_has_followed_changes_nothing_of_what_that_one_noted(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the broker has ended it, or it looks up after a long pause itself."""
    plan, file = planned(broker_with(30)), tmp_path / "plan.json"
    file.write_text(json.dumps(plan.to_json()), encoding="utf-8")

    def followed(*_: Any) -> Any:
        other = begun(connection, plan)
        postgres.end(connection, other, sent=30, state="done")
        raise RefusedError("another run of this replay has begun since")

    first = begun(connection, plan)
    monkeypatch.setattr(replay_plans, "_carry_out", followed)
    with pytest.raises(RefusedError):
        replay_plans.run(file, reason="a test", actor="ada", yes=True)
    with pytest.raises(RefusedError, match="another run of replay r1 has begun since"):
        postgres.note(connection, first, sent=7)
    known = postgres.show(connection, plan.replay_id)
    assert (known.state, known.sent) == ("done", 30)


def test_a_plan_is_judged_again_when_it_is_run(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer may have forgotten since; a person may send it all the same."""
    plan, file, sent = planned(broker_with(3)), tmp_path / "plan.json", list[Plan]()
    file.write_text(json.dumps(plan.to_json()), encoding="utf-8")
    monkeypatch.setattr(replay_plans, "problems_since", lambda *_: ("view a can no longer tell",))

    def carry_out(_: Any, made: Plan, keep_on: Any) -> Progress:
        sent.append(made)
        return Progress(3, {}, 0.0)

    monkeypatch.setattr(replay_plans, "_carry_out", carry_out)
    with pytest.raises(RefusedError, match="view a can no longer tell"):
        replay_plans.run(file, reason="a test", yes=True)
    replay_plans.run(file, reason="a test", yes=True, force=True)
    assert sent == [plan]


def test_a_record_that_a_view_has_had_in_another_partition_is_found(connection: Connection) -> None:
    """Its topic has grown since: in the partition that its key has now, it would be folded once more."""
    create_stream_tables(connection)
    records = broker_with(30).records(TOPIC)
    seen = "INSERT INTO towpath_seen VALUES ('view', %s, %s, %s, 0)"
    for record in records[:20]:
        connection.execute(seen, (TOPIC, record.partition, record.header("id")))
    assert postgres.noted_elsewhere(connection, ["view"], records, 6) is None
    moved, known = records[25], records[3]
    connection.execute(seen, (TOPIC, known.partition + 1, known.header("id")))  # in both: it would be known
    assert postgres.noted_elsewhere(connection, ["view"], records, 6) is None
    connection.execute(seen, (TOPIC, moved.partition + 3, moved.header("id")))
    assert postgres.noted_elsewhere(connection, ["another"], records, 6) is None
    assert postgres.noted_elsewhere(connection, ["view"], records, 6) == postgres.Elsewhere(
        str(moved.header("id")), "view", TOPIC, moved.partition, moved.partition + 3
    )


def test_a_run_that_was_killed_is_not_asked_to_stop(
    connection: Connection, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody would hear it; one that lives is asked. It is listed as what it is, too."""
    plan = planned(broker_with(3))
    with psycopg.connect(database_url) as killed:
        run = begun(killed, plan)
        replay_plans.stop("r1")
        assert "stops after its transaction" in capsys.readouterr().err
        assert postgres.note(killed, run, sent=1)
        run = begun(killed, plan)
    replay_plans.stop("r1")
    assert "no run of replay r1 is under way: it is interrupted" in capsys.readouterr().err
    (listed,) = postgres.known(connection)
    assert (listed.state, listed.stop_asked) == ("interrupted", False)


def test_the_table_of_an_older_release_is_added_to(connection: Connection) -> None:
    """And asked for as often as one likes."""
    begun(connection, planned(broker_with(3)))
    connection.execute("ALTER TABLE towpath_replays DROP COLUMN run")
    connection.commit()
    assert begun(connection, planned(broker_with(3))).run == 2


@pytest.mark.parametrize(("state", "left"), [("interrupted", None), ("done", 0)])
def test_what_is_left_of_a_replay_into_a_file_is_not_said_to_be_nothing(
    connection: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: str, left: int | None
) -> None:
    """Nothing of it is written: whoever believes the number deletes the topic."""
    plan = planned(broker_with(30), target=Target(file=str(tmp_path / "all.jsonl")))
    postgres.end(connection, begun(connection, plan), sent=0, state=state)
    replay_plans.show("r1", as_json=True)
    assert json.loads(capsys.readouterr().out)["offsets_left"] == left
    replay_plans.show("r1")
    assert ("is known once the plan is run again" in capsys.readouterr().err) == (left is None)
