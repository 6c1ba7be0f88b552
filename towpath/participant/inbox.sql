-- What a service was asked to do, and what came of it: one row for each idempotency key. Applied under an advisory
-- lock, as often as one likes.
--
-- The row is written in the transaction of the change itself, so a command is carried out once however often it comes.
-- An undo marks the row of what it undoes; where that has not come yet, the mark is a row without a reply, and makes a
-- command that comes late a command to pass over. Rows outlive whatever can bring a command back ([participant]
-- inbox_keep_days).

-- In `public`, whatever the search path begins with: a second inbox, later, would have forgotten all that was done.
SET LOCAL search_path = public, pg_temp;

CREATE TABLE IF NOT EXISTS inbox (
  idempotency_key uuid        PRIMARY KEY,
  saga_id         uuid        NOT NULL,
  saga            text        NOT NULL,
  step            text        NOT NULL,
  item            text        NOT NULL,
  direction       text        NOT NULL,
  round           int         NOT NULL,
  key             text        NOT NULL,
  undone          boolean     NOT NULL,
  refused         boolean     NOT NULL,
  type            text,
  payload         bytea,
  recorded_at     timestamptz NOT NULL DEFAULT statement_timestamp(),
  CHECK ((type IS NULL) = (payload IS NULL)),
  CHECK (undone OR type IS NOT NULL)
);

-- Rows are cleaned by age. Keys are hashes, so without this index every cleaning would read the whole table.
CREATE INDEX IF NOT EXISTS inbox_by_time ON inbox (recorded_at);

-- Up to when rows have been removed. A command that is not newer, and not in the inbox, may have been carried out: a
-- record that was redriven twice outlives any sum of retentions.
CREATE TABLE IF NOT EXISTS inbox_forgotten (
  one   boolean     PRIMARY KEY DEFAULT true CHECK (one),
  until timestamptz NOT NULL
);
