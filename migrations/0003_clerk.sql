-- Table of the preset `clerk`. Times are Unix milliseconds, as Clerk's are.

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    -- The primary email address.
    email TEXT,
    first_name TEXT,
    last_name TEXT,
    username TEXT,
    image_url TEXT,
    external_id TEXT,
    public_metadata TEXT,
    banned INTEGER,
    locked INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    last_sign_in_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
