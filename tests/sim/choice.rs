//! The decisions of a history: from a seed, or those of an earlier history.

/// Decides everything that a real run leaves to chance. Each decision is recorded, so a history can be repeated and shortened.
/// 0 is the simplest decision: no fault, no delay, the first of several.
pub struct Choices {
    source: Source,
    made: Vec<u32>,
}

enum Source {
    Seed(fastrand::Rng),
    /// These decisions, and then 0.
    Given(std::vec::IntoIter<u32>),
}

impl Choices {
    /// Decisions that follow from a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self { source: Source::Seed(fastrand::Rng::with_seed(seed)), made: Vec::new() }
    }

    /// These decisions, and then the simplest ones.
    pub fn given(choices: Vec<u32>) -> Self {
        Self { source: Source::Given(choices.into_iter()), made: Vec::new() }
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let choice = match &mut self.source {
            Source::Seed(seed) => seed.u32(..count),
            Source::Given(choices) => choices.next().map_or(0, |choice| choice % count),
        };
        self.made.push(choice);
        choice as usize
    }

    /// Whether something happens that happens once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) + 1 == times
    }

    /// The decisions so far.
    pub fn made(&self) -> &[u32] {
        &self.made
    }
}

/// The maximum number of histories that are run to shorten one.
const TRIES: usize = 300;

/// Shortens the decisions of a failing history: leaves out parts, and replaces decisions by simpler ones, as long as
/// `fails` says that the history still fails.
pub fn shortened(choices: Vec<u32>, mut fails: impl FnMut(&[u32]) -> bool) -> Vec<u32> {
    let mut best = choices;
    let mut tries = 0;
    let mut part = best.len().div_ceil(2);
    while part > 0 && tries < TRIES {
        let mut start = 0;
        let mut has_improved = false;
        while start < best.len() && tries < TRIES {
            let end = (start + part).min(best.len());
            let without = [&best[..start], &best[end..]].concat();
            let mut simpler = best.clone();
            simpler[start..end].fill(0);
            let candidates = [without, simpler].into_iter().filter(|found| *found != best);
            let better = candidates.into_iter().find(|candidate| {
                tries += 1;
                fails(candidate)
            });
            match better {
                Some(better) => {
                    has_improved = true;
                    best = better;
                }
                None => start = end,
            }
        }
        if !(has_improved && part == 1) {
            part /= 2;
        }
    }
    while best.last() == Some(&0) {
        best.pop();
    }
    best
}
