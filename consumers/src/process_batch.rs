//! Processes a batch: from deliveries to verdicts, part by part.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::future::join_all;
use hookmill_config::Consumers;
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{BodyForm, Message};
use hookmill_core::objects::Objects;
use hookmill_core::params;
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;
use hookmill_dlq::{Letter, Unreferenced, bury, unreferenced};
use hookmill_rules::{Program, Rule};
use serde::Deserialize;

use crate::attempts::{self, Earlier, Failure};
use crate::counters::RowCounts;
use crate::decode::decode_batch;
use crate::plan::{self, EventKey, Planned, Writes};
use crate::retry::{away_delay, delay};
use crate::settle::{Fate, Settled, settle};

/// The size in bytes at which a part is full. While a transaction is sent, its rows are in memory several times, and a
/// Worker has 128 MB in total.
const PART_BYTES: usize = 4_000_000;

/// The maximum number of redelivered events in a transaction. One of them may have ended its last process, and would end
/// this one with the others.
const AGAIN: usize = 10;

/// The number of parts into which a rejected transaction is split.
const SPLIT: usize = 10;

/// The maximum number of transactions at a time. A Worker may wait for six connections.
///
/// Source: <https://developers.cloudflare.com/workers/platform/limits/>.
const AT_ONCE: usize = 6;

/// The number of times that processing of an event may begin without a verdict before Hookmill gives up the event.
const BEGINNINGS: u32 = 3;

/// The result of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchResult {
    /// For each delivery, in order.
    pub settled: Vec<Settled>,
    /// The earliest due time of messages that the batch has written to the outbox.
    pub due_at: Option<Timestamp>,
    /// The rows of the events that took effect.
    pub rows: RowCounts,
}

/// Applies a batch. Returns a verdict for each delivery, in order, and never fails; no loop over deliveries contains a `?`.
/// It calls `on_settled` with the index of each delivery as soon as its verdict is final, so a queue keeps that verdict
/// even if a later part of the batch ends the process.
///
/// Each part has these side effects, and each may be repeated:
///
/// 1. It reads bodies from the object store.
/// 2. It applies all events of the part in one transaction. The ledger rejects it if one of them is in the ledger, so a
///    redelivery is recognized.
/// 3. It writes dead letters, keyed by event. Burying an event again rewrites the letter, and an event in the ledger gets
///    none.
/// 4. It records the failed attempts of events that will be retried.
/// 5. It removes the bodies of acknowledged events from the object store, unless a kept message or a letter refers to them.
///    A redelivery without its body checks the ledger.
///
/// An event that needs too much memory or time ends the process before any verdict, and the queue delivers the whole batch
/// again. So new deliveries come first. Redelivered ones follow in small parts, and the store notes that a part has begun;
/// the verdict removes the note. An event with such a note is processed alone, and after three notes it becomes a dead
/// letter.
pub async fn process_batch<S: Store, O: Objects>(
    store: &S,
    objects: &O,
    config: &Consumers,
    batch: &[Delivery],
    now: Timestamp,
    on_settled: impl FnMut(usize, &Settled),
) -> BatchResult {
    let messages = batch.iter().zip(decode_batch(batch)).enumerate();
    let items = messages.map(|(index, (delivery, message))| Item {
        index,
        delivery,
        message,
        earlier: Earlier::default(),
    });
    let (new, again): (Vec<_>, Vec<_>) = items.partition(|item| item.delivery.attempts <= 1);
    let (settled, due_at) = (vec![None; batch.len()], None);
    let mut run = BatchRun {
        store,
        objects,
        config,
        now,
        on_settled,
        settled,
        due_at,
        rows: RowCounts::default(),
        away: None,
        unrecorded: false,
    };
    run.apply_in_parts(new, false).await;
    for (group, noted) in run.groups(again).await {
        run.apply_in_parts(group, noted).await;
    }
    let settled = run.settled.into_iter().map(|settled| {
        let left_over = || Fate::Unavailable("the delivery got no verdict".into());
        settled.unwrap_or_else(|| settle(None, left_over(), &config.retry, 0))
    });
    BatchResult { settled: settled.collect(), due_at: run.due_at, rows: run.rows }
}

