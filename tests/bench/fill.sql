-- The rows of a pipeline after ?2 events: fills the tables with the rows from ?1 up to, but not including, ?2.
-- One statement at a time, for SQLite and for D1. The ids are spread like those of a provider. The factor is odd, so all ids
-- differ. tests/bench/events.rs and tests/bench/workers.mjs make events about these subscriptions.

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO subscriptions (id, customer_id, status, price_id, quantity, currency, current_period_start,
    current_period_end, cancel_at_period_end, latest_invoice_id, livemode, metadata, created,
    _version, _precedence, _event_id, _deleted)
SELECT printf('sub_%08x', (n * 2654435761) & 4294967295), printf('cus_%08x', (n * 2654435761) & 4294967295),
    'active', 'price_HMteam', 5, 'eur', 1700000000000, 1702592000000, 0, printf('in_%08x', (n * 2654435761) & 4294967295),
    0, '{"tenant":"tnt_0001"}', 1700000000000, 1700000000, 0, printf('evt_%08x', (n * 2654435761) & 4294967295), 0
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO subscription_items (subscription_id, id, price_id, product_id, quantity, unit_amount, currency, interval,
    interval_count, current_period_start, current_period_end, metadata, created)
SELECT printf('sub_%08x', (n * 2654435761) & 4294967295), printf('si_%08x', (n * 2654435761) & 4294967295),
    'price_HMteam', 'prod_HMteam', 5, 4900, 'eur', 'month', 1, 1700000000000, 1702592000000, '{}', 1700000000000
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO row_guards (table_name, key, version, precedence, event_id)
SELECT 'subscription_items', json_array(printf('sub_%08x', (n * 2654435761) & 4294967295)), 1700000000, 0,
    printf('evt_%08x', (n * 2654435761) & 4294967295)
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO events (source, id, type, outcome, received_at, applied_at, attempts, secret)
SELECT 'stripe', printf('evt_%08x', (n * 2654435761) & 4294967295), 'customer.subscription.created', 'applied',
    unixepoch() * 1000 - n * 10, unixepoch() * 1000 - n * 10, 1, 0
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO event_kinds (source, type, outcome, applied_at, events, ids)
SELECT 'stripe', 'customer.subscription.created', 'applied', unixepoch() * 1000 - n * 10, 1,
    json_array(json_array(printf('evt_%08x', (n * 2654435761) & 4294967295), 0))
FROM numbers WHERE true ON CONFLICT DO NOTHING;

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO outbox (id, source, event_id, generation, rule, channel, recipient, content, state, due_at, created_at,
    provider_id, settled_at)
SELECT printf('%064x', (n * 2654435761) & 4294967295), 'stripe', printf('evt_%08x', (n * 2654435761) & 4294967295), 0,
    'welcome', 'email', printf('%08x@example.com', (n * 2654435761) & 4294967295), '{"template":"welcome"}', 'sent',
    unixepoch() * 1000 - n * 10, unixepoch() * 1000 - n * 10, printf('re_%08x', (n * 2654435761) & 4294967295),
    unixepoch() * 1000 - n * 10
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
INSERT INTO dead_letters (id, source, event_id, generation, type, received_at, reason, error, fingerprint, attempts,
    first_failed_at, last_failed_at, message)
SELECT printf('%064x', (n * 2654435761) & 4294967295), 'stripe', printf('evt_dead_%08x', (n * 2654435761) & 4294967295), 0,
    'customer.subscription.updated', unixepoch() * 1000 - n * 10, 'refused', 'the database refused the event', 'refused', 1,
    unixepoch() * 1000 - n * 10, unixepoch() * 1000 - n * 10, '{}'
FROM numbers;
