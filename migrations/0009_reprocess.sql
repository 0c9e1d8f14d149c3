-- What events have written, and events that are carried out again after a rule has changed. Times are milliseconds since the
-- Unix epoch.

-- JSON: the rows that its rules name, [table, {column: value}] each, by their keys. A later event may have written them since.
ALTER TABLE events ADD COLUMN wrote TEXT;

-- The messages of events that took effect, for as long as hookmill.toml says. In the order in which they did, which is the
-- order in which they are carried out again, and removed.
CREATE TABLE event_messages (
    applied_at INTEGER NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (applied_at, source, id)
) STRICT, WITHOUT ROWID;

-- 0 for a replay of dead letters. A reprocessing has a number of its own, which no other ever has: the ledger takes each event
-- once more under it.
ALTER TABLE replays ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
-- JSON, of a reprocessing: the key in event_messages that it has come to.
ALTER TABLE replays ADD COLUMN reached TEXT;
-- Of a reprocessing: how many have taken effect.
ALTER TABLE replays ADD COLUMN applied INTEGER NOT NULL DEFAULT 0;
