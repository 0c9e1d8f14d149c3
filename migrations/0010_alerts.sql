-- What somebody has been told is the matter. Times are milliseconds since the Unix epoch.
CREATE TABLE alerts (
    -- 'oldest_dead_letter', 'dead_letters' or 'lag'.
    name TEXT NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL,
    told_at INTEGER NOT NULL,
    -- 1 if it is over, and the webhook has still to be told.
    ended INTEGER NOT NULL,
    -- JSON: the id and the body of the webhook that has not arrived yet.
    pending TEXT
) STRICT, WITHOUT ROWID;