/// A delivery without a verdict.
struct Item<'b> {
    /// Its index in the batch.
    index: usize,
    delivery: &'b Delivery,
    message: Result<Message<'b>, Fate>,
    /// Its event's earlier attempts, from the store.
    earlier: Earlier,
}

impl Item<'_> {
    /// Its event, if the message can be read.
    fn event(&self) -> Option<EventKey> {
        self.message.as_ref().ok().map(|message| EventKey::of(&message.envelope))
    }

    /// The number of this delivery's failed attempts that count. Those that the store could not record do not count, and
    /// another delivery of the same event may have failed as well.
    fn failed_before(&self) -> u32 {
        self.earlier.attempts.min(self.delivery.attempts.saturating_sub(1))
    }

    fn given_up(&self) -> Option<Fate> {
        let times = self.earlier.begun;
        let error = || {
            format!(
                "given up: handling of this event began {times} times and left no verdict; each time, either it ended the consumer \
                 (too much memory or time), or the store failed"
            )
        };
        (times >= BEGINNINGS)
            .then(|| Fate::Condemned { reason: LetterReason::Dropped, error: error() })
    }
}

/// The state while a batch is processed.
struct BatchRun<'b, S, O, T> {
    store: &'b S,
    objects: &'b O,
    config: &'b Consumers,
    now: Timestamp,
    on_settled: T,
    settled: Vec<Option<Settled>>,
    due_at: Option<Timestamp>,
    rows: RowCounts,
    /// The error of an unavailable store. The store is not called again for the rest of the batch.
    away: Option<StoreError>,
    /// Whether the store could not record attempts. It is not asked to again for the rest of the batch.
    unrecorded: bool,
}

