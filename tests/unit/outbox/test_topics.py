"""Which topics an outbox may write."""

from pathlib import Path

from towpath.contract.catalogue import Catalogue
from towpath.outbox.topics import FRAMING_BYTES, REQUEST_BYTES_MAX, record_bytes_max, writable_topics
from towpath.settings import load_settings

CATALOGUE = Catalogue.load(load_settings(Path(__file__).resolve().parents[3], environment=False))


def test_a_service_may_write_what_names_it_as_a_producer() -> None:
    """Its events, the replies of the sagas that it serves, and the dead letters of its own commands."""
    names = set(writable_topics(CATALOGUE, "catalog"))
    assert {"catalog.events", "place_order.replies", "catalog.commands.dead"} <= names
    assert not names & {"order.events", "payment.events", "place_order.history", "catalog.commands"}


def test_the_views_database_writes_dead_letters_alone() -> None:
    """Whatever topic a view reads."""
    names = writable_topics(CATALOGUE, "views")
    assert "order.events.dead" in names
    assert all(name.endswith(".dead") for name in names)


def test_a_record_fits_the_topic_and_the_producer() -> None:
    """A topic that takes less decides; one that takes more does not help, for Connect's producer sends no more."""
    assert record_bytes_max({}) == REQUEST_BYTES_MAX
    assert record_bytes_max({"max.message.bytes": "100000"}) == 100_000 - FRAMING_BYTES
    assert record_bytes_max({"max.message.bytes": "5000000"}) == REQUEST_BYTES_MAX
    assert record_bytes_max({"max.message.bytes": "0"}) == 0
