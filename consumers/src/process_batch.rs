//! Processes a batch: from deliveries to verdicts, part by part.

use std::borrow::Cow;

use hookmill_config::Consumers;
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{BodyForm, Message};
use hookmill_core::objects::Objects;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;
use hookmill_dlq::{Letter, Unreferenced, bury, unreferenced};
use hookmill_rules::Program;

use crate::begun;
use crate::decode::decode_batch;
use crate::plan::{self, EventKey, Planned, Writes};
use crate::retry::delay;
use crate::settle::{Fate, Settled, settle};

/// The size in bytes at which a part is full. While a transaction is sent, its rows are in memory several times, and a
/// Worker has 128 MB in total.
const PART_BYTES: usize = 4_000_000;

/// The maximum number of redelivered events in a transaction. One of them may have ended its last process, and would end
/// this one with the others.
const AGAIN: usize = 10;

/// The number of times that processing of an event may begin without a verdict before Hookmill gives up the event.
const BEGINNINGS: u32 = 3;

/// The result of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchResult {
    /// For each delivery, in order.
    pub settled: Vec<Settled>,
    /// The earliest due time of messages that the batch has written to the outbox.
    pub due_at: Option<Timestamp>,
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
/// 4. It removes the bodies of acknowledged events from the object store, unless a kept message or a letter refers to them.
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
    let items =
        messages.map(|(index, (delivery, message))| Item { index, delivery, message, begun: 0 });
    let (new, again): (Vec<_>, Vec<_>) = items.partition(|item| item.delivery.attempts <= 1);
    let (settled, due_at) = (vec![None; batch.len()], None);
    let mut run = BatchRun { store, objects, config, now, on_settled, settled, due_at, away: None };
    run.apply_in_parts(new, false).await;
    for (group, noted) in run.groups(again).await {
        run.apply_in_parts(group, noted).await;
    }
    let settled = run.settled.into_iter().zip(batch).map(|(settled, delivery)| {
        let left_over = || Fate::Unavailable("the delivery got no verdict".into());
        settled.unwrap_or_else(|| settle(delivery, None, left_over(), &config.retry))
    });
    BatchResult { settled: settled.collect(), due_at: run.due_at }
}

/// A delivery without a verdict.
struct Item<'b> {
    /// Its index in the batch.
    index: usize,
    delivery: &'b Delivery,
    message: Result<Message<'b>, Fate>,
    /// How often its processing has begun without a verdict, from the notes in the store.
    begun: u32,
}

impl Item<'_> {
    /// Its event, if the message can be read.
    fn event(&self) -> Option<EventKey> {
        self.message.as_ref().ok().map(|message| EventKey::of(&message.envelope))
    }

    fn given_up(&self) -> Option<Fate> {
        let times = self.begun;
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
    /// The error of an unavailable store. The store is not called again for the rest of the batch.
    away: Option<StoreError>,
}

