-- hotel: where one sleeps, how many rooms are left, and who has one. Applied as often as one likes.
CREATE TABLE IF NOT EXISTS hotel (
  hotel       text   PRIMARY KEY,
  rooms       int    NOT NULL CHECK (rooms >= 0),
  night_cents bigint NOT NULL CHECK (night_cents > 0)
);
CREATE TABLE IF NOT EXISTS room (
  trip_id text PRIMARY KEY,
  hotel   text NOT NULL REFERENCES hotel
);
INSERT INTO hotel VALUES ('Lock Inn', 1000, 80_00), ('Towpath Palace', 1000, 700_00) ON CONFLICT DO NOTHING;
