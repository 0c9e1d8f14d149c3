//! Plans a batch: events to rows, and rows to statements. Each body is read once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use hookmill_config::{Consumers, Limits};
use hookmill_core::delivery::Delivery;
use hookmill_core::email::{address_key, number};
use hookmill_core::hash::sha256_hex;
use hookmill_core::json::{push_json, to_json};
use hookmill_core::limits::{EMAIL_BYTES, SQL_PARAMS};
use hookmill_core::message::{Envelope, FromApi};
use hookmill_core::panics::caught;
use hookmill_core::store::{Param, Rows, Statement};
use hookmill_core::time::Timestamp;
use hookmill_core::words::{Channel, LetterReason};
use hookmill_rules::api::path;
use hookmill_rules::handler::Event;
use hookmill_rules::row::{Identity, ROW_BYTES, Row, RowWriter};
use hookmill_rules::{
    Body, Column, Each, Effect, EventFacts, Extent, Guard, HandlerRef, NotJson, Order, Program,
    Reads, Rule, Scope, Send, Stopped, Suppression, Unmatched, Value, ValueError, Values,
    each_element,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::counters::RowCounts;
use crate::decode::decode_batch;
use crate::settle::Fate;

/// The first transaction of a batch in [`process_batch()`](crate::process_batch()). It leaves out events whose bodies are
/// in the object store, which it cannot read.
pub fn plan(config: &Consumers, batch: &[Delivery], now: Timestamp) -> Vec<Statement> {
    let mut planned = Planned::default();
    for (delivery, message) in batch.iter().zip(&decode_batch(batch)) {
        let read = match message {
            Ok(message) => Ok((&message.envelope, Cow::Borrowed(&message.body[..]))),
            Err(fate) => Err(fate.clone()),
        };
        planned.add(config, delivery, read, now);
    }
    statements(&config.program, &fold(planned.writes).0.iter().collect::<Vec<_>>())
}

/// The plan of a batch.
#[derive(Default)]
pub(crate) struct Planned {
    /// The writes of deliveries that have no fate yet.
    pub(crate) writes: Vec<Writes>,
    /// For each delivery, its fate, if it is known before the transaction.
    pub(crate) fates: Vec<Option<Fate>>,
    /// The size of all rows in bytes.
    pub(crate) bytes: usize,
}

impl Planned {
    /// Plans the next delivery. Its body is dropped as soon as its rows are known, since a hundred large bodies would take
    /// too much memory.
    pub(crate) fn add(
        &mut self,
        config: &Consumers,
        delivery: &Delivery,
        read: Result<(&Envelope, Cow<'_, [u8]>), Fate>,
        now: Timestamp,
    ) {
        let index = self.fates.len();
        let writes = read.and_then(|(envelope, body)| {
            let planned = caught(|| writes(config, index, delivery, envelope, &body, now));
            planned.unwrap_or_else(|panicked| Err(Fate::panicked(panicked)))
        });
        match writes {
            Ok(writes) => {
                self.bytes += writes.bytes();
                self.writes.push(writes);
                self.fates.push(None);
            }
            Err(fate) => self.fates.push(Some(fate)),
        }
    }
}

/// The rows that one delivery writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Writes {
    /// Index of the delivery in its batch.
    pub(crate) index: usize,
    /// Its event.
    pub(crate) event: EventKey,
    /// The delivery's fate if the event is new.
    pub(crate) fate: Fate,
    /// Rows by rule: the rule's index, and the row.
    rows: Vec<(usize, Row)>,
    /// Its row in the ledger.
    ledger: Row,
    /// The beginning of that row: source, id, generation, type, outcome and time of receipt. Most statements of Hookmill need no
    /// more, and the rows that it names may be many.
    event_row: Row,
    /// Its text, if messages are kept.
    message: Option<String>,
    /// The counts of the rows.
    pub(crate) counts: RowCounts,
}

impl Writes {
    /// The size of its rows in bytes.
    fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|(_, row)| row);
        let rows = rows.chain([&self.ledger, &self.event_row]).map(Row::bytes);
        rows.sum::<usize>() + self.message.as_ref().map_or(0, String::len)
    }

    /// The first rule that writes this table.
    pub(crate) fn rule_of<'p>(&self, program: &'p Program, table: &str) -> Option<&'p str> {
        let rules = self.rows.iter().map(|(rule, _)| &program.rules[*rule]);
        let rule = rules.into_iter().find(|rule| rule.effect.table() == Some(table));
        rule.map(|rule| rule.name.as_str())
    }

    /// The rules that write, without repetition.
    pub(crate) fn rules<'p>(&self, program: &'p Program) -> Vec<&'p Rule> {
        let mut numbers: Vec<_> = self.rows.iter().map(|(rule, _)| *rule).collect();
        numbers.dedup();
        numbers.into_iter().map(|number| &program.rules[number]).collect()
    }

    /// The tables that they write.
    pub(crate) fn tables<'p>(&self, program: &'p Program) -> BTreeSet<&'p str> {
        self.rules(program).into_iter().filter_map(|rule| rule.effect.table()).collect()
    }
}

