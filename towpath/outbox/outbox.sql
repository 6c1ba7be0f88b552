-- The outbox of one service's database. Applied under an advisory lock, as often as one likes.
--
-- A message is one row, written in the transaction that makes it true. Debezium's EventRouter makes of it a Kafka
-- record: key and payload as they are, every other column a header of its own name, created_at the timestamp.
--
-- No primary key: a re-emit after a lost slot writes the same row again, with its own id and time, and consumers
-- drop what they have seen. No index: the table is written by inserts and read by time, a partition at a time.
CREATE TABLE IF NOT EXISTS outbox (
  id           uuid      NOT NULL,
  topic        text      NOT NULL CHECK (topic <> ''),
  key          text      NOT NULL,
  type         text      NOT NULL,
  -- Kafka refuses records past max.message.bytes (1 MiB by default), and a record that it refuses would stop the
  -- connector, and all that follows with it: refused here, only its own transaction fails.
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
  created_at   timestamp NOT NULL DEFAULT (statement_timestamp() AT TIME ZONE 'UTC')
) PARTITION BY RANGE (created_at);

-- Takes what no dated partition takes, so that no business transaction ever fails because maintenance is late.
CREATE TABLE IF NOT EXISTS outbox_default PARTITION OF outbox DEFAULT;

-- Debezium inserts here now and then, so that the slot of an idle database moves on with the server's WAL.
CREATE TABLE IF NOT EXISTS outbox_heartbeat (
  beaten_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Inserts only: dropping or cleaning a partition is no event. Through the root: Debezium sees one table, not
-- as many as there are days.
DO $body$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'towpath_outbox') THEN
    CREATE PUBLICATION towpath_outbox FOR TABLE outbox, outbox_heartbeat
      WITH (publish = 'insert', publish_via_partition_root = true);
  END IF;
END
$body$;
