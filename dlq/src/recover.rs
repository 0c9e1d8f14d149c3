//! Recovery after a database was restored to an earlier time and its queue was not: messages that are lost are sent again.
//!
//! Events go from the queue into the data; replays, reprocessings and imports go the other way. So a backup may show a letter as
//! sent whose message is not in its copy of the queue, and after D1 went back to an earlier minute, the queue has moved on.
//! Only the ledger proves that an event has taken effect. Everything else counts as not sent. If its message is on the
//! queue after all, it is sent twice, and the ledger rejects one of them.

use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;

use crate::reprocess;

/// A condition on `dead_letters`.
const LOST: &str = "dead_letters.state = 'replayed' AND NOT EXISTS (
        SELECT 1 FROM events WHERE events.source = dead_letters.source AND events.id = dead_letters.event_id
            AND events.generation = dead_letters.generation
    )";

/// Resumes replays with unproven letters, so that they claim these again. [`LETTERS`] forgets that they had been sent.
const REPLAYS: &str = "\
-- resume replays
UPDATE replays SET sent = max(0, sent - lost.letters), due_at = iif(state = 'done', {now}, due_at),
    ended_at = iif(state = 'done', NULL, ended_at), state = iif(state = 'done', 'running', state)
FROM (SELECT replay, count(*) AS letters FROM dead_letters WHERE {lost} GROUP BY replay) AS lost
WHERE replays.id = lost.replay AND replays.kind = 'replay'
RETURNING id";

const LETTERS: &str = "\
-- unproven letters are dead again
UPDATE dead_letters SET state = 'dead', replay = NULL, replays = max(0, replays - 1), state_at = {now} WHERE {lost}
RETURNING id";

/// Moves reprocessings back to the first event that has neither taken effect in their generation nor failed.
const REPROCESSINGS: &str = "\
-- move reprocessings back
WITH sent AS MATERIALIZED (
    SELECT replays.id AS replay, kept.applied_at AS at, NOT EXISTS (
        SELECT 1 FROM events AS again WHERE again.source = kept.source AND again.id = kept.id AND again.generation = replays.generation
    ) AND NOT EXISTS (
        SELECT 1 FROM dead_letters AS letter WHERE letter.source = kept.source AND letter.event_id = kept.id
            AND letter.generation = replays.generation
    ) AS lost
    FROM replays
    JOIN event_messages AS kept
        ON (kept.applied_at, kept.source, kept.id) <= (reached ->> 0, reached ->> 1, reached ->> 2)
    JOIN events ON events.source = kept.source AND events.id = kept.id AND {where}
    WHERE replays.kind = 'reprocess' AND replays.state IN ('running', 'paused', 'done')
)
UPDATE replays SET reached = json_array(first.at, '', ''),
    sent = max(0, sent - (SELECT count(*) FROM sent WHERE sent.replay = replays.id AND sent.at >= first.at)),
    due_at = iif(state = 'done', {now}, due_at), ended_at = iif(state = 'done', NULL, ended_at),
    state = iif(state = 'done', 'running', state)
FROM (SELECT replay, min(at) AS at FROM sent WHERE lost GROUP BY replay) AS first
WHERE replays.id = first.replay
RETURNING id";

/// Starts imports and reconciliations with unproven objects again. The ledger rejects the objects that took effect.
const IMPORTS: &str = "\
-- start imports and reconciliations again
UPDATE replays SET reached = NULL, sent = 0, due_at = iif(state = 'done', {now}, due_at),
    ended_at = iif(state = 'done', NULL, ended_at), state = iif(state = 'done', 'running', state)
WHERE kind IN ('import', 'reconcile') AND state IN ('running', 'paused', 'done') AND applied + failed < sent
RETURNING id";

/// The statements that make a restored database consistent, before anything runs on it. They run in one transaction and
/// have no parameters. The second returns a row for each letter that is dead again, the third for each reprocessing that
/// moved back, and the last for each import or reconciliation that starts
/// again.
pub fn recover(now: Timestamp) -> Vec<Statement> {
    let field = |name| format!("(replays.filter ->> '{name}')");
    let kind = field("type");
    // Like `replay::glob`.
    let kind = format!(
        "iif(instr({kind}, '*'), replace(replace({kind}, '[', '[[]'), '?', '[?]'), {kind})"
    );
    let filter = reprocess::WHERE
        .replace("?1", &field("source"))
        .replace("?2", &kind)
        .replace("?3", &field("event_id"))
        .replace("?4", &field("applied_from"))
        .replace("?5", &field("applied_before"));
    let now = now.millis().to_string();
    [REPLAYS, LETTERS, REPROCESSINGS, IMPORTS]
        .map(|sql| sql.replace("{lost}", LOST).replace("{where}", &filter).replace("{now}", &now))
        .map(|sql| Statement::new(sql, Vec::new()))
        .into()
}
