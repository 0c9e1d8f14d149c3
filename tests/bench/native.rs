//! The native binary: ratios between servers that are measured in turn on the same machine.

use std::path::Path;
use std::time::{Duration, Instant};

use hookmill_tests::native::put;
use tokio::runtime::Runtime;

use crate::events::{Batch, Events, load, requests};
use crate::server::{Counts, Pipeline, start_bare};

/// The benchmark's own configurations: the unchanged preset, and one rule.
const PRESET: &str = "preset.toml";
const SINGLE: &str = "single.toml";

/// The amounts to measure. The defaults are for figures; a test uses less.
#[derive(clap::Args, Clone, Debug)]
pub struct Sizes {
    /// Events in one measurement
    #[arg(long, default_value_t = 10_000)]
    pub events: usize,
    /// Measurements of each contestant, in turn
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Connections that send at the same time
    #[arg(long, default_value_t = 256)]
    pub connections: usize,
    /// Rows in each small table
    #[arg(long, default_value_t = 1_000)]
    pub small: u32,
    /// Rows in each large table
    #[arg(long, default_value_t = 200_000)]
    pub large: u32,
    /// Events on the queue when the drain begins
    #[arg(long, default_value_t = 100_000)]
    pub backlog: usize,
}

/// Measures everything and prints it.
///
/// # Panics
///
/// If an event is lost, applied twice or given up, or the queue is not drained: then the measurement is not valid.
pub fn run(hookmill: &Path, bare: &Path, sizes: &Sizes) {
    let runtime = runtime();
    let mut bench = Bench { runtime, hookmill, bare, sizes, events: Events::new() };
    let bytes = bench.events.batch(1, 0).events[0].body.len();
    println!(
        "{} events of {bytes} bytes over {} connections in a measurement, {} rounds",
        sizes.events, sizes.connections, sizes.rounds
    );
    let ingress = bench.ingress();
    bench.end_to_end();
    bench.growth();
    bench.drain(ingress);
}

/// A runtime with a thread for each processor.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made")
}

struct Bench<'b> {
    runtime: Runtime,
    hookmill: &'b Path,
    bare: &'b Path,
    sizes: &'b Sizes,
    events: Events,
}

