//! After a database has gone back in time, which the queue has not: what was sent and is now nowhere is sent again.
//!
//! Events go from the queue into the data, and replays and reprocessings go the other way. So a backup may hold a letter as
//! sent whose message is not in its copy of the queue; and when D1 goes back to an earlier minute, the queue has moved on. Only
//! the ledger proves that something has taken effect. Whatever it does not prove counts as not sent. If that is wrong, and the
//! message is still on the queue, it is sent twice, and the ledger lets one of them take effect.

use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;

use crate::reprocess;

/// About `dead_letters`.
const LOST: &str = "dead_letters.state = 'replayed' AND NOT EXISTS (
        SELECT 1 FROM events WHERE events.source = dead_letters.source AND events.id = dead_letters.event_id
            AND events.generation = dead_letters.generation
    )";

/// Replays with letters that are not proven go on, and claim these again.
const REPLAYS: &str = "\
-- replays go on
UPDATE replays SET sent = max(0, sent - lost.letters), due_at = iif(state = 'done', {now}, due_at),
    ended_at = iif(state = 'done', NULL, ended_at), state = iif(state = 'done', 'running', state)
FROM (SELECT replay, count(*) AS letters FROM dead_letters WHERE {lost} GROUP BY replay) AS lost
WHERE replays.id = lost.replay AND replays.generation = 0
RETURNING id";

const LETTERS: &str = "\
-- letters are dead again
UPDATE dead_letters SET state = 'dead', replays = max(0, replays - 1), state_at = {now} WHERE {lost}
RETURNING id";

/// Reprocessings go back to the first event that has neither taken effect under their generation nor failed.
const REPROCESSINGS: &str = "\
-- reprocessings go on
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
    WHERE replays.generation > 0 AND replays.state IN ('running', 'paused', 'done')
)
UPDATE replays SET reached = json_array(first.at, '', ''),
    sent = max(0, sent - (SELECT count(*) FROM sent WHERE sent.replay = replays.id AND sent.at >= first.at)),
    due_at = iif(state = 'done', {now}, due_at), ended_at = iif(state = 'done', NULL, ended_at),
    state = iif(state = 'done', 'running', state)
FROM (SELECT replay, min(at) AS at FROM sent WHERE lost GROUP BY replay) AS first
WHERE replays.id = first.replay
RETURNING id";

/// The statements that make a database whole which has gone back in time: after a restore, and before anything runs on it. In one
/// transaction; they have no parameters. The second answers with a row for each letter that is dead again, and the last with
/// one for each reprocessing that has gone back.
pub fn recover(now: Timestamp) -> Vec<Statement> {
    let said = |name| format!("(replays.filter ->> '{name}')");
    let kind = said("type");
    // As `replay::glob` has it.
    let kind = format!(
        "iif(instr({kind}, '*'), replace(replace({kind}, '[', '[[]'), '?', '[?]'), {kind})"
    );
    let filter = reprocess::WHERE
        .replace("?1", &said("source"))
        .replace("?2", &kind)
        .replace("?3", &said("event_id"))
        .replace("?4", &said("applied_from"))
        .replace("?5", &said("applied_before"));
    let now = now.millis().to_string();
    [REPLAYS, LETTERS, REPROCESSINGS]
        .map(|sql| sql.replace("{lost}", LOST).replace("{where}", &filter).replace("{now}", &now))
        .map(|sql| Statement::new(sql, Vec::new()))
        .into()
}
