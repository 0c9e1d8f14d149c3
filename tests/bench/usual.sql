-- The tables of usual.mjs.

CREATE TABLE stripe_events (
    id TEXT NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    created INTEGER NOT NULL,
    received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriptions (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    status TEXT,
    price_id TEXT,
    quantity INTEGER,
    currency TEXT,
    current_period_start INTEGER,
    current_period_end INTEGER,
    cancel_at_period_end INTEGER,
    cancel_at INTEGER,
    canceled_at INTEGER,
    ended_at INTEGER,
    trial_end INTEGER,
    latest_invoice_id TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    deleted INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE subscription_items (
    subscription_id TEXT NOT NULL,
    id TEXT NOT NULL,
    price_id TEXT,
    product_id TEXT,
    quantity INTEGER,
    unit_amount INTEGER,
    currency TEXT,
    interval TEXT,
    interval_count INTEGER,
    current_period_start INTEGER,
    current_period_end INTEGER,
    metadata TEXT,
    created INTEGER,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (subscription_id, id)
) STRICT, WITHOUT ROWID;
