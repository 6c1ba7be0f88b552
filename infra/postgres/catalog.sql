-- catalog: products, their stock, and what of it is promised to orders. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS product (
  sku              text   PRIMARY KEY,
  name             text   NOT NULL,
  unit_price_cents bigint NOT NULL CHECK (unit_price_cents > 0),
  currency         text   NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  -- Pieces in the shelf, the reserved ones included. No code, however wrong, can promise a piece that is not there.
  on_hand          bigint NOT NULL CHECK (on_hand >= 0),
  reserved         bigint NOT NULL DEFAULT 0 CHECK (reserved BETWEEN 0 AND on_hand)
);

CREATE TABLE IF NOT EXISTS reservation (
  order_id       text PRIMARY KEY,
  reservation_id uuid NOT NULL UNIQUE,
  released       boolean NOT NULL DEFAULT false
);

CREATE TABLE IF NOT EXISTS reservation_line (
  order_id  text   NOT NULL REFERENCES reservation,
  sku       text   NOT NULL REFERENCES product,
  quantity  bigint NOT NULL CHECK (quantity > 0),
  restocked bigint NOT NULL DEFAULT 0 CHECK (restocked BETWEEN 0 AND quantity),
  PRIMARY KEY (order_id, sku)
);

-- Every change of a shelf, by the idempotency key of its command: positive takes from the shelf, negative gives back.
-- Nothing here forbids a second row for key and article: it is what shows that there is none.
CREATE TABLE IF NOT EXISTS stock_movement (
  idempotency_key uuid   NOT NULL,
  order_id        text   NOT NULL,
  sku             text   NOT NULL,
  pieces          bigint NOT NULL CHECK (pieces <> 0)
);
