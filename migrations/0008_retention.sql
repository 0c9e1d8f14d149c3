-- What is done with is removed by age, in small steps: these find it. Times are milliseconds since the Unix epoch.
CREATE INDEX outbox_settled ON outbox (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX outbox_batches_settled ON outbox_batches (settled_at) WHERE settled_at IS NOT NULL;
