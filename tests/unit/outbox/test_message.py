"""A message is encoded when it is made."""

from pathlib import Path
from uuid import UUID

import pytest

from schemas.records.identity import CustomerVerified
from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.errors import ContractError
from towpath.outbox import message
from towpath.outbox.names import connector_name, slot_name
from towpath.settings import load_settings

ROOT = Path(__file__).resolve().parents[3]
ID = UUID(int=7)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.offline(schema_sets(load_settings(ROOT)))


def test_a_message_carries_type_key_and_payload_of_its_record(codec: Codec) -> None:
    """What is decoded from the payload is the record again."""
    record = CustomerVerified(order_id="o-1", customer_id="c-1")
    made = message.from_record(codec, "place_order.replies", "o-1", record, id=ID, step="customer", attempt=2)
    assert (made.id, made.topic, made.key, made.type) == (ID, "place_order.replies", "o-1", record.SCHEMA_NAME)
    assert (made.step, made.attempt, made.tenant) == ("customer", 2, None)
    assert codec.decode(made.payload) == record


@pytest.mark.parametrize("header", ["attempt", "round"])
def test_a_number_past_its_column_raises_where_it_is_made(codec: Codec, header: str) -> None:
    """psycopg's binary COPY, which writes two messages and more, keeps the lower 32 bits and says nothing."""
    record = CustomerVerified(order_id="o-1", customer_id="c-1")
    with pytest.raises(ValueError, match="past 32 bits"):
        message.from_record(codec, "place_order.replies", "o-1", record, id=ID, **{header: 2**31})


def test_a_record_that_breaks_its_schema_raises_where_it_is_made(codec: Codec) -> None:
    """The caller's transaction cannot commit an event that nobody could read."""
    broken = CustomerVerified(order_id="o-1", customer_id=17)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="customer_id"):
        message.from_record(codec, "place_order.replies", "o-1", broken, id=ID)


def test_every_column_but_topic_key_and_payload_travels_as_a_header() -> None:
    """A column that is added later travels too, without anyone having to think of it."""
    assert {*message.HEADER_COLUMNS, "id", "topic", "key", "payload"} == set(message.COLUMNS)


def test_the_names_of_slot_and_connector_are_what_their_servers_allow() -> None:
    """A project's name may have hyphens, a slot's name may not."""
    assert connector_name("my-shop", "order") == "my-shop-order-outbox"
    assert slot_name("my-shop", "order") == "my_shop_order_outbox"
