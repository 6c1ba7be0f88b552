"""Which topics an outbox may write, and how large a record each takes. Pure: the catalogue in, names and bytes out."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.outbox.names import VIEWS_DATABASE

REQUEST_BYTES_MAX = 1_000_000
"""Kafka Connect's producer sends at most 1,048,576 bytes at once (`max.request.size`); the rest is for framing."""
FRAMING_BYTES = 2_048
"""Batch and record framing, and the names of the headers: under 700 bytes with every header set."""


def writable_topics(catalogue: Catalogue, service: str, views: Collection[str] = ()) -> Mapping[str, int]:
    """Return the topics that the outbox of `service` may write, each with its most bytes of key, payload and headers.

    They are those that name the service as a producer, dead-letter topics of its own included. The views' database
    writes dead letters, and the topics that name one of the project's `views` as a producer: their change events.
    """
    writers = {service, *views} if service == VIEWS_DATABASE else {service}
    return MappingProxyType(
        {
            topic.name: record_bytes_max(topic.config)
            for topic in catalogue.topics.values()
            if not writers.isdisjoint(topic.producers) or (service == VIEWS_DATABASE and topic.kind is TopicKind.DEAD)
        }
    )


def record_bytes_max(config: Mapping[str, str]) -> int:
    """Return the most bytes of key, payload and headers that a topic of this configuration takes from an outbox."""
    broker = int(config.get("max.message.bytes", REQUEST_BYTES_MAX + FRAMING_BYTES))
    return max(min(broker - FRAMING_BYTES, REQUEST_BYTES_MAX), 0)
