-- Tables of the preset `stripe`. Times are Unix seconds and amounts are in the currency's smallest unit, as Stripe's are.
--
-- The columns that begin with an underscore say which event wrote the row; see ARCHITECTURE.md, "Versions and ties".
-- A deleted object is a row with _deleted = 1: select WHERE _deleted = 0.

CREATE TABLE customers (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT,
    name TEXT,
    phone TEXT,
    currency TEXT,
    delinquent INTEGER,
    balance INTEGER,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
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
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE invoices (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    subscription_id TEXT,
    status TEXT,
    number TEXT,
    currency TEXT,
    total INTEGER,
    amount_due INTEGER,
    amount_paid INTEGER,
    amount_remaining INTEGER,
    attempt_count INTEGER,
    next_payment_attempt INTEGER,
    billing_reason TEXT,
    period_start INTEGER,
    period_end INTEGER,
    hosted_invoice_url TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
