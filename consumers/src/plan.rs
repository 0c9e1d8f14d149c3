//! From events to rows, and from rows to statements. Reads each body once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use hookmill_core::config::Consumers;
use hookmill_core::delivery::Delivery;
use hookmill_core::email::{address_key, number};
use hookmill_core::handler::Event;
use hookmill_core::hash::sha256_hex;
use hookmill_core::limits::EMAIL_BYTES;
use hookmill_core::message::Envelope;
use hookmill_core::refetch::path;
use hookmill_core::rules::{
    Column, Each, Effect, EventFacts, Guard, Handled, NotJson, Program, Rule, Scope, Send, Unfit,
    Unknown, Value, Values,
};
use hookmill_core::store::{Rows, Statement};
use hookmill_core::time::Timestamp;
use hookmill_dlq::Reason;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

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
        if !is_carried_out(rule, envelope) {
            continue;
        }
        let carried = match &rule.handler {
            None => vec![carry_out(rule, envelope, (values, body), now)?],
            Some(handled) => handle(rule, handled, envelope, body, now)?,
        };
        for carried in carried {
            rows.extend(carried.rows.into_iter().map(|row| (number, row)));
            wrote.extend(carried.wrote);
        }
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

/// What a rule has made of an event.
#[derive(Default)]
pub(crate) struct Carried {
    /// Rows for its statements.
    pub(crate) rows: Vec<String>,
    /// Which row of which table that is, as JSON; or whose rows.
    wrote: Option<String>,
}

/// Carries a rule out for each value that its handler returns.
pub(crate) fn handle(
    rule: &Rule,
    handled: &Handled,
    envelope: &Envelope,
    body: &[u8],
    now: Timestamp,
) -> Result<Vec<Carried>, Fate> {
    let failed = |problem: String| {
        Fate::unreadable(format!("rule `{}`: handler `{}`: {problem}", rule.name, handled.name))
    };
    let handler = hookmill_handlers::find(&handled.name);
    let handler = handler.ok_or_else(|| failed("there is none of this name".into()))?;
    let values = handler.handle(&Event { facts: facts(envelope), body });
    let carry_out = |value: serde_json::Value| {
        let text = value.to_string();
        let values = handled.reads.read(text.as_bytes()).map_err(not_json)?;
        carry_out(rule, envelope, (&values, text.as_bytes()), now)
    };
    values.map_err(|error| failed(error.0))?.into_iter().map(carry_out).collect()
}

pub(crate) const fn facts(envelope: &Envelope) -> EventFacts<'_> {
    EventFacts {
        source: envelope.source.as_str(),
        id: envelope.id.as_str(),
        kind: envelope.kind.as_str(),
        received_at: envelope.received_at,
    }
}

/// Carries a rule out, if its conditions hold. `values` are those of `body`: the event's, or what a handler has made of it.
pub(crate) fn carry_out(
    rule: &Rule,
    envelope: &Envelope,
    (values, body): (&Values<'_>, &[u8]),
    now: Timestamp,
) -> Result<Carried, Fate> {
    let scope = Scope { body: values, element: None, event: facts(envelope) };
    if !holds(rule, scope, false)? {
        return Ok(Carried::default());
    }
    let wrote = |table: &str, columns: &[Column]| {
        let key = key(&rule.name, columns, scope)?;
        Ok::<_, Fate>(Some(format!("[{},{key}]", json!(table))))
    };
    let once = |row: String| Carried { rows: vec![row], wrote: None };
    match (&rule.effect, &rule.each) {
        (Effect::Row { guard, columns, .. }, Some(each)) => {
            let made = |scope: Scope<'_>| {
                Ok(row(&rule.name, guard.as_ref(), columns, envelope, scope)? + "]")
            };
            let rows = elements(rule, each, scope, made)?.unwrap_or_default();
            Ok(Carried { rows, wrote: None })
        }
        (Effect::Row { table, guard, columns }, None) => {
            let row = row(&rule.name, guard.as_ref(), columns, envelope, scope)?;
            let object = object(guard.as_ref(), envelope, scope, body)?;
            Ok(Carried { wrote: wrote(table, columns)?, ..once(row + &object + "]") })
        }
        (Effect::Rows { table, guard, owner, columns }, each) => {
            let element = |scope: Scope<'_>| {
                let values = read_columns(&rule.name, columns, scope)?;
                let values = values.iter().map(|value| value.as_deref().unwrap_or("null"));
                Ok(format!("[{}]", values.collect::<Vec<_>>().join(",")))
            };
            let list = match each {
                _ if guard.deletes(&envelope.kind) => Some(Vec::new()),
                Some(each) => elements(rule, each, scope, element)?,
                None => None,
            };
            // An event that does not have the list says nothing about it.
            let Some(list) = list else { return Ok(Carried::default()) };
            let row = row(&rule.name, Some(guard), owner, envelope, scope)?;
            let object = object(Some(guard), envelope, scope, body)?;
            let row = format!("{row},[{}]{object}]", list.join(","));
            Ok(Carried { wrote: wrote(table, owner)?, ..once(row) })
        }
        (Effect::Send { send, data, delay }, _) => {
            Ok(once(sent(&rule.name, send, data, envelope, scope, (now + *delay, now))?))
        }
        (Effect::Outcome { of, outcome, .. }, _) => {
            // The provider may send for others as well.
            let ids = texts(json(&rule.name, of, scope)?.as_deref()).into_iter().take(1);
            let rest = |id| array(&(id, outcome.as_str(), outcome.rank(), now));
            let rows = ids.map(|id| identity(envelope) + &rest(id)).collect();
            Ok(Carried { rows, wrote: None })
        }
        (Effect::Suppress { address, reason }, _) => {
            let rest = |address: String| array(&(address_key(&address), reason, now));
            let addresses = texts(json(&rule.name, address, scope)?.as_deref()).into_iter();
            let rows = addresses.map(|address| identity(envelope) + &rest(address)).collect();
            Ok(Carried { rows, wrote: None })
        }
    }
}

