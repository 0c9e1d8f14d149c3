//! The whole pipeline in one thread, with a virtual clock and everything that can go wrong, decided by a seed. Real SQLite is
//! the store; the queue, the object store, the providers and the people are models.
//!
//! A failing seed prints its shortest history and the choices that repeat it.
//!
//! - `HOOKMILL_SIM_SEEDS=0..1000` chooses the seeds.
//! - `HOOKMILL_SIM_CHOICES=1,0,2` runs one history.
//! - `HOOKMILL_SIM_SHORTEN=no` reports a failing history as it is.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod choice;
mod history;
mod operator;
mod outside;
mod pipeline;
mod simulation;
mod world;

use std::fmt::Write as _;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use choice::{Choices, shortened};
use simulation::{Common, Outcome, run};

/// The seeds of a plain run.
const SEEDS: Range<u64> = 0..1000;

/// Runs a history. A panic is a violation too.
fn outcome(common: &Common, choices: Choices, traced: bool) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| run(common, choices, traced)));
    result.unwrap_or_else(|_| Outcome {
        violations: vec!["a panic".to_owned()],
        choices: Vec::new(),
        trace: Vec::new(),
    })
}

/// The report about a failing history, shortened.
fn report(common: &Common, title: &str, failed: Outcome) -> String {
    let kind = |violation: &str| violation.chars().take(20).collect::<String>();
    let first = kind(&failed.violations[0]);
    let fails = |choices: &[u32]| {
        let found = outcome(common, Choices::given(choices.to_vec()), false);
        found.violations.first().is_some_and(|violation| kind(violation) == first)
    };
    let choices = match failed.choices {
        choices if std::env::var("HOOKMILL_SIM_SHORTEN").is_ok_and(|value| value == "no") => {
            choices
        }
        choices => shortened(choices, fails),
    };
    let Outcome { violations, trace, .. } = outcome(common, Choices::given(choices.clone()), true);
    let mut text = format!("{title}: {first}…\n\n{}\n", trace.join("\n"));
    let _ = writeln!(text, "\n{}", violations.join("\n"));
    let choices: Vec<_> = choices.iter().map(ToString::to_string).collect();
    let _ = write!(text, "\nHOOKMILL_SIM_CHOICES={}", choices.join(","));
    text
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("HOOKMILL_SIM_SEEDS") else { return SEEDS };
    let (first, last) = text.split_once("..").expect("HOOKMILL_SIM_SEEDS is a range: 0..1000");
    first.parse().unwrap()..last.parse().unwrap()
}

#[test]
fn every_history_ends_well() {
    let common = Common::new();
    if let Ok(text) = std::env::var("HOOKMILL_SIM_CHOICES") {
        let choices = text.split(',').filter(|choice| !choice.is_empty());
        let choices = Choices::given(choices.map(|choice| choice.parse().unwrap()).collect());
        let Outcome { violations, trace, .. } = outcome(&common, choices, true);
        assert!(violations.is_empty(), "{}\n\n{}", trace.join("\n"), violations.join("\n"));
        return;
    }
    if let Some((seed, found)) = first_failure(&common, seeds()) {
        panic!("{}", report(&common, &format!("seed {seed}"), found));
    }
}

/// Runs the histories of these seeds on all cores, until one fails.
fn first_failure(common: &Common, seeds: Range<u64>) -> Option<(u64, Outcome)> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(None);
    let run = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let found = outcome(common, Choices::from_seed(seed), false);
            if !found.violations.is_empty() {
                failed.lock().unwrap().get_or_insert((seed, found));
            }
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            threads.spawn(run);
        }
    });
    failed.into_inner().unwrap()
}

fn same(one: &Outcome, other: &Outcome) {
    let pairs = one.trace.iter().zip(&other.trace);
    let differs = pairs.enumerate().find(|(_, (one, other))| one != other);
    assert!(differs.is_none(), "{differs:?}");
    assert_eq!(one.choices, other.choices);
}

/// Otherwise a failing seed could not be repeated.
#[test]
fn a_seed_decides_everything() {
    let common = Common::new();
    for seed in 0..5 {
        let [one, other] = [(); 2].map(|()| outcome(&common, Choices::from_seed(seed), true));
        same(&one, &other);
        same(&one, &outcome(&common, Choices::given(one.choices.clone()), true));
    }
}
