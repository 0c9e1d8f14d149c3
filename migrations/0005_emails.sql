-- Emails: what is to be sent because of events, and the batches that it is sent in. Times are milliseconds since the Unix
-- epoch.

-- Nothing has ever written the first form of this table.
DROP TABLE outbox;

-- An email, written in the transaction of its event: there is one for each event and rule, however often it is delivered.
CREATE TABLE outbox (
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    rule TEXT NOT NULL,
    template TEXT NOT NULL,
    -- JSON: { "to": […], "cc": […], "reply_to": … }, mailboxes as text.
    recipients TEXT NOT NULL,
    -- JSON: what the template is filled in with.
    data TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'sealed', 'sent', 'refused', 'suppressed', 'in_doubt')),
    -- When it may be sent.
    due_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- The batch that it is in, or was sent in.
    batch TEXT,
    -- What the provider knows it by.
    provider_id TEXT,
    error TEXT,
    settled_at INTEGER,
    PRIMARY KEY (source, event_id, generation, rule)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_pending ON outbox (due_at) WHERE state = 'pending';

-- A sealed batch: its emails, its body and its key never change, so that it can be sent again, byte for byte.
CREATE TABLE batches (
    -- The idempotency key.
    id TEXT NOT NULL PRIMARY KEY,
    provider TEXT NOT NULL,
    -- JSON: the keys of its emails, [source, event id, generation, rule], in the order of the body.
    emails TEXT NOT NULL,
    body TEXT NOT NULL,
    -- 'sending' from before a request goes out until its answer has been written down.
    state TEXT NOT NULL DEFAULT 'sealed' CHECK (state IN ('sealed', 'sending', 'sent', 'refused', 'in_doubt')),
    attempts INTEGER NOT NULL DEFAULT 0,
    -- When it may be sent; of one that is being sent, when whoever does that is taken to be gone.
    due_at INTEGER NOT NULL,
    sealed_at INTEGER NOT NULL,
    error TEXT,
    settled_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX batches_open ON batches (due_at) WHERE state IN ('sealed', 'sending');
