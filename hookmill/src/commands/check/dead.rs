//! Warnings about rules of the user that turn samples of the provider into dead letters, for instance because a column has
//! another type than the value.

use std::collections::BTreeMap;

use hookmill_config::{ConfigError, Located};
use hookmill_loader::Loaded;
use hookmill_native::now;
use hookmill_rules::ValuePath;
use hookmill_rules::ast::{EffectDecl, RuleDecl};
use serde_json::Value;
use tokio::runtime;

use super::lint::{Known, has, of_user, paths, whole};
use super::rule_tests::death;
use crate::trial::{Trial, delivery_to};

/// Applies the samples that rules of the user match to a database in memory. One warning for each rule.
///
/// # Errors
///
/// If the database cannot be created.
pub fn warnings(
    loaded: &Loaded,
    known: &BTreeMap<&str, Known>,
) -> anyhow::Result<Vec<ConfigError>> {
    let own: Vec<_> =
        loaded.config.rules.iter().filter_map(|rule| Some((rule, place(rule)?))).collect();
    if own.is_empty() {
        return Ok(Vec::new());
    }
    let consumers = loaded.consumers();
    let trial = Trial::new(loaded, &consumers, |_| Ok(()))?;
    let runtime = runtime::Builder::new_current_thread().build()?;
    let mut warnings = Vec::new();
    for (rule, place) in own {
        let samples = known.iter().flat_map(|(source, known)| {
            let matches = |kind: &str| rule.on.iter().any(|pattern| pattern.matches(source, kind));
            let events = known.samples.iter().filter(move |(kind, _)| matches(kind));
            events.map(move |(kind, body)| (*source, kind, body))
        });
        let samples = samples.filter(|(_, _, body)| is_complete(rule, body));
        for (number, (source, kind, body)) in samples.enumerate() {
            let (name, id) =
                (&rule.name.value, format!("evt_{name}_{number}", name = rule.name.value));
            let event = delivery_to(name, source, (&id, kind), now(), body.to_string().as_bytes());
            let fates = runtime.block_on(trial.apply(&[event]));
            if let Some(error) = fates.iter().find_map(death) {
                let problem = format!("the sample of `{kind}` becomes a dead letter: {error}");
                warnings.push(place.error(problem));
                break;
            }
        }
    }
    Ok(warnings)
}

/// The place of a rule, or of what the user adds to a preset's rule. `None` for the preset's own, and for handlers, whose
/// values may be anything.
fn place(rule: &RuleDecl) -> Option<Located<()>> {
    let places = paths(rule).into_iter().map(|(place, _)| place);
    let mut places = std::iter::once(whole(rule)).chain(places);
    places.find(of_user).filter(|_| rule.handler.is_none())
}

/// Whether a sample has the key and the version. Values in `metadata` and the like are the user's, and samples have none.
fn is_complete(rule: &RuleDecl, body: &Value) -> bool {
    let EffectDecl::Table(table) = &rule.effect else { return true };
    let key = table.key.iter().map(|(_, value)| value);
    let version = table.newest().map(|newest| &newest.version);
    key.chain(version).all(|value| {
        let mut paths = value.value.paths().peekable();
        paths.peek().is_none()
            || paths.any(|path| match path {
                ValuePath::Body(path) => has(body, path),
                ValuePath::Element(_) => true,
                ValuePath::Header(_) => false,
            })
    })
}
