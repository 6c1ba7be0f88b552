-- payment: the money of orders. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS authorisation (
  order_id         text   PRIMARY KEY,
  -- Under this key the card network knows it: the idempotency key of the command that asked for it.
  hold_key         uuid   NOT NULL UNIQUE,
  authorisation_id text   NOT NULL UNIQUE,
  customer_id      text   NOT NULL,
  amount_cents     bigint NOT NULL CHECK (amount_cents > 0),
  currency         text   NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  voided           boolean NOT NULL DEFAULT false,
  captured_cents   bigint NOT NULL DEFAULT 0 CHECK (captured_cents BETWEEN 0 AND amount_cents),
  refunded_cents   bigint NOT NULL DEFAULT 0 CHECK (refunded_cents BETWEEN 0 AND captured_cents),
  -- Money that was given back to the card cannot be taken from it.
  CHECK (NOT (voided AND captured_cents > 0))
);

-- Every movement of money, by the idempotency key of its command. Nothing here forbids a second row for a key: it is
-- what shows that there is none.
CREATE TABLE IF NOT EXISTS payment_movement (
  idempotency_key uuid   NOT NULL,
  order_id        text   NOT NULL,
  kind            text   NOT NULL CHECK (kind IN ('authorised', 'voided', 'captured', 'refunded')),
  amount_cents    bigint NOT NULL CHECK (amount_cents > 0)
);

-- The simulated card network keeps its books here too, but in transactions of its own, as if it were far away.
CREATE SCHEMA IF NOT EXISTS card_network;

CREATE TABLE IF NOT EXISTS card_network.hold (
  hold_key       uuid   PRIMARY KEY,
  card_token     text   NOT NULL,
  amount_cents   bigint NOT NULL CHECK (amount_cents >= 0),
  currency       text   NOT NULL,
  voided         boolean NOT NULL DEFAULT false,
  captured_cents bigint NOT NULL DEFAULT 0 CHECK (captured_cents BETWEEN 0 AND amount_cents),
  refunded_cents bigint NOT NULL DEFAULT 0 CHECK (refunded_cents BETWEEN 0 AND captured_cents),
  CHECK (NOT (voided AND captured_cents > 0))
);

-- What it was asked, by idempotency key: `presented` counts how often, and the effect is that of the first time.
CREATE TABLE IF NOT EXISTS card_network.request (
  idempotency_key uuid   PRIMARY KEY,
  kind            text   NOT NULL CHECK (kind IN ('authorise', 'void', 'capture', 'refund')),
  hold_key        uuid   NOT NULL,
  amount_cents    bigint NOT NULL,
  declined        text,
  presented       int    NOT NULL DEFAULT 1
);
