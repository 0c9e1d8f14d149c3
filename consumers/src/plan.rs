//! From events to rows, and from rows to statements. Reads each body once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use hookmill_core::config::Consumers;
use hookmill_core::delivery::Delivery;
use hookmill_core::email::{address_key, number};
use hookmill_core::hash::sha256_hex;
use hookmill_core::limits::EMAIL_BYTES;
use hookmill_core::message::Envelope;
use hookmill_core::rules::{
    Column, Condition, Effect, Guard, NotJson, Program, Rule, Send, Unknown, Value, Values,
};
use hookmill_core::store::{Rows, Statement};
use hookmill_core::time::Timestamp;
use hookmill_dlq::Reason;
use serde::Serialize;
use serde_json::json;

use crate::settle::Fate;

/// What one delivery is going to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Writes {
    /// Index of the delivery in its batch.
    pub(crate) index: usize,
    /// Its event.
    pub(crate) event: EventKey,
    /// What it comes to if the event is new.
    pub(crate) fate: Fate,
    /// Rows by rule: the rule's index, and the row as the text of a JSON array.
    rows: Vec<(usize, String)>,
    /// Its row in the ledger, likewise.
    ledger: String,
    /// Its row among the messages, likewise, if they are kept.
    message: Option<String>,
}

impl Writes {
    /// The rules that write, for messages.
    pub(crate) fn rules(&self, program: &Program) -> String {
        let names = self.rows.iter().map(|(rule, _)| format!("`{}`", program.rules[*rule].name));
        let names: Vec<_> = names.collect();
        if names.is_empty() {
            "the ledger".to_owned()
        } else {
            format!("rule {}", names.join(", "))
        }
    }
}

/// What decides that two messages are the same event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct EventKey {
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) generation: u32,
}

impl EventKey {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        Self {
            source: envelope.source.clone(),
            id: envelope.id.clone(),
            generation: envelope.generation,
        }
    }
}

/// The ledger comes last in its transaction: the statements before it ask whether the event is in it.
const LEDGER: &str = "\
-- ledger
WITH rows AS MATERIALIZED (SELECT value FROM json_each(?1))
INSERT INTO events (source, id, generation, type, outcome, received_at, applied_at, attempts, secret, wrote)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    value ->> 8, value ->> 9
FROM rows
WHERE true
ON CONFLICT DO NOTHING
RETURNING source, id, generation";

/// The messages of events that take effect for the first time.
const MESSAGES: &str = "\
-- messages
WITH rows AS MATERIALIZED (SELECT value FROM json_each(?1))
INSERT INTO event_messages (applied_at, source, id, message)
SELECT value ->> 3, value ->> 0, value ->> 1, value ->> 4 FROM rows
WHERE NOT EXISTS (
    SELECT 1 FROM events AS seen WHERE seen.source = value ->> 0 AND seen.id = value ->> 1 AND seen.generation = value ->> 2
)
ON CONFLICT DO NOTHING";

/// How far reprocessing is.
const REPROCESSED: &str = "\
-- reprocessed
WITH rows AS MATERIALIZED (SELECT value FROM json_each(?1))
UPDATE replays SET applied = applied + new.n FROM (
    SELECT value ->> 2 AS generation, count(*) AS n FROM rows
    WHERE value ->> 2 > 0 AND NOT EXISTS (
        SELECT 1 FROM events AS seen
        WHERE seen.source = value ->> 0 AND seen.id = value ->> 1 AND seen.generation = value ->> 2
    )
    GROUP BY 1
) AS new WHERE replays.generation = new.generation";

/// How many events took effect in which minute, and how long they took. Before the ledger, like every other statement. What was
/// a dead letter has waited for somebody, and so has what is reprocessed, which is no lag of the pipeline's.
const ACTIVITY: &str = "\
-- activity
WITH rows AS MATERIALIZED (SELECT value FROM json_each(?1))
INSERT INTO activity (minute, source, outcome, events, lag)
SELECT (value ->> 6) / 60000, value ->> 0, value ->> 4, count(*), max(iif(value ->> 2 > 0 OR EXISTS (
    SELECT 1 FROM dead_letters WHERE dead_letters.source = value ->> 0 AND event_id = value ->> 1
), 0, (value ->> 6) - (value ->> 5))) FROM rows
WHERE NOT EXISTS (
    SELECT 1 FROM events AS seen WHERE seen.source = value ->> 0 AND seen.id = value ->> 1 AND seen.generation = value ->> 2
)
GROUP BY 1, 2, 3
ON CONFLICT (minute, source, outcome) DO UPDATE SET events = events + excluded.events, lag = max(lag, excluded.lag)";

