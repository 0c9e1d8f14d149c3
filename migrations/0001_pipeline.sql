-- The pipeline's own tables. Times are milliseconds since the Unix epoch.
--
-- A table keyed by text is WITHOUT ROWID: an ordinary one would write a second row, into the index of its key,
-- with every insert, and D1 bills rows.

-- The ledger: an event that is in here has taken effect.
-- It is written last in the transaction that applies the event; every other statement of that transaction first asks
-- whether the event is in here already.
CREATE TABLE events (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    -- 0 for an event as it came; each reprocessing is one more.
    generation INTEGER NOT NULL DEFAULT 0,
    type TEXT NOT NULL,
    -- 'applied' by some rule, or 'recorded' because none names it.
    outcome TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    -- Which of the source's secrets had signed it, from 0 in the order of hookmill.toml.
    secret INTEGER NOT NULL,
    PRIMARY KEY (source, id, generation)
) STRICT, WITHOUT ROWID;

-- What is to be sent because of an event, written in the same transaction.
CREATE TABLE outbox (
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    rule TEXT NOT NULL,
    -- JSON: what the rule made of the event.
    payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    created_at INTEGER NOT NULL,
    PRIMARY KEY (source, event_id, generation, rule)
) STRICT, WITHOUT ROWID;

-- What was given up, with all that is needed to understand it and to send it through again.
-- The message comes last, so that a list of letters does not have to read past it.
CREATE TABLE dead_letters (
    -- Hex SHA-256 of (source, event id, generation), or of the message where that cannot be read: burying twice is once.
    id TEXT NOT NULL PRIMARY KEY,
    -- NULL where the message cannot be read.
    source TEXT,
    event_id TEXT,
    generation INTEGER,
    type TEXT,
    received_at INTEGER,
    reason TEXT NOT NULL CHECK (reason IN ('unreadable', 'refused', 'exhausted', 'permanent', 'dropped')),
    error TEXT NOT NULL,
    -- The same for the same kind of error, to group by.
    fingerprint TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_failed_at INTEGER NOT NULL,
    last_failed_at INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;
