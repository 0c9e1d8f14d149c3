-- Tables of the presets. Times are Unix milliseconds in all of them, whatever the provider has; Stripe's amounts are in the
-- currency's smallest unit, as Stripe's are.
--
-- The columns that begin with an underscore say which event wrote the row; see ARCHITECTURE.md, "Versions and ties".
-- A deleted object is a row with _deleted = 1. Applications read the views live_<table>, which have the other rows and no such
-- columns. A row that belongs to another is live while that one is.

-- Preset `stripe`

CREATE TABLE customers (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT,
    name TEXT,
    phone TEXT,
    currency TEXT,
    delinquent INTEGER,
    balance INTEGER,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_customers AS
SELECT id, email, name, phone, currency, delinquent, balance, account, livemode, metadata, created
FROM customers WHERE _deleted = 0;

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
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_subscriptions AS
SELECT id, customer_id, latest_invoice_id, status, price_id, quantity, currency, current_period_start,
    current_period_end, cancel_at_period_end, cancel_at, canceled_at, ended_at, trial_end, pause_collection,
    paused_until, account, livemode, metadata, created
FROM subscriptions WHERE _deleted = 0;

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
    _version INTEGER,
    _precedence INTEGER,
    _event_id TEXT,
    PRIMARY KEY (subscription_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_subscription_items AS
SELECT subscription_id, id, price_id, product_id, quantity, unit_amount, currency, interval, interval_count,
    current_period_start, current_period_end, metadata, created
FROM subscription_items WHERE NOT EXISTS (
    SELECT 1 FROM subscriptions AS parent WHERE parent.id = subscription_id AND parent._deleted = 1
);

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
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_invoices AS
SELECT id, customer_id, subscription_id, payment_intent_id, status, number, currency, total, amount_due, amount_paid,
    amount_remaining, attempt_count, next_payment_attempt, billing_reason, period_start, period_end,
    hosted_invoice_url, account, livemode, metadata, created
FROM invoices WHERE _deleted = 0;

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
    account TEXT,
    livemode INTEGER,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_invoice_payments AS
SELECT id, invoice_id, payment_intent_id, charge_id, status, amount_requested, amount_paid, currency, is_default,
    paid_at, canceled_at, account, livemode, created
FROM invoice_payments WHERE _deleted = 0;

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
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_payment_intents AS
SELECT id, customer_id, status, amount, amount_received, amount_capturable, currency, charge_id, payment_method_id,
    description, error_code, error_message, cancellation_reason, canceled_at, account, livemode, metadata, created
FROM payment_intents WHERE _deleted = 0;

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
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_checkout_sessions AS
SELECT id, mode, status, payment_status, client_reference_id, customer_id, customer_email, payment_intent_id,
    subscription_id, invoice_id, payment_link_id, amount_subtotal, amount_total, currency, expires_at, account,
    livemode, metadata, created
FROM checkout_sessions WHERE _deleted = 0;

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
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_charges AS
SELECT id, customer_id, payment_intent_id, status, amount, amount_captured, amount_refunded, currency, paid, captured,
    refunded, disputed, failure_code, failure_message, payment_method_type, card_brand, card_last4, receipt_url,
    account, livemode, metadata, created
FROM charges WHERE _deleted = 0;

CREATE TABLE refunds (
    id TEXT NOT NULL PRIMARY KEY,
    charge_id TEXT,
    payment_intent_id TEXT,
    status TEXT,
    amount INTEGER,
    currency TEXT,
    reason TEXT,
    failure_reason TEXT,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_refunds AS
SELECT id, charge_id, payment_intent_id, status, amount, currency, reason, failure_reason, account, livemode, metadata,
    created
FROM refunds WHERE _deleted = 0;

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
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_disputes AS
SELECT id, charge_id, payment_intent_id, status, reason, amount, currency, evidence_due_by, evidence_submissions,
    account, livemode, metadata, created
FROM disputes WHERE _deleted = 0;

CREATE TABLE products (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    description TEXT,
    active INTEGER,
    default_price_id TEXT,
    unit_label TEXT,
    statement_descriptor TEXT,
    tax_code TEXT,
    shippable INTEGER,
    -- JSON.
    images TEXT,
    -- JSON.
    marketing_features TEXT,
    url TEXT,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    updated INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_products AS
SELECT id, name, description, active, default_price_id, unit_label, statement_descriptor, tax_code, shippable, images,
    marketing_features, url, account, livemode, metadata, created, updated
FROM products WHERE _deleted = 0;

CREATE TABLE prices (
    id TEXT NOT NULL PRIMARY KEY,
    product_id TEXT,
    nickname TEXT,
    lookup_key TEXT,
    active INTEGER,
    type TEXT,
    billing_scheme TEXT,
    currency TEXT,
    unit_amount INTEGER,
    -- Fractions of the smallest unit.
    unit_amount_decimal TEXT,
    interval TEXT,
    interval_count INTEGER,
    usage_type TEXT,
    meter_id TEXT,
    trial_period_days INTEGER,
    tiers_mode TEXT,
    tax_behavior TEXT,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_prices AS
SELECT id, product_id, nickname, lookup_key, active, type, billing_scheme, currency, unit_amount, unit_amount_decimal,
    interval, interval_count, usage_type, meter_id, trial_period_days, tiers_mode, tax_behavior, account, livemode,
    metadata, created
FROM prices WHERE _deleted = 0;

CREATE TABLE payment_methods (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    type TEXT,
    card_brand TEXT,
    card_last4 TEXT,
    card_exp_month INTEGER,
    card_exp_year INTEGER,
    card_country TEXT,
    card_funding TEXT,
    card_fingerprint TEXT,
    billing_name TEXT,
    billing_email TEXT,
    billing_country TEXT,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_payment_methods AS
SELECT id, customer_id, type, card_brand, card_last4, card_exp_month, card_exp_year, card_country, card_funding,
    card_fingerprint, billing_name, billing_email, billing_country, account, livemode, metadata, created
FROM payment_methods WHERE _deleted = 0;

-- The payment methods that end with their customer.
CREATE INDEX payment_methods_of_customer ON payment_methods (customer_id);

CREATE TABLE subscription_schedules (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT,
    subscription_id TEXT,
    released_subscription_id TEXT,
    status TEXT,
    end_behavior TEXT,
    current_phase_start INTEGER,
    current_phase_end INTEGER,
    -- JSON.
    phases TEXT,
    completed_at INTEGER,
    released_at INTEGER,
    canceled_at INTEGER,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_subscription_schedules AS
SELECT id, customer_id, subscription_id, released_subscription_id, status, end_behavior, current_phase_start,
    current_phase_end, phases, completed_at, released_at, canceled_at, account, livemode, metadata, created
FROM subscription_schedules WHERE _deleted = 0;

CREATE TABLE credit_notes (
    id TEXT NOT NULL PRIMARY KEY,
    invoice_id TEXT,
    customer_id TEXT,
    refund_id TEXT,
    number TEXT,
    status TEXT,
    type TEXT,
    reason TEXT,
    currency TEXT,
    amount INTEGER,
    subtotal INTEGER,
    total INTEGER,
    out_of_band_amount INTEGER,
    memo TEXT,
    effective_at INTEGER,
    voided_at INTEGER,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_credit_notes AS
SELECT id, invoice_id, customer_id, refund_id, number, status, type, reason, currency, amount, subtotal, total,
    out_of_band_amount, memo, effective_at, voided_at, account, livemode, metadata, created
FROM credit_notes WHERE _deleted = 0;

CREATE TABLE payouts (
    id TEXT NOT NULL PRIMARY KEY,
    status TEXT,
    amount INTEGER,
    currency TEXT,
    arrival_date INTEGER,
    automatic INTEGER,
    method TEXT,
    type TEXT,
    source_type TEXT,
    destination_id TEXT,
    balance_transaction_id TEXT,
    reconciliation_status TEXT,
    failure_code TEXT,
    failure_message TEXT,
    description TEXT,
    statement_descriptor TEXT,
    account TEXT,
    livemode INTEGER,
    metadata TEXT,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_payouts AS
SELECT id, status, amount, currency, arrival_date, automatic, method, type, source_type, destination_id,
    balance_transaction_id, reconciliation_status, failure_code, failure_message, description, statement_descriptor,
    account, livemode, metadata, created
FROM payouts WHERE _deleted = 0;

CREATE TABLE early_fraud_warnings (
    id TEXT NOT NULL PRIMARY KEY,
    charge_id TEXT,
    payment_intent_id TEXT,
    fraud_type TEXT,
    actionable INTEGER,
    account TEXT,
    livemode INTEGER,
    created INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_early_fraud_warnings AS
SELECT id, charge_id, payment_intent_id, fraud_type, actionable, account, livemode, created
FROM early_fraud_warnings WHERE _deleted = 0;

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

CREATE VIEW live_users AS
SELECT id, email, first_name, last_name, username, image_url, external_id, public_metadata, banned, locked, created_at,
    updated_at, last_sign_in_at
FROM users WHERE _deleted = 0;

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

CREATE VIEW live_organizations AS
SELECT id, name, slug, image_url, created_by, members_count, max_allowed_memberships, public_metadata, created_at,
    updated_at
FROM organizations WHERE _deleted = 0;

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

CREATE VIEW live_organization_memberships AS
SELECT id, organization_id, user_id, role, permissions, public_metadata, created_at, updated_at
FROM organization_memberships WHERE _deleted = 0;

-- The memberships that end with their organization or user.
CREATE INDEX organization_memberships_of_organization ON organization_memberships (organization_id);
CREATE INDEX organization_memberships_of_user ON organization_memberships (user_id);

CREATE TABLE organization_domains (
    id TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT,
    name TEXT,
    enrollment_mode TEXT,
    verification_status TEXT,
    verification_strategy TEXT,
    affiliation_email_address TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_organization_domains AS
SELECT id, organization_id, name, enrollment_mode, verification_status, verification_strategy,
    affiliation_email_address, created_at, updated_at
FROM organization_domains WHERE _deleted = 0;

-- The domains that end with their organization.
CREATE INDEX organization_domains_of_organization ON organization_domains (organization_id);

CREATE TABLE organization_roles (
    id TEXT NOT NULL PRIMARY KEY,
    key TEXT,
    name TEXT,
    description TEXT,
    is_creator_eligible INTEGER,
    -- JSON.
    permissions TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_organization_roles AS
SELECT id, key, name, description, is_creator_eligible, permissions, created_at, updated_at
FROM organization_roles WHERE _deleted = 0;

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

CREATE VIEW live_paddle_customers AS
SELECT id, email, name, status, locale, marketing_consent, custom_data, created_at, updated_at
FROM paddle_customers WHERE _deleted = 0;

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

CREATE VIEW live_paddle_subscriptions AS
SELECT id, customer_id, business_id, discount_id, status, price_id, quantity, currency, collection_mode, interval,
    interval_count, current_period_start, current_period_end, next_billed_at, first_billed_at, started_at,
    paused_at, canceled_at, scheduled_action, scheduled_at, custom_data, created_at, updated_at
FROM paddle_subscriptions WHERE _deleted = 0;

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

CREATE VIEW live_paddle_subscription_items AS
SELECT subscription_id, price_id, product_id, status, quantity, recurring, unit_amount, currency, next_billed_at
FROM paddle_subscription_items WHERE NOT EXISTS (
    SELECT 1 FROM paddle_subscriptions AS parent WHERE parent.id = subscription_id AND parent._deleted = 1
);

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

CREATE VIEW live_paddle_transactions AS
SELECT id, customer_id, subscription_id, business_id, discount_id, invoice_id, invoice_number, status, origin,
    collection_mode, currency, subtotal, discount, tax, total, grand_total, balance, fee, earnings, payment_status,
    payment_error, billing_period_start, billing_period_end, billed_at, custom_data, created_at, updated_at
FROM paddle_transactions WHERE _deleted = 0;

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

CREATE VIEW live_paddle_adjustments AS
SELECT id, transaction_id, subscription_id, customer_id, action, type, status, reason, currency, subtotal, tax, total,
    created_at, updated_at
FROM paddle_adjustments WHERE _deleted = 0;

CREATE TABLE paddle_products (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    description TEXT,
    status TEXT,
    type TEXT,
    tax_category TEXT,
    image_url TEXT,
    custom_data TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_paddle_products AS
SELECT id, name, description, status, type, tax_category, image_url, custom_data, created_at, updated_at
FROM paddle_products WHERE _deleted = 0;

CREATE TABLE paddle_prices (
    id TEXT NOT NULL PRIMARY KEY,
    product_id TEXT,
    name TEXT,
    description TEXT,
    status TEXT,
    type TEXT,
    unit_amount INTEGER,
    currency TEXT,
    -- JSON.
    unit_price_overrides TEXT,
    tax_mode TEXT,
    interval TEXT,
    interval_count INTEGER,
    trial_interval TEXT,
    trial_interval_count INTEGER,
    minimum_quantity INTEGER,
    maximum_quantity INTEGER,
    custom_data TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_paddle_prices AS
SELECT id, product_id, name, description, status, type, unit_amount, currency, unit_price_overrides, tax_mode,
    interval, interval_count, trial_interval, trial_interval_count, minimum_quantity, maximum_quantity,
    custom_data, created_at, updated_at
FROM paddle_prices WHERE _deleted = 0;

CREATE INDEX paddle_prices_of_product ON paddle_prices (product_id);

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

CREATE VIEW live_twilio_messages AS
SELECT sid, status, sender, recipient, messaging_service_sid, error_code, received_at
FROM twilio_messages WHERE _deleted = 0;

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

CREATE VIEW live_twilio_inbound_messages AS
SELECT sid, sender, recipient, body, num_segments, num_media, media_url, media_content_type, opt_out_type,
    messaging_service_sid, received_at
FROM twilio_inbound_messages WHERE _deleted = 0;

CREATE TABLE twilio_calls (
    sid TEXT NOT NULL PRIMARY KEY,
    status TEXT,
    direction TEXT,
    caller TEXT,
    recipient TEXT,
    parent_sid TEXT,
    forwarded_from TEXT,
    answered_by TEXT,
    -- In seconds.
    duration INTEGER,
    sip_response_code INTEGER,
    recording_url TEXT,
    -- The time of the status.
    changed_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_twilio_calls AS
SELECT sid, status, direction, caller, recipient, parent_sid, forwarded_from, answered_by, duration,
    sip_response_code, recording_url, changed_at
FROM twilio_calls WHERE _deleted = 0;

-- Preset `shopify`. Ids are texts, since some are too large for a number in JavaScript. Amounts are in the currency's smallest
-- unit.

CREATE TABLE shopify_orders (
    id TEXT NOT NULL PRIMARY KEY,
    shop TEXT,
    customer_id TEXT,
    name TEXT,
    order_number INTEGER,
    financial_status TEXT,
    fulfillment_status TEXT,
    currency TEXT,
    subtotal INTEGER,
    discount INTEGER,
    tax INTEGER,
    total INTEGER,
    current_total INTEGER,
    outstanding INTEGER,
    source_name TEXT,
    tags TEXT,
    test INTEGER,
    cancel_reason TEXT,
    cancelled_at INTEGER,
    closed_at INTEGER,
    processed_at INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_orders AS
SELECT id, shop, customer_id, name, order_number, financial_status, fulfillment_status, currency, subtotal,
    discount, tax, total, current_total, outstanding, source_name, tags, test, cancel_reason, cancelled_at,
    closed_at, processed_at, created_at, updated_at
FROM shopify_orders WHERE _deleted = 0;

CREATE INDEX shopify_orders_of_customer ON shopify_orders (customer_id);

CREATE TABLE shopify_order_line_items (
    order_id TEXT NOT NULL,
    id TEXT NOT NULL,
    product_id TEXT,
    variant_id TEXT,
    sku TEXT,
    title TEXT,
    variant_title TEXT,
    quantity INTEGER,
    current_quantity INTEGER,
    unit_price INTEGER,
    discount INTEGER,
    currency TEXT,
    PRIMARY KEY (order_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_order_line_items AS
SELECT order_id, id, product_id, variant_id, sku, title, variant_title, quantity, current_quantity, unit_price,
    discount, currency
FROM shopify_order_line_items WHERE NOT EXISTS (
    SELECT 1 FROM shopify_orders AS parent WHERE parent.id = order_id AND parent._deleted = 1
);

CREATE TABLE shopify_customers (
    id TEXT NOT NULL PRIMARY KEY,
    shop TEXT,
    email TEXT,
    phone TEXT,
    first_name TEXT,
    last_name TEXT,
    state TEXT,
    verified_email INTEGER,
    tax_exempt INTEGER,
    currency TEXT,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_customers AS
SELECT id, shop, email, phone, first_name, last_name, state, verified_email, tax_exempt, currency, created_at,
    updated_at
FROM shopify_customers WHERE _deleted = 0;

CREATE TABLE shopify_products (
    id TEXT NOT NULL PRIMARY KEY,
    shop TEXT,
    title TEXT,
    handle TEXT,
    vendor TEXT,
    product_type TEXT,
    status TEXT,
    tags TEXT,
    -- JSON.
    variants TEXT,
    published_at INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_products AS
SELECT id, shop, title, handle, vendor, product_type, status, tags, variants, published_at, created_at, updated_at
FROM shopify_products WHERE _deleted = 0;

CREATE TABLE shopify_refunds (
    id TEXT NOT NULL PRIMARY KEY,
    shop TEXT,
    order_id TEXT,
    user_id TEXT,
    note TEXT,
    processed_at INTEGER,
    created_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_refunds AS
SELECT id, shop, order_id, user_id, note, processed_at, created_at
FROM shopify_refunds WHERE _deleted = 0;

CREATE INDEX shopify_refunds_of_order ON shopify_refunds (order_id);

CREATE TABLE shopify_refund_transactions (
    refund_id TEXT NOT NULL,
    id TEXT NOT NULL,
    order_id TEXT,
    kind TEXT,
    status TEXT,
    gateway TEXT,
    amount INTEGER,
    currency TEXT,
    processed_at INTEGER,
    PRIMARY KEY (refund_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_refund_transactions AS
SELECT refund_id, id, order_id, kind, status, gateway, amount, currency, processed_at
FROM shopify_refund_transactions;

CREATE TABLE shopify_compliance_requests (
    id TEXT NOT NULL PRIMARY KEY,
    topic TEXT,
    shop TEXT,
    shop_id TEXT,
    customer_id TEXT,
    customer_email TEXT,
    customer_phone TEXT,
    -- JSON: the orders to hand over or to redact.
    order_ids TEXT,
    data_request_id TEXT,
    received_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_compliance_requests AS
SELECT id, topic, shop, shop_id, customer_id, customer_email, customer_phone, order_ids, data_request_id,
    received_at
FROM shopify_compliance_requests WHERE _deleted = 0;

-- Preset `github`

CREATE TABLE github_installations (
    id INTEGER NOT NULL PRIMARY KEY,
    account_id INTEGER,
    account_login TEXT,
    account_type TEXT,
    app_id INTEGER,
    app_slug TEXT,
    repository_selection TEXT,
    -- JSON, as `events`.
    permissions TEXT,
    events TEXT,
    suspended_at INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_github_installations AS
SELECT id, account_id, account_login, account_type, app_id, app_slug, repository_selection, permissions, events,
    suspended_at, created_at, updated_at
FROM github_installations WHERE _deleted = 0;

CREATE INDEX github_installations_of_account ON github_installations (account_id);

CREATE TABLE github_repositories (
    id INTEGER NOT NULL PRIMARY KEY,
    owner_id INTEGER,
    owner_login TEXT,
    name TEXT,
    full_name TEXT,
    description TEXT,
    visibility TEXT,
    private INTEGER,
    fork INTEGER,
    archived INTEGER,
    disabled INTEGER,
    default_branch TEXT,
    language TEXT,
    html_url TEXT,
    pushed_at INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_github_repositories AS
SELECT id, owner_id, owner_login, name, full_name, description, visibility, private, fork, archived, disabled,
    default_branch, language, html_url, pushed_at, created_at, updated_at
FROM github_repositories WHERE _deleted = 0;

CREATE TABLE github_pull_requests (
    id INTEGER NOT NULL PRIMARY KEY,
    repository_id INTEGER,
    number INTEGER,
    title TEXT,
    state TEXT,
    draft INTEGER,
    merged INTEGER,
    author_id INTEGER,
    author_login TEXT,
    head_ref TEXT,
    head_sha TEXT,
    base_ref TEXT,
    merge_commit_sha TEXT,
    html_url TEXT,
    closed_at INTEGER,
    merged_at INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_github_pull_requests AS
SELECT id, repository_id, number, title, state, draft, merged, author_id, author_login, head_ref, head_sha,
    base_ref, merge_commit_sha, html_url, closed_at, merged_at, created_at, updated_at
FROM github_pull_requests WHERE _deleted = 0;

CREATE INDEX github_pull_requests_of_repository ON github_pull_requests (repository_id);

CREATE TABLE github_workflow_runs (
    id INTEGER NOT NULL PRIMARY KEY,
    repository_id INTEGER,
    workflow_id INTEGER,
    name TEXT,
    title TEXT,
    run_number INTEGER,
    run_attempt INTEGER,
    event TEXT,
    status TEXT,
    conclusion TEXT,
    head_branch TEXT,
    head_sha TEXT,
    actor_id INTEGER,
    actor_login TEXT,
    html_url TEXT,
    run_started_at INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_github_workflow_runs AS
SELECT id, repository_id, workflow_id, name, title, run_number, run_attempt, event, status, conclusion,
    head_branch, head_sha, actor_id, actor_login, html_url, run_started_at, created_at, updated_at
FROM github_workflow_runs WHERE _deleted = 0;

CREATE INDEX github_workflow_runs_of_repository ON github_workflow_runs (repository_id);
