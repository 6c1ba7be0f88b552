"""The keys that only one of two versions has folded something further of."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from towpath.contract.codec import Codec
from towpath.stream.broker.port import Broker
from towpath.stream.broker.record import Batch, TopicPartition
from towpath.stream.engine.failures import RecordFailed
from towpath.view.agent import Folding
from towpath.view.versions.log import records_between
from towpath.view.view import View


def keys_between(
    broker: Broker, ranges: Mapping[TopicPartition, tuple[int, int]], views: Iterable[View[Any]], codec: Codec
) -> set[str]:
    """Return the keys of the rows that the records in `ranges` concern. Raises WorldError.

    A record that cannot be folded is dead-lettered by its key, which counts as well.
    """
    foldings = [Folding("", view, codec, 0) for view in views]
    return {
        key
        for record in records_between(broker, ranges)
        for folding in foldings
        for key in _keys(folding, Batch(record.topic, record.partition, [record]))
    }


def _keys(folding: Folding, batch: Batch) -> Iterator[str]:
    yield (batch.records[0].key or b"").decode("utf-8", "replace")
    try:
        yield from (folded.key for folded in folding.read(batch))
    except RecordFailed:
        return
