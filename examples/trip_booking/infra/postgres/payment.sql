-- payment: the money of trips. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS payment (
  trip_id      text   PRIMARY KEY,
  amount_cents bigint NOT NULL CHECK (amount_cents > 0),
  status       text   NOT NULL DEFAULT 'authorised'
               CHECK (status IN ('authorised', 'voided', 'captured', 'refunded'))
);
