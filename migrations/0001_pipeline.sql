-- The pipeline's own tables. Times are milliseconds since the Unix epoch.
--
-- A table keyed by text is WITHOUT ROWID: an ordinary one would write a second row, into the index of its key,
-- with every insert, and D1 bills rows.
--
-- The indexes are those of the statements that run with every event, every minute, at every wake-up and for the dashboard: none
-- of these reads a whole table.

-- Events

-- The ledger: an event that is in here has taken effect.
-- It is written first in the transaction that applies the event, which fails if the event is in here already.
CREATE TABLE events (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    -- 0 for an event as it came; each reprocessing is one more.
    generation INTEGER NOT NULL DEFAULT 0,
    type TEXT NOT NULL,
    -- 'applied' by some rule, or 'recorded' because none names it.
    outcome TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    -- Which of the source's secrets had signed it, from 0 in the order of hookmill.toml; -1 for what comes from the provider's API,
    -- which nothing signs.
    secret INTEGER NOT NULL,
    -- JSON: the rows that its rules name, [table, {column: value}] each, by their keys. A later event may have written them since.
    rows TEXT,
    PRIMARY KEY (source, id, generation)
) STRICT, WITHOUT ROWID;

-- The ledger by kind and time, for searches and retention: one row for each kind in a transaction. An index would cost a row
-- with every event; in full batches, these are a few for a hundred.
CREATE TABLE event_kinds (
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    outcome TEXT NOT NULL,
    applied_at INTEGER NOT NULL,
    -- How many took effect.
    events INTEGER NOT NULL,
    -- JSON: [id, generation] of each.
    ids TEXT NOT NULL,
    PRIMARY KEY (source, type, outcome, applied_at)
) STRICT, WITHOUT ROWID;