impl Bench<'_> {
    /// A running pipeline.
    fn pipeline(&self, config: &str, held: u32) -> Pipeline {
        let mut pipeline = Pipeline::new(self.hookmill, config, held);
        pipeline.start();
        pipeline
    }

    fn batch(&mut self, held: u32) -> Batch {
        self.events.batch(self.sizes.events, held)
    }

    /// Answered events per second.
    fn load(&self, address: std::net::SocketAddr, requests: std::sync::Arc<Vec<Vec<u8>>>) -> f64 {
        let events = requests.len();
        let answers = load(address, self.sizes.connections, requests, None);
        rate(events, self.runtime.block_on(answers).elapsed)
    }

    /// Durable ingress relative to a bare handler. Returns its rate.
    fn ingress(&mut self) -> f64 {
        let (_bare, bare) = start_bare(self.bare);
        let mut pipeline = self.pipeline(PRESET, 0);
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        let (mut rates, mut rates_together) = (Vec::new(), Vec::new());
        let (mut answering, mut applying) = (Duration::ZERO, Duration::ZERO);
        // The first round only warms up.
        for round in 0..=self.sizes.rounds {
            let batch = self.batch(0);
            let requests = requests(&batch.events);
            let reference = self.load(bare, requests.clone());
            let before = pipeline.counts();
            // While the application's database is locked, consumers wait, so that only ingress is measured.
            let lock = pipeline.database("data.db");
            lock.execute_batch("BEGIN IMMEDIATE").expect("the database can be locked");
            let start = pipeline.processor_time();
            let by_itself = self.load(pipeline.address(), requests);
            let answered = pipeline.processor_time();
            lock.execute_batch("ROLLBACK").expect("the database can be unlocked");
            pipeline.drain(|_, _| {});
            let applied = pipeline.processor_time();
            verify(&pipeline, before, &batch, true);
            pipeline.clear(&batch);

            let batch = self.batch(0);
            let requests = crate::events::requests(&batch.events);
            let before = pipeline.counts();
            let with_consumers = self.load(pipeline.address(), requests);
            pipeline.drain(|_, _| {});
            verify(&pipeline, before, &batch, true);
            pipeline.clear(&batch);
            if round > 0 {
                alone.push(by_itself / reference);
                together.push(with_consumers / reference);
                rates.push(by_itself);
                rates_together.push(with_consumers);
                answering += answered.saturating_sub(start);
                applying += applied.saturating_sub(answered);
            }
        }
        println!("ingress, durable, to bare axum: {}; the bar is 0.6", spread(&alone));
        println!("  while the consumers apply events: {}", spread(&together));
        let rate = median(&rates);
        println!(
            "  {rate:.0} events per second; an fsync takes {}",
            millis(fsync(pipeline.data()))
        );
        let each = |time: Duration| {
            time.as_secs_f64() * 1e6 / (self.sizes.rounds * self.sizes.events) as f64
        };
        println!(
            "  processor time per event: {:.0} µs until its answer, {:.0} µs from there to its rows",
            each(answering),
            each(applying)
        );
        self.acknowledgement(pipeline, median(&rates_together) / 2.0);
        rate
    }

    /// The time of an answer at a steady rate, while the consumers apply the events.
    fn acknowledgement(&mut self, mut pipeline: Pipeline, rate: f64) {
        let batch = self.batch(0);
        let requests = requests(&batch.events);
        let before = pipeline.counts();
        let fsync = fsync(pipeline.data());
        let answers = load(pipeline.address(), self.sizes.connections, requests, Some(rate));
        let times = self.runtime.block_on(answers).times;
        pipeline.drain(|_, _| {});
        verify(&pipeline, before, &batch, true);
        let at = |thousandths: usize| times[(times.len() - 1) * thousandths / 1000];
        println!(
            "acknowledgement at half load ({rate:.0} events per second), 99th percentile to an fsync: {:.1}; the bar is 5",
            at(990).as_secs_f64() / fsync.as_secs_f64()
        );
        println!(
            "  p50 {}, p99 {}, p99.9 {}; an fsync takes {}",
            millis(at(500)),
            millis(at(990)),
            millis(at(999)),
            millis(fsync)
        );
    }

    /// From the first POST to the last row: the preset relative to one rule.
    fn end_to_end(&mut self) {
        let preset = self.pipeline(PRESET, 0);
        let single = self.pipeline(SINGLE, 0);
        let fsync = millis(fsync(preset.data()));
        let [preset, single] = self.alternate([(preset, 0, true), (single, 0, false)]);
        let ratios: Vec<_> = preset.iter().zip(&single).map(|(a, b)| a / b).collect();
        println!(
            "end to end, `preset = \"stripe\"` to one rule: {}; the bar is 0.8",
            spread(&ratios)
        );
        println!(
            "  {:.0} events per second to {:.0}; an fsync takes {fsync}",
            median(&preset),
            median(&single)
        );
    }

    /// The preset: large tables relative to small ones.
    fn growth(&mut self) {
        let Sizes { small, large, .. } = *self.sizes;
        let few = self.pipeline(PRESET, small);
        let many = self.pipeline(PRESET, large);
        let fsync = millis(fsync(many.data()));
        let [few, many] = self.alternate([(few, small, true), (many, large, true)]);
        let ratios: Vec<_> = many.iter().zip(&few).map(|(a, b)| a / b).collect();
        println!("end to end, at {large} rows to {small}: {}; the bar is 0.83", spread(&ratios));
        println!(
            "  {:.0} events per second to {:.0}; an fsync takes {fsync}",
            median(&many),
            median(&few)
        );
    }

    /// The rates of two pipelines, in rounds. For each pipeline: its rows, and whether the preset writes items.
    fn alternate(&mut self, mut pipelines: [(Pipeline, u32, bool); 2]) -> [Vec<f64>; 2] {
        let mut rates = [Vec::new(), Vec::new()];
        // The first round only warms up. Each is first in every other round.
        for round in 0..=self.sizes.rounds {
            for which in [round % 2, (round + 1) % 2] {
                let (pipeline, held, items) = &mut pipelines[which];
                let batch = self.batch(*held);
                let requests = requests(&batch.events);
                let before = pipeline.counts();
                let start = Instant::now();
                self.load(pipeline.address(), requests);
                pipeline.drain(|_, _| {});
                let rate = rate(batch.events.len(), start.elapsed());
                verify(pipeline, before, &batch, *items);
                pipeline.clear(&batch);
                if round > 0 {
                    rates[which].push(rate);
                }
            }
        }
        rates
    }

    /// Draining a backlog, relative to ingress.
    fn drain(&mut self, ingress: f64) {
        let mut pipeline = Pipeline::new(self.hookmill, PRESET, 0);
        // The first start creates the queue.
        pipeline.start();
        pipeline.stop();
        let before = pipeline.counts();
        let batch = self.events.batch(self.sizes.backlog, 0);
        let mut queue = pipeline.database("queue.db");
        let transaction = queue.transaction().expect("nothing serves it");
        for event in &batch.events {
            put(&transaction, event.message().as_bytes(), 0);
        }
        transaction.commit().expect("the disk is not full");
        drop(queue);
        let start = Instant::now();
        pipeline.start();
        let (idle, mut half, mut most) = (pipeline.memory(), None, 0.0_f64);
        pipeline.drain(|pipeline, left| {
            let memory = pipeline.memory();
            most = most.max(memory);
            if left <= batch.events.len() / 2 {
                half.get_or_insert(memory);
            }
        });
        let drain = rate(batch.events.len(), start.elapsed());
        verify(&pipeline, before, &batch, true);
        println!(
            "drain of {} events, to ingress: {:.2}; the bar is 1",
            batch.events.len(),
            drain / ingress
        );
        println!(
            "  {drain:.0} events per second; an fsync takes {}",
            millis(fsync(pipeline.data()))
        );
        println!(
            "  memory: {idle:.0} MiB at the start, {:.0} MiB at half, {most:.0} MiB at most",
            half.unwrap_or_default()
        );
    }
}

/// Checks that every event took effect once, and nothing else changed.
fn verify(pipeline: &Pipeline, before: Counts, batch: &Batch, items: bool) {
    let expected = Counts {
        events: before.events + batch.events.len(),
        subscriptions: before.subscriptions + batch.new,
        items: before.items + if items { batch.new } else { 0 },
        dead: before.dead,
        waiting: 0,
    };
    assert_eq!(pipeline.counts(), expected, "the rows that are there, and those that should be");
}

fn rate(events: usize, time: Duration) -> f64 {
    events as f64 / time.as_secs_f64()
}

/// The time of an fsync of one page, the median of many.
fn fsync(folder: &Path) -> Duration {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(folder).expect("a file can be made");
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[0; 4096]).expect("the disk is not full");
            file.sync_data().expect("the disk syncs");
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of ratios, and their range.
fn spread(values: &[f64]) -> String {
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    format!("{:.2} (rounds {least:.2} to {most:.2})", median(values))
}