/// Which of these events are in the ledger.
const SEEN: &str = "\
-- seen
SELECT events.source, events.id, events.generation FROM json_each(?1)
JOIN events ON events.source = value ->> 0 AND events.id = value ->> 1 AND events.generation = value ->> 2";

/// Whether some rule names the event, so that its body is read.
pub(crate) fn is_read(program: &Program, envelope: &Envelope) -> bool {
    program.matching(&envelope.source, &envelope.kind).next().is_some()
}

/// Works out what a delivery writes, or what becomes of it instead.
pub(crate) fn writes(
    config: &Consumers,
    index: usize,
    delivery: &Delivery,
    envelope: &Envelope,
    body: &[u8],
    now: Timestamp,
) -> Result<Writes, Fate> {
    let program = &config.program;
    let (mut rows, mut wrote) = (Vec::new(), Vec::new());
    let (mut values, mut unknown) = (None, true);
    for (number, rule) in program.matching(&envelope.source, &envelope.kind) {
        // Only an event that a rule names is read, and then once for all of its rules.
        let values = match &values {
            Some(values) => values,
            None => values.insert(program.reads.read(body).map_err(not_json)?),
        };
        unknown = false;
        if !is_carried_out(rule, envelope) || !holds(&rule.when, values)? {
            continue;
        }
        let made = match &rule.effect {
            Effect::Row { table, guard, columns } => {
                wrote.push(format!("[{},{}]", json!(table), key(columns, values)?));
                vec![row(&rule.name, guard.as_ref(), columns, envelope, values)?]
            }
            Effect::Send { send, data, delay } => {
                let due_at = now + *delay;
                vec![sent(&rule.name, send, data, envelope, values, (due_at, now))?]
            }
            Effect::Outcome { of, outcome } => {
                // The provider may send for others as well.
                let ids = texts(json(of, values)?).into_iter().take(1);
                let rest = |id| array(&(id, outcome.as_str(), outcome.rank(), now));
                ids.map(|id| identity(envelope) + &rest(id)).collect()
            }
            Effect::Suppress { address, reason } => {
                let rest = |address: String| array(&(address_key(&address), reason, now));
                let addresses = texts(json(address, values)?).into_iter();
                addresses.map(|address| identity(envelope) + &rest(address)).collect()
            }
        };
        rows.extend(made.into_iter().map(|row| (number, row)));
    }
    if unknown {
        match program.unknown.get(&envelope.source).copied().unwrap_or_default() {
            Unknown::Record => {}
            Unknown::Ignore => return Err(Fate::Ignored),
            Unknown::DeadLetter => {
                let error = format!("no rule names events of type `{}`", envelope.kind);
                return Err(Fate::Condemned { reason: Reason::Permanent, error });
            }
        }
    }
    let fate = if unknown { Fate::Recorded } else { Fate::Applied };
    let ledger = serde_json::to_string(&(
        &envelope.source,
        &envelope.id,
        envelope.generation,
        &envelope.kind,
        fate.as_str(),
        envelope.received_at,
        now,
        delivery.attempts,
        envelope.verified.secret,
        (!wrote.is_empty()).then(|| format!("[{}]", wrote.join(","))),
    ));
    let message = (config.keep_messages && envelope.generation == 0)
        .then(|| identity(envelope) + &array(&(now, &delivery.text)));
    Ok(Writes {
        index,
        event: EventKey::of(envelope),
        fate,
        rows,
        ledger: ledger.expect("texts and numbers serialise"),
        message,
    })
}

/// Whether a rule is carried out for an event that it names: of a reprocessing, those that it names, or those that do no harm.
fn is_carried_out(rule: &Rule, envelope: &Envelope) -> bool {
    match envelope.rules.as_slice() {
        _ if envelope.generation == 0 => true,
        [] => rule.is_repeatable(),
        named => named.contains(&rule.name),
    }
}

