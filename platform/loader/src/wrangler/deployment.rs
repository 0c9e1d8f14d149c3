//! Reads what of a wrangler.toml matters to the Workers: once for its top level, and once for each of its environments.
//!
//! Reports unknown keys in these tables, since a misspelled key is a missing one.

use std::collections::BTreeMap;

use hookmill_config::{ConfigError, Located};
use hookmill_core::limits::{BATCH_MESSAGES, DELAY_SECONDS, PLATFORM_DELIVERIES};
use hookmill_keys::kind::{text, whole};
use hookmill_keys::{Document, Item, Section};

use super::rate_limits::Limiters;
use super::{BUCKET, DATABASE, DATASET, Shared};

/// The messages in a batch, where nothing is said.
/// Source: <https://developers.cloudflare.com/queues/configuration/batching-retries/>.
pub(super) const DEFAULT_BATCH_SIZE: i64 = 10;
/// How often a message is delivered again, where nothing is said. Source: as above.
const DEFAULT_MAX_RETRIES: i64 = 3;
/// The most that Cloudflare takes.
pub(super) const MAX_RETRIES: i64 = PLATFORM_DELIVERIES as i64 - 1;

/// A Worker as it is deployed.
pub(super) struct Deployment {
    /// Where it is described.
    pub(super) here: Located<()>,
    pub(super) name: Option<Located<String>>,
    /// Queues that it sends into: by binding.
    producers: Vec<(String, Located<String>)>,
    /// Queues that it takes from.
    pub(super) consumers: Vec<Consumer>,
    /// By the table that they are in.
    resources: Vec<(&'static str, Resource)>,
    /// How many cron triggers it has.
    pub(super) crons: Option<Located<usize>>,
    pub(super) limiters: Limiters,
}

/// A `[[queues.consumers]]`.
pub(super) struct Consumer {
    pub(super) here: Located<()>,
    pub(super) queue: Located<String>,
    pub(super) max_batch_size: Option<Located<i64>>,
    pub(super) max_retries: Option<Located<i64>>,
    pub(super) dead_letter_queue: Option<Located<String>>,
}

/// A binding to something that is kept.
pub(super) struct Resource {
    pub(super) here: Located<()>,
    binding: String,
    said: Vec<(&'static str, Located<String>)>,
}

/// The deployments that a wrangler.toml describes, by the name of their environment; none if it is no TOML. With its faults.
pub(super) fn read_deployments(
    file: &str,
    text: &str,
) -> (Option<BTreeMap<String, Deployment>>, Vec<ConfigError>) {
    let document = Document::new(file, text);
    let table = document.parse();
    if document.faults() > 0 {
        return (None, document.into_errors());
    }
    let root = document.root(&table);
    let top = Deployment::read(&root, root.here.clone());
    let environments =
        root.get("env").and_then(|item| item.section("tables such as [env.staging]"));
    let environments = environments.iter().flat_map(Section::members).filter_map(|(name, item)| {
        let section = item.section("a table")?;
        let mut deployment = Deployment::read(&section, name.clone().map(|_| ()));
        // These are what an environment inherits: <https://developers.cloudflare.com/workers/wrangler/configuration/>.
        let inherited = |top: &Located<String>| {
            name.clone().map(|environment| format!("{}-{environment}", top.value))
        };
        deployment.name = deployment.name.or_else(|| top.name.as_ref().map(inherited));
        deployment.crons = deployment.crons.or_else(|| top.crons.clone());
        Some((name.value, deployment))
    });
    let mut deployments: BTreeMap<_, _> = environments.collect();
    deployments.insert(String::new(), top);
    (Some(deployments), document.into_errors())
}

impl Deployment {
    fn read(section: &Section<'_>, here: Located<()>) -> Self {
        let queues = section
            .get("queues")
            .and_then(|item| item.section("tables: [[queues.producers]] and [[queues.consumers]]"));
        let (mut producers, mut consumers) = (Vec::new(), Vec::new());
        if let Some(queues) = queues {
            producers = entries(&queues, "producers", "[[queues.producers]]")
                .into_iter()
                .filter_map(producer)
                .collect();
            consumers = entries(&queues, "consumers", "[[queues.consumers]]")
                .into_iter()
                .filter_map(consumer)
                .collect();
            queues.finish();
        }
        let mut resources = Vec::new();
        for what in [&DATABASE, &BUCKET, &DATASET] {
            let found = entries(section, what.table, "a list of tables, each in two brackets");
            let found = found.into_iter().filter_map(|entry| resource(entry, what));
            resources.extend(found.map(|resource| (what.table, resource)));
        }
        Self {
            here,
            name: section.get("name").and_then(|item| located(&item, "the name of the Worker")),
            producers,
            consumers,
            resources,
            crons: crons(section),
            limiters: Limiters::read(section),
        }
    }

    /// Whether nothing is bound to it.
    pub(super) fn is_bare(&self) -> bool {
        self.producers.is_empty() && self.consumers.is_empty() && self.resources.is_empty()
    }

