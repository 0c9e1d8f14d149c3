//! Compares the three wrangler.toml files with hookmill.toml and with one another. The platform reads the former, and the
//! Workers contain the latter. Without this check, a difference shows only when something is lost.
//!
//! [`check`] reports every difference that matters to the Workers, at its place. It ignores all other settings.

mod deployment;
mod migrations;
mod rate_limits;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use hookmill_config::{Config, ConfigError, Located, Place};

use self::deployment::{
    Consumer, DEFAULT_BATCH_SIZE, Deployment, MAX_RETRIES, Resource, read_deployments,
};

/// The result of [`check`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// The differences, in order of their places.
    pub faults: Vec<ConfigError>,
    /// Files in a format other than TOML, which the check does not read.
    pub unchecked: Vec<String>,
}

/// The Workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Worker {
    Ingress,
    Consumers,
    Dlq,
}

impl Worker {
    const ALL: [Self; 3] = [Self::Ingress, Self::Consumers, Self::Dlq];

    /// The folder of its stage.
    const fn stage(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Consumers => "consumers",
            Self::Dlq => "dlq",
        }
    }

    /// Its name in messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "the ingress Worker",
            Self::Consumers => "the consumer Worker",
            Self::Dlq => "the dead-letter Worker",
        }
    }
}

/// A queue: the Worker that sends to it, and the Worker that consumes it.
struct QueueRoute {
    from: Worker,
    /// The sender's binding.
    binding: &'static str,
    carries: &'static str,
    to: Worker,
}

const ROUTES: [QueueRoute; 7] = [
    QueueRoute {
        from: Worker::Ingress,
        binding: "EVENTS",
        carries: "events",
        to: Worker::Consumers,
    },
    QueueRoute {
        from: Worker::Dlq,
        binding: "REPLAYS",
        carries: "replayed events",
        to: Worker::Consumers,
    },
    QueueRoute {
        from: Worker::Consumers,
        binding: "REPLAYS",
        carries: "imported objects",
        to: Worker::Consumers,
    },
    QueueRoute {
        from: Worker::Consumers,
        binding: "OUTBOX",
        carries: "its wake-up messages",
        to: Worker::Consumers,
    },
    QueueRoute {
        from: Worker::Dlq,
        binding: "OUTBOX",
        carries: "the wake-up messages of the consumer Worker",
        to: Worker::Consumers,
    },
    QueueRoute {
        from: Worker::Dlq,
        binding: "JOBS",
        carries: "its wake-up messages",
        to: Worker::Dlq,
    },
    QueueRoute {
        from: Worker::Ingress,
        binding: "REPORTS",
        carries: "counts of rejected requests",
        to: Worker::Dlq,
    },
];

impl QueueRoute {
    /// Whether a failed message becomes a dead letter.
    fn carries_events(&self) -> bool {
        matches!(self.binding, "EVENTS" | "REPLAYS")
    }

    fn usual_name(&self) -> String {
        format!("hookmill-{}", self.binding.to_ascii_lowercase())
    }
}

/// Something that several Workers use together.
struct Shared {
    /// The table of wrangler.toml that binds it.
    table: &'static str,
    /// The binding of the Workers.
    binding: &'static str,
    users: &'static [Worker],
    /// Whether a Worker works without it.
    optional: bool,
    /// The keys that identify it, equal in all Workers, and the values to suggest.
    keys: &'static [(&'static str, Option<&'static str>)],
    /// Other keys that the check reads, and the values to suggest.
    said: &'static [(&'static str, Option<&'static str>)],
    /// Other keys of wrangler: <https://developers.cloudflare.com/workers/wrangler/configuration/>.
    more: &'static [&'static str],
}

const DATABASE: Shared = Shared {
    table: "d1_databases",
    binding: "DB",
    users: &[Worker::Consumers, Worker::Dlq],
    optional: false,
    keys: &[
        ("database_name", Some("hookmill")),
        ("database_id", Some("printed by `wrangler d1 create`")),
        ("jurisdiction", None),
    ],
    said: &[
        ("migrations_dir", Some("../../migrations")),
        ("migrations_pattern", Some("../../migrations/**/*.sql")),
    ],
    more: &["migrations_table", "preview_database_id", "remote"],
};
const BUCKET: Shared = Shared {
    table: "r2_buckets",
    binding: "BODIES",
    users: &Worker::ALL,
    optional: false,
    keys: &[("bucket_name", Some("hookmill-bodies")), ("jurisdiction", None)],
    said: &[],
    more: &["preview_bucket_name", "remote", "local_dev"],
};
const DATASET: Shared = Shared {
    table: "analytics_engine_datasets",
    binding: "METRICS",
    users: &Worker::ALL,
    optional: true,
    keys: &[("dataset", None)],
    said: &[],
    more: &["remote"],
};

/// Compares the wrangler.toml of each Worker below `root`, the folder of hookmill.toml, with the configuration and with the
/// others, in each of their environments. `read` reads a file.
///
/// A folder without any of them deploys nothing, so its result is empty.
pub fn check(config: &Config, root: &Path, read: impl Fn(&Path) -> io::Result<String>) -> Findings {
    let mut findings = Findings::default();
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for worker in Worker::ALL {
        let folder = root.join(worker.stage()).join("worker");
        let path = folder.join("wrangler.toml");
        let file = path.display().to_string();
        match read(&path) {
            Ok(text) => {
                let (deployments, faults) = read_deployments(&file, &text);
                findings.faults.extend(faults);
                found.push((worker, file, deployments));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let others = ["wrangler.json", "wrangler.jsonc"].map(|name| folder.join(name));
                match others.iter().find(|other| read(other).is_ok()) {
                    Some(other) => findings.unchecked.push(other.display().to_string()),
                    None => missing.push((worker, file)),
                }
            }
            Err(error) => findings.faults.push(fault(&file, format!("it cannot be read: {error}"))),
        }
    }
    if missing.len() == Worker::ALL.len() {
        return findings;
    }
    for (worker, file) in missing {
        let problem = "the file is missing, but other Workers have one".to_owned();
        let hint =
            format!("all three Workers are required; this file configures {}", worker.name());
        findings.faults.push(fault(&file, problem).hint(hint));
    }
    // Files that are not TOML have been reported.
    let found: Vec<_> = found
        .into_iter()
        .filter_map(|(worker, file, deployments)| Some((worker, file, deployments?)))
        .collect();
    findings.faults.extend(environments(config, &found));
    findings.faults.extend(check_provider(config));
    findings.faults.sort();
    findings.faults.dedup();
    findings
}

/// Reports the use of a provider that a Worker cannot reach, such as an SMTP server.
pub fn check_provider(config: &Config) -> Option<ConfigError> {
    let provider = config.native_only.as_ref()?;
    let problem = format!("a Worker cannot send through {:?}", provider.value.as_str());
    Some(provider.error(problem).hint(
        "use a provider with an HTTPS API, such as \"resend\"; or run `hookmill serve`, and remove the wrangler.toml of the Workers",
    ))
}

