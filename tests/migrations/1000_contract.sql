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

-- Rows that the application creates: rules only change them.
CREATE TABLE accounts (
    name TEXT NOT NULL PRIMARY KEY,
    thing TEXT UNIQUE COLLATE NOCASE,
    plan TEXT,
    -- Of the application, which may give a column any name.
    value INTEGER,
    place INTEGER,
    _version INTEGER,
    _precedence INTEGER,
    _event_id TEXT,
    _deleted INTEGER
) STRICT, WITHOUT ROWID;

INSERT INTO accounts (name, thing) VALUES ('ines', 'thing_1'), ('ada', 'thing_2');

-- Rows that are removed when they are deleted.
CREATE TABLE removable (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    cents INTEGER,
    at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- Objects that are fetched from a provider.
CREATE TABLE asked (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    livemode INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Values from a handler.
CREATE TABLE revenue (
    month TEXT NOT NULL,
    currency TEXT NOT NULL,
    amount INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (month, currency)
) STRICT, WITHOUT ROWID;

CREATE TABLE listed (list TEXT, id INTEGER, note TEXT, PRIMARY KEY (list, id)) STRICT, WITHOUT ROWID;

-- Deletions without a version, and several ties.
CREATE TABLE dated (
    id TEXT NOT NULL PRIMARY KEY,
    note TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys in many spellings.
CREATE TABLE keyed (
    number INTEGER NOT NULL,
    code TEXT NOT NULL,
    ratio TEXT,
    large INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL,
    PRIMARY KEY (number, code)
) STRICT, WITHOUT ROWID;

CREATE TABLE keyed_items (
    owner INTEGER NOT NULL,
    id INTEGER NOT NULL,
    ratio TEXT,
    PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;

-- Values in many spellings.
CREATE TABLE spelled (
    id TEXT NOT NULL PRIMARY KEY,
    number INTEGER,
    cents INTEGER,
    large TEXT,
    day TEXT,
    sent TEXT,
    whole TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counts by the parts of an event's id.
CREATE TABLE joined (
    account TEXT NOT NULL,
    number TEXT NOT NULL,
    events INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, number)
) STRICT, WITHOUT ROWID;

-- A lamp belongs to a desk, and a desk to a team.
CREATE TABLE teams (
    id TEXT NOT NULL PRIMARY KEY,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE desks (
    id TEXT NOT NULL PRIMARY KEY,
    team TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX desks_by_team ON desks (team);

CREATE TABLE lamps (
    id TEXT NOT NULL PRIMARY KEY,
    desk TEXT,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX lamps_by_desk ON lamps (desk);
