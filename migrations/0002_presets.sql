-- Tables of the presets. Times are Unix milliseconds in all of them, whatever the provider has; Stripe's amounts are in the
-- currency's smallest unit, as Stripe's are.
--
-- The columns that begin with an underscore say which event wrote the row; see ARCHITECTURE.md, "Versions and ties".
-- A deleted object is a row with _deleted = 1: select WHERE _deleted = 0.

-- Preset `stripe`

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
    latest_invoice_id TEXT,
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
    -- JSON, if the collection of payments is paused: the status says nothing about it.
    pause_collection TEXT,
    -- The end of the pause; NULL if it has none.
    paused_until INTEGER,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
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
    PRIMARY KEY (subscription_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE invoices (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    subscription_id TEXT,
    payment_intent_id TEXT,
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

CREATE TABLE invoice_payments (
    id TEXT NOT NULL PRIMARY KEY,
    invoice_id TEXT,
    payment_intent_id TEXT,
    charge_id TEXT,
    status TEXT,
    amount_requested INTEGER,
    amount_paid INTEGER,
    currency TEXT,
    is_default INTEGER,
    paid_at INTEGER,
    canceled_at INTEGER,
    livemode INTEGER,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The payments of an invoice.
CREATE INDEX invoice_payments_of_invoice ON invoice_payments (invoice_id);

CREATE TABLE payment_intents (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    status TEXT,
    amount INTEGER,
    amount_received INTEGER,
    amount_capturable INTEGER,
    currency TEXT,
    charge_id TEXT,
    payment_method_id TEXT,
    description TEXT,
    error_code TEXT,
    error_message TEXT,
    cancellation_reason TEXT,
    canceled_at INTEGER,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE checkout_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    mode TEXT,
    status TEXT,
    payment_status TEXT,
    client_reference_id TEXT,
    customer_id TEXT,
    customer_email TEXT,
    payment_intent_id TEXT,
    subscription_id TEXT,
    invoice_id TEXT,
    payment_link_id TEXT,
    amount_subtotal INTEGER,
    amount_total INTEGER,
    currency TEXT,
    expires_at INTEGER,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE charges (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    payment_intent_id TEXT,
    status TEXT,
    amount INTEGER,
    amount_captured INTEGER,
    amount_refunded INTEGER,
    currency TEXT,
    paid INTEGER,
    captured INTEGER,
    refunded INTEGER,
    disputed INTEGER,
    failure_code TEXT,
    failure_message TEXT,
    payment_method_type TEXT,
    card_brand TEXT,
    card_last4 TEXT,
    receipt_url TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE refunds (
    id TEXT NOT NULL PRIMARY KEY,
    charge_id TEXT,
    payment_intent_id TEXT,
    status TEXT,
    amount INTEGER,
    currency TEXT,
    reason TEXT,
    failure_reason TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE disputes (
    id TEXT NOT NULL PRIMARY KEY,
    charge_id TEXT,
    payment_intent_id TEXT,
    status TEXT,
    reason TEXT,
    amount INTEGER,
    currency TEXT,
    evidence_due_by INTEGER,
    evidence_submissions INTEGER,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Preset `clerk`

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

CREATE TABLE organizations (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    slug TEXT,
    image_url TEXT,
    created_by TEXT,
    members_count INTEGER,
    max_allowed_memberships INTEGER,
    public_metadata TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE organization_memberships (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT,
    user_id TEXT,
    role TEXT,
    permissions TEXT,
    public_metadata TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The memberships that end with their organization or user.
CREATE INDEX organization_memberships_of_organization ON organization_memberships (organization_id);
CREATE INDEX organization_memberships_of_user ON organization_memberships (user_id);

-- Preset `paddle`

CREATE TABLE paddle_customers (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT,
    name TEXT,
    status TEXT,
    locale TEXT,
    marketing_consent INTEGER,
    custom_data TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE paddle_subscriptions (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    business_id TEXT,
    discount_id TEXT,
    status TEXT,
    price_id TEXT,
    quantity INTEGER,
    currency TEXT,
    collection_mode TEXT,
    interval TEXT,
    interval_count INTEGER,
    current_period_start INTEGER,
    current_period_end INTEGER,
    next_billed_at INTEGER,
    first_billed_at INTEGER,
    started_at INTEGER,
    paused_at INTEGER,
    canceled_at INTEGER,
    scheduled_action TEXT,
    scheduled_at INTEGER,
    custom_data TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE paddle_subscription_items (
    subscription_id TEXT NOT NULL,
    price_id TEXT NOT NULL,
    product_id TEXT,
    status TEXT,
    quantity INTEGER,
    recurring INTEGER,
    unit_amount INTEGER,
    currency TEXT,
    next_billed_at INTEGER,
    PRIMARY KEY (subscription_id, price_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE paddle_transactions (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    subscription_id TEXT,
    business_id TEXT,
    discount_id TEXT,
    invoice_id TEXT,
    invoice_number TEXT,
    status TEXT,
    origin TEXT,
    collection_mode TEXT,
    currency TEXT,
    subtotal INTEGER,
    discount INTEGER,
    tax INTEGER,
    total INTEGER,
    grand_total INTEGER,
    balance INTEGER,
    fee INTEGER,
    earnings INTEGER,
    payment_status TEXT,
    payment_error TEXT,
    billing_period_start INTEGER,
    billing_period_end INTEGER,
    billed_at INTEGER,
    custom_data TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE paddle_adjustments (
    id TEXT NOT NULL PRIMARY KEY,
    transaction_id TEXT,
    subscription_id TEXT,
    customer_id TEXT,
    action TEXT,
    type TEXT,
    status TEXT,
    reason TEXT,
    currency TEXT,
    subtotal INTEGER,
    tax INTEGER,
    total INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Preset `twilio`

CREATE TABLE twilio_messages (
    sid TEXT NOT NULL PRIMARY KEY,
    status TEXT,
    sender TEXT,
    recipient TEXT,
    messaging_service_sid TEXT,
    error_code INTEGER,
    received_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE twilio_inbound_messages (
    sid TEXT NOT NULL PRIMARY KEY,
    sender TEXT,
    recipient TEXT,
    body TEXT,
    num_segments INTEGER,
    num_media INTEGER,
    media_url TEXT,
    media_content_type TEXT,
    opt_out_type TEXT,
    messaging_service_sid TEXT,
    received_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
