-- order: what customers ordered, and how far it is. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS customer_order (
  order_id     text        PRIMARY KEY,
  customer_id  text        NOT NULL,
  total_cents  bigint      NOT NULL CHECK (total_cents > 0),
  currency     text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  status       text        NOT NULL DEFAULT 'placed'
                           CHECK (status IN ('placed', 'confirmed', 'rejected', 'cancelling', 'cancelled')),
  -- Why it was rejected, or is being cancelled.
  reason       text,
  placed_at    timestamptz NOT NULL,
  changed_at   timestamptz NOT NULL,
  -- What a cancellation that was asked for gives back; null while none is asked for.
  refund_cents bigint      CHECK (refund_cents BETWEEN 1 AND total_cents),
  CHECK ((status IN ('rejected', 'cancelling', 'cancelled')) <= (reason IS NOT NULL)),
  CHECK ((status IN ('cancelling', 'cancelled')) <= (refund_cents IS NOT NULL))
);

CREATE TABLE IF NOT EXISTS order_line (
  order_id         text   NOT NULL REFERENCES customer_order,
  line             int    NOT NULL,
  sku              text   NOT NULL,
  quantity         bigint NOT NULL CHECK (quantity > 0),
  unit_price_cents bigint NOT NULL CHECK (unit_price_cents > 0),
  PRIMARY KEY (order_id, line)
);

-- Every step of every order, by the idempotency key of its command. Nothing here forbids a second row for a key: it
-- is what shows that there is none.
CREATE TABLE IF NOT EXISTS order_change (
  idempotency_key uuid NOT NULL,
  order_id        text NOT NULL,
  status          text NOT NULL
);
