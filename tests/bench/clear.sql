-- Removes the rows of events: ?1 is a JSON array of the endings of their ids. One statement at a time.
-- The id of a subscription that an event has added has the event's ending.

DELETE FROM subscriptions WHERE id IN (SELECT 'sub_' || value FROM json_each(?1));

DELETE FROM subscription_items WHERE subscription_id IN (SELECT 'sub_' || value FROM json_each(?1));

DELETE FROM row_guards
WHERE table_name = 'subscription_items' AND key IN (SELECT json_array('sub_' || value) FROM json_each(?1));

DELETE FROM events WHERE source = 'stripe' AND id IN (SELECT 'evt_' || value FROM json_each(?1));

DELETE FROM event_messages WHERE source = 'stripe' AND id IN (SELECT 'evt_' || value FROM json_each(?1));
