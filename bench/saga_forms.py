"""The two sagas that are measured: three steps (`bench/booking`) and five (`place_order` of the reference project).

Each form says how one of its sagas is started, in a transaction of its own, and how its work is verified afterwards.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID, uuid5

import psycopg

from towpath.contract.codec import Codec
from towpath.outbox.message import OutboxMessage
from towpath.settings import Settings

_NAMESPACE = UUID("6f2a1c52-6b0e-4f0e-9a3d-5b1f0f3f2c11")
SHELVES = 40


class Form(Protocol):
    """One saga, as the bench runs it."""

    saga: str
    steps: int
    start_service: str
    environment: dict[str, str]
    """Variables that make the repository's own project, or another one, the one that runs."""

    def prepare(self, settings: Settings, codec: Codec) -> None:
        """Make tables and bring in what the sagas need."""
        ...

    def start(self, connection: psycopg.Connection[Any], codec: Codec, key: str) -> OutboxMessage:
        """Write what starts the saga of `key`, in the connection's own transaction, and return it."""
        ...

    def done(self, settings: Settings, keys: Sequence[str]) -> int:
        """Return how many of `keys` every service has all its work of."""
        ...


def form_of(steps: int) -> "Form":
    """Return the form with so many steps."""
    return ThreeSteps() if steps == 3 else FiveSteps()


def event_id(key: str) -> UUID:
    """Return the id of the event that starts the saga of `key`."""
    return uuid5(_NAMESPACE, key)


def connect(settings: Settings, database: str) -> psycopg.Connection[Any]:
    """Connect to a database."""
    options: dict[str, Any] = dict(settings.postgres.connection_options())
    return psycopg.connect(settings.postgres.database_url(database), **options)


class ThreeSteps:
    """A seat, a room, the money: each a row in a database of its own."""

    saga, steps, start_service = "book_trip", 3, "flight"

    def __init__(self) -> None:
        services = [f"bench.booking.{name}:service" for name in ("flight", "hotel", "payment")]
        self.environment = {
            "TOWPATH_PROJECT__NAME": "booking",
            "TOWPATH_PROJECT__SAGAS": "bench.booking.sagas",
            "TOWPATH_PROJECT__SERVICES": json.dumps(services),
            "TOWPATH_PROJECT__VIEWS": "[]",
            "TOWPATH_PROJECT__SCHEMAS": "bench/booking/schemas",
            "TOWPATH_PROJECT__RECORDS": "bench.booking.records",
        }

    def prepare(self, settings: Settings, codec: Codec) -> None:  # noqa: ARG002 - one signature for both
        """Make the tables."""
        from bench.booking.postgres import make_tables

        make_tables(settings)

    def start(self, connection: psycopg.Connection[Any], codec: Codec, key: str) -> OutboxMessage:
        """Ask for a trip."""
        from bench.booking.flight import request_trip
        from bench.booking.records.flight import TripRequested

        trip = TripRequested(trip_id=key, traveller=f"traveller {key}", nights=2, price_cents=420_00)
        return request_trip(connection, codec, trip, event_id=event_id(key))

    def done(self, settings: Settings, keys: Sequence[str]) -> int:
        """Count the trips that are booked everywhere."""
        from bench.booking.postgres import SERVICES, booked

        return min(booked(settings, service, keys) for service in SERVICES)


class FiveSteps:
    """An order of the reference project that nothing stands in the way of."""

    saga, steps, start_service = "place_order", 5, "order"

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._skus: list[str] = []
        self._customers: list[str] = []

    def prepare(self, settings: Settings, codec: Codec, tag: str = "bench") -> None:
        """Register customers with credit, and fill the shelves; `tag` keeps them apart from those of others."""
        from pipelines.services.catalog.service import list_product
        from pipelines.services.identity.rules import Customer
        from pipelines.services.identity.service import register_customer

        self._customers = [f"{tag}-customer-{number}" for number in range(SHELVES)]
        self._skus = [f"{tag}-article-{number}" for number in range(SHELVES)]
        with connect(settings, "identity") as connection:
            for name in self._customers:
                customer = Customer(name, verified=True, credit_limit_cents=10_000_00)
                register_customer(connection, codec, customer, name, event_id=event_id(name))
        with connect(settings, "catalog") as connection:
            for sku in self._skus:
                list_product(
                    connection,
                    codec,
                    sku=sku,
                    name=sku,
                    unit_price_cents=129_00,
                    on_hand=10_000_000,
                    event_id=event_id(sku),
                )

    def start(self, connection: psycopg.Connection[Any], codec: Codec, key: str) -> OutboxMessage:
        """Place an order of two lines."""
        from pipelines.services.order import place_order
        from schemas.records.order import OrderLine, OrderPlaced

        number = event_id(key).int
        lines = tuple(
            OrderLine(sku=self._skus[(number + place * 7) % SHELVES], quantity=1, unit_price_cents=129_00)
            for place in range(2)
        )
        order = OrderPlaced(
            order_id=key,
            customer_id=self._customers[number % SHELVES],
            lines=lines,
            total_cents=2 * 129_00,
            currency="EUR",
            card_token=f"card-{key}",
            placed_at=datetime.now(UTC),
        )
        return place_order(connection, codec, order, event_id=event_id(key))

    def done(self, settings: Settings, keys: Sequence[str]) -> int:
        """Count the orders that are confirmed and whose money is captured, in full."""
        names = list(keys)
        with connect(settings, "order") as connection:
            confirmed = _count(
                connection,
                "SELECT count(*) FROM customer_order WHERE order_id = ANY(%s) AND status = 'confirmed'",
                names,
            )
        with connect(settings, "payment") as connection:
            captured = _count(
                connection,
                "SELECT count(*) FROM authorisation WHERE order_id = ANY(%s) AND captured_cents = amount_cents",
                names,
            )
        return min(confirmed, captured)


def _count(connection: psycopg.Connection[Any], statement: str, names: list[str]) -> int:
    row = connection.execute(statement.encode(), (names,)).fetchone()
    return int(row[0]) if row else 0
