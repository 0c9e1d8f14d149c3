-- A batch that its provider refuses as a whole is split, until what it refuses stands alone.

-- With how many, itself included, it may be in a batch; none: with as many as go into one.
ALTER TABLE outbox ADD COLUMN together INTEGER;

-- Recipients it was not sent to, since they are suppressed, and why.
ALTER TABLE outbox ADD COLUMN left_out TEXT;