impl<S: Store, O: Objects, T: FnMut(usize, &Settled)> BatchRun<'_, S, O, T> {
    /// Groups redelivered events that are processed together. Also returns whether the store notes the beginning of each
    /// group.
    async fn groups<'b>(&mut self, mut items: Vec<Item<'b>>) -> Vec<(Vec<Item<'b>>, bool)> {
        let events: Vec<_> = items.iter().filter_map(Item::event).collect();
        if events.is_empty() || self.away.is_some() {
            return vec![(items, false)];
        }
        let earlier = self.store.query(attempts::ask(&events)).await;
        match earlier.and_then(|rows| attempts::read(&rows)) {
            Ok(earlier) => {
                for item in &mut items {
                    let found = item.event().and_then(|event| earlier.get(&event).copied());
                    item.earlier = found.unwrap_or_default();
                }
            }
            Err(error) => {
                self.away = Some(error);
                return vec![(items, false)];
            }
        }
        // The least suspicious come first, since an event may end the process.
        items.sort_by_key(|item| item.earlier.begun);
        let mut groups: Vec<(Vec<_>, bool)> = Vec::new();
        for item in items {
            let noted = item.given_up().is_none();
            match groups.last_mut() {
                Some((group, _)) if item.earlier.begun == 0 && group.len() < AGAIN => {
                    group.push(item);
                }
                _ => groups.push((vec![item], noted)),
            }
        }
        groups
    }

    /// Applies deliveries in parts of limited size.
    async fn apply_in_parts(&mut self, items: Vec<Item<'_>>, noted: bool) {
        if noted && self.away.is_none() {
            let events = items.iter().filter_map(|item| item.message.as_ref().ok());
            let events = events.map(|message| &message.envelope);
            self.away = self.store.execute(attempts::begin(events, self.now)).await.err();
        }
        let mut items = items.into_iter();
        loop {
            let (mut part, mut planned) = (Vec::new(), Planned::default());
            while planned.bytes < PART_BYTES
                && let Some(item) = items.next()
            {
                let read = match (&item.message, item.given_up(), &self.away) {
                    (Err(fate), _, _) => Err(fate.clone()),
                    (Ok(_), Some(fate), _) => Err(fate),
                    (Ok(_), None, Some(error)) => Err(Fate::Unavailable(error.to_string())),
                    (Ok(message), None, None) => {
                        body(self.store, self.objects, &self.config.program, message)
                            .await
                            .map(|body| (&message.envelope, body))
                    }
                };
                planned.add(self.config, item.delivery, read, self.now);
                part.push(item);
            }
            if part.is_empty() {
                return;
            }
            self.settle(part, planned, noted).await;
        }
    }

    /// Applies a part, and settles each of its deliveries.
    async fn settle(&mut self, part: Vec<Item<'_>>, planned: Planned, noted: bool) {
        let Planned { writes, mut fates, .. } = planned;
        let (writes, repeated) = plan::fold(writes);
        let is_planned: Vec<_> = fates.iter().map(Option::is_none).collect();
        self.apply(&writes, &mut fates, noted).await;
        for (index, first) in repeated {
            fates[index] = match &fates[first] {
                Some(Fate::Applied | Fate::Recorded) => Some(Fate::Duplicate),
                fate => fate.clone(),
            };
        }
        let applied = |fate: &Fate| matches!(fate, Fate::Applied | Fate::Recorded);
        let fates = fates.into_iter().map(|fate| {
            fate.unwrap_or_else(|| Fate::Unavailable("the delivery got no verdict".into()))
        });
        let (mut deliveries, mut indexes, mut noticed) = (Vec::new(), Vec::new(), Vec::new());
        let mut settled = Vec::with_capacity(part.len());
        for ((item, is_planned), fate) in part.into_iter().zip(is_planned).zip(fates) {
            // The transaction of an applied event has ended its note.
            let is_ended = noted && is_planned && applied(&fate);
            noticed.push((noted || item.earlier != Earlier::default()) && !is_ended);
            let failed_before = item.failed_before();
            let envelope = item.message.ok().map(|message| message.envelope);
            let retry = &self.config.retry;
            settled.push(match (&self.away, fate) {
                // A dead letter could not be written either, and the attempt does not count.
                (Some(_), fate @ Fate::Unavailable(_)) => {
                    let delay = away_delay(retry, item.delivery.attempts);
                    Settled { envelope, fate, verdict: Verdict::Retry { delay } }
                }
                (_, fate) => settle(envelope, fate, retry, failed_before),
            });
            deliveries.push(item.delivery);
            indexes.push(item.index);
        }
        write_letters(self.store, self.config, &deliveries, &mut settled, self.now).await;
        self.record_attempts(&settled, &noticed).await;
        remove_bodies(self.store, self.objects, &settled).await;
        for (index, settled) in indexes.into_iter().zip(settled) {
            (self.on_settled)(index, &settled);
            self.settled[index] = Some(settled);
        }
    }

    /// Records the failed attempts of events that will be retried, and that the others no longer wait, if the store has
    /// noticed them before.
    async fn record_attempts(&mut self, settled: &[Settled], noticed: &[bool]) {
        let (mut failed, mut ended) = (BTreeMap::new(), BTreeSet::new());
        for (settled, noticed) in settled.iter().zip(noticed) {
            let Some(envelope) = &settled.envelope else { continue };
            let event = EventKey::of(envelope);
            match (&settled.fate, settled.verdict) {
                (Fate::Unavailable(error), Verdict::Retry { delay }) => {
                    let failure = Failure { error: error.clone(), due_at: self.now + delay };
                    failed.insert(event, (envelope, failure));
                }
                _ if *noticed => {
                    ended.insert(event);
                }
                _ => {}
            }
        }
        let mut statements = attempts::end(&ended);
        let failed = failed.values().map(|(envelope, failure)| (*envelope, failure));
        statements.extend(attempts::fail(failed, self.now));
        if statements.is_empty() || self.unrecorded {
            return;
        }
        // A note that remains counts once too often. That is better than a verdict that waits.
        let tries = if self.away.is_some() { 1 } else { 2 };
        for _ in 0..tries {
            self.unrecorded = self.store.execute(statements.clone()).await.is_err();
            if !self.unrecorded {
                return;
            }
        }
    }

    /// Applies the writes in one transaction. If a table is missing, the events that need it are left out. If the store
    /// rejects the transaction, applies tenths of it, and of each rejected tenth every event alone. A rejected event needs a
    /// transaction of its own: nothing else proves that it is the cause. The ledger may cause the first rejection, so that
    /// one leaves out the events that are in the ledger. If another process applies an event after that, [`write_letters`]
    /// finds it in the ledger.
    async fn apply(&mut self, writes: &[Writes], fates: &mut [Option<Fate>], noted: bool) {
        let mut work = VecDeque::from([writes.iter().collect::<Vec<_>>()]);
        let mut checked_ledger = false;
        let mut failed = Vec::new();
        while !work.is_empty() {
            let parts: Vec<_> = work.drain(..work.len().min(AT_ONCE)).collect();
            let (store, program, away) = (self.store, &self.config.program, self.away.as_ref());
            let attempts = parts.iter().map(|part| attempt(store, program, part, noted, away));
            let results = join_all(attempts).await;
            for (mut part, result) in parts.into_iter().zip(results) {
                let error = match result {
                    Ok(rows) => {
                        self.due_at = self.due_at.into_iter().chain(plan::first_due(&rows)).min();
                        for write in part {
                            fates[write.index] = Some(write.fate.clone());
                            self.rows.add(&write.counts);
                        }
                        continue;
                    }
                    Err(error @ StoreError::Unavailable(_)) => {
                        for write in part {
                            fates[write.index] = Some(Fate::Unavailable(error.to_string()));
                        }
                        self.away = Some(error);
                        continue;
                    }
                    Err(error) => error,
                };
                if matches!(error, StoreError::Refused(_)) && !checked_ledger {
                    checked_ledger = true;
                    let before = part.len();
                    match self.store.execute(plan::repeated(&part)).await {
                        Ok(rows) => {
                            let seen = plan::events(&rows);
                            for write in part.extract_if(.., |write| seen.contains(&write.event)) {
                                fates[write.index] = Some(Fate::Duplicate);
                            }
                        }
                        Err(error) => self.away = Some(error),
                    }
                    if part.len() < before || self.away.is_some() {
                        work.push_back(part);
                        continue;
                    }
                }
                if let Some(table) = error.missing_table() {
                    let needs =
                        |write: &&Writes| write.rule_of(&self.config.program, table).is_some();
                    let (needing, others): (Vec<_>, Vec<_>) = part.iter().copied().partition(needs);
                    for write in &needing {
                        let rule = write.rule_of(&self.config.program, table).unwrap_or_default();
                        fates[write.index] =
                            Some(Fate::Unavailable(format!("rule `{rule}`: {error}")));
                    }
                    if !needing.is_empty() {
                        work.push_back(others);
                        continue;
                    }
                }
                match part[..] {
                    [write] => failed.push((write, error)),
                    _ => work.extend(part.chunks(part.len().div_ceil(SPLIT)).map(<[_]>::to_vec)),
                }
            }
        }
        if failed.is_empty() {
            return;
        }
        let defined = self.defined(&failed).await;
        for (write, error) in failed {
            let rules = failed_rules(&self.config.program, write, &error, &defined);
            fates[write.index] = Some(match error {
                StoreError::Refused(_) => Fate::Condemned {
                    reason: LetterReason::Refused,
                    error: format!("{rules}: {error}{}", hint(&error)),
                },
                _ => Fate::Unavailable(format!("{rules}: {error}")),
            });
        }
    }

    /// The tables in whose definition the reason of a failure stands, by reason: for events with several rules whose error
    /// names none of their tables.
    async fn defined(&self, failed: &[(&Writes, StoreError)]) -> Vec<Defined> {
        let (mut reasons, mut tables) = (BTreeSet::new(), BTreeSet::new());
        for (write, error) in failed {
            let written = write.tables(&self.config.program);
            if let Some(reason) = error.constraint()
                && written.len() > 1
                && named(&written, error).is_empty()
            {
                reasons.insert(reason);
                tables.extend(written);
            }
        }
        if reasons.is_empty() {
            return Vec::new();
        }
        let params = params![Param::json(&reasons), Param::json(&tables)];
        let found = self.store.query(vec![Statement::new(DEFINED, params)]).await;
        found.and_then(|rows| read(answer(&rows, 0))).unwrap_or_default()
    }
}

