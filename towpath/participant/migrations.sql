-- Which numbered migrations this database has had. Applied as often as one likes.
SET LOCAL search_path = public, pg_temp;
CREATE TABLE IF NOT EXISTS towpath_migration (
  number     int         PRIMARY KEY,
  name       text        NOT NULL,
  digest     text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