/// The identity of an event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
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

    /// The key as a row of a statement's parameter.
    pub(crate) fn row(&self) -> (&str, &str, u32) {
        (&self.source, &self.id, self.generation)
    }
}

/// The ledger's insert comes first in the transaction. If an event is in the ledger, it fails, nothing is written, and
/// [`SEEN`] returns these events. So no other statement needs to query the ledger. `?2` now.
const LEDGER: &str = "\
-- ledger
WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
INSERT INTO events (source, id, generation, type, outcome, received_at, applied_at, attempts, secret, rows)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, ?2, value ->> 6, value ->> 7,
    value ->> 8
FROM rows";

/// The messages of events that take effect for the first time, at the time in the ledger. The texts are parameters of their own:
/// in JSON they would be a tenth longer, and longer still on their way to D1. `{texts}` chooses that of a row.
const MESSAGES: &str = "\
-- messages
WITH rows AS MATERIALIZED (SELECT key, value FROM jsonb_each(?1))
INSERT INTO event_messages (applied_at, source, id, message)
SELECT applied_at, source, id, CASE key{texts} END FROM rows
CROSS JOIN events ON source = value ->> 0 AND id = value ->> 1 AND generation = value ->> 2
WHERE true
ON CONFLICT DO NOTHING";

/// The progress of a reprocessing. An event that has failed counts as failed, even if a replay of its letter applies it.
const REPROCESSED: &str = "\
-- reprocessed
WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
UPDATE replays SET applied = applied + new.n FROM (
    SELECT value ->> 2 AS generation, count(*) AS n FROM rows
    WHERE NOT EXISTS (
        SELECT 1 FROM dead_letters WHERE dead_letters.source = value ->> 0 AND event_id = value ->> 1
            AND dead_letters.generation = value ->> 2
    )
    GROUP BY 1
) AS new WHERE replays.generation = new.generation";

/// The events that take effect, by kind, at the time in the ledger: see `hookmill_dlq::kinds`. Two transactions may have one
/// time.
const KINDS: &str = "\
-- kinds
WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
INSERT INTO event_kinds (source, type, outcome, applied_at, events, ids)
SELECT source, type, outcome, applied_at, count(*), json_group_array(json_array(events.id, generation)) FROM rows
CROSS JOIN events ON source = value ->> 0 AND events.id = value ->> 1 AND generation = value ->> 2
WHERE true
GROUP BY 1, 2, 3, 4
ON CONFLICT (source, type, outcome, applied_at) DO UPDATE SET events = events + excluded.events,
    ids = substr(ids, 1, length(ids) - 1) || ',' || substr(excluded.ids, 2)";

/// The number of events and the maximum lag by minute. Dead letters and reprocessed events count with a lag of zero, since
/// their waiting time is not the pipeline's. `?2` now.
const ACTIVITY: &str = "\
-- activity
WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
INSERT INTO activity (minute, source, outcome, events, lag)
SELECT ?2 / 60000, value ->> 0, value ->> 4, count(*), max(iif(value ->> 2 > 0 OR EXISTS (
    SELECT 1 FROM dead_letters WHERE dead_letters.source = value ->> 0 AND event_id = value ->> 1
), 0, ?2 - (value ->> 5))) FROM rows
WHERE true
GROUP BY 1, 2, 3
ON CONFLICT (minute, source, outcome) DO UPDATE SET events = events + excluded.events, lag = max(lag, excluded.lag)";

/// Settles the letters of events that take effect, including those that the provider sent again. Nothing is left to replay,
/// and a letter that could be replayed after the ledger has forgotten the event would count twice. A letter of another
/// generation waits for its own event. `?2` now.
const LETTERS: &str = "\
-- letters of events that take effect
WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
UPDATE dead_letters SET state = 'applied', state_at = ?2, replays = replays + (state = 'replaying'),
    applied_by = iif(state IN ('replaying', 'replayed'), replay, NULL)
WHERE id IN (
    SELECT dead_letters.id FROM rows CROSS JOIN dead_letters ON dead_letters.source = value ->> 0
        AND event_id = value ->> 1 AND dead_letters.generation = value ->> 2
    WHERE state IN ('dead', 'replaying', 'replayed') AND EXISTS (
        SELECT 1 FROM events WHERE events.source = value ->> 0 AND events.id = value ->> 1 AND events.generation = value ->> 2
    )
)";

/// The events that are in the ledger.
const SEEN: &str = "\
-- seen
SELECT events.source, events.id, events.generation FROM jsonb_each(?1)
JOIN events ON events.source = value ->> 0 AND events.id = value ->> 1 AND events.generation = value ->> 2";

/// Whether a rule matches the event, so that its body is read.
pub(crate) fn is_read(program: &Program, envelope: &Envelope) -> bool {
    program.matching(&envelope.source, &envelope.kind).next().is_some()
}

