"""Faust on Towpath's transport: event by event or in batches, with or without state."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from towpath.settings import KafkaSettings, ProjectSettings, Settings, StreamSettings
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


if __name__ == "__main__":
    uvloop.install()
    build(json.loads(sys.argv[1])).run_worker(loglevel="error")
