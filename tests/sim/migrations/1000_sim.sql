-- The tables of the simulation's rules.
CREATE TABLE things (
    id TEXT NOT NULL PRIMARY KEY,
    note TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE parts (
    thing TEXT NOT NULL,
    id TEXT NOT NULL,
    note TEXT,
    PRIMARY KEY (thing, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE counts (
    id TEXT NOT NULL PRIMARY KEY,
    events INTEGER,
    amount INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE gated (
    id TEXT NOT NULL PRIMARY KEY,
    note TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE asked (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE gate (closed INTEGER NOT NULL) STRICT;
INSERT INTO gate VALUES (0);
CREATE TRIGGER gated_only_if_open BEFORE INSERT ON gated WHEN (SELECT closed FROM gate)
BEGIN
    SELECT RAISE(ABORT, 'the gate is closed');
END;