/// Applies a part in one transaction, unless the store is away.
async fn attempt<S: Store>(
    store: &S,
    program: &Program,
    part: &[&Writes],
    noted: bool,
    away: Option<&StoreError>,
) -> Result<Vec<Rows>, StoreError> {
    match away {
        _ if part.is_empty() => Ok(Vec::new()),
        Some(error) => Err(error.clone()),
        None => {
            let mut statements = plan::statements(program, part);
            if noted {
                statements.extend(attempts::end(part.iter().map(|write| &write.event)));
            }
            store.execute(statements).await
        }
    }
}

/// The tables that an error names, as SQLite does in most errors.
fn named<'p>(tables: &BTreeSet<&'p str>, error: &StoreError) -> BTreeSet<&'p str> {
    let text = error.to_string();
    tables.iter().copied().filter(|table| mentions(&text, table)).collect()
}

/// The rules of an event whose statements caused an error, for its message. SQLite names a table in most errors; a failed
/// `CHECK` or a trigger is found by its definition. Otherwise all rules of the event.
fn failed_rules(
    program: &Program,
    write: &Writes,
    error: &StoreError,
    defined: &[Defined],
) -> String {
    let tables = write.tables(program);
    let mut guilty = named(&tables, error);
    if guilty.is_empty() {
        let found = defined.iter().filter(|it| Some(&*it.reason) == error.constraint());
        let found: BTreeSet<_> = found.map(|it| it.name.as_str()).collect();
        guilty = tables.intersection(&found).copied().collect();
    }
    let is_guilty = |rule: &&&Rule| {
        guilty.is_empty() || rule.effect.table().is_some_and(|table| guilty.contains(table))
    };
    let rules = write.rules(program);
    let names: Vec<_> =
        rules.iter().filter(is_guilty).map(|rule| format!("`{}`", rule.name)).collect();
    match &names[..] {
        [] => "the ledger".to_owned(),
        [name] => format!("rule {name}"),
        names => format!("one of the rules {}", names.join(", ")),
    }
}

