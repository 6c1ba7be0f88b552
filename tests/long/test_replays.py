"""A day of orders sent again: into the live consumers, which change nothing; into another cluster, which ends equal.

Both take minutes, so they are no part of CI; the short forms are tests/integration/stack/test_replays.py and
tests/unit/replay.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.acceptance.test_demo import demo
from tests.long.stacks import another_stack
from tests.stack_fixture import ROOT, RunningStack, variables
from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.orchestrator.sagas_view import NAME as SAGAS_VIEW
from towpath.orchestrator.sagas_view import sagas_view
from towpath.outbox.names import VIEWS_DATABASE
from towpath.project import SAGAS_VIEW_WORKER, load_sagas, load_services, load_views, worker_names
from towpath.replay.judgement import NEVER
from towpath.settings import Settings, load_settings
from towpath.stack.workers import start_workers
from towpath.stream.broker.kafka import KafkaBroker
from towpath.view.versions.log import any_between, bounds_of
from towpath.view.versions.postgres import vector_of
from towpath.view.view import View, group_name

ORDERS = 200
QUIET_SECONDS_MAX = 600
MOVES = frozenset(
    {
        "outbox",
        "outbox_default",
        "outbox_heartbeat",
        "outbox_topics",
        "towpath_offsets",
        "towpath_replays",
        "inbox_forgotten",
    }
)
"""What moves though nothing is done: messages that answer again, and how far each consumer has read."""
SENT_AGAIN = (TopicKind.EVENTS, TopicKind.COMMANDS, TopicKind.REPLIES, TopicKind.HISTORY)
"""Without signals: one that is repeated is refused by the machine, and its instance's history counts that."""


