"""The tables of the three services: one row for each step of each trip."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from towpath.settings import Settings

SERVICES = ("flight", "hotel", "payment")
_TABLE = """
CREATE TABLE IF NOT EXISTS booking (
  trip_id text PRIMARY KEY, idempotency_key uuid NOT NULL, detail text NOT NULL,
  cancelled boolean NOT NULL DEFAULT false, booked_at timestamptz NOT NULL DEFAULT now())
"""
_INSERT = """
INSERT INTO booking (trip_id, idempotency_key, detail) SELECT * FROM unnest(%s::text[], %s::uuid[], %s::text[])
"""


def make_tables(settings: Settings) -> None:
    """Create the table of each service where it is missing."""
    for service in SERVICES:
        with connect(settings, service) as connection:
            connection.execute(_TABLE)


def connect(settings: Settings, service: str) -> psycopg.Connection[Any]:
    """Connect to the database of `service`."""
    options: dict[str, Any] = dict(settings.postgres.connection_options())
    return psycopg.connect(settings.postgres.database_url(service), **options)


def book(connection: Any, rows: Sequence[tuple[str, UUID, str]]) -> None:
    """Write the business change of each command: trip, idempotency key, what was booked."""
    connection.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])


def cancel(connection: Any, trips: Sequence[str]) -> None:
    """Mark bookings as cancelled."""
    connection.execute("UPDATE booking SET cancelled = true WHERE trip_id = ANY(%s)", (list(trips),))


def booked(settings: Settings, service: str, trips: Sequence[str]) -> int:
    """Return how many of `trips` have their booking in `service`."""
    with connect(settings, service) as connection:
        row = connection.execute("SELECT count(*) FROM booking WHERE trip_id = ANY(%s)", (list(trips),)).fetchone()
    return int(row[0]) if row else 0
