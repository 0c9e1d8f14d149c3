-- What orders rows that are not there: rows that were removed, and lists, which may be empty. An older event that comes later
-- finds here that it is older.
CREATE TABLE row_guards (
    table_name TEXT NOT NULL,
    -- JSON: the texts of the key of the removed row, or of the columns that say whose list it is.
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    precedence INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (table_name, key)
) STRICT, WITHOUT ROWID;

-- Objects that are to be asked for, since two events about them have the same version and nothing else decides. One row for
-- each object and rule, however many events.
CREATE TABLE refetches (
    rule TEXT NOT NULL,
    -- Of the object, in the API of its source's provider.
    path TEXT NOT NULL,
    source TEXT NOT NULL,
    -- The event that has asked for it last, and JSON: what is in its body besides the object.
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    rest TEXT NOT NULL,
    -- When it is asked for next.
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (rule, path)
) STRICT, WITHOUT ROWID;