def towpath(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run a command of the project; return its JSON."""
    done = subprocess.run(
        [sys.executable, "-c", "from towpath.cli import main; main()", *arguments],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def hashes(settings: Settings) -> dict[str, str]:
    """Return a hash of the rows of each table of each database, but of what moves."""
    found = {}
    for name in (*load_services(settings), VIEWS_DATABASE):
        with psycopg.connect(settings.postgres.database_url(name)) as connection:
            tables = connection.execute(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
                " AND NOT relispartition ORDER BY relname"
            ).fetchall()
            for (table,) in tables:
                if table not in MOVES:
                    query = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(table))
                    rows = "\n".join(row for (row,) in connection.execute(query))
                    found[f"{name}.{table}"] = hashlib.sha256(rows.encode()).hexdigest()
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(1.0)


def recognised(settings: Settings) -> dict[tuple[str, str], float]:
    """Return how often each application has recognised a record of each topic, as its workers' metrics say."""
    found: dict[tuple[str, str], float] = {}
    assert settings.metrics_port is not None
    for port in range(settings.metrics_port, settings.metrics_port + 20):
        try:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        except httpx.HTTPError:
            continue
        for line in text.splitlines():
            if line.startswith("towpath_records_recognised_total{"):
                labels, _, value = line.partition("} ")
                pairs = dict(part.split("=") for part in labels.partition("{")[2].split(","))
                key = pairs["application"].strip('"'), pairs["topic"].strip('"')
                found[key] = found.get(key, 0) + float(value)
    return found


def settled(settings: Settings) -> tuple[dict[str, str], dict[tuple[str, str], float]]:
    """Return hashes and counts once they have not changed for ten seconds."""
    last: list[Any] = []

    def is_quiet() -> bool:
        last.append((hashes(settings), recognised(settings)))
        return len(last) > 10 and all(one == last[-1] for one in last[-10:])

    until(is_quiet, "everything is at rest")
    found: tuple[dict[str, str], dict[tuple[str, str], float]] = last[-1]
    return found


@pytest.fixture
def metered(stack: RunningStack) -> Iterator[Settings]:
    """Let workers tell their metrics; none of an earlier test runs on."""
    for name, status in stack.client.status().items():
        if ":" in name and status.pid is not None:
            stack.client.stop(name)
    with variables({"TOWPATH_METRICS_PORT": "31500"}):
        yield load_settings(ROOT)


def test_a_day_of_orders_replayed_into_the_live_consumers_changes_nothing(
    stack: RunningStack, metered: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every table of every database is what it was, and each consumer has counted each record as known."""
    monkeypatch.chdir(ROOT)
    code, verdict = demo(stack, "--orders", str(ORDERS), "--seed", "11")
    assert code == 0, verdict
    before, known_before = settled(metered)
    catalogue = Catalogue.load(metered)
    topics = [topic.name for topic in catalogue.live() if topic.kind in SENT_AGAIN and topic.kind not in NEVER]
    file = tmp_path / "day.json"
    options = [part for topic in topics for part in ("--topic", topic)]
    made = towpath(os.environ, "replay", "plan", *options, "--output", str(file), "--json")
    assert made["problems"] == []
    assert made["counted"]["records"] > 15 * ORDERS  # some twenty messages an order, fewer where it ends early
    done = towpath(os.environ, "replay", "run", str(file), "--reason", "a test", "--yes", "--json")
    assert (done["sent"], done["done"]) == (made["counted"]["records"], True)
    wanted: dict[str, int] = {}
    for one in made["consumers"]:
        wanted[one["topic"]] = wanted.get(one["topic"], 0) + one["records"]

    def counted() -> dict[str, float]:
        found: dict[str, float] = {}
        for (_, topic), number in recognised(metered).items():
            found[topic] = found.get(topic, 0) + number
        for (_, topic), number in known_before.items():
            found[topic] -= number
        return found

    until(lambda: all(counted().get(topic, 0) >= number for topic, number in wanted.items()), f"{wanted} {counted()}")
    after, _ = settled(metered)
    assert after == before
    found = counted()
    for topic, number in wanted.items():
        # A command that is known is answered again, and so are the saga's replies more than were sent again.
        exact = catalogue.topics[topic].kind is not TopicKind.REPLIES
        assert (found[topic] == number) if exact else (found[topic] >= number), (topic, found, wanted)


def rows(settings: Settings, view: View[Any]) -> list[Any]:
    """Return the rows that readers of a view see."""
    with psycopg.connect(settings.postgres.database_url(VIEWS_DATABASE)) as connection:
        order = sql.SQL("SELECT * FROM {} ORDER BY {}").format(sql.Identifier(view.name), sql.Identifier(view.key))
        return connection.execute(order).fetchall()


def caught_up(settings: Settings, view: View[Any]) -> bool:
    """Return whether a view has folded all that its topics have."""
    broker = KafkaBroker(settings.kafka, settings.stream)
    group = group_name(settings.project.name, view.name, view.version)
    with psycopg.connect(settings.postgres.database_url(VIEWS_DATABASE)) as connection:
        vector = vector_of(connection, group)
    ends = bounds_of(broker, view.topics).ends
    return not any_between(broker, {place: (vector.get(place, 0), end) for place, end in ends.items()})


def test_a_replay_into_a_second_cluster_rebuilds_every_view(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a registry of its own; row for row, the engine's own view of the instances as well."""
    monkeypatch.chdir(ROOT)
    code, verdict = demo(stack, "--orders", str(ORDERS), "--seed", "12")
    assert code == 0, verdict
    views = [view for versions in load_views(stack.settings).values() for view in versions.values()]
    views.append(sagas_view(load_sagas(stack.settings)))
    assert {view.name for view in views} > {SAGAS_VIEW}
    until(lambda: all(caught_up(stack.settings, view) for view in views), "the views have caught up")
    with another_stack() as second:
        settings, environment, client = second.settings, second.environment, second.client
        cluster = tmp_path / "second.toml"
        cluster.write_text(
            f'[kafka]\nbootstrap_servers = "{settings.kafka.bootstrap_servers}"\n'
            f'[registry]\nurl = "{settings.registry.url}"\n',
            encoding="utf-8",
        )
        topics = sorted({topic for view in views for topic in view.topics})
        options = [part for topic in topics for part in ("--topic", topic)]
        file = tmp_path / "plan.json"
        to = ("--to-cluster", str(cluster))
        made = towpath(os.environ, "replay", "plan", *options, *to, "--output", str(file), "--json")
        for sent in (made["counted"]["records"], 0):
            done = towpath(os.environ, "replay", "run", str(file), "--reason", "a test", "--yes", "--json")
            assert done["sent"] == sent
        with variables(environment):
            workers = [name for name in worker_names(settings) if name.startswith("view:")]
            assert SAGAS_VIEW_WORKER in workers
            start_workers(settings, client, workers)
        until(lambda: all(caught_up(settings, view) for view in views), "the second cluster's views have caught up")
        for view in views:
            wanted = rows(stack.settings, view)
            assert len(wanted) >= ORDERS
            assert rows(settings, view) == wanted, view.name
