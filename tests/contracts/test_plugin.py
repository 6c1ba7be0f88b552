"""A service's own test holds its messages to the catalogue, in one line, in a project of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.test_cli import contracts, order_placed, project, write

__all__ = ["project"]
TEST = """\
import pytest

from shop_records.order import OrderPlaced


def test_it(towpath_contracts):
    towpath_contracts.accepts(OrderPlaced({values}), topic="{topic}", key="o-1")
"""


@pytest.mark.parametrize(
    ("values", "topic", "words"),
    [
        ('order_id="o-1", total=5', "order.events", ""),
        ('order_id="o-2", total=5', "order.events", "its key is o-1, and its order_id is o-2"),
        ('order_id="o-1", total=-5', "order.events", "total: is below its minimum of 0"),
        ('order_id="o-1", total=5', "order.evnts", "topic 'order.evnts' is not in the catalogue"),
        ('order_id="o-1", total=None', "order.events", "total"),
    ],
)
def test_a_message_is_held_to_topic_key_and_rules(project: Path, values: str, topic: str, words: str) -> None:
    """What is right passes; what is not fails, and says why."""
    total = {"name": "total", "type": "int", "minimum": 0}
    write(project / "promises/avro/order/OrderPlaced.avsc", order_placed(total))
    assert contracts("generate")[0] == 0
    said = run(project, values, topic)
    assert words in said if words else said == ""


def test_a_message_that_a_consumer_cannot_read_fails(project: Path) -> None:
    """By the reader schema that the consumer keeps."""
    reader = order_placed({"name": "channel", "type": "string"})
    write(project / "promises/readers/billing/OrderPlaced.avsc", reader)
    assert contracts("generate")[0] == 0
    assert "billing (schemas/readers/billing) cannot read it" in run(project, 'order_id="o-1"', "order.events")


def run(folder: Path, values: str, topic: str) -> str:
    """Run the one test in a process of its own; return what pytest said where it failed."""
    write(folder / "conftest.py", 'pytest_plugins = ["towpath.testing.plugin"]\n')
    write(folder / "test_orders.py", TEST.format(values=values, topic=topic))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOWPATH_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    environment["PYTHONPATH"] = str(folder)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