/// Plans the rows of a delivery, or returns its fate.
fn writes(
    config: &Consumers,
    index: usize,
    delivery: &Delivery,
    envelope: &Envelope,
    body: &[u8],
    now: Timestamp,
) -> Result<Writes, Fate> {
    let program = &config.program;
    let mut builder = RowBuilder::of(envelope, config.limits, now);
    let mut matching = program.matching(&envelope.source, &envelope.kind).peekable();
    let unmatched = matching.peek().is_none();
    // A body is read only if a rule matches the event, and then once for all rules.
    if !unmatched {
        let body = Body::new(body).map_err(not_json)?;
        let values = program.reads.read(&body).map_err(not_json)?;
        for (number, rule) in matching.filter(|(_, rule)| is_carried_out(rule, envelope)) {
            match &rule.handler {
                None => builder.carry_out((number, rule), (&values, &body))?,
                Some(handler) => builder.handle((number, rule), handler, &body)?,
            }
        }
    }
    if unmatched {
        match program.unmatched.get(&envelope.source).copied().unwrap_or_default() {
            Unmatched::Record => {}
            Unmatched::Ignore => return Err(Fate::Ignored),
            Unmatched::DeadLetter => {
                let error = format!("no rule names events of type `{}`", envelope.kind);
                return Err(Fate::Condemned { reason: LetterReason::Permanent, error });
            }
        }
    }
    let fate = if unmatched { Fate::Recorded } else { Fate::Applied };
    let RowBuilder { identity, rows, mut named, counts, .. } = builder;
    if !named.is_empty() {
        named.push(']');
    }
    let mut ledger = identity.row(ROOM + envelope.kind.len() + 2 * named.len());
    ledger.values(&(&envelope.kind, fate.as_str(), envelope.received_at));
    let event_row = ledger.so_far();
    let named = (!named.is_empty()).then_some(named);
    let secret = match envelope.from_api {
        Some(_) => NOT_SIGNED,
        None => i64::try_from(envelope.verified.secret).unwrap_or(i64::MAX),
    };
    ledger.values(&(delivery.attempts, secret, named));
    let is_kept = config.keep_messages && envelope.generation == 0;
    let message = is_kept.then(|| delivery.text.clone());
    let (ledger, event) = (ledger.end(), EventKey::of(envelope));
    Ok(Writes { index, event, fate, rows, ledger, event_row, message, counts })
}

/// Whether a matching rule runs. Nothing is sent for an event that was found late. In a reprocessing or an import, only the rules that it names run, or without names the repeatable ones.
fn is_carried_out(rule: &Rule, envelope: &Envelope) -> bool {
    let sends = matches!(rule.effect, Effect::Send { .. });
    match envelope.rules.as_slice() {
        _ if envelope.generation == 0 => {
            !sends || envelope.from_api != Some(FromApi::Event { late: true })
        }
        [] => rule.effect.word().is_repeatable(),
        named => named.contains(&rule.name),
    }
}

/// The rows that rules write for an object from an API: the rule's index, and the row.
///
/// # Errors
///
/// A sentence, if a rule cannot read the object.
pub(crate) fn rows_of<'r>(
    config: &Consumers,
    rules: impl Iterator<Item = (usize, &'r Rule)>,
    envelope: &Envelope,
    body: &str,
) -> Result<Vec<(usize, Row)>, String> {
    let body = Body::new(body.as_bytes()).map_err(|error| error.to_string())?;
    let values = config.program.reads.read(&body).map_err(|error| error.to_string())?;
    let mut builder = RowBuilder::of(envelope, config.limits, envelope.received_at);
    for (number, rule) in rules {
        let planned = match &rule.handler {
            None => builder.carry_out((number, rule), (&values, &body)),
            Some(handler) => builder.handle((number, rule), handler, &body),
        };
        planned.map_err(|fate| match fate {
            Fate::Condemned { error, .. } => error,
            fate => fate.as_str().to_owned(),
        })?;
    }
    Ok(builder.rows)
}

/// In the ledger, in place of a secret: what comes from an API.
const NOT_SIGNED: i64 = -1;

/// The maximum size of numbers and punctuation in a row, so that its buffer need not grow.
const ROOM: usize = 128;

/// Builds the rows of an event.
pub(crate) struct RowBuilder<'e> {
    envelope: &'e Envelope,
    now: Timestamp,
    /// What remains of the limits.
    left: Limits,
    limits: Limits,
    identity: Identity,
    /// Rows by rule: the rule's index, and the row.
    pub(crate) rows: Vec<(usize, Row)>,
    /// An open JSON array with the tables and keys of the rows that its rules name; for lists, the owner's key.
    named: String,
    /// The counts of the rows.
    counts: RowCounts,
}

impl<'e> RowBuilder<'e> {
    pub(crate) fn of(envelope: &'e Envelope, limits: Limits, now: Timestamp) -> Self {
        let identity = Identity::new(&envelope.source, &envelope.id, envelope.generation);
        let (rows, named, counts) = (Vec::new(), String::new(), RowCounts::default());
        Self { envelope, now, left: limits, limits, identity, rows, named, counts }
    }

