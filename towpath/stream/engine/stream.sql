-- Where a database application stands in its topics. Applied under an advisory lock, as often as one likes.
-- In `public`, whatever a search path puts before it: a second set of tables would begin anew.
-- Each only where it is missing: CREATE TABLE IF NOT EXISTS needs the right to make one also where there is one, and
-- ALTER TABLE and CREATE INDEX would wait for every open unit of work.
DO $body$
BEGIN
  -- One row a partition, locked by every unit of work: it is this row, not Kafka's group, that lets one worker at a
  -- time apply a partition.
  IF to_regclass('public.towpath_offsets') IS NULL THEN
    CREATE TABLE public.towpath_offsets (
      application text   NOT NULL,
      topic       text   NOT NULL,
      partition   int    NOT NULL,
      -- Tells the topic from a later one of the same name, whose offsets begin anew.
      topic_id    text   NOT NULL,
      next_offset bigint NOT NULL,
      updated_at  timestamptz NOT NULL DEFAULT now(),
      -- What holds the partition until a person accepts it (see towpath/stream/broker/position.py).
      note        text   NOT NULL DEFAULT '',
      -- Under which leader the last record was written that was applied, -1 where that is not known (KIP-320).
      leader_epoch int   NOT NULL DEFAULT -1,
      PRIMARY KEY (application, topic, partition)
    );
  END IF;
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.towpath_offsets'::regclass AND attname = 'note') THEN
    ALTER TABLE public.towpath_offsets ADD COLUMN note text NOT NULL DEFAULT '';
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'public.towpath_offsets'::regclass AND attname = 'leader_epoch'
  ) THEN
    ALTER TABLE public.towpath_offsets ADD COLUMN leader_epoch int NOT NULL DEFAULT -1;
  END IF;

  -- What a person decided about a position that the log did not have, by `towpath positions`.
  IF to_regclass('public.towpath_position_decisions') IS NULL THEN
    CREATE TABLE public.towpath_position_decisions (
      decided_at  timestamptz NOT NULL DEFAULT now(),
      application text   NOT NULL,
      topic       text   NOT NULL,
      partition   int    NOT NULL,
      topic_id    text   NOT NULL,
      offset_before bigint NOT NULL,
      offset_after  bigint NOT NULL,
      found       text   NOT NULL,
      actor       text   NOT NULL,
      reason      text   NOT NULL
    );
  END IF;

  -- Keys whose later records follow a dead one into quarantine, until nothing of them is held there any more.
  IF to_regclass('public.towpath_parked') IS NULL THEN
    CREATE TABLE public.towpath_parked (
      application text  NOT NULL,
      partition   int   NOT NULL,
      key         bytea NOT NULL,
      behind      text  NOT NULL,
      held        int   NOT NULL DEFAULT 1,
      parked_at   timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (application, partition, key)
    );
  END IF;
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.towpath_parked'::regclass AND attname = 'held') THEN
    ALTER TABLE public.towpath_parked ADD COLUMN held int NOT NULL DEFAULT 1;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.towpath_parked'::regclass AND attname = 'spans') THEN
    ALTER TABLE public.towpath_parked ADD COLUMN spans text NOT NULL DEFAULT '';
  END IF;

  -- Ids that an application has applied, by the key of dedup (a view's partition): see towpath/view/dedup.py.
  IF to_regclass('public.towpath_seen') IS NULL THEN
    CREATE TABLE public.towpath_seen (
      application  text   NOT NULL,
      topic        text   NOT NULL,
      partition    int    NOT NULL,
      id           text   NOT NULL,
      timestamp_milliseconds bigint NOT NULL,
      PRIMARY KEY (application, topic, partition, id)
    );
  END IF;
  IF to_regclass('public.towpath_seen_by_time') IS NULL THEN
    CREATE INDEX towpath_seen_by_time
      ON public.towpath_seen (application, topic, partition, timestamp_milliseconds);
  END IF;

  -- For each partition the time of the newest id that was forgotten: what is older may have been applied.
  IF to_regclass('public.towpath_horizon') IS NULL THEN
    CREATE TABLE public.towpath_horizon (
      application  text   NOT NULL,
      topic        text   NOT NULL,
      partition    int    NOT NULL,
      forgotten_milliseconds bigint NOT NULL,
      PRIMARY KEY (application, topic, partition)
    );
  END IF;
END
$body$;
