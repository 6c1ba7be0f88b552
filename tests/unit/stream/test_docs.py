"""The example of docs/streams.md, run."""

import re
from pathlib import Path
from typing import Any

from tests.unit.stream.support import SETTINGS
from tests.unit.stream.test_agents import run
from towpath.settings import ProjectSettings, Settings
from towpath.stream.broker.memory import MemoryBroker
from towpath.stream.faust_app import agent

DOCS = Path(__file__).resolve().parents[3] / "docs" / "streams.md"


def test_the_example_counts_orders(tmp_path: Path) -> None:
    """The page's own code, on the memory broker that the page shows, gives one output and one count for each order."""
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "app.run_worker" in block
    ]
    broker = MemoryBroker(SETTINGS)
    for name in ("orders", "orders.dead", "counted", "shop.state", "shop.timers"):
        broker.create_topic(name, partitions=2)
    for index in range(10):
        broker.append("orders", b"%d" % index, key=b"order-1")
    settings = Settings(root=tmp_path, project=ProjectSettings(name="shop"), stream=SETTINGS)
    code = example.replace("load_settings()", "settings").replace("app.run_worker()", "")
    code = code.replace("from towpath.settings import load_settings\n", "").replace(
        'slot="a"', 'slot="a", broker=broker'
    )
    names: dict[str, Any] = {"__name__": "shop", "settings": settings, "broker": broker}
    exec(code, names)
    assert isinstance(names["app"], agent.StreamApp)

    run(names["app"], lambda: sum(broker.committed_offsets("shop").values()) == 10)
    assert len(broker.records("counted")) == 10
    assert broker.records("shop.state")[-1].value == b"10"
