-- identity: who customers are, and how much they may order. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS customer (
  customer_id        text PRIMARY KEY,
  name               text NOT NULL,
  verified           boolean NOT NULL,
  credit_limit_cents bigint NOT NULL CHECK (credit_limit_cents >= 0)
);

-- Every verification that was carried out, by the idempotency key of its command. Nothing here forbids a second row
-- for a key: it is what shows that there is none.
CREATE TABLE IF NOT EXISTS verification (
  idempotency_key uuid NOT NULL,
  order_id        text NOT NULL,
  customer_id     text NOT NULL
);
