//! Whether wrangler.toml says what hookmill.toml means: the platform reads the one, and the Worker carries the other.

use std::collections::BTreeMap;

use super::Ingress;
use super::toml_reader::{ConfigError, Document, Item};

/// What the rate limiters in the ingress Worker's wrangler.toml have to be, and are not. `file` is what messages call it.
///
/// Source: <https://developers.cloudflare.com/workers/runtime-apis/bindings/rate-limit/>.
pub fn check_rate_limits(ingress: &Ingress, file: &str, text: &str) -> Vec<ConfigError> {
    let document = Document::new(file, text);
    let table = document.parse();
    let root = document.root(&table);
    let item = root.get("ratelimits");
    let present: Vec<_> = item.iter().flat_map(|item| item.list("[[ratelimits]]", false)).collect();
    let mut bindings = Vec::new();
    let mut namespaces = BTreeMap::new();
    for entry in &present {
        let Some(section) = entry.section("a table") else { continue };
        let name = section.get("name").and_then(|item| item.string("the name of a binding"));
        let number = |item: Option<Item<'_>>| Some(item?.integer("a whole number")?.value);
        let simple = section.get("simple").and_then(|item| item.section("a table"));
        let simple = simple
            .and_then(|simple| Some((number(simple.get("limit"))?, number(simple.get("period"))?)));
        let expected = "a whole number in quotes, such as \"1001\"";
        let id = section
            .require("namespace_id", expected)
            .and_then(|item| item.parsed(expected, str::parse::<u32>));
        if let (Some(id), Some(name)) = (id, &name)
            && let Some(other) = namespaces.insert(id.value, name.value.clone())
        {
            let problem = id.error(format!("{other:?} counts in the same namespace"));
            root.report(problem.hint("limiters with the same number share their counts"));
        }
        bindings.extend(name.map(|name| (name, simple)));
    }
    for (binding, _) in &bindings {
        let sources = ingress.sources.iter().filter(|source| source.rate_limit.is_some());
        let sources = sources.filter(|source| source.rate_limit_binding() == binding.value);
        match sources.collect::<Vec<_>>().as_slice() {
            [] if binding.value.starts_with("RATE_LIMIT_") => {
                let name = &binding.value;
                let problem = format!("no source with a rate_limit has the binding {name:?}");
                root.report(binding.error(problem));
            }
            [one, another, ..] => root.report(binding.error(format!(
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
        match bindings.iter().find(|(binding, _)| binding.value == name) {
            Some((_, found)) if *found == Some(wanted) => {}
            Some((binding, _)) => root.report(
                binding
                    .error(format!("{name:?} is not what the source `{}` says", source.name))
                    .hint(simple),
            ),
            None => root.report(
                root.here
                    .error(format!("the source `{}` has a rate_limit, and no binding", source.name))
                    .hint(format!(
                        "[[ratelimits]]\n        name = \"{name}\"\n        namespace_id = \"{}\"\n        {simple}",
                        free.next().unwrap_or_default()
                    )),
            ),
        }
    }
    document.into_errors()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn the_rate_limiters_have_to_be_those_of_the_sources() {
        let (config, faults) = parse(
            "hookmill.toml",
            r#"
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
"#,
        );
        assert_eq!(faults, []);
        let right = "
[[ratelimits]]
name = \"RATE_LIMIT_GITHUB_2\"
namespace_id = \"1\"
simple = { limit = 1000, period = 10 }
[[ratelimits]]
name = \"RATE_LIMIT_STRIPE\"
namespace_id = \"2\"
  [ratelimits.simple]
  limit = 100
  period = 60
";
        let check = |text: &str| {
            let faults = check_rate_limits(&config.ingress, "wrangler.toml", text);
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(check(right), "");
        insta::assert_snapshot!(check(&right.replace("limit = 100\n", "limit = 10\n")), @r#"
        wrangler.toml:7:8: ratelimits[1].name: "RATE_LIMIT_STRIPE" is not what the source `stripe` says
          hint: simple = { limit = 100, period = 60 }
        "#);
        insta::assert_snapshot!(check(&right.replace("\"1\"", "\"2\"").replace("STRIPE", "GONE")), @r#"
        wrangler.toml:8:16: ratelimits[1].namespace_id: "RATE_LIMIT_GITHUB_2" counts in the same namespace
          hint: limiters with the same number share their counts
        wrangler.toml:7:8: ratelimits[1].name: no source with a rate_limit has the binding "RATE_LIMIT_GONE"
        wrangler.toml:1:1: the source `stripe` has a rate_limit, and no binding
          hint: [[ratelimits]]
                name = "RATE_LIMIT_STRIPE"
                namespace_id = "1001"
                simple = { limit = 100, period = 60 }
        "#);
        insta::assert_snapshot!(check(&right.replace("\"1\"", "1").replace("namespace_id = \"2\"\n", "")), @r#"
        wrangler.toml:4:16: ratelimits[0].namespace_id: found a whole number
          hint: expected a whole number in quotes, such as "1001"
        wrangler.toml:6:1: ratelimits[1]: `namespace_id` is missing
          hint: a whole number in quotes, such as "1001"
        "#);
        insta::assert_snapshot!(check("name = \"hookmill-ingress\"\n"), @r#"
        wrangler.toml:1:1: the source `github-2` has a rate_limit, and no binding
          hint: [[ratelimits]]
                name = "RATE_LIMIT_GITHUB_2"
                namespace_id = "1001"
                simple = { limit = 1000, period = 10 }
        wrangler.toml:1:1: the source `stripe` has a rate_limit, and no binding
          hint: [[ratelimits]]
                name = "RATE_LIMIT_STRIPE"
                namespace_id = "1002"
                simple = { limit = 100, period = 60 }
        "#);
    }
}
