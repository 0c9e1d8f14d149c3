-- Requests that were refused: how many, and the last few of each kind. Both are bounded, however much is refused.
-- `source` is '' where the request named no source that there is. Times are milliseconds since the Unix epoch.

CREATE TABLE rejection_counts (
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- When the hour began.
    hour INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (source, reason, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE rejections (
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    -- Hash of the address; '' where that is not known.
    remote TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- What the request said of its body, and what was read of it, in bytes.
    content_length INTEGER,
    body_bytes INTEGER,
    PRIMARY KEY (source, reason, at, remote)
) STRICT, WITHOUT ROWID;