/// A table with a reason in its definition: the answer to [`DEFINED`].
#[derive(Deserialize)]
struct Defined {
    reason: String,
    name: String,
}

/// The tables in whose definition a text stands, or in that of their triggers: that of a failed `CHECK`, or of a trigger's
/// error. `?1`: the texts, as JSON; `?2`: the tables to search, as JSON.
const DEFINED: &str = "\
-- which table refuses
SELECT DISTINCT reason.value AS reason, tbl_name AS name FROM json_each(?1) AS reason
JOIN sqlite_schema ON instr(sql, reason.value) > 0
WHERE tbl_name IN (SELECT value FROM json_each(?2))";

/// What an error of the database means for a rule.
fn hint(error: &StoreError) -> &'static str {
    // SQLite and D1 use the same words. A sum beyond 64 bits becomes a floating-point number.
    if error.to_string().contains("cannot store REAL value in INTEGER column") {
        "; the value is not an integer, or a counter would exceed 9223372036854775807"
    } else {
        ""
    }
}

/// A message's body, from the object store if it is there; or the delivery's fate.
async fn body<'m, S: Store, O: Objects>(
    store: &S,
    objects: &O,
    program: &Program,
    message: &'m Message<'_>,
) -> Result<Cow<'m, [u8]>, Fate> {
    let BodyForm::Object(check) = &message.envelope.body else {
        return Ok(Cow::Borrowed(&message.body));
    };
    // An event without a matching rule needs no body. It may not be in the ledger either, so nothing could tell why its
    // body is gone.
    if !plan::is_read(program, &message.envelope) {
        return Ok(Cow::Borrowed(&[]));
    }
    match objects.get(&check.key).await {
        Ok(Some(body)) if body.len() == check.bytes => Ok(Cow::Owned(body)),
        Ok(Some(body)) => Err(Fate::unreadable(format!(
            "the body in the object store has {} bytes, but Hookmill received {}",
            body.len(),
            check.bytes
        ))),
        // Bodies are removed after their events have taken effect, so the ledger tells whether this one is missing.
        Ok(None) => {
            Err(match store.execute(plan::seen([&EventKey::of(&message.envelope)])).await {
                Ok(rows) if plan::events(&rows).is_empty() => {
                    Fate::unreadable("the body is not in the object store".into())
                }
                Ok(_) => Fate::Duplicate,
                Err(error) => Fate::Unavailable(error.to_string()),
            })
        }
        Err(error) => Err(Fate::Unavailable(error.to_string())),
    }
}

