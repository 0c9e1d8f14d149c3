-- What waits for a time that only a clock that was ahead can have set: these find it, without looking at what is meant to wait.
CREATE INDEX outbox_written ON outbox (created_at) WHERE state = 'pending';
CREATE INDEX outbox_again ON outbox (due_at) WHERE state = 'pending' AND attempts > 0;
