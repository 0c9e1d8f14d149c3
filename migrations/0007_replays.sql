-- Dead letters are replayed, many at a time, and somebody answers for it. Times are milliseconds since the Unix epoch.

-- The table again, with what became of a letter. The message comes last, so that a list does not have to read past it.
CREATE TABLE letters (
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
    -- 'replaying': a replay has it and sends it now; 'replayed': it is back on the queue; 'applied': its event has taken
    -- effect. What fails again after a replay is 'dead' again.
    state TEXT NOT NULL DEFAULT 'dead' CHECK (state IN ('dead', 'replaying', 'replayed', 'applied', 'discarded')),
    -- The replay that has it, or had it last.
    replay TEXT,
    -- How often it was replayed.
    replays INTEGER NOT NULL DEFAULT 0,
    -- When it came into its state.
    state_at INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL
) STRICT;

INSERT INTO letters (id, source, event_id, generation, type, received_at, reason, error, fingerprint, attempts,
    first_failed_at, last_failed_at, state_at, message)
SELECT id, source, event_id, generation, type, received_at, reason, error, fingerprint, attempts,
    first_failed_at, last_failed_at, last_failed_at, message
FROM dead_letters;

DROP TABLE dead_letters;
ALTER TABLE letters RENAME TO dead_letters;

CREATE INDEX dead_letters_state ON dead_letters (state, last_failed_at);
CREATE INDEX dead_letters_event ON dead_letters (source, event_id);

-- Many letters, or many events, sent through the whole path again.
CREATE TABLE replays (
    id TEXT NOT NULL PRIMARY KEY,
    -- JSON: which letters; none that failed after the plan was made.
    filter TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'running', 'paused', 'cancelled', 'done')),
    -- Letters in a second.
    rate INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    -- How many letters there were when it was planned.
    total INTEGER NOT NULL,
    -- How many have been sent.
    sent INTEGER NOT NULL DEFAULT 0,
    planned_by TEXT NOT NULL,
    planned_at INTEGER NOT NULL,
    -- Who let it run.
    run_by TEXT,
    started_at INTEGER,
    ended_at INTEGER,
    -- When the next letters may be sent; while somebody is at it, when they are taken to be gone.
    due_at INTEGER NOT NULL DEFAULT 0,
    -- What kept it from going on the last time.
    error TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX replays_running ON replays (due_at) WHERE state = 'running';

-- Who may use the admin API. Of a token there is only its hash.
CREATE TABLE admin_tokens (
    name TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 in hex. A token is 256 random bits, so nobody guesses it from that.
    hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('read', 'operate')),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Addresses that came without a token that counts, so that nobody tries for long.
CREATE TABLE admin_failures (
    address TEXT NOT NULL PRIMARY KEY,
    failures INTEGER NOT NULL,
    -- When the first was.
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every change that somebody made through the admin API, in order.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    -- The name of the token.
    actor TEXT NOT NULL,
    -- Such as 'replay.run'.
    action TEXT NOT NULL,
    -- What it was done to: the id of a letter or a replay, an address.
    target TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- JSON: what else there is to say.
    detail TEXT NOT NULL
) STRICT;

-- What came in lately. It costs a row with every event, and without it any look at the latest events would read all of them.
CREATE INDEX events_applied ON events (applied_at);

-- How many events took effect, minute by minute: written in their transaction, so that they are counted once.
CREATE TABLE activity (
    -- Minutes since the Unix epoch.
    minute INTEGER NOT NULL,
    source TEXT NOT NULL,
    outcome TEXT NOT NULL,
    events INTEGER NOT NULL,
    -- The longest that one took from ingress to here, in milliseconds; of those that were never dead letters.
    lag INTEGER NOT NULL,
    PRIMARY KEY (minute, source, outcome)
) STRICT, WITHOUT ROWID;
