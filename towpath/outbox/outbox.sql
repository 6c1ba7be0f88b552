-- The outbox of one service's database. Applied under an advisory lock, as often as one likes.
--
-- A message is one row, written in the transaction that makes it true. Debezium's EventRouter makes of it a Kafka
-- record: key and payload as they are, every other column a header of its own name, created_at the timestamp.
--
-- What Kafka would refuse is refused here, from whatever language it comes: a record that Kafka refuses stops the
-- connector, and all that follows with it; refused here, only its own transaction fails.
--
-- No primary key: a re-emit after a lost slot writes the same row again, with its own id and time, and consumers
-- drop what they have seen. No index: the table is written by inserts and read by time, a partition at a time.

-- All of it is in `public`, where Debezium reads it: a search path begins with the schema of the user's name, where there
-- is one, or as a role or a database sets it.
SET LOCAL search_path = public, pg_temp;

-- The order in which a transaction wrote its messages, for a re-emit. Whoever may insert may count.
CREATE SEQUENCE IF NOT EXISTS outbox_sequence;
GRANT USAGE ON SEQUENCE outbox_sequence TO PUBLIC;

CREATE TABLE IF NOT EXISTS outbox (
  id           uuid      NOT NULL,
  topic        text      NOT NULL CHECK (topic <> ''),
  key          text      NOT NULL,
  type         text      NOT NULL,
  payload      bytea     NOT NULL CHECK (octet_length(payload) <= 900000),
  saga_id      uuid,
  saga         text,
  step         text,
  direction    text,
  attempt      int,
  round        int,
  item         text,
  reply_to     text,
  traceparent  text,
  deadline     text,
  tenant       text,
  -- Of a dead-lettered command, which leaves through the outbox of its service: the headers that only commands have,
  -- and, as JSON, whence it came and why it is dead.
  idempotency_key text,
  undoes       text,
  replay_id    text,
  dead         text,
  -- UTC, without a time zone, which is the only form that EventRouter takes as a record's timestamp. The database's
  -- own clock, since the partitions are made by it: an application whose clock is wrong still finds one.
  created_at   timestamp NOT NULL DEFAULT (statement_timestamp() AT TIME ZONE 'UTC'),
  sequence     bigint    NOT NULL DEFAULT nextval('outbox_sequence')
) PARTITION BY RANGE (created_at);

-- Takes what no dated partition takes, so that no business transaction ever fails because maintenance is late.
CREATE TABLE IF NOT EXISTS outbox_default PARTITION OF outbox DEFAULT;

-- Only where they are missing: the statements alone would wait for every open transaction that wrote a message.
DO $body$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'outbox'::regclass AND attname = 'sequence') THEN
    ALTER TABLE outbox ADD COLUMN sequence bigint NOT NULL DEFAULT nextval('outbox_sequence');
  END IF;
  -- Kafka takes no record from before 1970, nor one more than an hour ahead of its clock
  -- (message.timestamp.after.max.ms): local time written east of Greenwich is. Ten minutes are for clocks that differ.
  IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND conname = 'outbox_created_at_utc') THEN
    ALTER TABLE outbox ADD CONSTRAINT outbox_created_at_utc CHECK (
      created_at >= timestamp '2000-01-01'
      AND created_at <= (statement_timestamp() AT TIME ZONE 'UTC') + interval '10 minutes') NOT VALID;
  END IF;
END
$body$;

-- The topics that this outbox may write, as the catalogue has them; `towpath provision` fills it. While it is empty,
-- any name that Kafka takes will do. Once the catalogue was asked it has a row without a name, which no topic is: without
-- any topic, then, nothing may be written. `record_bytes_max` is for key, payload and headers together.
CREATE TABLE IF NOT EXISTS outbox_topics (
  name             text PRIMARY KEY,
  record_bytes_max int  NOT NULL
);

-- A client asks, before it writes, whether this is the right database.
GRANT SELECT ON outbox_topics TO PUBLIC;

