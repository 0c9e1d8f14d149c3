//! Results of deliveries, counted for metrics.

use crate::settle::Settled;

/// Deliveries with the same source, secret and result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Count<'s> {
    /// The source; blank if the message cannot be read.
    pub source: &'s str,
    /// The index of the secret that signed, in the order of hookmill.toml.
    pub secret: Option<usize>,
    /// [`Fate::as_str`](crate::Fate::as_str).
    pub fate: &'static str,
    /// Their number.
    pub deliveries: u32,
}

/// Counts a batch, in the order of first occurrence.
pub fn counts(settled: &[Settled]) -> Vec<Count<'_>> {
    let mut counts: Vec<Count<'_>> = Vec::new();
    for Settled { envelope, fate, .. } in settled {
        let source = envelope.as_ref().map_or("", |envelope| envelope.source.as_str());
        let secret = envelope.as_ref().map(|envelope| envelope.verified.secret);
        let fate = fate.as_str();
        let same = |count: &&mut Count<'_>| {
            (count.source, count.secret, count.fate) == (source, secret, fate)
        };
        match counts.iter_mut().find(same) {
            Some(count) => count.deliveries += 1,
            None => counts.push(Count { source, secret, fate, deliveries: 1 }),
        }
    }
    counts
}
