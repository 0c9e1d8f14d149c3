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
