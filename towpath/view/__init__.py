"""Folds events into tables: a row is exactly the fold of its key's records, whatever crashed on the way.

`view.py` declares and decides (pure), `postgres.py` keeps the rows, `agent.py` takes the batches from Kafka.
"""

from towpath.view.declaring import Changes, Indexed, RowCheck
from towpath.view.view import Occurrence, RowSource, View

__all__ = ["Changes", "Indexed", "Occurrence", "RowCheck", "RowSource", "View"]
