-- What is to be sent because of events, and the batches that it is sent in. Times are milliseconds since the Unix epoch.

-- Nothing has ever written the first form of this table.
DROP TABLE outbox;

-- An email, an SMS, or what somebody did, written in the transaction of its event: there is one for each event and rule,
-- however often it is delivered.
CREATE TABLE outbox (
    -- SHA-256 of source, event id, generation and rule. Providers are told it, and tell it again.
    id TEXT NOT NULL PRIMARY KEY,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    rule TEXT NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('email', 'sms', 'mixpanel', 'posthog')),
    -- The first address, or the number, in lower case and without a name.
    recipient TEXT,
    -- JSON, of an email: { "template": …, "to": […], "cc": […], "reply_to": …, "data": {…} };
    -- of an SMS: { "to": […], "body": …, "data": {…} }; of the others: { "event": …, "to": […], "at": …, "data": {…} }.
    content TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'sealed', 'sent', 'refused', 'suppressed', 'in_doubt')),
    -- When it may be sent.
    due_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Batches that it was in and that were dissolved.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- The batch that it is in, or was sent in.
    batch TEXT,
    -- What the provider knows it by.
    provider_id TEXT,
    error TEXT,
    settled_at INTEGER,
    -- What became of it, as the provider reported later; the greater rank stays.
    outcome TEXT,
    outcome_rank INTEGER NOT NULL DEFAULT 0,
    outcome_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_pending ON outbox (channel, due_at) WHERE state = 'pending';
CREATE INDEX outbox_event ON outbox (source, event_id);
CREATE INDEX outbox_recipient ON outbox (recipient, due_at);
CREATE INDEX outbox_provider_id ON outbox (provider_id) WHERE provider_id IS NOT NULL;

-- A sealed batch: what is in it, its body and its key never change, so that it can be sent again, byte for byte.
CREATE TABLE outbox_batches (
    -- The idempotency key.
    id TEXT NOT NULL PRIMARY KEY,
    channel TEXT NOT NULL,
    provider TEXT NOT NULL,
    -- JSON: the ids of what is in it, in the order of the body.
    members TEXT NOT NULL,
    body TEXT NOT NULL,
    -- 'sending' from before a request goes out until its answer has been written down; 'dissolved' when what was in it went
    -- back to be sent in another.
    state TEXT NOT NULL DEFAULT 'sealed'
        CHECK (state IN ('sealed', 'sending', 'sent', 'refused', 'in_doubt', 'dissolved')),
    attempts INTEGER NOT NULL DEFAULT 0,
    -- Whether an attempt may have reached the provider.
    arrived INTEGER NOT NULL DEFAULT 0,
    -- When it may be sent; of one that is being sent, when whoever does that is taken to be gone.
    due_at INTEGER NOT NULL,
    sealed_at INTEGER NOT NULL,
    error TEXT,
    settled_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_batches_open ON outbox_batches (channel, due_at) WHERE state IN ('sealed', 'sending');

-- How each provider is doing: what keeps all who send to it under its rate, and turns to another when it is away.
CREATE TABLE outbox_senders (
    provider TEXT NOT NULL PRIMARY KEY,
    -- When the next request may go out.
    free_at INTEGER NOT NULL DEFAULT 0,
    -- Requests in a row that it did not take because it was away.
    failures INTEGER NOT NULL DEFAULT 0,
    -- Until when nothing is sealed for it, if there is another.
    away_until INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What providers have taken, by day and by month (UTC): for quotas.
CREATE TABLE outbox_usage (
    provider TEXT NOT NULL,
    -- YYYY-MM-DD, or YYYY-MM.
    period TEXT NOT NULL,
    sent INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    -- When it was said that the quota is nearly used up.
    warned_at INTEGER,
    PRIMARY KEY (provider, period)
) STRICT, WITHOUT ROWID;

-- Who is not to be written to.
CREATE TABLE suppressions (
    -- An email address in lower case, or a number.
    address TEXT NOT NULL PRIMARY KEY,
    reason TEXT NOT NULL,
    -- The event that said so.
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