type Found = (Worker, String, BTreeMap<String, Deployment>);

/// Checks each environment that one of the files has; the top level is the one without a name.
fn environments(config: &Config, found: &[Found]) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (_, _, deployments) in found {
        names.extend(deployments.keys().map(String::as_str));
    }
    let tops = || found.iter().filter_map(|(_, _, deployments)| deployments.get(""));
    if names.len() > 1 && tops().all(Deployment::is_bare) {
        // With environments only, the top level stays empty.
        names.remove("");
    }
    for name in names {
        let mut environment = Environment { config, of: Vec::new() };
        for (worker, file, deployments) in found {
            match deployments.get(name) {
                Some(deployment) => environment.of.push((*worker, deployment)),
                None => faults.push(
                    fault(file, format!("there is no [env.{name}], but another Worker has one"))
                        .hint("an environment inherits no bindings; repeat all of them"),
                ),
            }
        }
        for check in [names_differ, queues, dead_letters, crons] {
            faults.extend(check(&environment));
        }
        for what in [&DATABASE, &BUCKET, &DATASET] {
            faults.extend(shared(&environment, what));
        }
        for database in environment.resources(&DATABASE) {
            faults.extend(migrations::check(database, config.migrations.as_ref()));
        }
        if let Some(ingress) = environment.get(Worker::Ingress) {
            faults.extend(rate_limits::check(&config.ingress, ingress));
        }
    }
    faults
}

/// The Workers of one environment.
struct Environment<'d> {
    config: &'d Config,
    of: Vec<(Worker, &'d Deployment)>,
}

impl<'d> Environment<'d> {
    fn get(&self, worker: Worker) -> Option<&'d Deployment> {
        self.of.iter().find(|(other, _)| *other == worker).map(|(_, deployment)| *deployment)
    }

    /// The queues that the senders name, by route.
    fn queues(&self) -> impl Iterator<Item = (&'static QueueRoute, &'d Located<String>)> {
        ROUTES
            .iter()
            .filter_map(|route| Some((route, self.get(route.from)?.producer(route.binding)?)))
    }

    /// The consumers of events and of replayed events.
    fn consumers_of_events(&self) -> impl Iterator<Item = &'d Consumer> {
        let queues = self.queues().filter(|(route, _)| route.carries_events());
        queues.filter_map(|(route, queue)| self.get(route.to)?.consumer(&queue.value))
    }

    fn resources(&self, what: &Shared) -> impl Iterator<Item = &'d Resource> {
        let using = self.of.iter().filter(|(worker, _)| what.users.contains(worker));
        using.filter_map(|(_, deployment)| deployment.resource(what))
    }

    fn all_consumers(&self) -> impl Iterator<Item = &'d Consumer> {
        self.of.iter().flat_map(|(_, deployment)| &deployment.consumers)
    }
}

/// An error of a whole file.
fn fault(file: &str, problem: String) -> ConfigError {
    let at = Place { file: file.into(), line: 1, column: 1 };
    ConfigError::new(at, "", problem)
}

/// A Worker with the name of another would replace it.
fn names_differ(environment: &Environment<'_>) -> Vec<ConfigError> {
    let names: Vec<_> =
        environment.of.iter().filter_map(|(_, deployment)| deployment.name.as_ref()).collect();
    let mut faults = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if let Some(other) = names[..i].iter().find(|other| other.value == name.value) {
            let problem = format!("{:?} is also the Worker of {}", name.value, other.at);
            faults.push(
                name.error(problem)
                    .hint("use different names; otherwise the last deployment replaces the other"),
            );
        }
    }
    faults
}

/// Each queue has a consumer, in the Worker that handles its messages.
fn queues(environment: &Environment<'_>) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    for route in &ROUTES {
        let Some(sender) = environment.get(route.from) else { continue };
        let Some(queue) = sender.producer(route.binding) else {
            let (from, binding, carries) = (route.from.name(), route.binding, route.carries);
            let problem =
                format!("the binding {binding:?} is missing: {from} sends {carries} there");
            let others = environment.queues().find(|(other, _)| other.binding == route.binding);
            let name = others.map_or(route.usual_name(), |(_, queue)| queue.value.clone());
            faults.push(sender.here.error(problem).hint(format!(
                "[[{}]]\n        binding = {binding:?}\n        queue = {name:?}",
                sender.key("queues.producers")
            )));
            continue;
        };
        if let Some(consumer_worker) = environment.get(route.to)
            && consumer_worker.consumer(&queue.value).is_none()
        {
            faults.push(no_consumer(queue, consumer_worker));
        }
    }
    let queues: Vec<_> = environment.queues().collect();
    for (i, (route, queue)) in queues.iter().enumerate() {
        let same = |(other, name): &&(&QueueRoute, &Located<String>)| {
            other.binding != route.binding && name.value == queue.value
        };
        if let Some((other, _)) = queues[..i].iter().find(same) {
            let problem = format!("{:?} is also the queue {:?}", queue.value, other.binding);
            faults.push(queue.error(problem).hint("use a separate queue for each"));
        }
    }
    let consumers: Vec<_> = environment.all_consumers().collect();
    for (i, Consumer { queue, .. }) in consumers.iter().enumerate() {
        if let Some(other) = consumers[..i].iter().find(|other| other.queue.value == queue.value) {
            let problem = format!("{:?} has a consumer at {}", queue.value, other.queue.at);
            faults.push(queue.error(problem).hint("Cloudflare allows one consumer per queue"));
        }
    }
    faults
}

fn no_consumer(queue: &Located<String>, consumer_worker: &Deployment) -> ConfigError {
    let file = &consumer_worker.here.at.file;
    let problem = queue.error(format!("{file} has no consumer of {:?}", queue.value));
    problem.suggest(
        &queue.value,
        consumer_worker.consumers.iter().map(|other| other.queue.value.as_str()),
    )
}

