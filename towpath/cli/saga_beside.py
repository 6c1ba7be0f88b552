"""What stood beside an instance at a time: the views' rows of its key, and what services had recorded for it.

The one rule: a row is folded anew from the topics, so it is what the view had then. Where they have lost their
beginning, or the row's key is not the instance's, nothing is shown rather than something that may not have been.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from towpath.cli import output
from towpath.cli.view_versions import broker_of, codec_of, declared_views
from towpath.errors import NotFoundError, WorldError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.stream.broker.record import TopicPartition
    from towpath.view import View


def beside(settings: Settings, saga_id: str, key: str, at_milliseconds: int) -> dict[str, Any]:
    """Return what stood beside an instance at a time, in milliseconds. Raises WorldError where Kafka is away."""
    return {
        "at": datetime.fromtimestamp(at_milliseconds / 1000, UTC).isoformat(timespec="milliseconds"),
        "views": list(_rows(settings, key, at_milliseconds)),
        "inboxes": list(_inboxes(settings, saga_id, at_milliseconds)),
    }


def _rows(settings: Settings, key: str, at_milliseconds: int) -> Iterator[dict[str, Any]]:
    """Yield of each view the row of `key` as it was, or why it cannot be told."""
    from towpath.view.view import record_key

    for name, versions in sorted(declared_views(settings).items()):
        view = versions[max(versions)]
        if view.row_key is not record_key:
            continue  # its rows are not of this key
        places = _places(settings, view, key)
        begins = broker_of(settings).begin_offsets(list(places))
        lost = [str(place) for place, begin in sorted(begins.items()) if begin > 0]
        if lost and not view.forgets:
            yield {"view": name, "row": None, "unknown": f"{', '.join(lost)} has lost its beginning"}
        else:
            yield {"view": name, "row": _row(settings, view, places, key, at_milliseconds), "unknown": None}


def _places(settings: Settings, view: "View[Any]", key: str) -> dict["TopicPartition", int]:
    """Return the partitions that hold records of `key`, each with its end."""
    from towpath.stream.broker.partitioner import partition_of
    from towpath.stream.broker.record import TopicPartition

    broker = broker_of(settings)
    counts = broker.partition_counts(view.topics)
    return broker.end_offsets(
        [TopicPartition(topic, partition_of(key.encode(), count)) for topic, count in counts.items()]
    )


def _row(
    settings: Settings, view: "View[Any]", places: dict["TopicPartition", int], key: str, at_milliseconds: int
) -> dict[str, Any] | None:
    from dataclasses import asdict

    from towpath.stream.broker.record import Batch
    from towpath.view.agent import Folding
    from towpath.view.versions.log import records_between
    from towpath.view.view import fold_records

    folding, seen = Folding("", view, codec_of(settings, view.topics), 0), set[str]()
    rows: dict[str, Any] = {}
    for record in records_between(broker_of(settings), {place: (0, end) for place, end in places.items()}):
        id_ = record.header("id") or record.position
        if record.key != key.encode() or record.timestamp_milliseconds > at_milliseconds or id_ in seen:
            continue
        seen.add(id_)
        read = folding.read(Batch(record.topic, record.partition, [record]))
        rows |= fold_records(view, rows, ((one.key, one.record, one.occurrence) for one in read))
    row = rows.get(key)
    return None if row is None else asdict(row)


def _inboxes(settings: Settings, saga_id: str, at_milliseconds: int) -> Iterator[dict[str, Any]]:
    """Yield what each service had recorded for an instance, in the order of recording."""
    from towpath.participant.postgres import recorded_for
    from towpath.project import load_services
    from towpath.replay.outbox.postgres import outbox_connection

    until = datetime.fromtimestamp(at_milliseconds / 1000, UTC)
    for service in load_services(settings):
        try:
            with outbox_connection(settings, service) as connection:
                for recorded in recorded_for(connection, saga_id, until):
                    yield {"service": service, **recorded}
        except (WorldError, NotFoundError) as error:
            yield {"service": service, "unknown": error.cause}


def show_beside(found: dict[str, Any]) -> None:
    """Print what stood beside an instance."""
    for one in found["views"]:
        if one["unknown"]:
            output.note(f"view {one['view']} at {found['at']} cannot be told: {one['unknown']}")
        elif one["row"] is None:
            output.note(f"view {one['view']} had no row at {found['at']}")
        else:
            output.note(f"view {one['view']} at {found['at']}:")
            output.show_facts(one["row"])
    rows = [one for one in found["inboxes"] if "unknown" not in one]
    if rows:
        output.note(f"recorded by services up to {found['at']}:")
        output.show_rows(rows)
    for one in found["inboxes"]:
        if "unknown" in one:
            output.note(f"{one['service']}: {one['unknown']}")
