//! Writes dead letters, before their messages are acknowledged.

use std::collections::BTreeSet;

use hookmill_core::delivery::Delivery;
use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::message::Envelope;
use hookmill_core::params;
use hookmill_core::store::{Param, Statement};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;

use crate::bodies;

/// A delivery that Hookmill gives up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter<'a> {
    /// The delivery, with the whole message.
    pub delivery: &'a Delivery,
    /// Its envelope, if it could be read.
    pub envelope: Option<&'a Envelope>,
    /// The reason.
    pub reason: LetterReason,
    /// The error; never contains a part of a body.
    pub error: String,
}

/// The maximum size of a stored error in bytes.
const ERROR_BYTES: usize = 1000;

/// An event has at most one letter. A message that the platform drops after Hookmill buried it changes nothing. An event
/// that fails again after a replay is dead again, even if the replay has not yet recorded that it was sent.
///
/// An event in the ledger gets no letter, even if later deliveries fail: the replay of such a letter would count twice
/// after the ledger has forgotten the event.
const BURY: &str = "\
-- bury
WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
INSERT INTO dead_letters (id, source, event_id, generation, type, received_at, reason, error, fingerprint, attempts,
    first_failed_at, last_failed_at, state_at, message)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9, value ->> 10, value ->> 10, value ->> 10, value ->> 11
FROM rows
WHERE NOT EXISTS (
    SELECT 1 FROM events AS seen WHERE seen.source = value ->> 1 AND seen.id = value ->> 2 AND seen.generation = value ->> 3
)
ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, error = excluded.error, fingerprint = excluded.fingerprint,
    attempts = excluded.attempts, last_failed_at = excluded.last_failed_at, message = excluded.message,
    state = 'dead', state_at = excluded.state_at, replays = replays + (state = 'replaying')
WHERE excluded.reason <> 'dropped' OR state <> 'dead'";

/// The outcome of replays: a letter that a replay has sent fails again. Once for each letter, since it is dead afterwards. The
/// parameter has the letters and their events.
const FAILED_AGAIN: &str = "\
-- replayed letters that fail again
UPDATE replays SET failed = failed + counted.n FROM (
    SELECT replay, count(*) AS n FROM jsonb_each(?1) CROSS JOIN dead_letters ON dead_letters.id = value ->> 0
    WHERE state IN ('replaying', 'replayed') AND NOT EXISTS (
        SELECT 1 FROM events AS seen WHERE seen.source = value ->> 1 AND seen.id = value ->> 2 AND seen.generation = value ->> 3
    )
    GROUP BY 1
) AS counted WHERE replays.id = counted.replay";

/// The same for reprocessings: an event fails in their generation for the first time.
const FAILED_IN_GENERATION: &str = "\
-- reprocessed events that fail
UPDATE replays SET failed = failed + counted.n FROM (
    SELECT value ->> 3 AS generation, count(*) AS n FROM jsonb_each(?1)
    WHERE NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.id = value ->> 0) AND NOT EXISTS (
        SELECT 1 FROM events AS seen WHERE seen.source = value ->> 1 AND seen.id = value ->> 2 AND seen.generation = value ->> 3
    )
    GROUP BY 1
) AS counted WHERE replays.generation = counted.generation";

/// An existing letter gets the message that failed last, whose body may be another one. `?1` JSON: the ids of the letters.
const REPLACED: &str = "SELECT body_key FROM jsonb_each(?1) AS buried JOIN dead_letters ON dead_letters.id = buried.value";

