-- Indexes for the statements that run every minute, at every wake-up and for the dashboard: none of them reads a whole table.

-- Dead letters by state, the latest first, with their reasons for counts.
DROP INDEX dead_letters_state;
CREATE INDEX dead_letters_state ON dead_letters (state, last_failed_at, reason);
-- All of them, the latest first, for a list.
CREATE INDEX dead_letters_failed ON dead_letters (last_failed_at, id);
-- The oldest that waits, for alerts.
CREATE INDEX dead_letters_oldest ON dead_letters (first_failed_at) WHERE state = 'dead';
-- Those that were applied or discarded, by age, for retention.
CREATE INDEX dead_letters_settled ON dead_letters (state_at) WHERE state IN ('applied', 'discarded');
-- What became of the letters of a replay, and of the events of a reprocessing.
CREATE INDEX dead_letters_replay ON dead_letters (replay, state) WHERE replay IS NOT NULL;
CREATE INDEX dead_letters_generation ON dead_letters (generation, state) WHERE generation > 0;

-- Replays that are under way, and all of them by age.
CREATE INDEX replays_open ON replays (state) WHERE state IN ('running', 'paused');
CREATE INDEX replays_planned ON replays (planned_at);
CREATE INDEX replays_cancelled ON replays (due_at) WHERE state = 'cancelled';

-- What was not sent, for counts.
CREATE INDEX outbox_unsent ON outbox (channel, state) WHERE state IN ('refused', 'suppressed', 'in_doubt');

-- Objects to ask for, the one that has waited longest first.
CREATE INDEX refetches_due ON refetches (source, due_at);

-- Counts of rejections by age.
CREATE INDEX rejection_counts_hour ON rejection_counts (hour);

-- Deliveries whose handling has begun, of those that were delivered before. A row that is left says that the process which
-- wrote it ended before a verdict: its event is handled alone next, and given up after some times.
CREATE TABLE begun_deliveries (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    times INTEGER NOT NULL,
    -- Milliseconds since the Unix epoch: the last time.
    begun_at INTEGER NOT NULL,
    PRIMARY KEY (source, id, generation)
) STRICT, WITHOUT ROWID;
