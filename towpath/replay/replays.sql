-- The replays that were run: who, what, why, and how far. Where one stands is in Kafka, in the transaction of what it
-- sent; here it is written down for people, and asked to stop.
CREATE TABLE IF NOT EXISTS towpath_replays (
  replay_id   text PRIMARY KEY,
  plan        jsonb NOT NULL,
  actor       text NOT NULL,
  reason      text NOT NULL,
  forced      boolean NOT NULL DEFAULT false,
  state       text NOT NULL,
  sent        bigint NOT NULL DEFAULT 0,
  stop_asked  boolean NOT NULL DEFAULT false,
  started_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Which run of the plan it is: one that has been superseded writes nothing down. Only where it is missing: the statement
-- alone would wait for every open transaction that has looked.
DO $body$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'towpath_replays'::regclass AND attname = 'run' AND NOT attisdropped
  ) THEN
    ALTER TABLE towpath_replays ADD COLUMN run bigint NOT NULL DEFAULT 1;
  END IF;
END
$body$;