-- Messages that Kafka refused all the same, and that an operator stepped over: each whole, with the cause.
CREATE TABLE IF NOT EXISTS outbox_skipped (
  id         uuid        NOT NULL,
  message    jsonb       NOT NULL,
  payload    bytea       NOT NULL,
  cause      text        NOT NULL,
  actor      text        NOT NULL,
  reason     text        NOT NULL,
  skipped_at timestamptz NOT NULL DEFAULT now()
);

-- One event may go to two topics under one id. As a hash, since what was refused may be a name that no index holds.
CREATE UNIQUE INDEX IF NOT EXISTS outbox_skipped_known_by ON outbox_skipped (id, md5(message->>'topic'));
DO $body$
BEGIN
  IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'outbox_skipped_pkey'
             AND conrelid = 'outbox_skipped'::regclass) THEN
    ALTER TABLE outbox_skipped DROP CONSTRAINT outbox_skipped_pkey;
  END IF;
END
$body$;

-- Once a statement, however many rows it wrote: a check of each row would double what a row costs.
-- As its owner, so that whoever may insert a message needs no right beside that one.
CREATE OR REPLACE FUNCTION outbox_refuse() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  wrong record;
BEGIN
  SELECT written.topic INTO wrong FROM (SELECT DISTINCT topic FROM added) AS written
    LEFT JOIN public.outbox_topics AS known ON known.name = written.topic
    WHERE known.name IS NULL
      AND (EXISTS (SELECT FROM public.outbox_topics) OR written.topic !~ '^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$')
    LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'outbox of database %: "%" is not a topic that it may write', current_database(), wrong.topic
      USING ERRCODE = 'check_violation', TABLE = 'outbox', CONSTRAINT = 'outbox_topic_known',
      HINT = 'fix the name; or name this service among the producers in schemas/topics, then: towpath provision';
  END IF;
  SELECT * INTO wrong FROM (
    SELECT row.id, row.topic, coalesce(known.record_bytes_max, 1000000) AS bytes_max,
      octet_length(row.payload) + octet_length(row.key) + octet_length(row.type)
      + coalesce(octet_length(row.saga), 0) + coalesce(octet_length(row.step), 0) + coalesce(octet_length(row.item), 0)
      + coalesce(octet_length(row.direction), 0) + coalesce(octet_length(row.reply_to), 0)
      + coalesce(octet_length(row.traceparent), 0) + coalesce(octet_length(row.deadline), 0)
      + coalesce(octet_length(row.tenant), 0) + coalesce(octet_length(row.idempotency_key), 0)
      + coalesce(octet_length(row.undoes), 0) + coalesce(octet_length(row.replay_id), 0)
      + coalesce(octet_length(row.dead), 0) AS bytes
    FROM added AS row LEFT JOIN public.outbox_topics AS known ON known.name = row.topic) AS sized
    WHERE bytes > bytes_max LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'outbox of database %: message % has % bytes of key, payload and headers, and topic % takes %',
      current_database(), wrong.id, wrong.bytes, wrong.topic, wrong.bytes_max
      USING ERRCODE = 'check_violation', TABLE = 'outbox', CONSTRAINT = 'outbox_record_fits',
      HINT = 'send less, or a reference; or raise max.message.bytes in schemas/topics, then: towpath provision';
  END IF;
  RETURN NULL;
END
$body$;

-- Debezium inserts here now and then, so that the slot of an idle database moves on with the server's WAL.
CREATE TABLE IF NOT EXISTS outbox_heartbeat (
  beaten_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Inserts only: dropping or cleaning a partition is no event. Through the root: Debezium sees one table, not
-- as many as there are days.
DO $body$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'outbox'::regclass AND tgname = 'outbox_refuse') THEN
    CREATE TRIGGER outbox_refuse AFTER INSERT ON outbox REFERENCING NEW TABLE AS added
      FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse();
  END IF;
  IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'towpath_outbox') THEN
    CREATE PUBLICATION towpath_outbox FOR TABLE outbox, outbox_heartbeat
      WITH (publish = 'insert', publish_via_partition_root = true);
  ELSIF NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = 'towpath_outbox'
                    AND schemaname = 'public' AND tablename = 'outbox') THEN
    -- It was made for tables of another schema, when the search path still said which.
    ALTER PUBLICATION towpath_outbox SET TABLE outbox, outbox_heartbeat;
  END IF;
END
$body$;