/// The statements that write dead letters. Execute them before the deliveries are acknowledged. Writing the same letter
/// again is harmless. An event in the ledger gets no letter.
pub fn bury(letters: &[Letter<'_>], now: Timestamp) -> Vec<Statement> {
    let ids: Vec<_> = letters.iter().map(id).collect();
    let rows: Vec<_> = letters.iter().zip(&ids).map(|(letter, id)| row(letter, id, now)).collect();
    let buried = Statement::for_rows(&BURY.into(), rows.iter().map(String::as_str));
    let stale = (!ids.is_empty()).then(|| bodies::stale(REPLACED, params![Param::json(&ids)], now));
    let readable = letters.iter().zip(&ids).filter_map(|(letter, id)| Some((letter.envelope?, id)));
    let events: BTreeSet<_> = readable
        .map(|(e, id)| (id.as_str(), e.source.as_str(), e.id.as_str(), e.generation))
        .collect();
    let failed = Statement::for_each(FAILED_AGAIN, &events);
    let reprocessed = events.iter().filter(|(.., generation)| *generation > 0);
    let reprocessed = Statement::for_each(FAILED_IN_GENERATION, reprocessed);
    failed.into_iter().chain(reprocessed).chain(stale).chain(buried).collect()
}

/// The letter's id: a hash of its event, or of its message if that is unreadable.
fn id(letter: &Letter<'_>) -> String {
    let identity = match letter.envelope {
        Some(envelope) => to_json(&(&envelope.source, &envelope.id, envelope.generation)),
        None => letter.delivery.text.clone(),
    };
    sha256_hex(&[identity.as_bytes()])
}

fn row(letter: &Letter<'_>, id: &str, now: Timestamp) -> String {
    let Letter { delivery, envelope, reason, error } = letter;
    let error = shortened(error);
    to_json(&(
        id,
        envelope.map(|e| &e.source),
        envelope.map(|e| &e.id),
        envelope.map(|e| e.generation),
        envelope.map(|e| &e.kind),
        envelope.map(|e| e.received_at),
        reason.as_str(),
        error,
        fingerprint(*reason, error),
        delivery.attempts,
        now,
        &delivery.text,
    ))
}

fn shortened(error: &str) -> &str {
    let end = error
        .char_indices()
        .map(|(i, c)| i + c.len_utf8())
        .take_while(|end| *end <= ERROR_BYTES)
        .last();
    &error[..end.unwrap_or(0)]
}

/// A hash that is equal for errors of the same kind: it ignores numbers and quoted text. 16 hex digits.
fn fingerprint(reason: LetterReason, error: &str) -> String {
    let mut kind = String::from(reason.as_str());
    let mut quoted = false;
    for c in error.chars() {
        match c {
            '`' | '"' => quoted = !quoted,
            _ if quoted || c.is_ascii_digit() => {}
            _ => kind.push(c),
        }
    }
    sha256_hex(&[kind.as_bytes()])[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hookmill_core::message::{BodyForm, VERSION, Verified};

    use super::*;

    fn delivery() -> Delivery {
        Delivery { attempts: 3, text: "{\"v\":1}\nbody".into() }
    }

    #[test]
    fn a_letter_holds_the_whole_message() {
        let delivery = delivery();
        let envelope = Envelope {
            v: VERSION,
            source: "stripe".into(),
            id: "evt_1".into(),
            kind: "invoice.paid".into(),
            received_at: Timestamp::from_millis(1),
            verified: Verified { secret: 0, signed_at: None },
            generation: 0,
            rules: Vec::new(),
            headers: BTreeMap::new(),
            api_version: None,
            from_api: None,
            body: BodyForm::Text,
        };
        let letter = |envelope| Letter {
            delivery: &delivery,
            envelope,
            reason: LetterReason::Refused,
            error: "NOT NULL constraint failed".into(),
        };
        let statements = bury(&[letter(Some(&envelope)), letter(None)], Timestamp::from_millis(2));
        let [_, stale, buried] = statements.as_slice() else { panic!("{statements:?}") };
        assert_eq!(stale.params.len(), 2);
        let [Param::Text(rows)] = buried.params.as_slice() else { panic!("{buried:?}") };
        insta::assert_snapshot!(rows, @r#"[["5b5e6e68dc02a30471b5692198f95de731064c6168591a5c5218235c58be2c2d","stripe","evt_1",0,"invoice.paid",1,"refused","NOT NULL constraint failed","8da65637b719f80a",3,2,"{\"v\":1}\nbody"],["9d51ddc07ee02d0735290ea0ca44e7f82c595640f8aae7c4582483a1f9554724",null,null,null,null,null,"refused","NOT NULL constraint failed","8da65637b719f80a",3,2,"{\"v\":1}\nbody"]]"#);
    }

    #[test]
    fn errors_of_the_same_kind_have_the_same_fingerprint() {
        let of = |error| fingerprint(LetterReason::Unreadable, error);
        assert_eq!(of("nothing at `a.b` (line 3)"), of("nothing at `c` (line 12)"));
        assert_ne!(of("nothing at `a`"), of("no text at `a`"));
        assert_ne!(of("x"), fingerprint(LetterReason::Refused, "x"));
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(600)).len(), 1000);
    }
}