/// Whether a text mentions a table by its whole name.
fn mentions(text: &str, table: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(table).any(|(at, found)| {
        let (before, after) = (&text[..at], &text[at + found.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Writes dead letters. If a letter cannot be written, its delivery is retried; it is never dropped. If an event is in the
/// ledger, its failed delivery is a duplicate and gets no letter.
async fn write_letters<S: Store>(
    store: &S,
    config: &Consumers,
    batch: &[&Delivery],
    settled: &mut [Settled],
    now: Timestamp,
) {
    let condemned: Vec<_> =
        (0..batch.len()).filter(|index| settled[*index].verdict == Verdict::Bury).collect();
    let letters: Vec<_> = condemned
        .iter()
        .filter_map(|index| match &settled[*index].fate {
            Fate::Condemned { reason, error } => Some(Letter {
                delivery: batch[*index],
                envelope: settled[*index].envelope.as_ref(),
                reason: *reason,
                error: error.clone(),
            }),
            _ => None,
        })
        .collect();
    if letters.is_empty() {
        return;
    }
    let write = async |letters: &[Letter<'_>]| {
        let events: Vec<_> =
            letters.iter().filter_map(|letter| letter.envelope.map(EventKey::of)).collect();
        let statements = bury(letters, now).into_iter().chain(plan::seen(&events)).collect();
        store.execute(statements).await.map(|rows| plan::events(&rows))
    };
    let all = write(&letters).await;
    let mut written = Vec::with_capacity(letters.len());
    for letter in &letters {
        // A rejected letter must not prevent the others.
        written.push(match &all {
            Err(StoreError::Refused(_)) => write(std::slice::from_ref(letter)).await,
            all => all.clone(),
        });
    }
    for (index, seen) in condemned.into_iter().zip(written) {
        let Settled { envelope, fate, verdict } = &mut settled[index];
        match &seen {
            Ok(seen) if envelope.as_ref().is_some_and(|e| seen.contains(&EventKey::of(e))) => {
                (*fate, *verdict) = (Fate::Duplicate, Verdict::Ack);
            }
            Ok(_) => {}
            Err(error) => {
                let delay = delay(&config.retry, batch[index].attempts);
                let error = format!("the dead letter could not be written: {error}");
                (*fate, *verdict) = (Fate::Unavailable(error), Verdict::Retry { delay });
            }
        }
    }
}

/// Removes bodies that are no longer needed: no letter and no kept message refers to them. [`unreferenced`] explains why
/// that is safe. If a removal fails, the body stays, which is harmless.
async fn remove_bodies<S: Store, O: Objects>(store: &S, objects: &O, settled: &[Settled]) {
    let acknowledged = settled.iter().filter(|settled| settled.verdict == Verdict::Ack);
    let key = |settled: &Settled| match &settled.envelope.as_ref()?.body {
        BodyForm::Object(check) => Some(check.key.clone()),
        _ => None,
    };
    let keys: Vec<_> = acknowledged.filter_map(key).collect();
    if keys.is_empty() {
        return;
    }
    let rows = store.query(unreferenced(&keys)).await.unwrap_or_default();
    for body in rows.iter().flatten().filter_map(|row| row.read::<Unreferenced>().ok()) {
        let _ = objects.delete(&body.key).await;
    }
}
