"""Faust as it comes: its own transport, at least once."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import faust


def build(told: dict[str, Any]) -> faust.App:
    """Return the application."""
    app = faust.App(
        f"bench-{told['tag']}",
        broker=f"kafka://{told['servers'].split(',')[0]}",
        store="memory://",
        datadir=Path(tempfile.mkdtemp(prefix="faust-bench-")),
        topic_partitions=told["partitions"],
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
    )
    out = app.topic(told["out"])

    @app.agent(app.topic(told["in"]))
    async def copy(stream: Any) -> None:
        async for event in stream.events():
            await out.send(key=event.key, value=event.value)

    return app


if __name__ == "__main__":
    application = build(json.loads(sys.argv[1]))
    sys.argv = [sys.argv[0], "worker", "-l", "error", "--without-web"]
    application.main()