    /// Counts a row of this size before it is built: one event must not use the memory of all others.
    fn spend(&mut self, rule: &str, rows: usize, bytes: usize) -> Result<(), Fate> {
        let Limits { rows_per_event: max_rows, bytes_per_event: max_bytes } = self.limits;
        let too_much = |what: String, key: &str| Fate::Condemned {
            reason: LetterReason::Permanent,
            error: format!(
                "rule `{rule}`: the event would write more than {what}, the limit for one event; \
                 raise `{key}` in `[limits]` of hookmill.toml"
            ),
        };
        let left_rows = self.left.rows_per_event.checked_sub(rows);
        self.left.rows_per_event =
            left_rows.ok_or_else(|| too_much(format!("{max_rows} rows"), "rows_per_event"))?;
        let left_bytes = self.left.bytes_per_event.checked_sub(bytes);
        self.left.bytes_per_event =
            left_bytes.ok_or_else(|| too_much(format!("{max_bytes} bytes"), "bytes_per_event"))?;
        Ok(())
    }

    /// The texts in a JSON value: the value itself, or the elements of a list. They count towards the limits while they are
    /// read, since a list may be as long as a body.
    fn texts(&mut self, rule: &str, json: Option<&str>) -> Result<Vec<String>, Fate> {
        let json = json.unwrap_or("null");
        if !json.starts_with('[') {
            return Ok(match json.as_bytes().first() {
                Some(b'"') => serde_json::from_str(json).into_iter().collect(),
                Some(b'-' | b'0'..=b'9') => vec![json.to_owned()],
                _ => Vec::new(),
            });
        }
        let mut texts = Vec::new();
        let through = each_element(json, &Reads::whole(), |element| {
            if let Ok(text) = serde_json::from_str::<String>(element.whole()) {
                self.spend(rule, 0, size_of::<String>() + text.len())?;
                texts.push(text);
            }
            Ok(ControlFlow::<()>::Continue(()))
        });
        match through {
            Err(Stopped::By(fate)) => Err(fate),
            _ => Ok(texts),
        }
    }

    /// Adds a row of a rule.
    fn keep(&mut self, (number, rule): (usize, &Rule), row: Row) -> Result<(), Fate> {
        if !row.fits() {
            return Err(too_long(&rule.name));
        }
        self.rows.push((number, row));
        Ok(())
    }

    /// Applies a rule to each value that its handler returns.
    pub(crate) fn handle(
        &mut self,
        (number, rule): (usize, &Rule),
        named: &HandlerRef,
        body: &Body<'_>,
    ) -> Result<(), Fate> {
        let failed = |problem: String| {
            Fate::unreadable(format!("rule `{}`: handler `{}`: {problem}", rule.name, named.name))
        };
        let handler = hookmill_handlers::find(&named.name);
        let handler = handler.ok_or_else(|| failed("this build does not contain it".into()))?;
        let values =
            handler.handle(&Event { facts: facts(self.envelope), body: body.as_str().as_bytes() });
        for value in values.map_err(|error| failed(error.0))? {
            let text = value.to_string();
            let body = Body::new(text.as_bytes()).map_err(not_json)?;
            let values = named.reads.read(&body).map_err(not_json)?;
            self.carry_out((number, rule), (&values, &body))?;
        }
        Ok(())
    }

