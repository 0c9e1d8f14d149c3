//! Rate limiters: one for each source that has a `rate_limit`.
//!
//! Source: <https://developers.cloudflare.com/workers/runtime-apis/bindings/rate-limit/>.

use std::collections::BTreeMap;

use hookmill_config::{ConfigError, Ingress, Located};
use hookmill_keys::kind::parsed;
use hookmill_keys::{Item, Section};

use super::deployment::{Deployment, entries, located};

/// `[[ratelimits]]`.
pub(super) struct Limiters {
    all: Vec<Limiter>,
    /// The namespaces, by id.
    namespaces: BTreeMap<u32, String>,
}

struct Limiter {
    binding: Located<String>,
    /// Its limit and its period.
    simple: Option<(i64, i64)>,
}

impl Limiters {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let (mut all, mut namespaces) = (Vec::new(), BTreeMap::new());
        for entry in entries(section, "ratelimits", "[[ratelimits]]") {
            let name = entry.get("name").and_then(|item| located(&item, "the name of a binding"));
            let number = |item: Option<Item<'_>>| item?.integer("a whole number");
            let simple = entry.get("simple").and_then(|item| item.section("a table"));
            let simple = simple.and_then(|simple| {
                let limit = (number(simple.get("limit")), number(simple.get("period")));
                simple.finish();
                Some((limit.0?, limit.1?))
            });
            let expected = "a whole number in quotes, such as \"1001\"";
            let id = entry
                .require("namespace_id", expected)
                .and_then(|item| parsed(expected, str::parse::<u32>).located().read(&item));
            if let (Some(id), Some(name)) = (id, &name)
                && let Some(other) = namespaces.insert(id.value, name.value.clone())
            {
                let problem = id.error(format!("{other:?} has the same namespace"));
                entry.report(problem.hint(
                    "use different numbers; limiters with the same number share their counts",
                ));
            }
            entry.finish();
            all.extend(name.map(|binding| Limiter { binding, simple }));
        }
        Self { all, namespaces }
    }
}

/// Errors in the ingress Worker's rate limiters.
pub(super) fn check(ingress: &Ingress, deployed: &Deployment) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let Limiters { all, namespaces } = &deployed.limiters;
    for Limiter { binding, .. } in all {
        let sources = ingress.sources.iter().filter(|source| source.rate_limit.is_some());
        let sources = sources.filter(|source| source.rate_limit_binding() == binding.value);
        match sources.collect::<Vec<_>>().as_slice() {
            [] if binding.value.starts_with("RATE_LIMIT_") => {
                let name = &binding.value;
                let problem = format!("no source with a rate_limit has the binding {name:?}");
                faults.push(binding.error(problem));
            }
            [one, another, ..] => faults.push(binding.error(format!(
                "the sources `{}` and `{}` have the same binding; rename one of them",
                one.name, another.name
            ))),
            _ => {}
        }
    }
    let mut free = (1001..).filter(|id| !namespaces.contains_key(id));
    for source in &ingress.sources {
        let Some(limit) = source.rate_limit else { continue };
        let name = source.rate_limit_binding();
        let wanted = (i64::from(limit.requests), i64::try_from(limit.per.as_secs()).unwrap_or(0));
        let (requests, seconds) = wanted;
        let simple = format!("simple = {{ limit = {requests}, period = {seconds} }}");
        match all.iter().find(|limiter| limiter.binding.value == name) {
            Some(limiter) if limiter.simple == Some(wanted) => {}
            Some(Limiter { binding, .. }) => faults.push(
                binding
                    .error(format!("{name:?} differs from rate_limit of the source `{}`", source.name))
                    .hint(simple),
            ),
            None => faults.push(
                deployed
                    .here
                    .error(format!("the source `{}` has a rate_limit but no binding", source.name))
                    .hint(format!(
                        "[[{}]]\n        name = \"{name}\"\n        namespace_id = \"{}\"\n        {simple}",
                        deployed.key("ratelimits"),
                        free.next().unwrap_or_default()
                    )),
            ),
        }
    }
    faults
}