/// Messages that the platform gives up go to the dead-letter queue, and the dead-letter Worker consumes it.
fn dead_letters(environment: &Environment<'_>) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let mut net: Option<&Located<String>> = None;
    let named = || {
        environment.consumers_of_events().find_map(|consumer| consumer.dead_letter_queue.as_ref())
    };
    for consumer in environment.consumers_of_events() {
        faults.extend(gives_up_early(consumer, environment.config.retry.max_attempts));
        faults.extend(other_batch_size(consumer, environment.config));
        let Some(dead) = &consumer.dead_letter_queue else {
            let name = named().map_or("hookmill-dead-letters", |name| name.value.as_str());
            let problem =
                "dead_letter_queue is missing; events that the platform gives up would be lost";
            let hint = format!("dead_letter_queue = {name:?}");
            faults.push(consumer.here.error(problem).hint(hint));
            continue;
        };
        let taken = environment.queues().find(|(_, queue)| queue.value == dead.value);
        let consumer_worker = environment.get(Worker::Dlq);
        match (taken, consumer_worker, net) {
            (Some((route, _)), ..) => {
                let problem = format!("{:?} is also the queue {:?}", dead.value, route.binding);
                faults.push(dead.error(problem).hint("use a separate queue for dead letters"));
            }
            (None, Some(consumer_worker), _) if consumer_worker.consumer(&dead.value).is_none() => {
                faults.push(no_consumer(dead, consumer_worker));
            }
            (None, _, Some(net)) if net.value != dead.value => {
                let problem = format!("{:?} here, but {:?} at {}", dead.value, net.value, net.at);
                let hint = format!("dead_letter_queue = {:?}", net.value);
                faults.push(dead.error(problem).hint(hint));
            }
            _ => net = Some(dead),
        }
    }
    let Some(net) = net else { return faults };
    let last = environment
        .get(Worker::Dlq)
        .and_then(|consumer_worker| consumer_worker.consumer(&net.value));
    if let Some(last) = last.filter(|last| last.max_retries() < MAX_RETRIES) {
        let deliveries = last.max_retries() + 1;
        let problem =
            format!("Cloudflare deletes a dead letter after {deliveries} failed deliveries");
        let here = last.place(last.max_retries.as_ref());
        faults.push(here.error(problem).hint(format!("max_retries = {MAX_RETRIES}")));
    }
    let others = environment.queues().filter(|(route, _)| !route.carries_events());
    let others =
        others.filter_map(|(route, queue)| environment.get(route.to)?.consumer(&queue.value));
    for Consumer { queue, dead_letter_queue, .. } in others {
        if let Some(dead) = dead_letter_queue.as_ref().filter(|dead| dead.value == net.value) {
            let problem =
                format!("{:?} is for events, but {:?} carries none", dead.value, queue.value);
            faults.push(dead.error(problem).hint("remove dead_letter_queue"));
        }
    }
    faults
}

/// Hookmill gives up before the platform does, so that it can record the reason.
fn gives_up_early(consumer: &Consumer, max_attempts: u32) -> Option<ConfigError> {
    let deliveries = consumer.max_retries() + 1;
    if deliveries > i64::from(max_attempts) {
        return None;
    }
    let problem = format!(
        "the platform gives up after {deliveries} deliveries, but retry.max_attempts is {max_attempts}"
    );
    let hint = format!("max_retries = {MAX_RETRIES}; hookmill.toml sets the lower limit");
    Some(consumer.place(consumer.max_retries.as_ref()).error(problem).hint(hint))
}

/// The batch size is the same on both platforms. `batch_wait` may differ: on Cloudflare each batch is an invocation and a round trip
/// to D1, so waiting a second saves money; natively it saves nothing.
fn other_batch_size(consumer: &Consumer, config: &Config) -> Option<ConfigError> {
    let wanted = config.queue.batch_size.as_ref()?;
    let found = consumer.max_batch_size.as_ref().map_or(DEFAULT_BATCH_SIZE, |size| size.value);
    let size = wanted.value;
    if usize::try_from(found) == Ok(size) {
        return None;
    }
    let here = consumer.place(consumer.max_batch_size.as_ref());
    let problem = format!("{found} messages in a batch, and batch_size is {size} at {}", wanted.at);
    Some(here.error(problem).hint(format!("max_batch_size = {size}, or remove batch_size")))
}

/// All Workers use the same database, bucket and dataset.
fn shared(environment: &Environment<'_>, what: &Shared) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let found: Vec<_> = environment.resources(what).collect();
    let usual = |key: &str, default: Option<&'static str>| {
        let said = found.iter().find_map(|resource| resource.get(key));
        said.map(|said| said.value.as_str()).or(default)
    };
    let lines = || {
        let all = what.keys.iter().chain(what.said);
        let said = all.filter_map(|(key, default)| Some((key, usual(key, *default)?)));
        let line = |(key, value): (&&str, &str)| format!("\n        {key} = {value:?}");
        said.map(line).collect::<Vec<_>>().concat()
    };
    for (worker, deployment) in
        environment.of.iter().filter(|(worker, _)| what.users.contains(worker))
    {
        if deployment.resource(what).is_none() && !what.optional {
            let (binding, worker) = (what.binding, worker.name());
            let problem = format!("the binding {binding:?} is missing: {worker} uses it");
            let table = deployment.key(what.table);
            let hint = format!("[[{table}]]\n        binding = {binding:?}{}", lines());
            faults.push(deployment.here.error(problem).hint(hint));
        }
    }
    let names = what.keys.iter().filter(|(_, default)| default.is_some()).map(|(key, _)| *key);
    let names: Vec<_> = names.collect();
    if !names.is_empty() && names.iter().all(|key| usual(key, None).is_none()) {
        // wrangler would make one for each Worker.
        let problem = format!("incomplete binding: {} is missing", names.join(" or "));
        faults.extend(found.iter().map(|resource| resource.here.error(problem.as_str())));
    }
    for (key, _) in what.keys {
        let said = found.iter().map(|resource| {
            let said = resource.get(key);
            said.map_or(resource.here.clone().map(|()| None), |said| said.clone().map(Some))
        });
        faults.extend(disagreeing(key, &said.collect::<Vec<_>>()));
    }
    faults
}

/// The values that differ from the most common one; from the first, if no value is more common.
fn disagreeing(key: &str, said: &[Located<Option<String>>]) -> Vec<ConfigError> {
    let count = |one: &Located<_>| said.iter().filter(|other| other.value == one.value).count();
    let Some(usual) = said.iter().rev().max_by_key(|one| count(one)) else { return Vec::new() };
    let others = said.iter().filter(|one| one.value != usual.value);
    let fault = |one: &Located<Option<String>>| {
        let problem = match (&one.value, &usual.value) {
            (Some(one), Some(other)) => format!("{one:?} here, but {other:?} at {}", usual.at),
            (Some(one), None) => format!("{one:?} here, but no {key} at {}", usual.at),
            (None, other) => {
                let other = other.as_deref().unwrap_or_default();
                format!("no {key} here, but {other:?} at {}", usual.at)
            }
        };
        one.error(problem).hint(match &usual.value {
            Some(text) => format!("{key} = {text:?}"),
            None => format!("leave {key} out"),
        })
    };
    others.map(fault).collect()
}

/// Only a cron trigger wakes up a Worker for work that is due later.
fn crons(environment: &Environment<'_>) -> Vec<ConfigError> {
    let using = environment.of.iter().filter(|(worker, _)| *worker != Worker::Ingress);
    let without = using
        .filter(|(_, deployment)| deployment.crons.as_ref().is_none_or(|crons| crons.value == 0));
    let fault = |(worker, deployment): &(Worker, &Deployment)| {
        let here =
            deployment.crons.clone().map_or(deployment.here.clone(), |crons| crons.map(|_| ()));
        let problem =
            format!("there is no cron trigger to wake up {} for delayed work", worker.name());
        let hint = format!("[{}]\n        crons = [\"* * * * *\"]", deployment.key("triggers"));
        here.error(problem).hint(hint)
    };
    without.map(fault).collect()
}

