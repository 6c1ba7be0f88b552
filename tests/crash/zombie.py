"""A worker that is frozen in the middle of a batch: `python -m tests.crash.zombie '<json>'`.

It says `handling` when it has its first batch, and sends nothing before a file tells it to go on. `breakage` names the
function of `test_breakages` that takes a rule out of it first.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash import test_breakages
from tests.unit.stream.support import options_for, working
from towpath.settings import KafkaSettings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import Groups
from towpath.stream.engine.unit import KafkaUnit


async def work(told: dict[str, Any]) -> None:
    """Handle batches until the end of time, or until the worker ends."""
    settings = test_breakages.FREEZABLE
    go_on = Path(told["go_on"])

    async def handler(unit: KafkaUnit, groups: Groups) -> None:
        if not go_on.exists():
            print("handling", flush=True)  # noqa: T201 - the test waits for it
            while not go_on.exists():
                await asyncio.sleep(0.05)
            # Its client has heard by now that it is no member any more.
            await asyncio.sleep(2)
        for records in groups.values():
            for record in records:
                unit.send(told["out"], record.value)

    broker = KafkaBroker(KafkaSettings(bootstrap_servers=told["servers"]), settings)
    options = options_for(broker, settings=settings, application=told["application"], slot=told["slot"])
    async with working(handler, options, [told["in"]]) as worker:
        assert worker.task is not None
        await worker.task


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    if told["breakage"]:
        getattr(test_breakages, told["breakage"])(pytest.MonkeyPatch())
    asyncio.run(work(told))
