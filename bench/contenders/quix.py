"""Quix Streams, exactly once. Runs in a venv of its own and imports nothing of Towpath."""

import json
import sys
import tempfile
from typing import Any

from quixstreams import Application


def main(told: dict[str, Any]) -> None:
    """Run until SIGTERM."""
    options: dict[str, Any] = {}
    if told.get("commit_seconds") is not None:
        options["commit_interval"] = told["commit_seconds"]
    app = Application(
        broker_address=told["servers"],
        consumer_group=f"bench-{told['tag']}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        auto_create_topics=bool(told["with_state"]),
        state_dir=tempfile.mkdtemp(prefix="quix-bench-"),
        loglevel="WARNING",
        **options,
    )
    source = app.topic(told["in"], value_deserializer="bytes", key_deserializer="bytes")
    target = app.topic(told["out"], value_serializer="bytes", key_serializer="bytes")
    frame = app.dataframe(source)
    if told["with_state"]:

        def count(value: bytes, state: Any) -> bytes:
            state.set("count", state.get("count", 0) + 1)
            return value

        frame = frame.apply(count, stateful=True)
    frame.to_topic(target)
    app.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