#[cfg(test)]
mod tests {
    use hookmill_config::parse;

    use super::*;

    const FILES: [(&str, &str); 3] = [
        ("ingress/worker/wrangler.toml", include_str!("../../../ingress/worker/wrangler.toml")),
        ("consumers/worker/wrangler.toml", include_str!("../../../consumers/worker/wrangler.toml")),
        ("dlq/worker/wrangler.toml", include_str!("../../../dlq/worker/wrangler.toml")),
    ];
    const CONFIG: &str = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";

    /// What is said of hookmill.toml and of the files of a folder.
    fn checked(config: &str, files: &[(String, String)]) -> Findings {
        let config = parse("hookmill.toml", config).unwrap();
        check(&config, Path::new(""), |path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| text.clone()).ok_or(io::ErrorKind::NotFound.into())
        })
    }

    fn shown(check: &Findings) -> String {
        check.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// The files of this repository, with something in one of them replaced where it is first.
    fn files(changes: &[(&str, &str, &str)]) -> Vec<(String, String)> {
        let file = |(name, text): (&str, &str)| {
            let mut text = text.to_owned();
            for (_, from, to) in changes.iter().filter(|(stage, ..)| name.starts_with(stage)) {
                assert!(text.contains(from), "{name} has {from:?}");
                text = text.replacen(from, to, 1);
            }
            (name.to_owned(), text)
        };
        FILES.map(file).to_vec()
    }

    fn with(config: &str, changes: &[(&str, &str, &str)]) -> String {
        shown(&checked(&format!("{CONFIG}{config}"), &files(changes)))
    }

    /// What is said if one thing is another.
    fn changed(stage: &str, from: &str, to: &str) -> String {
        with("", &[(stage, from, to)])
    }

    #[test]
    fn the_files_of_this_repository_agree() {
        assert_eq!(with("", &[]), "");
        assert_eq!(with("[queue]\nbatch_size = 100\nbatch_wait = \"0s\"\n", &[]), "");
    }

    #[test]
    fn a_provider_that_a_worker_cannot_reach_is_rejected() {
        let email = |lines: &str| with(&format!("[email]\nfrom = \"a@b.test\"\n{lines}"), &[]);
        assert_eq!(email("provider = \"resend\""), "");
        // A server that nothing goes through is no fault.
        let smtp = "smtp = { host = \"mail.example.com\" }";
        assert_eq!(email(&format!("provider = \"resend\"\n{smtp}")), "");
        for provider in ["provider = \"smtp\"", "provider = \"resend\"\nfallback = \"smtp\""] {
            let said = email(&format!("{provider}\n{smtp}"));
            assert!(said.contains("a Worker cannot send through \"smtp\""), "{said}");
            assert!(said.contains("hint: use a provider with an HTTPS API"), "{said}");
        }
    }

    #[test]
    fn other_settings_do_not_matter() {
        let more = "route = \"x\"\n[vars]\nEVENTS = 1\n[[kv_namespaces]]\nbindung = \"KV\"\n\
                    [[queues.producers]]\nbinding = \"MINE\"\nqueue = \"mine\"\nremote = true\n[limits]\ncpu_ms = 5";
        assert_eq!(changed("ingress", "[observability]", &format!("{more}\n[observability]")), "");
    }

    #[test]
    fn queues_may_have_any_names_if_all_agree() {
        let renamed = FILES.map(|(name, text)| {
            (name.to_owned(), text.replace("queue = \"hookmill-", "queue = \"acme-"))
        });
        assert_eq!(shown(&checked(CONFIG, &renamed)), "");
    }

    #[test]
    fn every_queue_has_its_consumer() {
        insta::assert_snapshot!([
            changed("ingress", "\"hookmill-events\"", "\"hookmill-event\""),
            changed("ingress", "\"hookmill-reports\"", "\"elsewhere\""),
            changed("consumers", "\"hookmill-outbox\"", "\"outbox\""),
            changed("dlq", "\"hookmill-outbox\"", "\"outbox\""),
            changed("dlq", "\"hookmill-jobs\"", "\"hookmill-job\""),
            changed("dlq", "\"hookmill-replays\"", "\"hookmill-reports\""),
            changed("dlq", "queue = \"hookmill-dead-letters\"", "queue = \"dead\""),
        ].join("\n\n"), @r#"
        ingress/worker/wrangler.toml:14:9: queues.producers[0].queue: consumers/worker/wrangler.toml has no consumer of "hookmill-event"
          hint: did you mean `hookmill-events`?

        ingress/worker/wrangler.toml:19:9: queues.producers[1].queue: dlq/worker/wrangler.toml has no consumer of "elsewhere"
          hint: possible here: `hookmill-dead-letters`, `hookmill-reports`, `hookmill-jobs`

        consumers/worker/wrangler.toml:47:9: queues.producers[2].queue: consumers/worker/wrangler.toml has no consumer of "outbox"
          hint: possible here: `hookmill-events`, `hookmill-replays`, `hookmill-outbox`

        dlq/worker/wrangler.toml:56:9: queues.producers[3].queue: consumers/worker/wrangler.toml has no consumer of "outbox"
          hint: possible here: `hookmill-events`, `hookmill-replays`, `hookmill-outbox`

        dlq/worker/wrangler.toml:38:9: queues.producers[1].queue: dlq/worker/wrangler.toml has no consumer of "hookmill-job"
          hint: did you mean `hookmill-jobs`?

        dlq/worker/wrangler.toml:51:9: queues.producers[2].queue: consumers/worker/wrangler.toml has no consumer of "hookmill-reports"
          hint: did you mean `hookmill-replays`?
        ingress/worker/wrangler.toml:19:9: queues.producers[1].queue: "hookmill-reports" is also the queue "REPLAYS"
          hint: use a separate queue for each

        consumers/worker/wrangler.toml:27:21: queues.consumers[0].dead_letter_queue: dlq/worker/wrangler.toml has no consumer of "hookmill-dead-letters"
          hint: possible here: `dead`, `hookmill-reports`, `hookmill-jobs`
        consumers/worker/wrangler.toml:37:21: queues.consumers[1].dead_letter_queue: dlq/worker/wrangler.toml has no consumer of "hookmill-dead-letters"
          hint: possible here: `dead`, `hookmill-reports`, `hookmill-jobs`
        "#);
    }

    #[test]
    fn every_binding_is_present() {
        insta::assert_snapshot!([
            changed("ingress", "\"EVENTS\"", "\"EVENT\""),
            changed("ingress", "\"REPORTS\"", "\"REPORT\""),
            changed("ingress", "[[r2_buckets]]", "[[r2_bucket]]"),
            changed("consumers", "\"OUTBOX\"", "\"OUT\""),
            changed("consumers", "\"DB\"", "\"D1\""),
            changed("dlq", "\"JOBS\"", "\"JOB\""),
            changed("dlq", "\"REPLAYS\"", "\"REPLAY\""),
            changed("dlq", "\"BODIES\"", "\"BODY\""),
            changed("dlq", "\"DB\"", "\"D1\""),
        ].join("\n\n"), @r#"
        ingress/worker/wrangler.toml:1:1: the binding "EVENTS" is missing: the ingress Worker sends events there
          hint: [[queues.producers]]
                binding = "EVENTS"
                queue = "hookmill-events"

        ingress/worker/wrangler.toml:1:1: the binding "REPORTS" is missing: the ingress Worker sends counts of rejected requests there
          hint: [[queues.producers]]
                binding = "REPORTS"
                queue = "hookmill-reports"

        ingress/worker/wrangler.toml:1:1: the binding "BODIES" is missing: the ingress Worker uses it
          hint: [[r2_buckets]]
                binding = "BODIES"
                bucket_name = "hookmill-bodies"

        consumers/worker/wrangler.toml:1:1: the binding "OUTBOX" is missing: the consumer Worker sends its wake-up messages there
          hint: [[queues.producers]]
                binding = "OUTBOX"
                queue = "hookmill-outbox"

        consumers/worker/wrangler.toml:1:1: the binding "DB" is missing: the consumer Worker uses it
          hint: [[d1_databases]]
                binding = "DB"
                database_name = "hookmill"
                database_id = "00000000-0000-0000-0000-000000000000"
                migrations_dir = "../../migrations"
                migrations_pattern = "../../migrations/**/*.sql"

        dlq/worker/wrangler.toml:1:1: the binding "JOBS" is missing: the dead-letter Worker sends its wake-up messages there
          hint: [[queues.producers]]
                binding = "JOBS"
                queue = "hookmill-jobs"

        dlq/worker/wrangler.toml:1:1: the binding "REPLAYS" is missing: the dead-letter Worker sends replayed events there
          hint: [[queues.producers]]
                binding = "REPLAYS"
                queue = "hookmill-replays"

        dlq/worker/wrangler.toml:1:1: the binding "BODIES" is missing: the dead-letter Worker uses it
          hint: [[r2_buckets]]
                binding = "BODIES"
                bucket_name = "hookmill-bodies"

        dlq/worker/wrangler.toml:1:1: the binding "DB" is missing: the dead-letter Worker uses it
          hint: [[d1_databases]]
                binding = "DB"
                database_name = "hookmill"
                database_id = "00000000-0000-0000-0000-000000000000"
                migrations_dir = "../../migrations"
                migrations_pattern = "../../migrations/**/*.sql"
        "#);
    }

    #[test]
    fn each_queue_is_for_one_thing_and_has_one_consumer() {
        let twice = "[[queues.consumers]]\nqueue = \"hookmill-events\"\n[triggers]";
        insta::assert_snapshot!([
            changed("dlq", "\"hookmill-replays\"", "\"hookmill-events\""),
            changed("dlq", "\"hookmill-jobs\"", "\"hookmill-reports\""),
            changed("dlq", "[triggers]", twice),
        ].join("\n\n"), @r#"
        dlq/worker/wrangler.toml:51:9: queues.producers[2].queue: "hookmill-events" is also the queue "EVENTS"
          hint: use a separate queue for each

        ingress/worker/wrangler.toml:19:9: queues.producers[1].queue: "hookmill-reports" is also the queue "JOBS"
          hint: use a separate queue for each

        dlq/worker/wrangler.toml:60:9: queues.consumers[3].queue: "hookmill-events" has a consumer at consumers/worker/wrangler.toml:18:9
          hint: Cloudflare allows one consumer per queue
        "#);
    }

    #[test]
    fn messages_that_the_platform_gives_up_are_not_lost() {
        let dead = "dead_letter_queue = \"hookmill-dead-letters\"";
        let without = "max_retries = 100\ndead_letter_queue = \"hookmill-dead-letters\"";
        insta::assert_snapshot!([
            changed("consumers", dead, ""),
            changed("consumers", dead, "dead_letter_queue = \"hookmill-dead-letter\""),
            changed("consumers", dead, "dead_letter_queue = \"hookmill-jobs\""),
            with("", &[
                ("consumers", dead, "dead_letter_queue = \"dead\""),
                ("dlq", "[triggers]", "[[queues.consumers]]\nqueue = \"dead\"\nmax_retries = 100\n[triggers]"),
            ]),
            changed("consumers", without, ""),
            changed("consumers", "max_retries = 3", &format!("max_retries = 3\n{dead}")),
            changed("dlq", "max_retries = 100", "max_retries = 99"),
            changed("dlq", "max_retries = 100", ""),
        ].join("\n\n"), @r#"
        consumers/worker/wrangler.toml:17:1: queues.consumers[0]: dead_letter_queue is missing; events that the platform gives up would be lost
          hint: dead_letter_queue = "hookmill-dead-letters"

        consumers/worker/wrangler.toml:27:21: queues.consumers[0].dead_letter_queue: dlq/worker/wrangler.toml has no consumer of "hookmill-dead-letter"
          hint: did you mean `hookmill-dead-letters`?

        consumers/worker/wrangler.toml:27:21: queues.consumers[0].dead_letter_queue: "hookmill-jobs" is also the queue "JOBS"
          hint: use a separate queue for dead letters

        consumers/worker/wrangler.toml:37:21: queues.consumers[1].dead_letter_queue: "hookmill-dead-letters" here, but "dead" at consumers/worker/wrangler.toml:27:21
          hint: dead_letter_queue = "dead"

        consumers/worker/wrangler.toml:17:1: queues.consumers[0]: dead_letter_queue is missing; events that the platform gives up would be lost
          hint: dead_letter_queue = "hookmill-dead-letters"
        consumers/worker/wrangler.toml:17:1: queues.consumers[0]: the platform gives up after 4 deliveries, but retry.max_attempts is 8
          hint: max_retries = 100; hookmill.toml sets the lower limit

        consumers/worker/wrangler.toml:56:21: queues.consumers[2].dead_letter_queue: "hookmill-dead-letters" is for events, but "hookmill-outbox" carries none
          hint: remove dead_letter_queue

        dlq/worker/wrangler.toml:24:15: queues.consumers[0].max_retries: Cloudflare deletes a dead letter after 100 failed deliveries
          hint: max_retries = 100

        dlq/worker/wrangler.toml:18:1: queues.consumers[0]: Cloudflare deletes a dead letter after 4 failed deliveries
          hint: max_retries = 100
        "#);
    }

    #[test]
    fn hookmill_gives_up_before_the_platform_does() {
        assert_eq!(changed("consumers", "max_retries = 100", "max_retries = 8"), "");
        insta::assert_snapshot!([
            changed("consumers", "max_retries = 100", "max_retries = 7"),
            changed("consumers", "max_retries = 100", ""),
            with("[retry]\nmax_attempts = 50\n", &[("consumers", "max_retries = 100", "max_retries = 49")]),
        ].join("\n\n"), @"
        consumers/worker/wrangler.toml:26:15: queues.consumers[0].max_retries: the platform gives up after 8 deliveries, but retry.max_attempts is 8
          hint: max_retries = 100; hookmill.toml sets the lower limit

        consumers/worker/wrangler.toml:17:1: queues.consumers[0]: the platform gives up after 4 deliveries, but retry.max_attempts is 8
          hint: max_retries = 100; hookmill.toml sets the lower limit

        consumers/worker/wrangler.toml:26:15: queues.consumers[0].max_retries: the platform gives up after 50 deliveries, but retry.max_attempts is 50
          hint: max_retries = 100; hookmill.toml sets the lower limit
        ");
    }

    #[test]
    fn batch_sizes_agree() {
        let size = "[queue]\nbatch_size = 50\n";
        assert_eq!(changed("consumers", "max_batch_size = 100", "max_batch_size = 50"), "");
        insta::assert_snapshot!([
            with(size, &[("consumers", "max_batch_size = 100", "max_batch_size = 50")]),
            with(size, &[("consumers", "max_batch_size = 100", "")]),
        ].join("\n\n"), @"
        consumers/worker/wrangler.toml:32:18: queues.consumers[1].max_batch_size: 100 messages in a batch, and batch_size is 50 at hookmill.toml:5:14
          hint: max_batch_size = 50, or remove batch_size

        consumers/worker/wrangler.toml:17:1: queues.consumers[0]: 10 messages in a batch, and batch_size is 50 at hookmill.toml:5:14
          hint: max_batch_size = 50, or remove batch_size
        consumers/worker/wrangler.toml:32:18: queues.consumers[1].max_batch_size: 100 messages in a batch, and batch_size is 50 at hookmill.toml:5:14
          hint: max_batch_size = 50, or remove batch_size
        ");
        assert_eq!(with("[queue]\nbatch_wait = \"5s\"\n", &[]), "");
    }

    #[test]
    fn numbers_are_those_that_cloudflare_takes() {
        insta::assert_snapshot!([
            changed("consumers", "max_batch_size = 100", "max_batch_size = 101"),
            changed("consumers", "max_batch_timeout = 1", "max_batch_timeout = 61"),
            changed("consumers", "max_concurrency = 4", "max_concurrency = 0"),
            changed("consumers", "max_retries = 100", "max_retries = 101"),
            changed("dlq", "max_retries = 10\n", "max_retries = \"10\"\nretry_delay = 86401\n"),
        ].join("\n\n"), @"
        consumers/worker/wrangler.toml:20:18: queues.consumers[0].max_batch_size: found 101
          hint: expected a whole number from 1 to 100

        consumers/worker/wrangler.toml:22:21: queues.consumers[0].max_batch_timeout: found 61
          hint: expected a whole number from 0 to 60

        consumers/worker/wrangler.toml:23:19: queues.consumers[0].max_concurrency: found 0
          hint: expected a whole number from 1 to 250

        consumers/worker/wrangler.toml:26:15: queues.consumers[0].max_retries: found 101
          hint: expected a whole number from 0 to 100

        dlq/worker/wrangler.toml:33:15: queues.consumers[1].max_retries: found a string
          hint: expected a whole number from 0 to 100
        dlq/worker/wrangler.toml:34:15: queues.consumers[1].retry_delay: found 86401
          hint: expected a whole number from 0 to 86400
        ");
    }

    #[test]
    fn a_misspelt_key_is_found() {
        insta::assert_snapshot!([
            changed("consumers", "max_retries", "max_retrys"),
            changed("dlq", "[[queues.producers]]\nbinding = \"JOBS\"", "[[queues.producer]]\nbinding = \"JOBS\""),
            changed("dlq", "crons", "cron"),
            changed("dlq", "database_id", "databse_id"),
            changed("dlq", "[[r2_buckets]]", "[[r2_buckets]]\nbucket = \"x\""),
            changed("dlq", "queue = \"hookmill-jobs\"", "name = \"hookmill-jobs\""),
        ].join("\n\n"), @r#"
        consumers/worker/wrangler.toml:17:1: queues.consumers[0]: the platform gives up after 4 deliveries, but retry.max_attempts is 8
          hint: max_retries = 100; hookmill.toml sets the lower limit
        consumers/worker/wrangler.toml:26:1: queues.consumers[0]: unknown key `max_retrys`
          hint: did you mean `max_retries`?

        dlq/worker/wrangler.toml:1:1: the binding "JOBS" is missing: the dead-letter Worker sends its wake-up messages there
          hint: [[queues.producers]]
                binding = "JOBS"
                queue = "hookmill-jobs"
        dlq/worker/wrangler.toml:36:10: queues: unknown key `producer`
          hint: did you mean `producers`?

        dlq/worker/wrangler.toml:1:1: there is no cron trigger to wake up the dead-letter Worker for delayed work
          hint: [triggers]
                crons = ["* * * * *"]
        dlq/worker/wrangler.toml:60:1: triggers: unknown key `cron`
          hint: did you mean `crons`?

        dlq/worker/wrangler.toml:66:1: d1_databases[0]: no database_id here, but "00000000-0000-0000-0000-000000000000" at consumers/worker/wrangler.toml:64:15
          hint: database_id = "00000000-0000-0000-0000-000000000000"
        dlq/worker/wrangler.toml:69:1: d1_databases[0]: unknown key `databse_id`
          hint: did you mean `database_id`?

        dlq/worker/wrangler.toml:63:1: r2_buckets[0]: unknown key `bucket`
          hint: possible here: `binding`, `bucket_name`, `jurisdiction`, `preview_bucket_name`, `remote`, `local_dev`

        dlq/worker/wrangler.toml:1:1: the binding "JOBS" is missing: the dead-letter Worker sends its wake-up messages there
          hint: [[queues.producers]]
                binding = "JOBS"
                queue = "hookmill-jobs"
        dlq/worker/wrangler.toml:38:1: queues.producers[1]: unknown key `name`
          hint: possible here: `binding`, `queue`, `delivery_delay`, `remote`
        "#);
    }

    #[test]
    fn shared_resources_are_the_same() {
        let dataset = |name: &str| {
            format!("[[analytics_engine_datasets]]\nbinding = \"METRICS\"\n{name}\n[observability]")
        };
        let (one, other) = (dataset("dataset = \"one\""), dataset("dataset = \"other\""));
        let id = "\"00000000-0000-0000-0000-000000000000\"";
        assert_eq!(with("", &[("ingress", "[observability]", &one)]), "");
        assert_eq!(
            with("", &[("ingress", "[observability]", &one), ("dlq", "[observability]", &one)]),
            ""
        );
        insta::assert_snapshot!([
            changed("ingress", "\"hookmill-bodies\"", "\"bodies\""),
            changed("dlq", "\"hookmill-bodies\"", "\"hookmill-bodies\"\njurisdiction = \"eu\""),
            changed("dlq", "bucket_name = \"hookmill-bodies\"", ""),
            with("", &["ingress", "consumers", "dlq"].map(|stage| (stage, "bucket_name = \"hookmill-bodies\"", ""))),
            changed("dlq", id, "\"1\""),
            changed("dlq", "database_name = \"hookmill\"", "database_name = \"hookmil\""),
            with("", &[("ingress", "[observability]", &one), ("dlq", "[observability]", &other)]),
            changed("dlq", "\"hookmill-dlq\"", "\"hookmill-ingress\""),
        ].join("\n\n"), @r#"
        ingress/worker/wrangler.toml:24:15: r2_buckets[0].bucket_name: "bodies" here, but "hookmill-bodies" at consumers/worker/wrangler.toml:71:15
          hint: bucket_name = "hookmill-bodies"

        dlq/worker/wrangler.toml:65:16: r2_buckets[0].jurisdiction: "eu" here, but no jurisdiction at ingress/worker/wrangler.toml:22:1
          hint: leave jurisdiction out

        dlq/worker/wrangler.toml:62:1: r2_buckets[0]: no bucket_name here, but "hookmill-bodies" at ingress/worker/wrangler.toml:24:15
          hint: bucket_name = "hookmill-bodies"

        consumers/worker/wrangler.toml:69:1: r2_buckets[0]: incomplete binding: bucket_name is missing
        dlq/worker/wrangler.toml:62:1: r2_buckets[0]: incomplete binding: bucket_name is missing
        ingress/worker/wrangler.toml:22:1: r2_buckets[0]: incomplete binding: bucket_name is missing

        dlq/worker/wrangler.toml:69:15: d1_databases[0].database_id: "1" here, but "00000000-0000-0000-0000-000000000000" at consumers/worker/wrangler.toml:64:15
          hint: database_id = "00000000-0000-0000-0000-000000000000"

        dlq/worker/wrangler.toml:68:17: d1_databases[0].database_name: "hookmil" here, but "hookmill" at consumers/worker/wrangler.toml:63:17
          hint: database_name = "hookmill"

        dlq/worker/wrangler.toml:11:11: analytics_engine_datasets[0].dataset: "other" here, but "one" at ingress/worker/wrangler.toml:11:11
          hint: dataset = "one"

        dlq/worker/wrangler.toml:2:8: name: "hookmill-ingress" is also the Worker of ingress/worker/wrangler.toml:2:8
          hint: use different names; otherwise the last deployment replaces the other
        "#);
    }

    #[test]
    fn a_cron_trigger_wakes_up_each_worker() {
        insta::assert_snapshot!([
            changed("consumers", "[triggers]\ncrons = [\"* * * * *\"]", ""),
            changed("dlq", "crons = [\"* * * * *\"]", "crons = []"),
        ].join("\n\n"), @r#"
        consumers/worker/wrangler.toml:1:1: there is no cron trigger to wake up the consumer Worker for delayed work
          hint: [triggers]
                crons = ["* * * * *"]

        dlq/worker/wrangler.toml:60:9: triggers.crons: there is no cron trigger to wake up the dead-letter Worker for delayed work
          hint: [triggers]
                crons = ["* * * * *"]
        "#);
    }

    #[test]
    fn migrations_are_found() {
        let users = |folder: &str| format!("[database]\nmigrations = \"{folder}\"\n");
        for folder in ["migrations/app", "./migrations/app/", "migrations/app/of/mine"] {
            assert_eq!(with(&users(folder), &[]), "");
        }
        let pattern = "migrations_pattern = \"../../migrations/**/*.sql\"";
        let flat = [("consumers", pattern, "")];
        assert_eq!(with("", &flat), "");
        let braces = "migrations_pattern = \"../../migrations/{,app/}*.sql\"";
        assert_eq!(with(&users("migrations/app"), &[("consumers", pattern, braces)]), "");
        insta::assert_snapshot!([
            with(&users("migrations/app"), &flat),
            with(&users("sql"), &[]),
            changed("dlq", "\"../../migrations/**/*.sql\"", "\"../../migrations/app/*.sql\""),
            with("", &[("dlq", pattern, ""), ("dlq", "migrations_dir = \"../../migrations\"", "")]),
        ].join("\n\n"), @r#"
        consumers/worker/wrangler.toml:65:18: d1_databases[0].migrations_dir: this does not find the migrations in "migrations/app", which hookmill.toml:5:14 names
          hint: migrations_dir = "../../migrations"
                migrations_pattern = "../../migrations/**/*.sql"

        consumers/worker/wrangler.toml:67:22: d1_databases[0].migrations_pattern: this does not find the migrations in "sql", which hookmill.toml:5:14 names
          hint: wrangler reads one folder and its subfolders: move them below `migrations`, such as migrations/app
        dlq/worker/wrangler.toml:72:22: d1_databases[0].migrations_pattern: this does not find the migrations in "sql", which hookmill.toml:5:14 names
          hint: wrangler reads one folder and its subfolders: move them below `migrations`, such as migrations/app

        dlq/worker/wrangler.toml:72:22: d1_databases[0].migrations_pattern: this does not find Hookmill's own migrations, so no table would be created
          hint: migrations_dir = "../../migrations"
                migrations_pattern = "../../migrations/**/*.sql"

        dlq/worker/wrangler.toml:66:1: d1_databases[0]: this does not find Hookmill's own migrations, so no table would be created
          hint: migrations_dir = "../../migrations"
                migrations_pattern = "../../migrations/**/*.sql"
        "#);
    }

    #[test]
    fn an_environment_is_checked_like_the_top_level() {
        let staging = FILES.map(|(name, text)| {
            // What an environment inherits is left out.
            let text = text.replace("[triggers]\ncrons = [\"* * * * *\"]", "");
            let (top, bound) = text.split_at(text.find("[[").unwrap());
            let bound = bound.replace("[[", "[[env.staging.").replace("\"hookmill-", "\"staging-");
            let crons = if name.starts_with("ingress") {
                ""
            } else {
                "[triggers]\ncrons = [\"1 * * * *\"]\n"
            };
            (name.to_owned(), format!("{top}{crons}{bound}"))
        });
        // Nothing else is deployed than this environment.
        assert_eq!(shown(&checked(CONFIG, &staging)), "");
        let limit = format!("{CONFIG}rate_limit = {{ requests = 5, per = \"10s\" }}\n");
        let mut both = files(&[]);
        for ((_, both), (_, staging)) in both.iter_mut().zip(&staging) {
            *both += &staging[staging.find("[[").unwrap()..];
        }
        assert_eq!(shown(&checked(CONFIG, &both)), "");
        let broken = |stage: usize, from: &str, to: &str| {
            let mut both = both.clone();
            assert!(both[stage].1.contains(from));
            both[stage].1 = both[stage].1.replace(from, to);
            shown(&checked(CONFIG, &both))
        };
        insta::assert_snapshot!([
            shown(&checked(&limit, &staging)),
            broken(1, "\"staging-events\"", "\"hookmill-events\""),
            broken(2, "[[env.staging.d1_databases]]", "[[env.staging.d1_database]]"),
            broken(2, "env.staging.", "env.production."),
        ].join("\n\n"), @r#"
        ingress/worker/wrangler.toml:12:7: env.staging: the source `stripe` has a rate_limit but no binding
          hint: [[env.staging.ratelimits]]
                name = "RATE_LIMIT_STRIPE"
                namespace_id = "1001"
                simple = { limit = 5, period = 10 }

        ingress/worker/wrangler.toml:32:9: env.staging.queues.producers[0].queue: consumers/worker/wrangler.toml has no consumer of "staging-events"
          hint: possible here: `hookmill-events`, `staging-replays`, `staging-outbox`

        dlq/worker/wrangler.toml:78:7: env.staging: the binding "DB" is missing: the dead-letter Worker uses it
          hint: [[env.staging.d1_databases]]
                binding = "DB"
                database_name = "hookmill"
                database_id = "00000000-0000-0000-0000-000000000000"
                migrations_dir = "../../migrations"
                migrations_pattern = "../../migrations/**/*.sql"

        consumers/worker/wrangler.toml:1:1: there is no [env.production], but another Worker has one
          hint: an environment inherits no bindings; repeat all of them
        dlq/worker/wrangler.toml:1:1: there is no [env.staging], but another Worker has one
          hint: an environment inherits no bindings; repeat all of them
        ingress/worker/wrangler.toml:1:1: there is no [env.production], but another Worker has one
          hint: an environment inherits no bindings; repeat all of them
        "#);
    }

    #[test]
    fn all_three_are_there_or_none() {
        let limited = format!("{CONFIG}rate_limit = {{ requests = 5, per = \"10s\" }}\n");
        assert_eq!(checked(&limited, &[]), Findings::default());
        let mut two = files(&[]);
        two.remove(1);
        insta::assert_snapshot!(shown(&checked(CONFIG, &two)), @"
        consumers/worker/wrangler.toml:1:1: the file is missing, but other Workers have one
          hint: all three Workers are required; this file configures the consumer Worker
        ");
        two.push(("consumers/worker/wrangler.jsonc".to_owned(), "{}".to_owned()));
        let check = checked(CONFIG, &two);
        assert_eq!(shown(&check), "");
        assert_eq!(check.unchecked, ["consumers/worker/wrangler.jsonc"]);
        // What can be seen without it is seen.
        two[1].1 = two[1].1.replace("\"hookmill-bodies\"", "\"bodies\"");
        two[0].1 = two[0].1.replace("\"EVENTS\"", "\"EVENT\"");
        insta::assert_snapshot!(shown(&checked(CONFIG, &two)), @r#"
        dlq/worker/wrangler.toml:64:15: r2_buckets[0].bucket_name: "bodies" here, but "hookmill-bodies" at ingress/worker/wrangler.toml:24:15
          hint: bucket_name = "hookmill-bodies"
        ingress/worker/wrangler.toml:1:1: the binding "EVENTS" is missing: the ingress Worker sends events there
          hint: [[queues.producers]]
                binding = "EVENTS"
                queue = "hookmill-events"
        "#);
    }

    #[test]
    fn only_syntax_errors_of_a_file_are_reported() {
        insta::assert_snapshot!(changed("dlq", "name = ", "name "), @r#"
        dlq/worker/wrangler.toml:2:6: key with no value, expected `=`
          2 | name "hookmill-dlq"
            |      ^
        "#);
    }

    #[test]
    fn the_rate_limiters_have_to_be_those_of_the_sources() {
        let config = r#"
[sources.github-2]
scheme = "github"
secrets = ["env:A"]
rate_limit = { requests = 1000, per = "10s" }
[sources.stripe]
scheme = "stripe"
secrets = ["env:B"]
rate_limit = { requests = 100, per = "1m" }
[sources.clerk]
scheme = "clerk"
secrets = ["env:C"]
"#;
        let right = "[[ratelimits]]
name = \"RATE_LIMIT_GITHUB_2\"
namespace_id = \"1\"
simple = { limit = 1000, period = 10 }
[[ratelimits]]
name = \"RATE_LIMIT_STRIPE\"
namespace_id = \"2\"
  [ratelimits.simple]
  limit = 100
  period = 60
[observability]
";
        let check = |limiters: &str| {
            let limiters = [("ingress", "[observability]\n", limiters)];
            shown(&checked(config, &files(&limiters)))
        };
        assert_eq!(check(right), "");
        insta::assert_snapshot!([
            check(&right.replace("limit = 100\n", "limit = 10\n")),
            check(&right.replace("\"1\"", "\"2\"").replace("STRIPE", "GONE")),
            check(&right.replace("\"1\"", "1").replace("namespace_id = \"2\"\n", "")),
            check(&right.replace("period = 60", "perod = 60")),
            check("[observability]\n"),
        ].join("\n\n"), @r#"
        ingress/worker/wrangler.toml:14:8: ratelimit "RATE_LIMIT_STRIPE".name: "RATE_LIMIT_STRIPE" differs from rate_limit of the source `stripe`
          hint: simple = { limit = 100, period = 60 }

        ingress/worker/wrangler.toml:1:1: the source `stripe` has a rate_limit but no binding
          hint: [[ratelimits]]
                name = "RATE_LIMIT_STRIPE"
                namespace_id = "1001"
                simple = { limit = 100, period = 60 }
        ingress/worker/wrangler.toml:14:8: ratelimit "RATE_LIMIT_GONE".name: no source with a rate_limit has the binding "RATE_LIMIT_GONE"
        ingress/worker/wrangler.toml:15:16: ratelimit "RATE_LIMIT_GONE".namespace_id: "RATE_LIMIT_GITHUB_2" has the same namespace
          hint: use different numbers; limiters with the same number share their counts

        ingress/worker/wrangler.toml:11:16: ratelimit "RATE_LIMIT_GITHUB_2".namespace_id: found a whole number
          hint: expected a whole number in quotes, such as "1001"
        ingress/worker/wrangler.toml:13:1: ratelimit "RATE_LIMIT_STRIPE": `namespace_id` is missing
          hint: a whole number in quotes, such as "1001"

        ingress/worker/wrangler.toml:14:8: ratelimit "RATE_LIMIT_STRIPE".name: "RATE_LIMIT_STRIPE" differs from rate_limit of the source `stripe`
          hint: simple = { limit = 100, period = 60 }
        ingress/worker/wrangler.toml:18:3: ratelimit "RATE_LIMIT_STRIPE".simple: unknown key `perod`
          hint: did you mean `period`?

        ingress/worker/wrangler.toml:1:1: the source `github-2` has a rate_limit but no binding
          hint: [[ratelimits]]
                name = "RATE_LIMIT_GITHUB_2"
                namespace_id = "1001"
                simple = { limit = 1000, period = 10 }
        ingress/worker/wrangler.toml:1:1: the source `stripe` has a rate_limit but no binding
          hint: [[ratelimits]]
                name = "RATE_LIMIT_STRIPE"
                namespace_id = "1002"
                simple = { limit = 100, period = 60 }
        "#);
    }
}
