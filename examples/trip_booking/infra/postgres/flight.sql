-- flight: what flies, how many seats are left, and who has one. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS flight (
  flight      text   PRIMARY KEY,
  seats       int    NOT NULL CHECK (seats >= 0),
  price_cents bigint NOT NULL CHECK (price_cents > 0)
);
CREATE TABLE IF NOT EXISTS seat (
  trip_id text PRIMARY KEY,
  flight  text NOT NULL REFERENCES flight
);
INSERT INTO flight VALUES ('TW101', 1000, 120_00), ('TW202', 0, 90_00) ON CONFLICT DO NOTHING;
