-- Tables of the contract's own rules.

CREATE TABLE tallies (
    id TEXT NOT NULL PRIMARY KEY,
    events INTEGER NOT NULL DEFAULT 0,
    amount INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE guarded (
    id TEXT NOT NULL PRIMARY KEY,
    number INTEGER CHECK (number >= 0),
    text TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE fleeting (
    id TEXT NOT NULL PRIMARY KEY,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