/// What is made of each element that fulfils the rule's conditions; `None` if there is no list.
fn elements(
    rule: &Rule,
    each: &Each,
    scope: Scope<'_>,
    make: impl Fn(Scope<'_>) -> Result<String, Fate>,
) -> Result<Option<Vec<String>>, Fate> {
    let Some(list) = each.list.json(scope).map_err(not_json)? else { return Ok(None) };
    let list: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| {
        Fate::unreadable(format!(
            "rule `{}`: what is at `{}` is no list",
            rule.name, each.list.text
        ))
    })?;
    let mut made = Vec::with_capacity(list.len());
    for element in list {
        let values = each.reads.read(element.get().as_bytes()).map_err(not_json)?;
        let scope = Scope { element: Some(&values), ..scope };
        if holds(rule, scope, true)? {
            made.push(make(scope)?);
        }
    }
    Ok(Some(made))
}

/// The key of a row, as a JSON object.
fn key(rule: &str, columns: &[Column], scope: Scope<'_>) -> Result<String, Fate> {
    let mut members = Vec::new();
    for column in columns.iter().filter(|column| column.required) {
        let value = json(rule, &column.value, scope)?;
        members.push(format!("{}:{}", json!(column.name), value.as_deref().unwrap_or("null")));
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

/// The row that a rule makes of an event, as [`Effect::Row`] says: an array that is still open.
fn row(
    rule: &str,
    guard: Option<&Guard>,
    columns: &[Column],
    envelope: &Envelope,
    scope: Scope<'_>,
) -> Result<String, Fate> {
    let columns = read_columns(rule, columns, scope)?;
    let mut row = identity(envelope);
    if let Some(guard) = guard {
        let version = guard.version.version(scope).map_err(|error| unfit(rule, error))?;
        let version = version.ok_or_else(|| missing(rule, "the version", &guard.version))?;
        let rank = guard.rank(&envelope.kind, &columns);
        let deleted = u8::from(guard.deletes(&envelope.kind));
        let _ = write!(row, ",{version},{rank},{deleted}");
    }
    for value in &columns {
        row.push(',');
        row.push_str(value.as_deref().unwrap_or("null"));
    }
    Ok(row)
}

/// What goes on behind the row, if the object is fetched on a tie: where it is, and what else is in the event.
fn object(
    guard: Option<&Guard>,
    envelope: &Envelope,
    scope: Scope<'_>,
    body: &[u8],
) -> Result<String, Fate> {
    let Some((guard, refetch)) = guard.and_then(|guard| Some((guard, guard.refetch.as_ref()?)))
    else {
        return Ok(String::new());
    };
    let id = texts(refetch.id.json(scope).map_err(not_json)?);
    let path = id.first().and_then(|id| path(refetch.provider, &envelope.kind, id));
    let Some(path) = path.filter(|_| !guard.deletes(&envelope.kind)) else {
        return Ok(",null,null,null".to_owned());
    };
    let mut rest: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(body).map_err(|error| not_json(error.into()))?;
    rest.remove("data");
    Ok(array(&(path, &envelope.kind, rest)).trim_end_matches(']').to_owned())
}

/// What goes into the columns of a row.
fn read_columns<'v>(
    rule: &str,
    columns: &'v [Column],
    scope: Scope<'v>,
) -> Result<Vec<Option<Cow<'v, str>>>, Fate> {
    let read = |column: &'v Column| {
        let value = json(rule, &column.value, scope)?;
        if column.required && value.is_none() {
            return Err(missing(rule, &format!("`{}` of the key", column.name), &column.value));
        }
        Ok(value)
    };
    columns.iter().map(read).collect()
}

fn missing(rule: &str, what: &str, value: &Value) -> Fate {
    Fate::unreadable(format!("rule `{rule}`: {what} is missing: there is nothing at `{value}`"))
}

fn unfit(rule: &str, error: Unfit) -> Fate {
    match error {
        Unfit::NotJson(error) => not_json(error),
        error @ Unfit::Form { .. } => Fate::unreadable(format!("rule `{rule}`: {error}")),
    }
}

/// Whether the conditions of a rule hold: those of the body, or those of an element.
fn holds(rule: &Rule, scope: Scope<'_>, of_element: bool) -> Result<bool, Fate> {
    for condition in rule.when.iter().filter(|when| when.path.of_element() == of_element) {
        if !condition.holds(scope).map_err(not_json)? {
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
    scope: Scope<'_>,
    (due_at, now): (Timestamp, Timestamp),
) -> Result<String, Fate> {
    let found = |value: &Value| Ok::<_, Fate>(texts(json(rule, value, scope)?.as_deref()));
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
        let Some(value) = json(rule, value, scope)? else { continue };
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
fn json<'v>(rule: &str, value: &'v Value, scope: Scope<'v>) -> Result<Option<Cow<'v, str>>, Fate> {
    value.json(scope).map_err(|error| unfit(rule, error))
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
        for sql in &rule.sql {
            let rows = rows.clone().map(|(_, row)| row.as_str());
            statements.extend(Statement::for_rows(sql, rows));
        }
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
