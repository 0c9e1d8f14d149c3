-- Bodies in the object store and the rows that refer to them. Times are milliseconds since the Unix epoch.

-- The key of the body, if the message holds a claim check: one line of JSON and nothing after it.
ALTER TABLE dead_letters ADD COLUMN body_key TEXT GENERATED ALWAYS AS (
    CASE WHEN instr(substr(message, 1, 2000), '"body":{"object"') > 0 AND json_valid(message)
    THEN message ->> '$.body.object.key' END
) VIRTUAL;
ALTER TABLE event_messages ADD COLUMN body_key TEXT GENERATED ALWAYS AS (
    CASE WHEN instr(substr(message, 1, 2000), '"body":{"object"') > 0 AND json_valid(message)
    THEN message ->> '$.body.object.key' END
) VIRTUAL;

CREATE INDEX dead_letters_body ON dead_letters (body_key) WHERE body_key IS NOT NULL;
CREATE INDEX event_messages_body ON event_messages (body_key) WHERE body_key IS NOT NULL;

-- Bodies that a row referred to and does no longer. The sweep deletes those that no other row refers to.
CREATE TABLE stale_bodies (
    -- In the object store.
    key TEXT NOT NULL PRIMARY KEY,
    -- When the sweep looks at it: a day after the row was removed.
    due_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX stale_bodies_due ON stale_bodies (due_at);

-- From now on, an event that takes effect settles its letter in the same transaction. These took effect before that.
UPDATE dead_letters SET state = 'applied', state_at = (
    SELECT applied_at FROM events WHERE events.source = dead_letters.source AND events.id = event_id
        AND events.generation = dead_letters.generation
)
WHERE state IN ('dead', 'replaying', 'replayed') AND EXISTS (
    SELECT 1 FROM events WHERE events.source = dead_letters.source AND events.id = event_id
        AND events.generation = dead_letters.generation
);