    /// Applies a rule, if its conditions are met. `values` belong to `body`: the event's body, or a value from a handler.
    pub(crate) fn carry_out(
        &mut self,
        (number, rule): (usize, &Rule),
        (values, body): (&Values<'_>, &Body<'_>),
    ) -> Result<(), Fate> {
        let scope = Scope { body: values, element: None, event: facts(self.envelope) };
        if !rule.when.holds(scope) {
            return Ok(());
        }
        match (&rule.effect, &rule.each) {
            (Effect::Row { guard, columns, .. }, Some(each)) => {
                let mut shared = Shared::default();
                let exists = elements(rule, each, scope, |element| {
                    shared.read(&rule.name, columns, scope)?;
                    let read = read_columns(&rule.name, columns, &shared.values, element)?;
                    let order = self.order(&rule.name, guard.as_ref(), element)?;
                    let row = self.row(order, &read).end();
                    self.spend(&rule.name, 1, row.bytes())?;
                    if order.is_none_or(|order| order.extent != Extent::Deleted) {
                        self.count(number, columns, &read, Some(&shared.absent), element);
                    }
                    self.keep((number, rule), row)
                })?;
                if !exists && each.list.is_absent(scope) {
                    self.counts.add_absent(number, columns.len());
                }
            }
            (Effect::Row { table, guard, columns }, None) => {
                let read = read_columns(&rule.name, columns, &[], scope)?;
                let order = self.order(&rule.name, guard.as_ref(), scope)?;
                let mut row = self.row(order, &read);
                self.spend(&rule.name, 1, row.bytes())?;
                if order.is_none_or(|order| order.extent != Extent::Deleted) {
                    self.count(number, columns, &read, None, scope);
                }
                self.fetched(&mut row, &rule.name, (guard.as_ref(), order), scope, body)?;
                self.keep((number, rule), row.end())?;
                self.name_row(&rule.name, table, columns, scope)?;
            }
            (Effect::Rows { table, guard, owner, columns, keys }, each) => {
                let deleted = guard.deletes(scope);
                let list = each.as_ref().map(|each| each.list.json(scope));
                // An event without the list does not change it.
                if !deleted && list.flatten().is_none() {
                    if each.as_ref().is_some_and(|each| each.list.is_absent(scope)) {
                        self.counts.add_absent(number, columns.len());
                    }
                    return Ok(());
                }
                let whose = read_columns(&rule.name, owner, &[], scope)?;
                let mut order = self.order(&rule.name, Some(guard), scope)?;
                let each = each.as_ref().filter(|_| !deleted);
                if let Some(order) = order.as_mut()
                    && each.is_some_and(|each| each.is_partial(scope))
                {
                    order.extent = Extent::Part;
                }
                let mut row = self.row(order, &whose);
                self.spend(&rule.name, 0, row.bytes())?;
                self.fetched(&mut row, &rule.name, (Some(guard), order), scope, body)?;
                if let Some(each) = each {
                    let own_order = order.filter(|_| each.more.is_some());
                    row.list(&self.envelope.id, whose.iter().map(Option::as_deref), *keys);
                    let mut shared = Shared::default();
                    elements(rule, each, scope, |element| {
                        shared.read(&rule.name, columns, scope)?;
                        let read = read_columns(&rule.name, columns, &shared.values, element)?;
                        let before = row.bytes();
                        row.element(read.iter().map(Option::as_deref), own_order);
                        self.spend(&rule.name, 1, row.bytes() - before)?;
                        self.count(number, columns, &read, Some(&shared.absent), element);
                        if row.fits() { Ok(()) } else { Err(too_long(&rule.name)) }
                    })?;
                }
                self.keep((number, rule), row.end())?;
                self.name_row(&rule.name, table, owner, scope)?;
            }
            (Effect::Send { send, data, delay }, _) => {
                let row = self.sent((number, rule), send, data, scope, self.now + *delay)?;
                self.spend(&rule.name, 1, row.bytes())?;
                self.keep((number, rule), row)?;
            }
            (Effect::Outcome { of, outcome, .. }, _) => {
                // The provider's account may also send for other applications.
                let of = json(&rule.name, of, scope)?;
                for id in self.texts(&rule.name, of.as_deref())?.into_iter().take(1) {
                    self.push((number, rule), &(id, outcome.as_str(), outcome.rank(), self.now))?;
                }
            }
            (Effect::Suppress(whom) | Effect::Lift(whom), _) => {
                self.suppressions((number, rule), whom, scope)?;
            }
        }
        Ok(())
    }