impl<S: Store, O: Objects, T: FnMut(usize, &Settled)> BatchRun<'_, S, O, T> {
    /// Groups redelivered events that are processed together. Also returns whether the store notes the beginning of each
    /// group.
    async fn groups<'b>(&mut self, mut items: Vec<Item<'b>>) -> Vec<(Vec<Item<'b>>, bool)> {
        let events: Vec<_> = items.iter().filter_map(Item::event).collect();
        if events.is_empty() || self.away.is_some() {
            return vec![(items, false)];
        }
        let begun = self.store.query(begun::ask(&events)).await;
        match begun.and_then(|rows| begun::read(&rows)) {
            Ok(begun) => {
                for item in &mut items {
                    let times = item.event().and_then(|event| begun.get(&event).copied());
                    item.begun = times.unwrap_or_default();
                }
            }
            Err(error) => {
                self.away = Some(error);
                return vec![(items, false)];
            }
        }
        // The least suspicious come first, since an event may end the process.
        items.sort_by_key(|item| item.begun);
        let mut groups: Vec<(Vec<_>, bool)> = Vec::new();
        for item in items {
            let noted = item.given_up().is_none();
            match groups.last_mut() {
                Some((group, _)) if item.begun == 0 && group.len() < AGAIN => group.push(item),
                _ => groups.push((vec![item], noted)),
            }
        }
        groups
    }

    /// Applies deliveries in parts of limited size.
    async fn apply_in_parts(&mut self, items: Vec<Item<'_>>, noted: bool) {
        if noted && self.away.is_none() {
            let events: Vec<_> = items.iter().filter_map(Item::event).collect();
            self.away = self.store.execute(begun::begin(&events, self.now)).await.err();
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
        // Notes that the transaction of their events did not remove.
        let applied = |fate: &Fate| matches!(fate, Fate::Applied | Fate::Recorded);
        let notes = part.iter().zip(is_planned.iter().zip(&fates));
        let notes = notes.filter(|(item, (is_planned, fate))| {
            (noted || item.begun > 0) && !(**is_planned && fate.as_ref().is_some_and(applied))
        });
        let notes: Vec<_> = notes.filter_map(|(item, _)| item.event()).collect();
        let (deliveries, indexes): (Vec<_>, Vec<_>) =
            part.iter().map(|item| (item.delivery, item.index)).unzip();
        let mut settled: Vec<_> = part
            .into_iter()
            .zip(fates)
            .map(|(item, fate)| {
                let envelope = item.message.ok().map(|message| message.envelope);
                let fate =
                    fate.unwrap_or_else(|| Fate::Unavailable("the delivery got no verdict".into()));
                settle(item.delivery, envelope, fate, &self.config.retry)
            })
            .collect();
        write_letters(self.store, self.config, &deliveries, &mut settled, self.now).await;
        if !notes.is_empty() {
            // A note that remains counts once too often. That is better than a verdict that waits.
            if self.store.execute(begun::end(&notes)).await.is_err() {
                let _ = self.store.execute(begun::end(&notes)).await;
            }
        }
        remove_bodies(self.store, self.objects, &settled).await;
        for (index, settled) in indexes.into_iter().zip(settled) {
            (self.on_settled)(index, &settled);
            self.settled[index] = Some(settled);
        }
    }

    /// Applies the writes in one transaction. If the store rejects it or a table is missing, splits them in halves until
    /// each bad event is alone. The ledger may cause the first rejection, so that one leaves out the events that are in the
    /// ledger. If another process applies an event after that, [`write_letters`] finds it in the ledger.
    async fn apply(&mut self, writes: &[Writes], fates: &mut [Option<Fate>], noted: bool) {
        let mut work = vec![writes.iter().collect::<Vec<_>>()];
        let mut checked_ledger = false;
        while let Some(mut part) = work.pop() {
            if part.is_empty() {
                continue;
            }
            let result = match &self.away {
                Some(error) => Err(error.clone()),
                None => {
                    let mut statements = plan::statements(&self.config.program, &part);
                    if noted {
                        statements.extend(begun::end(part.iter().map(|write| &write.event)));
                    }
                    self.store.execute(statements).await
                }
            };
            let error = match result {
                Ok(rows) => {
                    self.due_at = self.due_at.into_iter().chain(plan::first_due(&rows)).min();
                    for write in part {
                        fates[write.index] = Some(write.fate.clone());
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
                    work.push(part);
                    continue;
                }
            }
            match part[..] {
                [write] => {
                    let rules = write.rules(&self.config.program);
                    fates[write.index] = Some(match error {
                        StoreError::Refused(_) => Fate::Condemned {
                            reason: LetterReason::Refused,
                            error: format!("{rules}: {error}{}", hint(&error)),
                        },
                        _ => Fate::Unavailable(format!("{rules}: {error}")),
                    });
                }
                _ => {
                    let second = part.split_off(part.len() / 2);
                    work.push(second);
                    work.push(part);
                }
            }
        }
    }
}

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