    /// The queue behind a producer's binding.
    pub(super) fn producer(&self, binding: &str) -> Option<&Located<String>> {
        self.producers.iter().find(|(name, _)| name == binding).map(|(_, queue)| queue)
    }

    /// The consumer of a queue.
    pub(super) fn consumer(&self, queue: &str) -> Option<&Consumer> {
        self.consumers.iter().find(|consumer| consumer.queue.value == queue)
    }

    pub(super) fn resource(&self, what: &Shared) -> Option<&Resource> {
        let mut all = self.resources.iter().filter(|(table, _)| *table == what.table);
        all.find(|(_, resource)| resource.binding == what.binding).map(|(_, resource)| resource)
    }

    /// The whole key of a table of it.
    pub(super) fn key(&self, table: &str) -> String {
        if self.here.key.is_empty() {
            table.to_owned()
        } else {
            format!("{}.{table}", self.here.key)
        }
    }
}

impl Consumer {
    /// How often a message is delivered again.
    pub(super) fn max_retries(&self) -> i64 {
        self.max_retries.as_ref().map_or(DEFAULT_MAX_RETRIES, |retries| retries.value)
    }

    /// Where something is said of it; where it would be, if it is not.
    pub(super) fn place(&self, said: Option<&Located<i64>>) -> Located<()> {
        said.cloned().map_or(self.here.clone(), |said| said.map(|_| ()))
    }
}

impl Resource {
    /// What is said of it.
    pub(super) fn get(&self, key: &str) -> Option<&Located<String>> {
        self.said.iter().find(|(name, _)| *name == key).map(|(_, text)| text)
    }
}

/// The tables in a list of them.
pub(super) fn entries<'s>(
    section: &Section<'s>,
    key: &'static str,
    expected: &str,
) -> Vec<Section<'s>> {
    let list = section.get(key).into_iter().flat_map(|item| item.list(expected, false));
    list.filter_map(|entry| entry.section("a table")).collect()
}

/// A text with its place.
pub(super) fn located(item: &Item<'_>, expected: &'static str) -> Option<Located<String>> {
    text(expected).located().read(item)
}

/// These may be there, and do not matter.
pub(super) fn allow(section: &Section<'_>, keys: &[&'static str]) {
    for key in keys {
        section.get(key);
    }
}

fn producer(section: Section<'_>) -> Option<(String, Located<String>)> {
    let binding = section.require("binding", "add the binding: binding = \"EVENTS\"");
    let binding = binding.and_then(|item| item.string("a name"));
    let queue = section.require("queue", "add the queue: queue = \"hookmill-events\"");
    let queue = queue.and_then(|item| located(&item, "a name"));
    allow(&section, &["delivery_delay", "remote"]);
    section.finish();
    Some((binding?, queue?))
}

fn consumer(section: Section<'_>) -> Option<Consumer> {
    // What is out of range has been reported, and counts as the end of the range.
    let number = |key, range: std::ops::RangeInclusive<i64>| {
        let item = section.get(key)?;
        let most = *range.end();
        Some(item.here.clone().map(|()| whole(range).read(&item).unwrap_or(most)))
    };
    // Source of these: <https://developers.cloudflare.com/queues/platform/limits/>.
    let max_batch_size = number("max_batch_size", 1..=i64::try_from(BATCH_MESSAGES).unwrap_or(100));
    let max_retries = number("max_retries", 0..=MAX_RETRIES);
    number("max_batch_timeout", 0..=60);
    number("max_concurrency", 1..=250);
    number("retry_delay", 0..=i64::try_from(DELAY_SECONDS).unwrap_or(i64::MAX));
    let queue = section.require("queue", "add the queue: queue = \"hookmill-events\"");
    let queue = queue.and_then(|item| located(&item, "a name"));
    let dead =
        section.get("dead_letter_queue").and_then(|item| located(&item, "the name of a queue"));
    let here = section.here.clone();
    allow(&section, &["type", "visibility_timeout_ms"]);
    section.finish();
    Some(Consumer { here, queue: queue?, max_batch_size, max_retries, dead_letter_queue: dead })
}

fn resource(section: Section<'_>, what: &Shared) -> Option<Resource> {
    let hint = format!("add the binding: binding = {:?}", what.binding);
    let binding = section.require("binding", &hint).and_then(|item| item.string("a name"));
    let keys = what.keys.iter().chain(what.said).map(|(key, _)| *key);
    let said = keys.filter_map(|key| Some((key, located(&section.get(key)?, "a text")?)));
    let said = said.collect();
    allow(&section, what.more);
    let here = section.here.clone();
    section.finish();
    Some(Resource { here, binding: binding?, said })
}

fn crons(section: &Section<'_>) -> Option<Located<usize>> {
    let triggers = section.get("triggers")?.section("a table: [triggers]")?;
    let crons = triggers.get("crons").map(|item| {
        let list = item.list("a list such as [\"* * * * *\"]", false);
        item.here.clone().map(|()| list.len())
    });
    allow(&triggers, &["events"]);
    triggers.finish();
    crons
}
