-- Tables of the presets
--
-- The presets are in [hookmill.toml](configuration.md#presets). Those of Resend and SendGrid write
-- [outcomes and suppressions](email.md#outcomes) instead of tables of their own.
--
-- Times are Unix milliseconds, whatever the provider has. Booleans are 1 and 0. A column with JSON has its text, from which
-- SQLite reads values: `metadata ->> 'plan'`.
--
-- Applications read the views. Each table has a view of its live rows, such as `live_subscriptions` for `subscriptions`: it has
-- no deleted rows, and none of the columns whose names begin with an underscore. A row that belongs to another is live while
-- that one is: the items of a subscription, the lines of an invoice, the members of an organization, the payment methods of a
-- customer.
--
-- The tables keep deleted rows with `_deleted = 1`. Deletions are final. Most deleted rows keep their last values; deleted
-- customers, invoices, users and organizations keep only the key. The other columns with an underscore are about the event that
-- wrote the row: see [Versions and ties](../ARCHITECTURE.md#versions-and-ties).

-- Preset `stripe`
--
-- Amounts are in the smallest unit of the currency, as Stripe's are. Rows have `account`, the
-- [connected account](https://docs.stripe.com/connect) that they belong to, and `livemode`; items and lines have those of their
-- subscription or invoice. A destination for connected accounts in live mode gets test events too, so an application on it reads
-- rows with `livemode = 1`. The ids that Stripe makes are different in every account and mode. Two products or plans whose ids
-- you chose yourself share a row if the ids are equal.

-- The customers.
--
-- Customers whose last payment failed:
--
--     SELECT id, email FROM live_customers WHERE delinquent = 1
CREATE TABLE customers (
    id TEXT NOT NULL PRIMARY KEY, -- `cus_…`.
    email TEXT, -- The email address.
    name TEXT, -- The name.
    phone TEXT, -- The phone number.
    currency TEXT, -- The currency of recurring payments, three letters, lower case.
    delinquent INTEGER, -- 1 if the latest invoice is overdue or could not be collected.
    balance INTEGER, -- The credit (negative) or debt (positive) that the next invoice includes.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_customers AS
SELECT id, email, name, phone, currency, delinquent, balance, account, livemode, metadata, created
FROM customers WHERE _deleted = 0;

-- The subscriptions. One that ended is deleted: it is not in the view, and keeps its last values in the table.
--
-- The active subscriptions of a customer:
--
--     SELECT id, status, current_period_end FROM live_subscriptions
--     WHERE customer_id = 'cus_zdZNoyUzJ6N4lj' AND status IN ('trialing', 'active')
CREATE TABLE subscriptions (
    id TEXT NOT NULL PRIMARY KEY, -- `sub_…`.
    customer_id TEXT, -- The customer.
    latest_invoice_id TEXT, -- The latest invoice.
    status TEXT, -- `incomplete`, `trialing`, `active`, `past_due`, `unpaid`, `paused`, `incomplete_expired` or `canceled`.
    price_id TEXT, -- The price of the first item.
    quantity INTEGER, -- The quantity of the first item.
    currency TEXT, -- Three letters, lower case.
    current_period_start INTEGER, -- The start of the current period, of the first item.
    current_period_end INTEGER, -- The end of the current period, of the first item.
    cancel_at_period_end INTEGER, -- 1 if it ends with the current period.
    cancel_at INTEGER, -- When it is going to end.
    canceled_at INTEGER, -- When its cancellation was requested.
    ended_at INTEGER, -- When it ended.
    trial_end INTEGER, -- The end of the trial.
    pause_collection TEXT, -- JSON, if the collection of payments is paused: the status does not show it.
    paused_until INTEGER, -- The end of that pause; `NULL` if it has none.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The items of subscriptions. An item that is no longer part of its subscription has no row.
--
-- Seats by product:
--
--     SELECT product_id, sum(quantity) AS seats FROM live_subscription_items GROUP BY product_id
CREATE TABLE subscription_items (
    subscription_id TEXT NOT NULL, -- The subscription.
    id TEXT NOT NULL, -- `si_…`.
    price_id TEXT, -- The price.
    product_id TEXT, -- The product.
    quantity INTEGER, -- The quantity; `NULL` if usage is measured.
    unit_amount INTEGER, -- The amount of the price; `NULL` if it has fractions or tiers.
    currency TEXT, -- Three letters, lower case.
    interval TEXT, -- `day`, `week`, `month` or `year`.
    interval_count INTEGER, -- The number of such intervals in a period.
    current_period_start INTEGER, -- The start of the current period.
    current_period_end INTEGER, -- The end of the current period.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The features that customers may use, by their subscriptions. A feature that a customer may no longer use has no row. An
-- event has the first ten; if a customer has more, a lost feature keeps its row.
--
-- Whether a customer may use a feature:
--
--     SELECT feature_id FROM live_entitlements
--     WHERE customer_id = 'cus_zdZNoyUzJ6N4lj' AND lookup_key = 'audit-log'
CREATE TABLE entitlements (
    customer_id TEXT NOT NULL, -- The customer.
    id TEXT NOT NULL, -- `ent_…`.
    feature_id TEXT, -- The feature, `feat_…`.
    lookup_key TEXT, -- The key that you gave the feature.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    _version INTEGER,
    _precedence INTEGER,
    _event_id TEXT,
    PRIMARY KEY (customer_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_entitlements AS
SELECT customer_id, id, feature_id, lookup_key, account, livemode
FROM entitlements WHERE NOT EXISTS (
    SELECT 1 FROM customers AS parent WHERE parent.id = customer_id AND parent._deleted = 1
);

-- The invoices. Only a draft can be deleted.
--
-- Open invoices whose collection failed at least once:
--
--     SELECT id, customer_id, amount_remaining, currency FROM live_invoices
--     WHERE status = 'open' AND attempt_count > 0
CREATE TABLE invoices (
    id TEXT NOT NULL PRIMARY KEY, -- `in_…`.
    customer_id TEXT, -- The customer.
    subscription_id TEXT, -- The subscription.
    payment_intent_id TEXT, -- The payment intent; `NULL` since version 2025-03-31, which has `invoice_payments`.
    status TEXT, -- `draft`, `open`, `paid`, `uncollectible` or `void`.
    number TEXT, -- The number on the invoice; `NULL` for a draft.
    currency TEXT, -- Three letters, lower case.
    total INTEGER, -- The total, with discounts and taxes.
    amount_due INTEGER, -- What is to be paid.
    amount_paid INTEGER, -- What was paid.
    amount_remaining INTEGER, -- What is left to pay.
    attempt_count INTEGER, -- The number of attempts to collect it.
    next_payment_attempt INTEGER, -- When the next attempt is.
    billing_reason TEXT, -- Such as `subscription_create`, `subscription_cycle` or `manual`.
    period_start INTEGER, -- The start of the period of its usage.
    period_end INTEGER, -- The end of the period of its usage.
    hosted_invoice_url TEXT, -- The page where the customer pays it.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The lines of invoices. A line that is no longer part of its invoice has no row. An event has the first ten; if an invoice
-- has more, a removed line keeps its row.
--
-- The tax in an invoice, whatever the version of the API:
--
--     SELECT id, amount, (SELECT sum(value ->> 'amount') FROM json_each(taxes)) AS tax
--     FROM live_invoice_lines WHERE invoice_id = 'in_1h9QsHHmFx4aBq2NUjG2Utzw'
CREATE TABLE invoice_lines (
    invoice_id TEXT NOT NULL, -- The invoice.
    id TEXT NOT NULL, -- `il_…`.
    description TEXT, -- The text on the invoice.
    amount INTEGER, -- The amount; negative for a credit.
    currency TEXT, -- Three letters, lower case.
    quantity INTEGER, -- The quantity, without fractions.
    price_id TEXT, -- The price.
    product_id TEXT, -- The product.
    unit_amount_decimal TEXT, -- The amount of one unit, with fractions of the smallest unit.
    subscription_id TEXT, -- The subscription.
    subscription_item_id TEXT, -- The item of the subscription.
    invoice_item_id TEXT, -- The invoice item, of a line that does not come from a subscription item alone.
    proration INTEGER, -- 1 if it corrects an earlier line, after a change in the middle of a period.
    period_start INTEGER, -- The start of the period that it is for.
    period_end INTEGER, -- The end of the period that it is for.
    discount_amounts TEXT, -- JSON: a list of `amount` and `discount`.
    taxes TEXT, -- JSON: a list of `amount` and details, which differ between versions of the API.
    metadata TEXT, -- JSON: names and values of your own.
    _version INTEGER,
    _precedence INTEGER,
    _event_id TEXT,
    PRIMARY KEY (invoice_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_invoice_lines AS
SELECT invoice_id, id, description, amount, currency, quantity, price_id, product_id, unit_amount_decimal,
    subscription_id, subscription_item_id, invoice_item_id, proration, period_start, period_end, discount_amounts, taxes,
    metadata
FROM invoice_lines WHERE NOT EXISTS (
    SELECT 1 FROM invoices AS parent WHERE parent.id = invoice_id AND parent._deleted = 1
);

-- The payments of invoices, since version 2025-03-31 of the API; before, an invoice has one, its `payment_intent_id`.
--
-- The payments of an invoice:
--
--     SELECT payment_intent_id, amount_paid, currency, paid_at FROM live_invoice_payments
--     WHERE invoice_id = 'in_1h9QsHHmFx4aBq2NUjG2Utzw' AND status = 'paid'
CREATE TABLE invoice_payments (
    id TEXT NOT NULL PRIMARY KEY, -- `inpay_…`.
    invoice_id TEXT, -- The invoice.
    payment_intent_id TEXT, -- The payment intent.
    charge_id TEXT, -- The charge, if there is no payment intent.
    status TEXT, -- `open`, `paid` or `canceled`.
    amount_requested INTEGER, -- What was to be paid.
    amount_paid INTEGER, -- What was paid.
    currency TEXT, -- Three letters, lower case.
    is_default INTEGER, -- 1 if Stripe made it with the invoice.
    paid_at INTEGER, -- When it was paid.
    canceled_at INTEGER, -- When it was canceled.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    created INTEGER, -- When Stripe created it.
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

-- The payments, with all their attempts.
--
-- Payments that failed, and why:
--
--     SELECT id, amount, currency, error_code FROM live_payment_intents
--     WHERE status = 'requires_payment_method' AND error_code IS NOT NULL
CREATE TABLE payment_intents (
    id TEXT NOT NULL PRIMARY KEY, -- `pi_…`.
    customer_id TEXT, -- The customer.
    status TEXT, -- `requires_payment_method`, `requires_confirmation`, `requires_action`, `processing`, `requires_capture`,
        -- `canceled` or `succeeded`.
    amount INTEGER, -- What is to be paid.
    amount_received INTEGER, -- What was paid.
    amount_capturable INTEGER, -- What can be captured.
    currency TEXT, -- Three letters, lower case.
    charge_id TEXT, -- The latest charge.
    payment_method_id TEXT, -- The payment method.
    description TEXT, -- A text of yours.
    error_code TEXT, -- Why the last attempt failed: the code of the bank, or of Stripe.
    error_message TEXT, -- The same as a sentence.
    cancellation_reason TEXT, -- Why it was canceled.
    canceled_at INTEGER, -- When it was canceled.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_payment_intents AS
SELECT id, customer_id, status, amount, amount_received, amount_capturable, currency, charge_id, payment_method_id,
    description, error_code, error_message, cancellation_reason, canceled_at, account, livemode, metadata, created
FROM payment_intents WHERE _deleted = 0;

-- The sessions of Checkout. A session may be `complete` before it is paid: with a bank debit, `payment_status` is `unpaid`
-- for days.
--
-- Sessions to fulfill:
--
--     SELECT id, client_reference_id, amount_total, currency FROM live_checkout_sessions
--     WHERE payment_status IN ('paid', 'no_payment_required')
CREATE TABLE checkout_sessions (
    id TEXT NOT NULL PRIMARY KEY, -- `cs_…`.
    mode TEXT, -- `payment`, `setup` or `subscription`.
    status TEXT, -- `open`, `complete` or `expired`.
    payment_status TEXT, -- `paid`, `unpaid` or `no_payment_required`.
    client_reference_id TEXT, -- Your id for the session.
    customer_id TEXT, -- The customer.
    customer_email TEXT, -- The email address that the customer entered.
    payment_intent_id TEXT, -- The payment intent.
    subscription_id TEXT, -- The subscription.
    invoice_id TEXT, -- The invoice.
    payment_link_id TEXT, -- The payment link that it comes from.
    amount_subtotal INTEGER, -- The total without discounts and taxes.
    amount_total INTEGER, -- The total, with discounts and taxes.
    currency TEXT, -- Three letters, lower case.
    expires_at INTEGER, -- When it expires.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The attempts to move money.
--
-- Failed charges by reason:
--
--     SELECT failure_code, count(*) AS charges FROM live_charges WHERE status = 'failed' GROUP BY failure_code
CREATE TABLE charges (
    id TEXT NOT NULL PRIMARY KEY, -- `ch_…` or `py_…`.
    customer_id TEXT, -- The customer.
    payment_intent_id TEXT, -- The payment intent.
    status TEXT, -- `pending`, `succeeded` or `failed`.
    amount INTEGER, -- The amount.
    amount_captured INTEGER, -- What was captured.
    amount_refunded INTEGER, -- What was refunded.
    currency TEXT, -- Three letters, lower case.
    paid INTEGER, -- 1 if it succeeded.
    captured INTEGER, -- 1 if it was captured.
    refunded INTEGER, -- 1 only if all of it was refunded.
    disputed INTEGER, -- 1 if it was disputed.
    failure_code TEXT, -- Why it failed, as a code.
    failure_message TEXT, -- Why it failed, as a sentence.
    payment_method_type TEXT, -- Such as `card` or `sepa_debit`.
    card_brand TEXT, -- Such as `visa`.
    card_last4 TEXT, -- The last four digits.
    receipt_url TEXT, -- The page of the receipt.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The refunds. Before version 2024-10-28 of the API, no event is about the creation of a refund of a charge: its row begins
-- with its first update.
--
-- Refunds that failed:
--
--     SELECT id, charge_id, amount, currency, failure_reason FROM live_refunds WHERE status = 'failed'
CREATE TABLE refunds (
    id TEXT NOT NULL PRIMARY KEY, -- `re_…` or `pyr_…`.
    charge_id TEXT, -- The charge.
    payment_intent_id TEXT, -- The payment intent.
    status TEXT, -- `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    amount INTEGER, -- The amount.
    currency TEXT, -- Three letters, lower case.
    reason TEXT, -- Such as `requested_by_customer`.
    failure_reason TEXT, -- Why it failed.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_refunds AS
SELECT id, charge_id, payment_intent_id, status, amount, currency, reason, failure_reason, account, livemode, metadata,
    created
FROM refunds WHERE _deleted = 0;

-- The disputes and inquiries of card holders.
--
-- What was lost, by reason:
--
--     SELECT reason, currency, sum(amount) AS lost FROM live_disputes
--     WHERE status = 'lost' GROUP BY reason, currency
CREATE TABLE disputes (
    id TEXT NOT NULL PRIMARY KEY, -- `du_…`.
    charge_id TEXT, -- The charge.
    payment_intent_id TEXT, -- The payment intent.
    status TEXT, -- Such as `needs_response`, `under_review`, `won` or `lost`.
    reason TEXT, -- Such as `fraudulent`.
    amount INTEGER, -- The disputed amount.
    currency TEXT, -- Three letters, lower case.
    evidence_due_by INTEGER, -- Until when evidence is accepted.
    evidence_submissions INTEGER, -- How often evidence was submitted.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_disputes AS
SELECT id, charge_id, payment_intent_id, status, reason, amount, currency, evidence_due_by, evidence_submissions,
    account, livemode, metadata, created
FROM disputes WHERE _deleted = 0;

-- The products of the catalog.
--
-- The products on sale:
--
--     SELECT id, name, default_price_id FROM live_products WHERE active = 1
CREATE TABLE products (
    id TEXT NOT NULL PRIMARY KEY, -- `prod_…`, or an id of your choice.
    name TEXT, -- The name.
    description TEXT, -- The description.
    active INTEGER, -- 1 if it can be bought.
    default_price_id TEXT, -- The default price.
    unit_label TEXT, -- The name of a unit, such as `seat`.
    statement_descriptor TEXT, -- The text on the customer's bank statement.
    tax_code TEXT, -- The tax code.
    shippable INTEGER, -- 1 if it is shipped.
    images TEXT, -- JSON: the URLs of images.
    marketing_features TEXT, -- JSON: a list of `name`.
    url TEXT, -- Its page.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    updated INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_products AS
SELECT id, name, description, active, default_price_id, unit_label, statement_descriptor, tax_code, shippable, images,
    marketing_features, url, account, livemode, metadata, created, updated
FROM products WHERE _deleted = 0;

-- The prices of products.
--
-- The prices of a product:
--
--     SELECT id, unit_amount, currency, interval FROM live_prices
--     WHERE product_id = 'prod_u35ncJBMQ6uNQY' AND active = 1 ORDER BY unit_amount
CREATE TABLE prices (
    id TEXT NOT NULL PRIMARY KEY, -- `price_…`, or the id of a plan.
    product_id TEXT, -- The product.
    nickname TEXT, -- A name for yourself.
    lookup_key TEXT, -- The key by which your code finds it.
    active INTEGER, -- 1 if it can be used.
    type TEXT, -- `recurring` or `one_time`.
    billing_scheme TEXT, -- `per_unit` or `tiered`.
    currency TEXT, -- Three letters, lower case.
    unit_amount INTEGER, -- The amount of one unit; `NULL` if it has fractions or tiers.
    unit_amount_decimal TEXT, -- The same with fractions of the smallest unit.
    interval TEXT, -- `day`, `week`, `month` or `year`; `NULL` for a price that is paid once.
    interval_count INTEGER, -- The number of such intervals in a period.
    usage_type TEXT, -- `licensed` or `metered`.
    meter_id TEXT, -- The meter of the usage.
    trial_period_days INTEGER, -- The days of a trial.
    tiers_mode TEXT, -- `graduated` or `volume`.
    tax_behavior TEXT, -- `inclusive`, `exclusive` or `unspecified`.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The payment methods of customers. A detached one is deleted, since it can never be used again.
--
-- Cards that expire before October 2031:
--
--     SELECT customer_id, card_brand, card_last4 FROM live_payment_methods
--     WHERE type = 'card' AND (card_exp_year, card_exp_month) < (2031, 10)
CREATE TABLE payment_methods (
    id TEXT NOT NULL PRIMARY KEY, -- `pm_…`.
    customer_id TEXT, -- The customer.
    type TEXT, -- Such as `card` or `sepa_debit`.
    card_brand TEXT, -- Such as `visa`.
    card_last4 TEXT, -- The last four digits.
    card_exp_month INTEGER, -- The month of the expiration.
    card_exp_year INTEGER, -- The year of the expiration.
    card_country TEXT, -- Its country, two letters.
    card_funding TEXT, -- `credit`, `debit`, `prepaid` or `unknown`.
    card_fingerprint TEXT, -- The same for every payment method with this number.
    billing_name TEXT, -- The name.
    billing_email TEXT, -- The email address.
    billing_country TEXT, -- The country, two letters.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The planned changes of subscriptions.
--
-- Schedules that will change a subscription:
--
--     SELECT id, subscription_id, current_phase_end FROM live_subscription_schedules
--     WHERE status IN ('not_started', 'active')
CREATE TABLE subscription_schedules (
    id TEXT NOT NULL PRIMARY KEY, -- `sub_sched_…`.
    customer_id TEXT, -- The customer.
    subscription_id TEXT, -- The subscription; `NULL` after its release.
    released_subscription_id TEXT, -- The subscription that it released.
    status TEXT, -- `not_started`, `active`, `completed`, `released` or `canceled`.
    end_behavior TEXT, -- What follows the last phase: `release` or `cancel`.
    current_phase_start INTEGER, -- The start of the current phase.
    current_phase_end INTEGER, -- The end of the current phase.
    phases TEXT, -- JSON: the phases.
    completed_at INTEGER, -- When it was completed.
    released_at INTEGER, -- When it was released.
    canceled_at INTEGER, -- When it was canceled.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_subscription_schedules AS
SELECT id, customer_id, subscription_id, released_subscription_id, status, end_behavior, current_phase_start,
    current_phase_end, phases, completed_at, released_at, canceled_at, account, livemode, metadata, created
FROM subscription_schedules WHERE _deleted = 0;

-- The credit notes for invoices.
--
-- What was credited on an invoice:
--
--     SELECT number, amount, currency, reason FROM live_credit_notes
--     WHERE invoice_id = 'in_1h9QsHHmFx4aBq2NUjG2Utzw' AND status = 'issued'
CREATE TABLE credit_notes (
    id TEXT NOT NULL PRIMARY KEY, -- `cn_…`.
    invoice_id TEXT, -- The invoice.
    customer_id TEXT, -- The customer.
    refund_id TEXT, -- The first refund.
    number TEXT, -- The number on the credit note.
    status TEXT, -- `issued` or `void`.
    type TEXT, -- `pre_payment`, `post_payment` or `mixed`.
    reason TEXT, -- Such as `duplicate` or `product_unsatisfactory`.
    currency TEXT, -- Three letters, lower case.
    amount INTEGER, -- The amount, with taxes.
    subtotal INTEGER, -- The amount without discounts and taxes.
    total INTEGER, -- The amount with discounts and taxes.
    out_of_band_amount INTEGER, -- What was refunded outside Stripe.
    memo TEXT, -- The text for the customer.
    effective_at INTEGER, -- The date on the credit note.
    voided_at INTEGER, -- When it was voided.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_credit_notes AS
SELECT id, invoice_id, customer_id, refund_id, number, status, type, reason, currency, amount, subtotal, total,
    out_of_band_amount, memo, effective_at, voided_at, account, livemode, metadata, created
FROM credit_notes WHERE _deleted = 0;

-- The transfers to bank accounts. A payout may fail after it counted as paid.
--
-- Payouts that failed, and why:
--
--     SELECT id, account, amount, currency, failure_code FROM live_payouts WHERE status = 'failed'
CREATE TABLE payouts (
    id TEXT NOT NULL PRIMARY KEY, -- `po_…`.
    status TEXT, -- `pending`, `in_transit`, `paid`, `failed` or `canceled`.
    amount INTEGER, -- The amount.
    currency TEXT, -- Three letters, lower case.
    arrival_date INTEGER, -- When it arrives at the bank.
    automatic INTEGER, -- 1 if the schedule of the account made it.
    method TEXT, -- `standard` or `instant`.
    type TEXT, -- `bank_account` or `card`.
    source_type TEXT, -- The balance that it comes from, such as `card`.
    destination_id TEXT, -- The bank account or card.
    balance_transaction_id TEXT, -- The balance transaction.
    reconciliation_status TEXT, -- `not_applicable`, `in_progress` or `completed`.
    failure_code TEXT, -- Why it failed, as a code.
    failure_message TEXT, -- Why it failed, as a sentence.
    description TEXT, -- A text of yours.
    statement_descriptor TEXT, -- The text on the bank statement.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    metadata TEXT, -- JSON: names and values of your own.
    created INTEGER, -- When Stripe created it.
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

-- The early fraud warnings of card networks. A full refund of the charge may avoid a dispute.
--
-- Charges to consider for a refund:
--
--     SELECT charge_id, fraud_type FROM live_early_fraud_warnings WHERE actionable = 1
CREATE TABLE early_fraud_warnings (
    id TEXT NOT NULL PRIMARY KEY, -- `issfr_…`.
    charge_id TEXT, -- The charge.
    payment_intent_id TEXT, -- The payment intent.
    fraud_type TEXT, -- Such as `made_with_stolen_card`.
    actionable INTEGER, -- 1 if a refund can still avoid a dispute.
    account TEXT, -- The connected account; `NULL` for your own.
    livemode INTEGER, -- 1 in live mode, 0 in test mode and in a sandbox.
    created INTEGER, -- When Stripe created it.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_early_fraud_warnings AS
SELECT id, charge_id, payment_intent_id, fraud_type, actionable, account, livemode, created
FROM early_fraud_warnings WHERE _deleted = 0;

-- Preset `clerk`

-- The users.
--
-- A user by email address:
--
--     SELECT id, first_name, last_name FROM live_users WHERE email = 'tanaka.mei@example.com'
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY, -- `user_…`.
    email TEXT, -- The primary email address.
    first_name TEXT, -- The first name.
    last_name TEXT, -- The last name.
    username TEXT, -- The user name.
    image_url TEXT, -- The profile image.
    external_id TEXT, -- Your id for the user.
    public_metadata TEXT, -- JSON: names and values of your own, which the frontend may read.
    banned INTEGER, -- 1 if the user is banned.
    locked INTEGER, -- 1 if the user is locked, after too many wrong passwords.
    created_at INTEGER, -- When Clerk created it.
    updated_at INTEGER, -- When it last changed.
    last_sign_in_at INTEGER, -- When the user last signed in.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_users AS
SELECT id, email, first_name, last_name, username, image_url, external_id, public_metadata, banned, locked, created_at,
    updated_at, last_sign_in_at
FROM users WHERE _deleted = 0;

-- The organizations.
--
-- The largest organizations:
--
--     SELECT id, name, members_count FROM live_organizations ORDER BY members_count DESC LIMIT 10
CREATE TABLE organizations (
    id TEXT NOT NULL PRIMARY KEY, -- `org_…`.
    name TEXT, -- The name.
    slug TEXT, -- The name in URLs.
    image_url TEXT, -- The logo.
    created_by TEXT, -- The user who created it.
    members_count INTEGER, -- The number of members, at its last change.
    max_allowed_memberships INTEGER, -- The maximum number of members.
    public_metadata TEXT, -- JSON: names and values of your own, which the frontend may read.
    created_at INTEGER, -- When Clerk created it.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_organizations AS
SELECT id, name, slug, image_url, created_by, members_count, max_allowed_memberships, public_metadata, created_at,
    updated_at
FROM organizations WHERE _deleted = 0;

-- The members of organizations. A membership ends with its organization or its user.
--
-- The members of an organization:
--
--     SELECT u.email, m.role FROM live_organization_memberships AS m JOIN live_users AS u ON u.id = m.user_id
--     WHERE m.organization_id = 'org_2JNVOnK0ZX1UaOEsd9qSgRmokZn'
CREATE TABLE organization_memberships (
    id TEXT NOT NULL PRIMARY KEY, -- `orgmem_…`.
    organization_id TEXT, -- The organization.
    user_id TEXT, -- The user.
    role TEXT, -- The key of the role, such as `org:admin`.
    permissions TEXT, -- JSON: the keys of the permissions.
    public_metadata TEXT, -- JSON: names and values of your own, which the frontend may read.
    created_at INTEGER, -- When Clerk created it.
    updated_at INTEGER, -- When it last changed.
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

-- The domains whose users can join an organization. A domain ends with its organization.
--
-- The organizations that a verified domain belongs to:
--
--     SELECT organization_id, enrollment_mode FROM live_organization_domains
--     WHERE name = 'example.com' AND verification_status = 'verified'
CREATE TABLE organization_domains (
    id TEXT NOT NULL PRIMARY KEY, -- `orgdmn_…`.
    organization_id TEXT, -- The organization.
    name TEXT, -- The domain.
    enrollment_mode TEXT, -- `manual_invitation`, `automatic_invitation` or `automatic_suggestion`.
    verification_status TEXT, -- `unverified`, `verified` and others; `NULL` before the verification begins.
    verification_strategy TEXT, -- How it is verified, such as `affiliation_email_code`.
    affiliation_email_address TEXT, -- The email address that verifies it.
    created_at INTEGER, -- When Clerk created it.
    updated_at INTEGER, -- When it last changed.
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

-- The roles that members can have.
--
-- How many members have each role:
--
--     SELECT role.name, count(*) AS members
--     FROM live_organization_roles AS role JOIN live_organization_memberships AS member ON member.role = role.key
--     GROUP BY role.name
CREATE TABLE organization_roles (
    id TEXT NOT NULL PRIMARY KEY, -- `role_…`.
    key TEXT, -- The `role` of a membership, such as `org:admin`.
    name TEXT, -- The name.
    description TEXT, -- The description.
    is_creator_eligible INTEGER, -- 1 if the creator of an organization can get it.
    permissions TEXT, -- JSON: the permissions, each with its `key`.
    created_at INTEGER, -- When Clerk created it.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_organization_roles AS
SELECT id, key, name, description, is_creator_eligible, permissions, created_at, updated_at
FROM organization_roles WHERE _deleted = 0;

-- Preset `paddle`
--
-- Amounts are in the smallest unit of the currency. Paddle deletes nothing; what is no longer used has the status `archived`.

-- The customers.
--
-- A customer by email address:
--
--     SELECT id, name FROM live_paddle_customers WHERE email = 'ines.almeida@example.com' AND status = 'active'
CREATE TABLE paddle_customers (
    id TEXT NOT NULL PRIMARY KEY, -- `ctm_…`.
    email TEXT, -- The email address.
    name TEXT, -- The name.
    status TEXT, -- `active` or `archived`.
    locale TEXT, -- The language, such as `en`.
    marketing_consent INTEGER, -- 1 if the customer accepts marketing.
    custom_data TEXT, -- JSON: names and values of your own.
    created_at INTEGER, -- When Paddle created it.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_paddle_customers AS
SELECT id, email, name, status, locale, marketing_consent, custom_data, created_at, updated_at
FROM paddle_customers WHERE _deleted = 0;

-- The subscriptions. A canceled one stays in the view, with its status.
--
-- The active subscriptions of a customer:
--
--     SELECT id, status, current_period_end FROM live_paddle_subscriptions
--     WHERE customer_id = 'ctm_01kfaddfpgvmdwfydsbch0dp04' AND status IN ('trialing', 'active')
CREATE TABLE paddle_subscriptions (
    id TEXT NOT NULL PRIMARY KEY, -- `sub_…`.
    customer_id TEXT, -- The customer.
    business_id TEXT, -- The business of the customer.
    discount_id TEXT, -- The discount.
    status TEXT, -- `trialing`, `active`, `past_due`, `paused` or `canceled`.
    price_id TEXT, -- The price of the first item.
    quantity INTEGER, -- The quantity of the first item.
    currency TEXT, -- Three letters, upper case.
    collection_mode TEXT, -- `automatic` or `manual`.
    interval TEXT, -- `day`, `week`, `month` or `year`.
    interval_count INTEGER, -- The number of such intervals in a period.
    current_period_start INTEGER, -- The start of the current period; `NULL` while it is paused and after it is canceled.
    current_period_end INTEGER, -- The end of the current period; `NULL` as well.
    next_billed_at INTEGER, -- When it is billed next.
    first_billed_at INTEGER, -- When it was billed first.
    started_at INTEGER, -- When it started.
    paused_at INTEGER, -- When it was paused.
    canceled_at INTEGER, -- When it was canceled.
    scheduled_action TEXT, -- A planned change: `cancel`, `pause` or `resume`.
    scheduled_at INTEGER, -- When that change takes effect.
    custom_data TEXT, -- JSON: names and values of your own.
    created_at INTEGER, -- When Paddle created it.
    updated_at INTEGER, -- When it last changed.
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

-- The items of subscriptions, one for each price. An item that is no longer part of its subscription has no row.
--
-- Seats by product:
--
--     SELECT product_id, sum(quantity) AS seats FROM live_paddle_subscription_items
--     WHERE status <> 'inactive' GROUP BY product_id
CREATE TABLE paddle_subscription_items (
    subscription_id TEXT NOT NULL, -- The subscription.
    price_id TEXT NOT NULL, -- The price.
    product_id TEXT, -- The product.
    status TEXT, -- `trialing`, `active` or `inactive`.
    quantity INTEGER, -- The quantity.
    recurring INTEGER, -- 1 if it is billed in every period.
    unit_amount INTEGER, -- The amount of one unit.
    currency TEXT, -- Three letters, upper case.
    next_billed_at INTEGER, -- When it is billed next.
    PRIMARY KEY (subscription_id, price_id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_paddle_subscription_items AS
SELECT subscription_id, price_id, product_id, status, quantity, recurring, unit_amount, currency, next_billed_at
FROM paddle_subscription_items WHERE NOT EXISTS (
    SELECT 1 FROM paddle_subscriptions AS parent WHERE parent.id = subscription_id AND parent._deleted = 1
);

-- The transactions: what customers pay.
--
-- The revenue of a month:
--
--     SELECT currency, sum(grand_total) AS paid, sum(earnings) AS earned FROM live_paddle_transactions
--     WHERE status = 'completed' AND strftime('%Y-%m', billed_at / 1000, 'unixepoch') = '2026-01' GROUP BY currency
CREATE TABLE paddle_transactions (
    id TEXT NOT NULL PRIMARY KEY, -- `txn_…`.
    customer_id TEXT, -- The customer.
    subscription_id TEXT, -- The subscription.
    business_id TEXT, -- The business of the customer.
    discount_id TEXT, -- The discount.
    invoice_id TEXT, -- The invoice.
    invoice_number TEXT, -- The number on the invoice.
    status TEXT, -- `draft`, `ready`, `past_due`, `billed`, `paid`, `completed` or `canceled`.
    origin TEXT, -- Such as `web`, `api` or `subscription_recurring`.
    collection_mode TEXT, -- `automatic` or `manual`.
    currency TEXT, -- Three letters, upper case.
    subtotal INTEGER, -- The amount without discounts and taxes.
    discount INTEGER, -- The discount.
    tax INTEGER, -- The tax.
    total INTEGER, -- The amount with discounts and taxes.
    grand_total INTEGER, -- The same, less the credit that was used.
    balance INTEGER, -- What is left to pay.
    fee INTEGER, -- Paddle's fee; `NULL` before the transaction is completed.
    earnings INTEGER, -- What you earn; `NULL` before the transaction is completed.
    payment_status TEXT, -- The result of the last attempt to collect it.
    payment_error TEXT, -- Why that attempt failed.
    billing_period_start INTEGER, -- The start of the billed period.
    billing_period_end INTEGER, -- The end of the billed period.
    billed_at INTEGER, -- When it was billed.
    custom_data TEXT, -- JSON: names and values of your own.
    created_at INTEGER, -- When Paddle created it.
    updated_at INTEGER, -- When it last changed.
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

-- The refunds, credits and chargebacks.
--
-- The refunds of a transaction:
--
--     SELECT id, total, currency, status FROM live_paddle_adjustments
--     WHERE transaction_id = 'txn_01keegs25rxv8ysj97xcfzkbgb' AND action = 'refund'
CREATE TABLE paddle_adjustments (
    id TEXT NOT NULL PRIMARY KEY, -- `adj_…`.
    transaction_id TEXT, -- The transaction.
    subscription_id TEXT, -- The subscription.
    customer_id TEXT, -- The customer.
    action TEXT, -- `refund`, `credit`, `chargeback` and others.
    type TEXT, -- `full` or `partial`.
    status TEXT, -- `pending_approval`, `approved`, `rejected` or `reversed`.
    reason TEXT, -- The reason.
    currency TEXT, -- Three letters, upper case.
    subtotal INTEGER, -- The amount without taxes.
    tax INTEGER, -- The tax.
    total INTEGER, -- The amount with taxes.
    created_at INTEGER, -- When Paddle created it.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_paddle_adjustments AS
SELECT id, transaction_id, subscription_id, customer_id, action, type, status, reason, currency, subtotal, tax, total,
    created_at, updated_at
FROM paddle_adjustments WHERE _deleted = 0;

-- The products of the catalog.
--
-- The products on sale:
--
--     SELECT id, name FROM live_paddle_products WHERE status = 'active' AND type = 'standard'
CREATE TABLE paddle_products (
    id TEXT NOT NULL PRIMARY KEY, -- `pro_…`.
    name TEXT, -- The name.
    description TEXT, -- The description.
    status TEXT, -- `active` or `archived`.
    type TEXT, -- `standard`, or `custom` for a product that was made for one transaction.
    tax_category TEXT, -- Such as `saas`.
    image_url TEXT, -- The image.
    custom_data TEXT, -- JSON: names and values of your own.
    created_at INTEGER, -- When Paddle created it.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_paddle_products AS
SELECT id, name, description, status, type, tax_category, image_url, custom_data, created_at, updated_at
FROM paddle_products WHERE _deleted = 0;

-- The prices of products.
--
-- The prices of a product:
--
--     SELECT id, unit_amount, currency, interval FROM live_paddle_prices
--     WHERE product_id = 'pro_01ke6zq4c5m8h2r9t7v3w1x0ya' AND status = 'active'
CREATE TABLE paddle_prices (
    id TEXT NOT NULL PRIMARY KEY, -- `pri_…`.
    product_id TEXT, -- The product.
    name TEXT, -- The name, for customers.
    description TEXT, -- A description for yourself.
    status TEXT, -- `active` or `archived`.
    type TEXT, -- `standard`, or `custom` for a price that was made for one transaction.
    unit_amount INTEGER, -- The amount of one unit.
    currency TEXT, -- Three letters, upper case.
    unit_price_overrides TEXT, -- JSON: prices for countries.
    tax_mode TEXT, -- `internal`, `external` or `account_setting`.
    interval TEXT, -- `day`, `week`, `month` or `year`; `NULL` for a price that is paid once.
    interval_count INTEGER, -- The number of such intervals in a period.
    trial_interval TEXT, -- `day`, `week`, `month` or `year`.
    trial_interval_count INTEGER, -- The number of such intervals in the trial.
    minimum_quantity INTEGER, -- The minimum quantity.
    maximum_quantity INTEGER, -- The maximum quantity.
    custom_data TEXT, -- JSON: names and values of your own.
    created_at INTEGER, -- When Paddle created it.
    updated_at INTEGER, -- When it last changed.
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

-- The messages that you sent, with their statuses.
--
-- Messages that did not arrive:
--
--     SELECT sid, recipient, error_code FROM live_twilio_messages WHERE status IN ('failed', 'undelivered')
CREATE TABLE twilio_messages (
    sid TEXT NOT NULL PRIMARY KEY, -- Its id at Twilio.
    status TEXT, -- `queued`, `sending`, `sent`, `delivered`, `undelivered`, `failed`, `read` and others.
    sender TEXT, -- The number or address that sent it.
    recipient TEXT, -- The number or address that it was sent to.
    messaging_service_sid TEXT, -- The messaging service.
    error_code INTEGER, -- Why it did not arrive: a [code of Twilio](https://www.twilio.com/docs/api/errors).
    received_at INTEGER, -- When Hookmill received the event.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_twilio_messages AS
SELECT sid, status, sender, recipient, messaging_service_sid, error_code, received_at
FROM twilio_messages WHERE _deleted = 0;

-- The messages that you received.
--
-- Who opted out:
--
--     SELECT sender FROM live_twilio_inbound_messages WHERE opt_out_type = 'STOP'
CREATE TABLE twilio_inbound_messages (
    sid TEXT NOT NULL PRIMARY KEY, -- Its id at Twilio.
    sender TEXT, -- The number or address that sent it.
    recipient TEXT, -- The number or address that it was sent to.
    body TEXT, -- The text.
    num_segments INTEGER, -- The number of segments.
    num_media INTEGER, -- The number of media.
    media_url TEXT, -- The first of them.
    media_content_type TEXT, -- Its type.
    opt_out_type TEXT, -- `STOP`, `START` or `HELP`, with Advanced Opt-Out.
    messaging_service_sid TEXT, -- The messaging service.
    received_at INTEGER, -- When Hookmill received the event.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_twilio_inbound_messages AS
SELECT sid, sender, recipient, body, num_segments, num_media, media_url, media_content_type, opt_out_type,
    messaging_service_sid, received_at
FROM twilio_inbound_messages WHERE _deleted = 0;

-- The calls, with their statuses.
--
-- Calls without an answer:
--
--     SELECT sid, caller, recipient FROM live_twilio_calls WHERE status IN ('no-answer', 'busy')
CREATE TABLE twilio_calls (
    sid TEXT NOT NULL PRIMARY KEY, -- Its id at Twilio.
    status TEXT, -- `queued`, `initiated`, `ringing`, `in-progress`, `completed`, `busy`, `failed`, `no-answer` or
        -- `canceled`.
    direction TEXT, -- `inbound`, `outbound-api` or `outbound-dial`.
    caller TEXT, -- The number or client that called.
    recipient TEXT, -- The number or client that was called.
    parent_sid TEXT, -- The call that dialed this one.
    forwarded_from TEXT, -- The number that forwarded it.
    answered_by TEXT, -- A person or a machine, if the call detects it.
    duration INTEGER, -- The duration in seconds, at the end of the call.
    sip_response_code INTEGER, -- The SIP response.
    recording_url TEXT, -- The recording.
    changed_at INTEGER, -- The time of the status.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_twilio_calls AS
SELECT sid, status, direction, caller, recipient, parent_sid, forwarded_from, answered_by, duration,
    sip_response_code, recording_url, changed_at
FROM twilio_calls WHERE _deleted = 0;

-- Preset `shopify`
--
-- Ids are texts, since some are too large for a number in JavaScript. Amounts are in the smallest unit of the currency.

-- The orders.
--
-- What each customer bought:
--
--     SELECT customer_id, currency, count(*) AS orders, sum(current_total) AS total FROM live_shopify_orders
--     WHERE cancelled_at IS NULL GROUP BY customer_id, currency
CREATE TABLE shopify_orders (
    id TEXT NOT NULL PRIMARY KEY, -- The id.
    shop TEXT, -- The domain of the shop. Shopify does not sign it.
    customer_id TEXT, -- The customer.
    name TEXT, -- `#1001`, as the merchant and the customer see it.
    order_number INTEGER, -- The number in it.
    financial_status TEXT, -- `pending`, `authorized`, `partially_paid`, `paid`, `partially_refunded`, `refunded` or
        -- `voided`.
    fulfillment_status TEXT, -- `partial` or `fulfilled`; `NULL` before that.
    currency TEXT, -- Three letters, upper case.
    subtotal INTEGER, -- The lines after discounts, without shipping.
    discount INTEGER, -- The discounts.
    tax INTEGER, -- The taxes.
    total INTEGER, -- The total at the creation of the order.
    current_total INTEGER, -- The total after refunds and changes.
    outstanding INTEGER, -- What is left to pay.
    source_name TEXT, -- Where it comes from, such as `web` or `pos`.
    tags TEXT, -- The tags, joined with commas.
    test INTEGER, -- 1 for a test order.
    cancel_reason TEXT, -- Why it was cancelled.
    cancelled_at INTEGER, -- When it was cancelled.
    closed_at INTEGER, -- When it was closed.
    processed_at INTEGER, -- When it took place.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
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

-- The lines of orders. A line stays after its removal, with a `current_quantity` of 0.
--
-- Pieces sold, by SKU:
--
--     SELECT sku, sum(current_quantity) AS pieces FROM live_shopify_order_line_items
--     WHERE current_quantity > 0 GROUP BY sku
CREATE TABLE shopify_order_line_items (
    order_id TEXT NOT NULL, -- The order.
    id TEXT NOT NULL, -- The id.
    product_id TEXT, -- The product.
    variant_id TEXT, -- The variant.
    sku TEXT, -- The SKU.
    title TEXT, -- The title of the product.
    variant_title TEXT, -- The title of the variant.
    quantity INTEGER, -- The quantity that was ordered.
    current_quantity INTEGER, -- The quantity after refunds and changes.
    unit_price INTEGER, -- The price of one piece.
    discount INTEGER, -- The discount of the line.
    currency TEXT, -- Three letters, upper case.
    PRIMARY KEY (order_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_order_line_items AS
SELECT order_id, id, product_id, variant_id, sku, title, variant_title, quantity, current_quantity, unit_price,
    discount, currency
FROM shopify_order_line_items WHERE NOT EXISTS (
    SELECT 1 FROM shopify_orders AS parent WHERE parent.id = order_id AND parent._deleted = 1
);

-- The customers. A redacted one is deleted, and only its id stays.
--
-- A customer by email address:
--
--     SELECT id, first_name, last_name FROM live_shopify_customers WHERE email = 'mei.tanaka@example.com'
CREATE TABLE shopify_customers (
    id TEXT NOT NULL PRIMARY KEY, -- The id.
    shop TEXT, -- The domain of the shop. Shopify does not sign it.
    email TEXT, -- The email address.
    phone TEXT, -- The phone number.
    first_name TEXT, -- The first name.
    last_name TEXT, -- The last name.
    state TEXT, -- Whether the customer has an account: `disabled`, `invited`, `enabled` or `declined`.
    verified_email INTEGER, -- 1 if the email address is verified.
    tax_exempt INTEGER, -- 1 if the customer pays no taxes.
    currency TEXT, -- Three letters, upper case.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_customers AS
SELECT id, shop, email, phone, first_name, last_name, state, verified_email, tax_exempt, currency, created_at,
    updated_at
FROM shopify_customers WHERE _deleted = 0;

-- The products.
--
-- The prices of the variants of a product:
--
--     SELECT variant.value ->> 'title' AS title, variant.value ->> 'price' AS price
--     FROM live_shopify_products AS product, json_each(product.variants) AS variant WHERE product.handle = 'notebook'
CREATE TABLE shopify_products (
    id TEXT NOT NULL PRIMARY KEY, -- The id.
    shop TEXT, -- The domain of the shop. Shopify does not sign it.
    title TEXT, -- The title.
    handle TEXT, -- The name in URLs.
    vendor TEXT, -- The vendor.
    product_type TEXT, -- The type.
    status TEXT, -- `active`, `archived` or `draft`.
    tags TEXT, -- The tags, joined with commas.
    variants TEXT, -- JSON: the variants. Their prices are in the currency of the shop.
    published_at INTEGER, -- When it was published in the online store.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_products AS
SELECT id, shop, title, handle, vendor, product_type, status, tags, variants, published_at, created_at, updated_at
FROM shopify_products WHERE _deleted = 0;

-- The refunds. Their amounts are in `shopify_refund_transactions`.
--
-- The refunds of an order:
--
--     SELECT refund.id, payment.amount, payment.currency
--     FROM live_shopify_refunds AS refund JOIN live_shopify_refund_transactions AS payment ON payment.refund_id = refund.id
--     WHERE refund.order_id = '7277000000001'
CREATE TABLE shopify_refunds (
    id TEXT NOT NULL PRIMARY KEY, -- The id.
    shop TEXT, -- The domain of the shop. Shopify does not sign it.
    order_id TEXT, -- The order.
    user_id TEXT, -- The member of the staff who made it; `NULL` for an app.
    note TEXT, -- The reason.
    processed_at INTEGER, -- When it took place.
    created_at INTEGER, -- When it was created.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_refunds AS
SELECT id, shop, order_id, user_id, note, processed_at, created_at
FROM shopify_refunds WHERE _deleted = 0;

CREATE INDEX shopify_refunds_of_order ON shopify_refunds (order_id);

-- The payments of refunds. A refund may have several, in several currencies.
--
-- What was refunded, by gateway:
--
--     SELECT gateway, currency, sum(amount) AS refunded FROM live_shopify_refund_transactions
--     WHERE status = 'success' GROUP BY gateway, currency
CREATE TABLE shopify_refund_transactions (
    refund_id TEXT NOT NULL, -- The refund.
    id TEXT NOT NULL, -- The id.
    order_id TEXT, -- The order.
    kind TEXT, -- `refund` or `void`.
    status TEXT, -- `pending`, `success`, `failure` or `error`.
    gateway TEXT, -- The payment provider.
    amount INTEGER, -- The amount.
    currency TEXT, -- Three letters, upper case.
    processed_at INTEGER, -- When it took place.
    PRIMARY KEY (refund_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW live_shopify_refund_transactions AS
SELECT refund_id, id, order_id, kind, status, gateway, amount, currency, processed_at
FROM shopify_refund_transactions;

-- The requests of privacy laws, which an app of the App Store must answer.
--
-- The requests to answer:
--
--     SELECT topic, shop, customer_id, order_ids FROM live_shopify_compliance_requests ORDER BY topic
CREATE TABLE shopify_compliance_requests (
    id TEXT NOT NULL PRIMARY KEY, -- The id of the event.
    topic TEXT, -- `customers/data_request`, `customers/redact` or `shop/redact`.
    shop TEXT, -- The domain of the shop, which this body contains.
    shop_id TEXT, -- The id of the shop.
    customer_id TEXT, -- The customer.
    customer_email TEXT, -- The email address of the customer.
    customer_phone TEXT, -- The phone number of the customer.
    order_ids TEXT, -- JSON: the orders to hand over or to redact.
    data_request_id TEXT, -- The id of a request for data.
    received_at INTEGER, -- When Hookmill received the request.
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

-- The installations of an app.
--
-- Who has the app:
--
--     SELECT id, account_login, repository_selection FROM live_github_installations WHERE suspended_at IS NULL
CREATE TABLE github_installations (
    id INTEGER NOT NULL PRIMARY KEY, -- The id.
    account_id INTEGER, -- The user or organization.
    account_login TEXT, -- Its name.
    account_type TEXT, -- `User` or `Organization`.
    app_id INTEGER, -- The app.
    app_slug TEXT, -- The name of the app in URLs.
    repository_selection TEXT, -- `all` or `selected`.
    permissions TEXT, -- JSON: the permissions.
    events TEXT, -- JSON: the events that the app gets.
    suspended_at INTEGER, -- When it was suspended.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
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

-- The repositories. A row begins with the first event `repository` about it.
--
-- The private repositories of an owner:
--
--     SELECT full_name, default_branch FROM live_github_repositories
--     WHERE owner_login = 'acme-labs' AND visibility = 'private'
CREATE TABLE github_repositories (
    id INTEGER NOT NULL PRIMARY KEY, -- The id.
    owner_id INTEGER, -- The user or organization.
    owner_login TEXT, -- Its name.
    name TEXT, -- The name.
    full_name TEXT, -- The name with the owner: `acme/shop`.
    description TEXT, -- The description.
    visibility TEXT, -- `public`, `private` or `internal`.
    private INTEGER, -- 1 if it is not public.
    fork INTEGER, -- 1 if it is a fork.
    archived INTEGER, -- 1 if it is archived.
    disabled INTEGER, -- 1 if GitHub disabled it.
    default_branch TEXT, -- The default branch.
    language TEXT, -- The main language.
    html_url TEXT, -- Its page.
    pushed_at INTEGER, -- The last push.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
    _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL,
    _deleted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW live_github_repositories AS
SELECT id, owner_id, owner_login, name, full_name, description, visibility, private, fork, archived, disabled,
    default_branch, language, html_url, pushed_at, created_at, updated_at
FROM github_repositories WHERE _deleted = 0;

-- The pull requests. A pull request ends with its repository.
--
-- Open pull requests that wait for a review, the oldest first:
--
--     SELECT number, title, author_login FROM live_github_pull_requests
--     WHERE state = 'open' AND draft = 0 ORDER BY created_at
CREATE TABLE github_pull_requests (
    id INTEGER NOT NULL PRIMARY KEY, -- The id.
    repository_id INTEGER, -- The repository.
    number INTEGER, -- The number in the repository.
    title TEXT, -- The title.
    state TEXT, -- `open` or `closed`.
    draft INTEGER, -- 1 for a draft.
    merged INTEGER, -- 1 if it was merged.
    author_id INTEGER, -- The author.
    author_login TEXT, -- The name of the author.
    head_ref TEXT, -- The branch with the changes.
    head_sha TEXT, -- The last commit of that branch.
    base_ref TEXT, -- The branch to change.
    merge_commit_sha TEXT, -- The commit of the merge, or of a test merge.
    html_url TEXT, -- Its page.
    closed_at INTEGER, -- When it was closed.
    merged_at INTEGER, -- When it was merged.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
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

-- The runs of workflows. A new attempt changes the run. A run ends with its repository.
--
-- How often each workflow failed:
--
--     SELECT name, count(*) AS failures FROM live_github_workflow_runs WHERE conclusion = 'failure' GROUP BY name
CREATE TABLE github_workflow_runs (
    id INTEGER NOT NULL PRIMARY KEY, -- The id.
    repository_id INTEGER, -- The repository.
    workflow_id INTEGER, -- The workflow.
    name TEXT, -- The name of the workflow.
    title TEXT, -- The title of the commit or the pull request.
    run_number INTEGER, -- The number of the run.
    run_attempt INTEGER, -- The number of the attempt.
    event TEXT, -- The event that started it, such as `push`.
    status TEXT, -- `queued`, `in_progress`, `completed` and others.
    conclusion TEXT, -- `success`, `failure`, `cancelled` and others; `NULL` before the end.
    head_branch TEXT, -- The branch.
    head_sha TEXT, -- The commit.
    actor_id INTEGER, -- Who started it.
    actor_login TEXT, -- The name of that user.
    html_url TEXT, -- Its page.
    run_started_at INTEGER, -- When the attempt started.
    created_at INTEGER, -- When it was created.
    updated_at INTEGER, -- When it last changed.
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
