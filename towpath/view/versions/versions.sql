-- What was done with the versions of views, by whom and why. Applied under a view's advisory lock.
CREATE TABLE IF NOT EXISTS towpath_view_decisions (
  number         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  decided_at     timestamptz NOT NULL DEFAULT now(),
  view           text NOT NULL,
  action         text NOT NULL,
  version_before int,
  version_after  int,
  actor          text NOT NULL,
  reason         text NOT NULL,
  detail         text NOT NULL DEFAULT ''
);
