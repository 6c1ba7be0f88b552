"""The simulated card network: its books lie in payment's database, its transactions are its own.

It commits before payment does and knows nothing of payment's transaction, as a network on the other side of the world.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from pipelines.services.payment.card_network import ChangeRequest, HoldRequest, reason_to_decline
from pipelines.services.postgres import Connection
from towpath.settings import Settings

_NEW = """
INSERT INTO card_network.request AS known (idempotency_key, kind, hold_key, amount_cents, declined)
SELECT key, %s, hold_key, amount_cents, declined
  FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[]) AS asked (key, hold_key, amount_cents, declined)
ON CONFLICT (idempotency_key) DO UPDATE SET presented = known.presented + 1
RETURNING idempotency_key, presented, declined
"""
_HOLD = """
INSERT INTO card_network.hold (hold_key, card_token, amount_cents, currency)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::bigint[], %s::text[])
ON CONFLICT DO NOTHING
RETURNING hold_key
"""
_TOO_LATE = """
UPDATE card_network.request SET declined = 'the authorisation was voided before it came'
 WHERE idempotency_key = ANY(%s)
RETURNING idempotency_key, declined
"""
_VOID = """
INSERT INTO card_network.hold (hold_key, card_token, amount_cents, currency, voided)
SELECT hold_key, '', 0, '', true FROM unnest(%s::uuid[]) AS asked (hold_key)
ON CONFLICT (hold_key) DO UPDATE SET voided = true
"""
_CAPTURE = """
UPDATE card_network.hold AS hold SET captured_cents = captured_cents + asked.amount_cents
  FROM unnest(%s::uuid[], %s::bigint[]) AS asked (hold_key, amount_cents) WHERE hold.hold_key = asked.hold_key
"""
_REFUND = """
UPDATE card_network.hold AS hold SET refunded_cents = refunded_cents + asked.amount_cents
  FROM unnest(%s::uuid[], %s::bigint[]) AS asked (hold_key, amount_cents) WHERE hold.hold_key = asked.hold_key
"""


class PostgresCardNetwork:
    """The simulated network. Connects when it is first asked, and again when it lost its connection."""

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        self._options = options
        self._connection: Connection | None = None

    @classmethod
    def open(cls, settings: Settings) -> "PostgresCardNetwork":
        """Return the network whose books lie in payment's database."""
        return cls(settings.postgres.database_url("payment"), **settings.postgres.connection_options())

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def authorise(self, requests: Sequence[HoldRequest]) -> Mapping[UUID, str | None]:
        """Block amounts; return by key why it was declined, None where it was not."""
        with self._connected().transaction():
            answers = self._present(
                "authorise",
                [
                    (one.idempotency_key, one.idempotency_key, one.amount_cents, reason_to_decline(one.card_token))
                    for one in requests
                ],
            )
            declined = {key: reason for key, (_, reason) in answers.items()}
            new = [one for one in requests if answers[one.idempotency_key] == (True, None)]
            declined.update(self._hold(new))
        return declined

    def void(self, requests: Sequence[ChangeRequest]) -> None:
        """Free holds, those too that do not exist yet."""
        with self._connected().transaction():
            new = self._present_changes("void", requests)
            self._connected().execute(_VOID, ([one.hold_key for one in new],))

    def capture(self, requests: Sequence[ChangeRequest]) -> None:
        """Take amounts from cards."""
        self._change("capture", _CAPTURE, requests)

    def refund(self, requests: Sequence[ChangeRequest]) -> None:
        """Give amounts back."""
        self._change("refund", _REFUND, requests)

    def _hold(self, requests: Sequence[HoldRequest]) -> dict[UUID, str]:
        """Make holds; return why not, for those that were voided before they came."""
        if not requests:
            return {}
        columns = zip(
            *((one.idempotency_key, one.card_token, one.amount_cents, one.currency) for one in requests), strict=True
        )
        made = {key for (key,) in self._connected().execute(_HOLD, [list(column) for column in columns])}
        late = [one.idempotency_key for one in requests if one.idempotency_key not in made]
        return dict(self._connected().execute(_TOO_LATE, (late,)).fetchall()) if late else {}

    def _change(self, kind: str, statement: LiteralString, requests: Sequence[ChangeRequest]) -> None:
        with self._connected().transaction():
            new = self._present_changes(kind, requests)
            self._connected().execute(statement, ([one.hold_key for one in new], [one.amount_cents for one in new]))

    def _present_changes(self, kind: str, requests: Sequence[ChangeRequest]) -> list[ChangeRequest]:
        """Return those of `requests` that are presented for the first time."""
        rows = [(one.idempotency_key, one.hold_key, one.amount_cents, None) for one in requests]
        answers = self._present(kind, rows)
        return [one for one in requests if answers[one.idempotency_key][0]]

    def _present(
        self, kind: str, rows: Sequence[tuple[UUID, UUID, int, str | None]]
    ) -> dict[UUID, tuple[bool, str | None]]:
        """Enter requests; return by key whether it is the first time, and why it is or was declined."""
        if not rows:
            return {}
        columns = [list(column) for column in zip(*rows, strict=True)]
        found = self._connected().execute(_NEW, (kind, *columns))
        return {key: (presented == 1, declined) for key, presented, declined in found}

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, **self._options)
            # Its commits need not wait for the disk: payment's own commit, which comes later, flushes them too, and
            # where that is lost, the request is presented again.
            self._connection.execute("SET synchronous_commit = off")
            self._connection.commit()
        return self._connection


def unbalanced(connection: Connection) -> list[str]:
    """Return what is wrong with the books: holds that payment does not know or knows otherwise, and vice versa.

    What is authorised must be captured, voided or open, to the cent, on both sides.
    """
    rows = connection.execute("""
        SELECT coalesce(order_id, hold_key::text) FROM authorisation AS ours
        FULL JOIN (SELECT * FROM card_network.hold WHERE amount_cents > 0) AS theirs USING (hold_key)
        WHERE (ours.amount_cents, ours.voided, ours.captured_cents, ours.refunded_cents)
              IS DISTINCT FROM (theirs.amount_cents, theirs.voided, theirs.captured_cents, theirs.refunded_cents)
        ORDER BY 1""")
    return [name for (name,) in rows]