    /// The rows of a rule that suppresses addresses, or lifts suppressions.
    fn suppressions(
        &mut self,
        (number, rule): (usize, &Rule),
        whom: &Suppression,
        scope: Scope<'_>,
    ) -> Result<(), Fate> {
        let (name, now) = (&rule.name, self.now);
        let address = json(name, &whom.address, scope)?;
        let addresses = self.texts(name, address.as_deref())?;
        let version = match &whom.version {
            None => self.envelope.received_at.micros(),
            Some(value) => {
                let found = value.version(scope).map_err(|error| value_error(name, error))?;
                found.ok_or_else(|| missing(name, "the version", value))?
            }
        };
        let group = match &whom.group {
            None => None,
            Some(value) => {
                let found = self.texts(name, json(name, value, scope)?.as_deref())?;
                Some(found.into_iter().next().ok_or_else(|| missing(name, "the group", value))?)
            }
        };
        for address in addresses.iter().map(|address| address_key(address)) {
            for reason in &whom.reasons {
                match &group {
                    None => self.push((number, rule), &(&address, reason, version, now))?,
                    Some(group) => {
                        self.push((number, rule), &(&address, group, reason, version, now))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a row with these values after its identity.
    fn push(&mut self, rule: (usize, &Rule), rest: &impl Serialize) -> Result<(), Fate> {
        let mut row = self.identity.row(ROOM);
        row.values(rest);
        let row = row.end();
        self.spend(&rule.1.name, 1, row.bytes())?;
        self.counts.add_row(rule.0, []);
        self.keep(rule, row)
    }

    /// Counts a row, and the columns whose paths lead nowhere. `shared`: those that do not come from the element of a list,
    /// as their indexes.
    fn count(
        &mut self,
        rule: usize,
        columns: &[Column],
        values: &[Option<Cow<'_, str>>],
        shared: Option<&[usize]>,
        scope: Scope<'_>,
    ) {
        let absent = columns.iter().zip(values).enumerate().filter(|(_, (column, value))| {
            value.is_none()
                && (shared.is_none() || column.value.is_of_element())
                && column.value.is_absent(scope)
        });
        let absent = absent.map(|(index, _)| index);
        self.counts.add_row(rule, absent.chain(shared.into_iter().flatten().copied()));
    }

    /// Adds the values after the columns if the rule fetches the object on a tie, or if its list is incomplete: the object's
    /// path, and the rest of the event.
    fn fetched(
        &mut self,
        row: &mut RowWriter,
        rule: &str,
        (guard, order): (Option<&Guard>, Option<Order>),
        scope: Scope<'_>,
        body: &Body<'_>,
    ) -> Result<(), Fate> {
        let refetch = guard.and_then(|guard| guard.refetch.as_ref());
        let Some(refetch) = refetch else { return Ok(()) };
        let kind = &self.envelope.kind;
        let id = self.texts(rule, refetch.id.json(scope).as_deref())?;
        let path = id.first().and_then(|id| path(refetch.provider, kind, id));
        // A snapshot ties with no event. An incomplete list is fetched in any case.
        let is_fetched = order.is_some_and(|order| match order.extent {
            Extent::Whole => self.snapshot_at().is_none(),
            Extent::Part => true,
            Extent::Deleted => false,
        });
        let Some(path) = path.filter(|_| is_fetched) else {
            row.not_fetched();
            return Ok(());
        };
        self.spend(rule, 0, body.as_str().len())?;
        let mut rest: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(body.as_str()).map_err(|error| not_json(error.into()))?;
        rest.remove("data");
        row.fetched(&path, kind, &rest);
        Ok(())
    }

    /// When the object was requested, if this is one from an API.
    const fn snapshot_at(&self) -> Option<Timestamp> {
        match self.envelope.from_api {
            Some(FromApi::Object { at }) => Some(at),
            Some(FromApi::Event { .. }) | None => None,
        }
    }

    /// How the event's row compares with others. A snapshot outranks every event of its version, but no deletion, unless it is
    /// one.
    fn order(
        &self,
        rule: &str,
        guard: Option<&Guard>,
        scope: Scope<'_>,
    ) -> Result<Option<Order>, Fate> {
        let Some(guard) = guard else { return Ok(None) };
        let order = guard.order(scope, guard.deletes(scope));
        let order = order.map_err(|error| value_error(rule, error))?;
        let order = order.ok_or_else(|| missing(rule, "the version", &guard.version))?;
        let at = self.snapshot_at().filter(|_| order.extent != Extent::Deleted);
        let precedence = at.map_or(order.precedence, Timestamp::millis);
        Ok(Some(Order { precedence, ..order }))
    }

    /// The row of a rule for an event, up to its columns.
    fn row(&self, order: Option<Order>, columns: &[Option<Cow<'_, str>>]) -> RowWriter {
        let mut row = self.identity.row(ROOM + length(columns));
        if let Some(order) = order {
            row.order(order);
        }
        for value in columns {
            row.column(value.as_deref());
        }
        row
    }

    /// Records a row that a rule names: its table, and its key as a JSON object.
    fn name_row(
        &mut self,
        rule: &str,
        table: &str,
        columns: &[Column],
        scope: Scope<'_>,
    ) -> Result<(), Fate> {
        self.named.reserve(ROOM);
        self.named.push_str(if self.named.is_empty() { "[[" } else { ",[" });
        push_json(&mut self.named, &table);
        let mut before = ",{";
        for column in columns.iter().filter(|column| column.required) {
            let value = column.json(scope).map_err(|error| value_error(rule, error))?;
            self.named.push_str(before);
            push_json(&mut self.named, &column.name);
            self.named.push(':');
            self.named.push_str(value.as_deref().unwrap_or("null"));
            before = ",";
        }
        self.named.push_str("}]");
        Ok(())
    }

    /// The row of a message that a rule sends, as [`Effect::Send`] describes.
    ///
    /// A message that cannot be sent, for instance without an address, is written too. It ends in the outbox with the
    /// reason, and its event takes effect.
    fn sent(
        &mut self,
        (place, rule): (usize, &Rule),
        send: &Send,
        data: &[(String, Value)],
        scope: Scope<'_>,
        due_at: Timestamp,
    ) -> Result<Row, Fate> {
        let (envelope, rule) = (self.envelope, rule.name.as_str());
        let mut found = |value: &Value| self.texts(rule, json(rule, value, scope)?.as_deref());
        let (channel, to, mut content) = match send {
            Send::Email { template, to, cc, reply_to, recipients, group } => {
                let to = found(to)?;
                let cc = cc.as_ref().map(&mut found).transpose()?;
                let reply_to = reply_to.as_ref().map(&mut found).transpose()?;
                let most = to.len().max(cc.as_ref().map_or(0, Vec::len));
                let content = if u32::try_from(most).is_ok_and(|most| most <= *recipients) {
                    let mut content = json!({ "template": template, "to": to });
                    if let Some(cc) = cc {
                        content["cc"] = cc.into();
                    }
                    if let Some(reply_to) = reply_to {
                        content["reply_to"] = reply_to.into_iter().next().into();
                    }
                    if let Some(group) = group {
                        content["group"] = group.as_str().into();
                    }
                    content
                } else {
                    // The message will be refused; the content that remains gives the reason.
                    json!({ "template": template, "too_many": most })
                };
                (Channel::Email.as_str(), to, content)
            }
            Send::Sms { to, body } => {
                let to = found(to)?;
                let content = json!({ "to": to, "body": body });
                (Channel::Sms.as_str(), to, content)
            }
            Send::Track { provider, event, user } => {
                let to = found(user)?;
                let content = json!({ "event": event, "to": to, "at": envelope.received_at });
                (provider.as_str(), to, content)
            }
        };
        let mut members = Vec::with_capacity(data.len());
        let mut absent = Vec::new();
        for (index, (name, value)) in data.iter().enumerate() {
            // Templates see a missing value as undefined, and can test for it.
            match json(rule, value, scope)? {
                Some(value) => {
                    members.push(format!("{}:{value}", serde_json::Value::from(name.as_str())));
                }
                None if value.is_absent(scope) => absent.push(index),
                None => {}
            }
        }
        self.counts.add_row(place, absent);
        let bytes = members.iter().map(String::len).sum::<usize>();
        if bytes > EMAIL_BYTES {
            // The message will be refused; the content that remains gives the reason.
            content = json!({ "to": to, "too_long": bytes });
            members.clear();
        }
        let mut content = content.to_string();
        content.pop();
        let _ = write!(content, ",\"data\":{{{}}}}}", members.join(","));
        let event = (&envelope.source, &envelope.id, envelope.generation, rule);
        let id = sha256_hex(&[to_json(&event).as_bytes()]);
        let key = |to: &String| match send {
            Send::Sms { .. } => number(to).unwrap_or_else(|| to.clone()),
            Send::Email { .. } | Send::Track { .. } => address_key(to),
        };
        let recipient = to.first().map(key);
        let mut row = self.identity.row(2 * ROOM + content.len());
        row.values(&(rule, id, channel, recipient));
        row.column(Some(&content));
        row.values(&(due_at, self.now));
        Ok(row.end())
    }
}

pub(crate) const fn facts(envelope: &Envelope) -> EventFacts<'_> {
    EventFacts {
        source: envelope.source.as_str(),
        id: envelope.id.as_str(),
        kind: envelope.kind.as_str(),
        received_at: envelope.received_at,
        headers: &envelope.headers,
    }
}

/// Calls `make` for each element that meets the rule's conditions. Returns whether the list exists.
fn elements(
    rule: &Rule,
    each: &Each,
    scope: Scope<'_>,
    mut make: impl FnMut(Scope<'_>) -> Result<(), Fate>,
) -> Result<bool, Fate> {
    let Some(list) = each.list.json(scope) else { return Ok(false) };
    let through = each_element(&list, &each.reads, |values| {
        let scope = Scope { element: Some(&values), ..scope };
        if rule.when.holds(scope) {
            make(scope)?;
        }
        Ok(ControlFlow::<()>::Continue(()))
    });
    match through {
        Ok(_) => Ok(true),
        Err(Stopped::By(fate)) => Err(fate),
        Err(Stopped::NotJson(error)) => Err(not_json(error)),
        Err(Stopped::NotAList) => Err(Fate::unreadable(format!(
            "rule `{}`: the value at `{}` is not a list",
            rule.name, each.list.text
        ))),
    }
}

fn not_json(error: NotJson) -> Fate {
    Fate::unreadable(error.to_string())
}

/// The values of list columns that do not come from the element. They are read once, for the first element.
#[derive(Default)]
struct Shared<'v> {
    /// The value of each column; `None` for columns that come from the element.
    values: Vec<Option<Cow<'v, str>>>,
    /// The indexes of those whose paths lead nowhere.
    absent: Vec<usize>,
}

impl<'v> Shared<'v> {
    fn read(&mut self, rule: &str, columns: &'v [Column], body: Scope<'v>) -> Result<(), Fate> {
        if !self.values.is_empty() {
            return Ok(());
        }
        for (index, column) in columns.iter().enumerate() {
            if column.value.is_of_element() {
                self.values.push(None);
                continue;
            }
            let value = column.json(body).map_err(|error| value_error(rule, error))?;
            if value.is_none() && column.value.is_absent(body) {
                self.absent.push(index);
            }
            self.values.push(value);
        }
        Ok(())
    }
}

/// The values of a row's columns; `shared` are values that are already known.
fn read_columns<'v>(
    rule: &str,
    columns: &'v [Column],
    shared: &'v [Option<Cow<'v, str>>],
    scope: Scope<'v>,
) -> Result<Vec<Option<Cow<'v, str>>>, Fate> {
    let mut values = Vec::with_capacity(columns.len());
    for (number, column) in columns.iter().enumerate() {
        let value = match shared.get(number) {
            Some(value) if !column.value.is_of_element() => value.as_deref().map(Cow::Borrowed),
            _ => column.json(scope).map_err(|error| value_error(rule, error))?,
        };
        if column.required && value.is_none() {
            return Err(missing(rule, &format!("`{}` of the key", column.name), &column.value));
        }
        values.push(value);
    }
    Ok(values)
}

/// A value is too large for the database.
fn too_long(rule: &str) -> Fate {
    let error = format!(
        "rule `{rule}`: its value for this event has more than {ROW_BYTES} bytes, the maximum for a database value; \
         store less of the body in columns"
    );
    Fate::Condemned { reason: LetterReason::Permanent, error }
}

/// The size in bytes of column values as a JSON array.
fn length(columns: &[Option<Cow<'_, str>>]) -> usize {
    columns.iter().map(|value| value.as_ref().map_or(4, |value| value.len()) + 1).sum::<usize>() + 1
}

fn missing(rule: &str, what: &str, value: &Value) -> Fate {
    Fate::unreadable(format!("rule `{rule}`: {what} is missing: no value at `{value}`"))
}

fn value_error(rule: &str, error: ValueError) -> Fate {
    Fate::unreadable(format!("rule `{rule}`: {error}"))
}

/// The JSON text of a value, if it exists.
fn json<'v>(rule: &str, value: &'v Value, scope: Scope<'v>) -> Result<Option<Cow<'v, str>>, Fate> {
    value.json(scope).map_err(|error| value_error(rule, error))
}

/// Keeps the first delivery of each event. Also returns the index of each repeated delivery, with that of its first.
pub(crate) fn fold(mut writes: Vec<Writes>) -> (Vec<Writes>, Vec<(usize, usize)>) {
    let mut firsts = BTreeMap::new();
    let mut repeated = Vec::new();
    for write in &writes {
        let first = *firsts.entry(&write.event).or_insert(write.index);
        if first != write.index {
            repeated.push((write.index, first));
        }
    }
    let repeats = |write: &Writes| repeated.iter().any(|(index, _)| *index == write.index);
    writes.retain(|write| !repeats(write));
    (writes, repeated)
}

/// The transaction for these deliveries: the ledger, then a statement for each rule with rows.
pub(crate) fn statements(program: &Program, writes: &[&Writes]) -> Vec<Statement> {
    let mut statements = timed(LEDGER, writes.iter().map(|write| &write.ledger));
    for (number, rule) in program.rules.iter().enumerate() {
        let rows = writes.iter().flat_map(|write| &write.rows).filter(|(rule, _)| *rule == number);
        for sql in &rule.sql {
            statements.extend(Row::statements(sql, rows.clone().map(|(_, row)| row)));
        }
    }
    statements.extend(messages(writes));
    let reprocessed = writes.iter().filter(|write| write.event.generation > 0);
    statements.extend(own(REPROCESSED, reprocessed.map(|write| &write.event_row)));
    let events = writes.iter().map(|write| &write.event_row);
    statements.extend(own(KINDS, events.clone()));
    statements.extend(timed(ACTIVITY, events.clone()));
    statements.extend(timed(LETTERS, events));
    statements
}

/// Keeps the messages, as many in a statement as it has parameters for.
fn messages(writes: &[&Writes]) -> Vec<Statement> {
    let kept = writes.iter().filter_map(|write| Some((&write.event_row, write.message.as_ref()?)));
    let kept: Vec<_> = kept.collect();
    let statement = |part: &[(&Row, &String)]| {
        let texts = (0..part.len()).map(|key| format!(" WHEN {key} THEN ?{}", key + 2));
        let sql = MESSAGES.replace("{texts}", &texts.collect::<String>());
        let mut statements = own(&sql, part.iter().map(|(row, _)| *row));
        for statement in &mut statements {
            statement.params.extend(part.iter().map(|(_, text)| Param::Text((*text).clone())));
        }
        statements
    };
    kept.chunks(SQL_PARAMS - 1).flat_map(statement).collect()
}

/// A statement of Hookmill itself, not of a rule.
fn own<'r>(sql: &str, rows: impl Iterator<Item = &'r Row>) -> Vec<Statement> {
    Statement::for_rows(&Arc::from(sql), rows.map(Row::text))
}

/// The same with the time of the transaction as `?2`. An event may wait long for the database after it was planned.
fn timed<'r>(sql: &str, rows: impl Iterator<Item = &'r Row>) -> Vec<Statement> {
    let mut statements = own(sql, rows);
    for statement in &mut statements {
        statement.params.push(Param::Now);
    }
    statements
}

/// Asks which of these deliveries repeat an event that is in the ledger, and settles those events' letters.
pub(crate) fn repeated(writes: &[&Writes]) -> Vec<Statement> {
    let mut statements = seen(writes.iter().map(|write| &write.event));
    statements.extend(timed(LETTERS, writes.iter().map(|write| &write.event_row)));
    statements
}

/// Asks which of these events are in the ledger.
pub(crate) fn seen<'e>(events: impl IntoIterator<Item = &'e EventKey>) -> Vec<Statement> {
    Statement::for_each(SEEN, events.into_iter().map(EventKey::row))
}

/// The earliest due time of new messages in the outbox, from the answers of rules' statements.
pub(crate) fn first_due(rows: &[Rows]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Due {
        due_at: Timestamp,
    }
    rows.iter().flatten().filter_map(|row| row.read::<Due>().ok()).map(|due| due.due_at).min()
}

/// Reads the answer to [`SEEN`].
pub(crate) fn events(rows: &[Rows]) -> BTreeSet<EventKey> {
    rows.iter().flatten().filter_map(|row| row.read().ok()).collect()
}