-- The messages of events that took effect, for as long as hookmill.toml says. In the order in which they did, which is the
-- order in which they are carried out again, and removed.
CREATE TABLE event_messages (
    applied_at INTEGER NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    message TEXT NOT NULL,
    -- As in dead_letters.
    body_key TEXT GENERATED ALWAYS AS (
        CASE WHEN instr(substr(message, 1, 2000), '"body":{"object"') > 0 AND json_valid(message)
        THEN message ->> '$.body.object.key' END
    ) VIRTUAL,
    PRIMARY KEY (applied_at, source, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX event_messages_body ON event_messages (body_key) WHERE body_key IS NOT NULL;

-- How many events took effect, minute by minute: written in their transaction, so that they are counted once.
CREATE TABLE activity (
    -- Minutes since the Unix epoch.
    minute INTEGER NOT NULL,
    source TEXT NOT NULL,
    outcome TEXT NOT NULL,
    events INTEGER NOT NULL,
    -- The longest that one took from ingress to here, in milliseconds; of those that were never dead letters.
    lag INTEGER NOT NULL,
    PRIMARY KEY (minute, source, outcome)
) STRICT, WITHOUT ROWID;

-- What orders rows that are not there: rows that were removed, and lists, which may be empty. An older event that comes later
-- finds here that it is older.
CREATE TABLE row_guards (
    table_name TEXT NOT NULL,
    -- JSON: the texts of the key of the removed row, or of the columns that say whose list it is.
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    precedence INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (table_name, key)
) STRICT, WITHOUT ROWID;

-- Objects that are to be asked for, since two events about them have the same version and nothing else decides, or since an event
-- has only a part of a list. One row for each object and rule, however many events.
CREATE TABLE refetches (
    rule TEXT NOT NULL,
    -- Of the object, in the API of its source's provider.
    path TEXT NOT NULL,
    source TEXT NOT NULL,
    -- The newest event that asks for it, its version, and JSON: what is in its body besides the object.
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    version INTEGER NOT NULL,
    rest TEXT NOT NULL,
    -- When it is asked for next.
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (rule, path)
) STRICT, WITHOUT ROWID;

-- Objects to ask for, the one that has waited longest first.
CREATE INDEX refetches_due ON refetches (source, due_at);

-- Events whose processing failed. While an event waits for its next attempt, due_at is the time of that; afterwards the row
-- stays for the event's history.
CREATE TABLE retries (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    type TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    -- The number of failed attempts.
    attempts INTEGER NOT NULL,
    -- JSON: the first failed attempt and the last ones, { "at": …, "error": … } each.
    failures TEXT NOT NULL,
    -- The time of the next attempt; NULL if the event no longer waits.
    due_at INTEGER,
    -- How often processing has begun without a verdict. More than 0 between attempts: the consumer ended in between. The event is
    -- processed alone then, and given up after some times.
    begun INTEGER NOT NULL,
    -- The time of the last failure, or when processing last began.
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (source, id, generation)
) STRICT, WITHOUT ROWID;

-- By age, for retention.
CREATE INDEX retries_updated ON retries (updated_at);
-- The waiting events, the latest failure first.
CREATE INDEX retries_waiting ON retries (updated_at) WHERE due_at IS NOT NULL;

-- Bodies that a row referred to and does no longer. The sweep deletes those that no other row refers to.
CREATE TABLE stale_bodies (
    -- In the object store.
    key TEXT NOT NULL PRIMARY KEY,
    -- When the sweep looks at it: a day after the row was removed.
    due_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX stale_bodies_due ON stale_bodies (due_at);

-- Rejections: how many requests were refused, and the last few of each kind. Both tables are bounded, however much is refused.
-- `source` is '' where the request named no source that there is.

CREATE TABLE rejection_counts (
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- When the hour began.
    hour INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (source, reason, hour)
) STRICT, WITHOUT ROWID;

-- By age.
CREATE INDEX rejection_counts_hour ON rejection_counts (hour);

CREATE TABLE rejections (
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    -- Hash of the address; '' where that is not known.
    remote TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- What the request said of its body, and what was read of it, in bytes.
    content_length INTEGER,
    body_bytes INTEGER,
    PRIMARY KEY (source, reason, at, remote)
) STRICT, WITHOUT ROWID;

-- What the events of each day had and lacked. Processes count in memory and write once a minute, so a process that is killed
-- loses a minute. `day`: days since the Unix epoch.

-- The rows that a rule has written.
CREATE TABLE rule_counts (
    day INTEGER NOT NULL,
    rule TEXT NOT NULL,
    -- Without deletions.
    rows INTEGER NOT NULL,
    -- JSON: by column, the rows of those for which all of its paths led nowhere. One row for each column would cost D1 many.
    absent TEXT NOT NULL,
    PRIMARY KEY (day, rule)
) STRICT, WITHOUT ROWID;

-- The events with each version of a provider's API.
CREATE TABLE api_version_counts (
    day INTEGER NOT NULL,
    source TEXT NOT NULL,
    version TEXT NOT NULL,
    -- Whether hookmill.toml expected it when it was last counted: 1 or 0.
    expected INTEGER NOT NULL,
    events INTEGER NOT NULL,
    -- When the first and the last of them were received.
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (day, source, version)
) STRICT, WITHOUT ROWID;

-- Outbox

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
        CHECK (state IN ('pending', 'sealed', 'sent', 'refused', 'suppressed', 'uncertain')),
    -- When it may be sent.
    due_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Batches that it was in and that were dissolved.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- The most that may be in its batch, itself included, after a provider has refused a batch as a whole; NULL for no limit.
    together INTEGER,
    -- Recipients that it was not sent to, since they are suppressed, and why.
    skipped_recipients TEXT,
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
-- By kind, the latest first, for searches. Of the states, only those of what was not sent are few.
CREATE INDEX outbox_kind ON outbox (channel, rule, created_at, id);
-- What was not sent, for searches and counts.
CREATE INDEX outbox_unsent ON outbox (state, channel, rule, created_at, id) WHERE state IN ('refused', 'suppressed', 'uncertain');
-- What was settled, by age, for retention.
CREATE INDEX outbox_settled ON outbox (settled_at) WHERE settled_at IS NOT NULL;
-- What waits for a time that only a clock that was ahead can have set, without what is meant to wait.
CREATE INDEX outbox_written ON outbox (created_at) WHERE state = 'pending';
CREATE INDEX outbox_again ON outbox (due_at) WHERE state = 'pending' AND attempts > 0;

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
        CHECK (state IN ('sealed', 'sending', 'sent', 'refused', 'uncertain', 'dissolved')),
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
CREATE INDEX outbox_batches_settled ON outbox_batches (settled_at) WHERE settled_at IS NOT NULL;

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

-- Addresses that get no messages. `row_guards` has what was lifted.
CREATE TABLE suppressions (
    -- An email address in lower case, or a phone number.
    address TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- The newest event with this reason.
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- Its time, in microseconds.
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (address, reason)
) STRICT, WITHOUT ROWID;

-- The latest first, for a list.
CREATE INDEX suppressions_created ON suppressions (created_at);

-- Addresses that get no emails of a group.
CREATE TABLE group_suppressions (
    address TEXT NOT NULL,
    group_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (address, group_id, reason)
) STRICT, WITHOUT ROWID;

CREATE INDEX group_suppressions_created ON group_suppressions (created_at);

-- Dead letters and replays

-- What was given up, with all that is needed to understand it and to send it through again.
-- The message comes last, so that a list of letters does not have to read past it.
CREATE TABLE dead_letters (
    -- Hex SHA-256 of (source, event id, generation), or of the message where that cannot be read: burying twice is once.
    id TEXT NOT NULL PRIMARY KEY,
    -- NULL where the message cannot be read.
    source TEXT,
    event_id TEXT,
    generation INTEGER,
    type TEXT,
    received_at INTEGER,
    reason TEXT NOT NULL CHECK (reason IN ('unreadable', 'refused', 'exhausted', 'permanent', 'dropped')),
    error TEXT NOT NULL,
    -- The same for the same kind of error, to group by.
    fingerprint TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_failed_at INTEGER NOT NULL,
    last_failed_at INTEGER NOT NULL,
    -- 'replaying': a replay has it and sends it now; 'replayed': it is back on the queue; 'applied': its event has taken
    -- effect. What fails again after a replay is 'dead' again.
    state TEXT NOT NULL DEFAULT 'dead' CHECK (state IN ('dead', 'replaying', 'replayed', 'applied', 'discarded')),
    -- The replay that has it, or had it last.
    replay TEXT,
    -- The replay by which its event has taken effect.
    applied_by TEXT,
    -- How often it was replayed.
    replays INTEGER NOT NULL DEFAULT 0,
    -- When it came into its state.
    state_at INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL,
    -- The key of the body, if the message holds a claim check: one line of JSON and nothing after it.
    body_key TEXT GENERATED ALWAYS AS (
        CASE WHEN instr(substr(message, 1, 2000), '"body":{"object"') > 0 AND json_valid(message)
        THEN message ->> '$.body.object.key' END
    ) VIRTUAL
) STRICT;

-- By state, the latest first, with their reasons for counts.
CREATE INDEX dead_letters_state ON dead_letters (state, last_failed_at, reason);
-- All of them, the latest first, for a list.
CREATE INDEX dead_letters_failed ON dead_letters (last_failed_at, id);
CREATE INDEX dead_letters_event ON dead_letters (event_id, source);
-- By kind, the latest first, for searches and groups.
CREATE INDEX dead_letters_kind ON dead_letters (state, ifnull(source, ''), ifnull(type, ''), reason, fingerprint, last_failed_at, id, first_failed_at);
-- The oldest that waits, for alerts.
CREATE INDEX dead_letters_oldest ON dead_letters (first_failed_at) WHERE state = 'dead';
-- Those that were applied or discarded, by age, for retention.
CREATE INDEX dead_letters_settled ON dead_letters (state_at) WHERE state IN ('applied', 'discarded');
-- The letters that a replay has claimed, and those by which events have taken effect.
CREATE INDEX dead_letters_replay ON dead_letters (replay, state) WHERE replay IS NOT NULL;
CREATE INDEX dead_letters_applied ON dead_letters (applied_by) WHERE applied_by IS NOT NULL;
CREATE INDEX dead_letters_body ON dead_letters (body_key) WHERE body_key IS NOT NULL;

-- The search for bodies in the object store that belong to no message: the queue refused it, and the provider did not send
-- it again.
CREATE TABLE body_search (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- The last key that it has looked at; empty before the first.
    reached TEXT NOT NULL,
    due_at INTEGER NOT NULL
) STRICT;

-- Jobs that put messages on the queue: many letters, or many events, sent through the whole path again, or the objects of a
-- provider's API. A reconciliation compares these objects with the tables, and sends those that differ.
CREATE TABLE replays (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL DEFAULT 'replay' CHECK (kind IN ('replay', 'reprocess', 'import', 'reconcile')),
    -- JSON: which letters, none that failed after the plan was made; which events; or which source and lists.
    filter TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'running', 'paused', 'cancelled', 'done')),
    -- Letters in a second.
    rate INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    -- How many there were when it was planned; NULL if the provider does not tell.
    total INTEGER,
    -- How many have been sent.
    sent INTEGER NOT NULL DEFAULT 0,
    planned_by TEXT NOT NULL,
    planned_at INTEGER NOT NULL,
    -- Who let it run.
    run_by TEXT,
    started_at INTEGER,
    ended_at INTEGER,
    -- When the next letters may be sent; while somebody is at it, when they are taken to be gone.
    due_at INTEGER NOT NULL DEFAULT 0,
    -- What kept it from going on the last time.
    error TEXT,
    -- 0 for a replay of dead letters. A reprocessing or an import has a number of its own, which no other ever has: the ledger
    -- takes each event, or each object, once under it.
    generation INTEGER NOT NULL DEFAULT 0,
    -- JSON: what it has come to. Of a reprocessing, a key in event_messages; of an import or reconciliation, a page of a list.
    reached TEXT,
    -- JSON: what a reconciliation has found.
    report TEXT,
    -- How many of the sent messages' events have taken effect, and how many have failed. For a replay, those that have taken
    -- effect are counted here when their letters are removed; before that, the letters say so.
    applied INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX replays_running ON replays (due_at) WHERE state = 'running';
-- Those under way, all of them by age, and those that were cancelled.
CREATE INDEX replays_open ON replays (state) WHERE state IN ('running', 'paused');
CREATE INDEX replays_reconciled ON replays (ended_at) WHERE state = 'done' AND kind = 'reconcile';
CREATE INDEX replays_planned ON replays (planned_at);
CREATE INDEX replays_cancelled ON replays (due_at) WHERE state = 'cancelled';
CREATE INDEX replays_generation ON replays (generation) WHERE generation > 0;

-- Differences that a reconciliation found between a table and the provider's API.
CREATE TABLE drifts (
    -- The generation of the reconciliation.
    generation INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    -- JSON: the key of the row, an array of texts.
    key TEXT NOT NULL,
    -- In this order: the table has no row, the provider has no object, some columns differ, a final deletion deleted the row but
    -- the provider has the object, a newer event changed the row, the rules cannot read the object.
    kind TEXT NOT NULL CHECK (kind IN ('missing', 'extra', 'different', 'deleted', 'newer', 'unreadable')),
    -- The id of the object, its list, and its page; NULL to request the object by id.
    object TEXT NOT NULL,
    list TEXT NOT NULL,
    page TEXT,
    -- JSON: the names of the columns that differ.
    columns TEXT NOT NULL,
    -- A second request confirms a difference. If no request can confirm it, it is unclear.
    state TEXT NOT NULL CHECK (state IN ('found', 'confirmed', 'repaired', 'unclear')),
    PRIMARY KEY (generation, table_name, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX drifts_found ON drifts (generation, page, object) WHERE state = 'found';

-- The rows whose objects the provider lists, while a reconciliation runs.
CREATE TABLE listed_rows (
    generation INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (generation, table_name, key)
) STRICT, WITHOUT ROWID;

-- What is known of the logs of events of providers: events that were never delivered are found there.
CREATE TABLE sweeps (
    source TEXT NOT NULL PRIMARY KEY,
    -- Of the events before this time, every one is applied, waits, or was found.
    swept_to INTEGER NOT NULL,
    -- Of the sweep under way: it looks for events before this time, and this page is next; NULL between two sweeps.
    until INTEGER,
    page TEXT,
    -- When the next request is due; while one is under way, when its process is taken to be gone.
    due_at INTEGER NOT NULL,
    -- Requests in a row that failed, and why the last one did.
    failures INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    -- How many events were found, ever and in the last complete sweep, and when that ended.
    found INTEGER NOT NULL DEFAULT 0,
    found_last INTEGER NOT NULL DEFAULT 0,
    swept_at INTEGER
) STRICT, WITHOUT ROWID;

-- Operations

-- Who may use the admin API. Of a token there is only its hash.
CREATE TABLE admin_tokens (
    name TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 in hex. A token is 256 random bits, so nobody guesses it from that.
    hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('read', 'operate')),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Addresses that came without a token that counts, so that nobody tries for long.
CREATE TABLE admin_failures (
    address TEXT NOT NULL PRIMARY KEY,
    failures INTEGER NOT NULL,
    -- When the first was.
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The oldest, which a failed attempt removes.
CREATE INDEX admin_failures_since ON admin_failures (since);

-- Every change that somebody made through the admin API, in order.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    -- The name of the token.
    actor TEXT NOT NULL,
    -- Such as 'replay.run'.
    action TEXT NOT NULL,
    -- What it was done to: the id of a letter or a replay, an address.
    target TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- JSON: what else there is to say.
    detail TEXT NOT NULL
) STRICT;

-- The changes to an object, for its history.
CREATE INDEX audit_target ON audit (target);

-- Alerts that were sent.
CREATE TABLE alerts (
    -- 'oldest_dead_letter', 'dead_letters', 'lag', 'database', 'sweep' or 'drift'.
    name TEXT NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL,
    told_at INTEGER NOT NULL,
    -- 1 if it is over, and the webhook has still to be told.
    ended INTEGER NOT NULL,
    -- JSON: the id and the body of the webhook that has not arrived yet.
    pending TEXT
) STRICT, WITHOUT ROWID;
