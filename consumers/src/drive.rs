//! The one async function: carries a batch from deliveries to verdicts.

use std::borrow::Cow;

use hookmill_core::config::Consumers;
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{BodyForm, Message};
use hookmill_core::objects::Objects;
use hookmill_core::rules::Program;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::{Letter, Reason, bury, unreferenced};

use crate::plan::{self, EventKey, Planned, Writes};
use crate::retry::delay;
use crate::settle::{Fate, Settled, settle};
use crate::sort::sort;

/// What came of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Driven {
    /// Of each delivery, in order.
    pub settled: Vec<Settled>,
    /// Since when the first may be sent of what the batch has put into the outbox.
    pub due_at: Option<Timestamp>,
}

/// Applies a batch. Answers for each delivery, in order, whatever happens; there is no `?` in here.
///
/// What it does to the world, and why doing it again is harmless:
///
/// 1. reads bodies from the object store;
/// 2. one transaction for all events of the batch, gated on the ledger: a redelivery finds its event there;
/// 3. dead letters, keyed by event: burying again rewrites the letter, and an event in the ledger gets none;
/// 4. removes the bodies of acknowledged events from the object store, unless a message that is kept or a letter refers to
///    them: a redelivery that misses one asks the ledger.
pub async fn drive<S: Store, O: Objects>(
    store: &S,
    objects: &O,
    config: &Consumers,
    batch: &[Delivery],
    now: Timestamp,
) -> Driven {
    let sorted = sort(batch);
    let mut planned = Planned::default();
    for (delivery, message) in batch.iter().zip(&sorted) {
        let read = match message {
            Ok(message) => body(store, objects, &config.program, message)
                .await
                .map(|body| (&message.envelope, body)),
            Err(fate) => Err(fate.clone()),
        };
        planned.add(config, delivery, read, now);
    }
    let Planned { writes, mut fates } = planned;
    let (writes, repeated) = plan::fold(writes);
    let due_at = apply(store, config, &writes, &mut fates).await;
    for (index, first) in repeated {
        fates[index] = match &fates[first] {
            Some(Fate::Applied | Fate::Recorded) => Some(Fate::Duplicate),
            fate => fate.clone(),
        };
    }

    let mut settled: Vec<_> = batch
        .iter()
        .zip(sorted)
        .zip(fates)
        .map(|((delivery, message), fate)| {
            let envelope = message.ok().map(|message| message.envelope);
            let fate =
                fate.unwrap_or_else(|| Fate::Unavailable("the delivery was left over".into()));
            settle(delivery, envelope, fate, &config.retry)
        })
        .collect();
    write_letters(store, config, batch, &mut settled, now).await;
    remove_bodies(store, objects, &settled).await;
    Driven { settled, due_at }
}

/// A message's body, from the object store if it is there; or what becomes of the delivery instead.
async fn body<'m, S: Store, O: Objects>(
    store: &S,
    objects: &O,
    program: &Program,
    message: &'m Message<'_>,
) -> Result<Cow<'m, [u8]>, Fate> {
    let BodyForm::Object(check) = &message.envelope.body else {
        return Ok(Cow::Borrowed(&message.body));
    };
    // An event that no rule names is not read. It need not be in the ledger either, so nobody could tell why its body is gone.
    if !plan::is_read(program, &message.envelope) {
        return Ok(Cow::Borrowed(&[]));
    }
    match objects.get(&check.key).await {
        Ok(Some(body)) if body.len() == check.bytes => Ok(Cow::Owned(body)),
        Ok(Some(body)) => Err(Fate::unreadable(format!(
            "the body in the object store has {} bytes, and {} were taken in",
            body.len(),
            check.bytes
        ))),
        // It is removed once its event has taken effect, so the ledger knows whether something is wrong.
        Ok(None) => Err(match store.execute(plan::seen([&message.envelope])).await {
            Ok(rows) if plan::events(&rows).is_empty() => {
                Fate::unreadable("the body is not in the object store".into())
            }
            Ok(_) => Fate::Duplicate,
            Err(error) => Fate::Unavailable(error.to_string()),
        }),
        Err(error) => Err(Fate::Unavailable(error.to_string())),
    }
}

/// Carries out the writes: all in one transaction, or, where the store refuses that or lacks a table for it, in halves,
/// until an offender stands alone. Answers since when the first may be sent of what has
/// been put into the outbox.
async fn apply<S: Store>(
    store: &S,
    config: &Consumers,
    writes: &[Writes],
    fates: &mut [Option<Fate>],
) -> Option<Timestamp> {
    let mut work = vec![writes];
    let mut due_at: Option<Timestamp> = None;
    let mut away: Option<StoreError> = None;
    while let Some(part) = work.pop() {
        if part.is_empty() {
            continue;
        }
        let result = match &away {
            Some(error) => Err(error.clone()),
            None => store.execute(plan::statements(&config.program, part)).await,
        };
        match result {
            Ok(rows) => {
                let new = plan::events(&rows);
                due_at = due_at.into_iter().chain(plan::first_due(&rows)).min();
                for write in part {
                    fates[write.index] = Some(if new.contains(&write.event) {
                        write.fate.clone()
                    } else {
                        Fate::Duplicate
                    });
                }
            }
            Err(error @ StoreError::Unavailable(_)) => {
                for write in part {
                    fates[write.index] = Some(Fate::Unavailable(error.to_string()));
                }
                // A store that is away is not asked again for the rest of the batch.
                away = Some(error);
            }
            Err(error) => match part {
                [write] => {
                    let rules = write.rules(&config.program);
                    fates[write.index] = Some(match error {
                        StoreError::Refused(_) => Fate::Condemned {
                            reason: Reason::Refused,
                            error: format!("{rules}: {error}"),
                        },
                        _ => Fate::Unavailable(format!("{rules}: {error}")),
                    });
                }
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    work.push(second);
                    work.push(first);
                }
            },
        }
    }
    due_at
}

/// Writes what is to be buried. A letter that cannot be written has its delivery tried again: it is never only dropped. A
/// delivery that failed although its event has taken effect is a duplicate, and gets no letter.
async fn write_letters<S: Store>(
    store: &S,
    config: &Consumers,
    batch: &[Delivery],
    settled: &mut [Settled],
    now: Timestamp,
) {
    let condemned: Vec<_> =
        (0..batch.len()).filter(|index| settled[*index].verdict == Verdict::Bury).collect();
    let letters: Vec<_> = condemned
        .iter()
        .filter_map(|index| match &settled[*index].fate {
            Fate::Condemned { reason, error } => Some(Letter {
                delivery: &batch[*index],
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
    let events = letters.iter().filter_map(|letter| letter.envelope);
    let statements = bury(&letters, now).into_iter().chain(plan::seen(events)).collect();
    let seen = store.execute(statements).await.map(|rows| plan::events(&rows));
    for index in condemned {
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

/// Removes bodies that nothing needs any more: neither a letter nor a message that is kept, from which an event is reprocessed.
/// [`unreferenced`] says why this is safe. A body that cannot be removed is left over, and does no harm.
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
    let rows = store.execute(unreferenced(&keys)).await.unwrap_or_default();
    for key in rows.iter().flatten().filter_map(|row| row.first()?.as_ref()) {
        let _ = objects.delete(key).await;
    }
}