/// The key of a row, as a JSON object.
fn key(columns: &[Column], values: &Values<'_>) -> Result<String, Fate> {
    let mut members = Vec::new();
    for column in columns.iter().filter(|column| column.required) {
        let value = json(&column.value, values)?.unwrap_or("null");
        members.push(format!("{}:{value}", json!(column.name)));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

fn not_json(error: NotJson) -> Fate {
    Fate::unreadable(error.to_string())
}

/// What every row begins with, as an open JSON array.
fn identity(envelope: &Envelope) -> String {
    let identity = serde_json::to_string(&(&envelope.source, &envelope.id, envelope.generation));
    let mut row = identity.expect("texts and numbers serialise");
    row.pop();
    row
}

/// The row that a rule makes of an event, as [`Effect::Row`] says.
fn row(
    rule: &str,
    guard: Option<&Guard>,
    columns_of_rule: &[Column],
    envelope: &Envelope,
    values: &Values<'_>,
) -> Result<String, Fate> {
    let missing = |what: &str, path: &str| {
        Fate::unreadable(format!("rule `{rule}`: {what} is missing: there is nothing at `{path}`"))
    };
    let mut columns: Vec<Option<&str>> = Vec::with_capacity(columns_of_rule.len());
    for column in columns_of_rule {
        let value = json(&column.value, values)?;
        if column.required && value.is_none() {
            return Err(missing(
                &format!("`{}` of the key", column.name),
                &column.value.to_string(),
            ));
        }
        columns.push(value);
    }

    let mut row = identity(envelope);
    if let Some(guard) = guard {
        let version = guard.version.value(values).map_err(not_json)?;
        let version = version.ok_or_else(|| missing("the version", &guard.path))?;
        if !is_whole_number(version) {
            let error =
                format!("rule `{rule}`: the version at `{}` is not a whole number", guard.path);
            return Err(Fate::unreadable(error));
        }
        let rank = guard.rank(&envelope.kind, &columns);
        let deleted = u8::from(guard.deletes(&envelope.kind));
        let _ = write!(row, ",{version},{rank},{deleted}");
    }
    for value in &columns {
        row.push(',');
        row.push_str(value.unwrap_or("null"));
    }
    row.push(']');
    Ok(row)
}

fn holds(when: &[Condition], values: &Values<'_>) -> Result<bool, Fate> {
    for condition in when {
        if !condition.holds(values).map_err(not_json)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What goes on after [`identity`], up to the end of the array.
fn array(rest: &impl Serialize) -> String {
    let array = serde_json::to_string(rest).expect("texts and numbers serialise");
    array.replacen('[', ",", 1)
}

/// The row of what a rule sends because of an event, as [`Effect::Send`] says.
///
/// What cannot be sent as it is, for want of an address for instance, is written all the same: it ends in the outbox, with the
/// reason, and does not keep its event from taking effect.
fn sent(
    rule: &str,
    send: &Send,
    data: &[(String, Value)],
    envelope: &Envelope,
    values: &Values<'_>,
    (due_at, now): (Timestamp, Timestamp),
) -> Result<String, Fate> {
    let found = |value: &Value| Ok(texts(json(value, values)?));
    let (channel, to, mut content) = match send {
        Send::Email { template, to, cc, reply_to } => {
            let to = found(to)?;
            let mut content = json!({ "template": template, "to": to });
            if let Some(cc) = cc {
                content["cc"] = found(cc)?.into();
            }
            if let Some(reply_to) = reply_to {
                content["reply_to"] = found(reply_to)?.into_iter().next().into();
            }
            ("email", to, content)
        }
        Send::Sms { to, body } => {
            let to = found(to)?;
            let content = json!({ "to": to, "body": body });
            ("sms", to, content)
        }
        Send::Track { provider, event, user } => {
            let to = found(user)?;
            let content = json!({ "event": event, "to": to, "at": envelope.received_at });
            (provider.as_str(), to, content)
        }
    };
    let mut members = Vec::with_capacity(data.len());
    for (name, value) in data {
        // What is not there is missing in the template as well, where it can be asked for.
        let Some(value) = json(value, values)? else { continue };
        members.push(format!("{}:{value}", serde_json::Value::from(name.as_str())));
    }
    let bytes = members.iter().map(String::len).sum::<usize>();
    if bytes > EMAIL_BYTES {
        // It is refused, and what is left of it says why.
        content = json!({ "to": to, "too_long": bytes });
        members.clear();
    }
    let mut content = content.to_string();
    content.pop();
    let _ = write!(content, ",\"data\":{{{}}}}}", members.join(","));
    let event = (&envelope.source, &envelope.id, envelope.generation, rule);
    let id = sha256_hex(&[&serde_json::to_vec(&event).expect("texts and numbers serialise")]);
    let mut row = identity(envelope);
    let key = |to: &String| match send {
        Send::Sms { .. } => number(to).unwrap_or_else(|| to.clone()),
        Send::Email { .. } | Send::Track { .. } => address_key(to),
    };
    let recipient = to.first().map(key);
    let known = serde_json::to_string(&(rule, id, channel, recipient));
    let known = known.expect("texts serialise").replacen('[', ",", 1);
    row.push_str(known.trim_end_matches(']'));
    let _ = write!(row, ",{content},{},{}]", due_at.millis(), now.millis());
    Ok(row)
}

/// The texts in a JSON text: itself, or those of a list.
fn texts(json: Option<&str>) -> Vec<String> {
    match serde_json::from_str(json.unwrap_or("null")) {
        Ok(serde_json::Value::String(text)) => vec![text],
        Ok(serde_json::Value::Number(number)) => vec![number.to_string()],
        Ok(serde_json::Value::Array(list)) => {
            list.iter().filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// The JSON text of a value, if it is there.
fn json<'v>(value: &'v Value, values: &Values<'v>) -> Result<Option<&'v str>, Fate> {
    let paths = match value {
        Value::Constant(json) => return Ok(Some(json)),
        Value::Paths(paths) => paths,
    };
    for (read, _) in paths {
        if let Some(value) = read.value(values).map_err(not_json)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Whether a JSON text is a number that an SQL integer holds.
fn is_whole_number(text: &str) -> bool {
    text.parse::<i64>().is_ok()
}

/// The first delivery of each event; and of those that repeat one, their index and the first's.
pub(crate) fn fold(writes: Vec<Writes>) -> (Vec<Writes>, Vec<(usize, usize)>) {
    let mut seen = BTreeMap::new();
    let mut repeated = Vec::new();
    let mut firsts = Vec::with_capacity(writes.len());
    for write in writes {
        let first = *seen.entry(write.event.clone()).or_insert(write.index);
        if first == write.index {
            firsts.push(write);
        } else {
            repeated.push((write.index, first));
        }
    }
    (firsts, repeated)
}

/// One transaction for these deliveries: a statement for each rule that has rows, and the ledger last.
pub(crate) fn plan(program: &Program, writes: &[Writes]) -> Vec<Statement> {
    let mut statements = Vec::new();
    for (number, rule) in program.rules.iter().enumerate() {
        let rows = writes.iter().flat_map(|write| &write.rows).filter(|(rule, _)| *rule == number);
        statements.extend(Statement::for_rows(&rule.sql, rows.map(|(_, row)| row.as_str())));
    }
    let messages = writes.iter().filter_map(|write| write.message.as_deref());
    statements.extend(Statement::for_rows(&Arc::from(MESSAGES), messages));
    let reprocessed = writes.iter().filter(|write| write.event.generation > 0);
    let reprocessed = reprocessed.map(|write| write.ledger.as_str());
    statements.extend(Statement::for_rows(&Arc::from(REPROCESSED), reprocessed));
    for sql in [ACTIVITY, LEDGER] {
        let ledger = writes.iter().map(|write| write.ledger.as_str());
        statements.extend(Statement::for_rows(&Arc::from(sql), ledger));
    }
    statements
}

/// Asks whether an event has taken effect.
pub(crate) fn seen(event: &EventKey) -> Vec<Statement> {
    let row = serde_json::to_string(&(&event.source, &event.id, event.generation));
    Statement::for_rows(&Arc::from(SEEN), [row.expect("texts and numbers serialise").as_str()])
}

/// Since when the first may be sent of what was written into the outbox: what the statements of rules answered with.
pub(crate) fn first_due(rows: &[Rows]) -> Option<Timestamp> {
    let due_at = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(due_at)] => due_at.parse().ok().map(Timestamp::from_millis),
        _ => None,
    };
    rows.iter().flatten().filter_map(due_at).min()
}

/// The events that [`LEDGER`] or [`SEEN`] answered with.
pub(crate) fn events(rows: &[Rows]) -> BTreeSet<EventKey> {
    let key = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(source), Some(id), Some(generation)] => Some(EventKey {
            source: source.clone(),
            id: id.clone(),
            generation: generation.parse().ok()?,
        }),
        _ => None,
    };
    rows.iter().flatten().filter_map(key).collect()
}
