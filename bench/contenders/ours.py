"""Faust on Towpath's transport: event by event or in batches, with or without state."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import start_http_server

from towpath.settings import KafkaSettings, ProjectSettings, Settings, StreamSettings
from towpath.stream.engine.unit_metrics import UnitMetrics
from towpath.stream.faust_app.agent import StreamApp, create_app


def build(told: dict[str, Any]) -> StreamApp:
    """Return the application."""
    settings = Settings(
        root=Path(tempfile.mkdtemp(prefix="towpath-bench-")),
        project=ProjectSettings(name="bench"),
        kafka=KafkaSettings(bootstrap_servers=told["servers"]),
        stream=StreamSettings(**told.get("stream", {})),
    )
    states = (told["state"],) if told["with_state"] else ()
    app = create_app(f"bench-{told['tag']}", settings, slot="a", states=states)
    out = told["out"]
    if told["mode"] == "events":
        topic = app.topic(out)

        @app.agent(app.topic(told["in"]))
        async def one_by_one(stream: Any) -> None:
            async for event in stream.events():
                await topic.send(key=event.key, value=event.value)

        return app

    @app.agent(app.batch_topic(told["in"]))
    async def in_batches(stream: Any) -> None:
        async for batch in stream:
            unit = app.unit
            send = unit.send
            if states:
                state = unit.state(states[0], batch.partition)
                for record in batch.records:
                    count = int(state.get(record.key) or 0) + 1
                    state.put(record.key, b"%d" % count)
                    send(out, record.value, key=record.key)
            else:
                for record in batch.records:
                    send(out, record.value, key=record.key)

    return app


def without_metrics() -> None:
    """Count nothing: what the counting costs is measured against this."""
    for name in ("took", "committed", "aborted", "waits"):
        setattr(UnitMetrics, name, lambda *_: None)


if __name__ == "__main__":
    uvloop.install()
    said: dict[str, Any] = json.loads(sys.argv[1])
    if said.get("without_metrics"):
        without_metrics()
    if "metrics_port" in said:
        start_http_server(said["metrics_port"], "127.0.0.1")
    build(said).run_worker(loglevel="error")
