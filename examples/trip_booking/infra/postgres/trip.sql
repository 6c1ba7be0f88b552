-- trip: what travellers asked for, and how far it is. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS trip (
  trip_id      text   PRIMARY KEY,
  traveller    text   NOT NULL,
  status       text   NOT NULL DEFAULT 'requested'
               CHECK (status IN ('requested', 'confirmed', 'rejected', 'cancelling', 'cancelled')),
  amount_cents bigint,
  reason       text
);
