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
