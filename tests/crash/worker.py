"""The worker that the crash test kills: reads, counts and sums by key, and sends one output for each input.

Run as `python -m tests.crash.worker '<json>'`; logs to stderr; ends with 0 on SIGTERM.
"""

import faulthandler
import json
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from towpath.logs import configure_logs
from towpath.settings import KafkaSettings, ProjectSettings, Settings, StreamSettings
from towpath.stream.faust_app.agent import Batch, DatabaseOptions, StreamApp, create_app

STREAM = StreamSettings(
    batch_records_max=100,
    batch_seconds_max=2.0,
    transaction_timeout_seconds=4.0,
    session_timeout_seconds=6.0,
    poll_interval_seconds_max=20.0,
)

APPLIED = """
CREATE TABLE IF NOT EXISTS sums (key text PRIMARY KEY, count bigint NOT NULL, sum bigint NOT NULL);
CREATE TABLE IF NOT EXISTS outputs (position bigserial, key text NOT NULL, value bigint NOT NULL);
"""


def fold(before: bytes | None, value: int) -> bytes:
    """Return count and sum with one more value."""
    count, total = map(int, (before or b"0 0").split())
    return b"%d %d" % (count + 1, total + value)


def kafka_worker(settings: Settings, told: dict[str, Any]) -> StreamApp:
    """Return the application of the Kafka form."""
    changelog, out = told["state"], told["out"]
    app = create_app(told["application"], settings, slot=told["slot"], states=(changelog,))

    @app.agent(app.batch_topic(told["in"]))
    async def count(stream: Any) -> None:
        async for batch in stream:
            unit = app.unit
            state = unit.state(changelog, batch.partition)
            for record in batch:
                state.put(record.key, fold(state.get(record.key), int(record.value)))
                unit.send(out, record.value, key=record.key)

    return app


def database_worker(settings: Settings, told: dict[str, Any]) -> StreamApp:
    """Return the application of the database form."""
    app = create_app(
        told["application"],
        settings,
        slot=told["slot"],
        unit_of_work="database",
        database=DatabaseOptions(url=told["database"], connection_options={}),
    )

    def apply(connection: psycopg.Connection[Any], batch: Batch) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(7)")
        connection.execute(APPLIED)
        pairs = [((record.key or b"").decode(), int(record.value or b"-1")) for record in batch]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO sums VALUES (%s, 1, %s) ON CONFLICT (key) DO UPDATE"
                " SET count = sums.count + 1, sum = sums.sum + excluded.sum",
                pairs,
            )
            cursor.executemany("INSERT INTO outputs (key, value) VALUES (%s, %s)", pairs)

    @app.agent(app.batch_topic(told["in"]))
    async def count(stream: Any) -> None:
        async for batch in stream:
            await app.unit.run(lambda connection, batch=batch: apply(connection, batch))

    return app


def main() -> None:
    """Run until SIGTERM."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    told = json.loads(sys.argv[1])
    settings = Settings(
        root=Path(told["root"]),
        project=ProjectSettings(name="crash"),
        kafka=KafkaSettings(bootstrap_servers=told["servers"]),
        stream=STREAM.model_copy(update={"group_protocol": told.get("group_protocol", "classic")}),
    )
    configure_logs(settings, worker=f"crash-{told['slot']}")
    uvloop.install()
    (database_worker if "database" in told else kafka_worker)(settings, told).run_worker()


if __name__ == "__main__":
    main()
