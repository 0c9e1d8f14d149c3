//! From the text of hookmill.toml to a [`Config`], or to every error in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookmill_core::outbound::Provider;
use hookmill_core::schema::Schema;
use hookmill_keys::kind::{either, list, members, table, table_then};
use hookmill_keys::{ConfigError, Document, Item, Key, Kind, Located, Section, Table, keys};
use hookmill_rules::ast::{EffectDecl, RuleDecl};
use hookmill_rules::compile::{Surroundings, compile};
use hookmill_rules::decl::{ExtendKeys, RuleKeys, Sources, extension, is_extension, rule};
use hookmill_rules::preset::PRESETS;
use hookmill_rules::{Program, Unmatched};
use serde_json::json;

use crate::channels::keys::{EmailKeys, SmsKeys, TemplateFiles, TrackingKeys};
use crate::channels::{Alerts, Api, Emails, Sending, Sms};
use crate::redact::Redaction;
use crate::rule_tests::RuleTest;
use crate::settings::{Access, AdminKeys, BodyLimits, Database, Limits, Queue, Retention, Retry};
use crate::source::{SourceDecl, SourceKeys, source};
use crate::{Ingress, Source};

/// hookmill.toml as read. The rules are not checked against the schema yet: [`hookmill_rules::compile`].
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// `[sources]` and `[ingress]`.
    pub ingress: Ingress,
    /// By source: its preset.
    pub presets: BTreeMap<String, Located<&'static str>>,
    /// By source: what happens to an event that no rule matches.
    pub unmatched: BTreeMap<String, Unmatched>,
    /// By source, for each: the parts of its bodies to hide.
    pub redact: BTreeMap<String, Vec<Redaction>>,
    /// By source: its provider's API, to fetch objects.
    pub apis: BTreeMap<String, Api>,
    /// By source: the API versions that its rules are made for, if they are configured.
    pub api_versions: BTreeMap<String, Vec<String>>,
    /// By source: the time between two sweeps, if they are configured.
    pub sweeps: BTreeMap<String, Duration>,
    /// By source: the time between two reconciliations, if they are configured.
    pub reconciliations: BTreeMap<String, Duration>,
    /// The rules of the presets, and `[[rules]]`.
    pub rules: Vec<RuleDecl>,
    /// `[retry]`.
    pub retry: Retry,
    /// `[limits]`.
    pub limits: Limits,
    /// `[queue]`.
    pub queue: Queue,
    /// `[retention]`.
    pub retention: Retention,
    /// `[email]`.
    pub emails: Option<Emails>,
    /// The place where `[email]` names a provider that only the native binary can reach, if it does.
    pub native_only: Option<Located<Provider>>,
    /// `[sms]`.
    pub sms: Option<Sms>,
    /// `[tracking]`.
    pub tracking: Vec<(Provider, Sending)>,
    /// `[templates]`, by name.
    pub templates: BTreeMap<String, TemplateFiles>,
    /// `[[tests]]`.
    pub tests: Vec<RuleTest>,
    /// What is valid, but probably not as it was meant.
    pub warnings: Vec<ConfigError>,
    /// `admin.access`.
    pub access: Option<Access>,
    /// `[alerts]`.
    pub alerts: Option<Alerts>,
    /// `database.migrations`: the folder of the user's own migrations, relative to the file.
    pub migrations: Option<Located<String>>,
    /// What the rules refer to.
    pub surroundings: Surroundings,
}

impl Config {
    /// The features of the ingress Worker that its sources need.
    pub fn features_of_ingress(&self) -> BTreeSet<&'static str> {
        self.ingress.sources.iter().flat_map(Source::features).collect()
    }

    /// The features of the consumer Worker that its rules need.
    pub fn features_of_consumers(&self) -> BTreeSet<&'static str> {
        self.rules.iter().any(RuleDecl::names_zone).then_some("zones").into_iter().collect()
    }

    /// Compiles the rules. If the file has errors, those with unknown or unusable keys are left out.
    ///
    /// # Errors
    ///
    /// Every error of every rule, see [`compile`].
    pub fn compile(&self, schema: &Schema, handlers: &[&str]) -> Result<Program, Vec<ConfigError>> {
        let sound = self.rules.iter().filter(|rule| rule.is_sound);
        let sound: Vec<_> = sound.cloned().collect();
        compile(&sound, &self.surroundings, schema, handlers)
    }
}

keys! {
    /// The webhooks that Hookmill accepts, and their effects. `hookmill check` reports errors that an editor cannot find.
    pub struct FileKeys {
        /// The sources of webhooks. The name of a source is the last part of its URL, `/webhooks/NAME`: `a-z`, `0-9`, `-` and `_`,
        /// at most 64 characters.
        sources: Option<Vec<(Located<String>, Option<SourceDecl>)>> = sources().expected(ONE_SOURCE),
        ingress: BodyLimits = section(),
        retry: Retry = section(),
        limits: Limits = section(),
        queue: Queue = section(),
        retention: Retention = section(),
        email: Option<EmailKeys> = table("a table").optional(),
        sms: Option<SmsKeys> = table("a table").optional(),
        tracking: Option<TrackingKeys> = table("a table: [tracking.mixpanel] or [tracking.posthog]").optional(),
        /// Email templates by name: `a-z`, `0-9`, `-` and `_`.
        templates: Option<Vec<(Located<String>, Option<TemplateFiles>)>> = templates().optional(),
        admin: AdminKeys = section(),
        alerts: Option<Alerts> = table("a table").optional(),
        database: Database = section(),
        /// The rules: the effects of events. A rule with the name of a preset's rule replaces it.
        rules: () = rules().default("[]").hidden_default(),
        /// Tests: events and their expected results. `hookmill check` runs them.
        tests: Vec<RuleTest> = list(table("a table: [[tests]]"), "a list of tests: [[tests]]").default("[]").hidden_default(),
    }
    check |keys, section| {
        if let (Some(alerts), None) = (&keys.alerts, section.at("email"))
            && alerts.email.is_some()
            && let Some(here) = section.get("alerts").and_then(|item| item.section("")?.at("email"))
        {
            let problem = here.error("`[email]` is not configured");
            section.report(problem.hint("add [email] with `provider` and `from`"));
        }
    };
}

const ONE_SOURCE: &str = "add at least one source, such as [sources.stripe]";

/// A section whose keys all have defaults.
fn section<T: Table + 'static>() -> Key<T> {
    table("a table").default("{}").hidden_default()
}

/// A name of at most `longest` characters, for URLs and files.
fn is_plain(name: &str, longest: usize) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= longest && name.chars().all(plain)
}

fn sources() -> Kind<Vec<(Located<String>, Option<SourceDecl>)>> {
    let schema = members(table::<SourceKeys>(""), "")
        .with(json!({ "minProperties": 1, "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" } }));
    schema.reading(|item| {
        let members = item.section("a table of sources")?.members();
        if members.is_empty() {
            item.report(item.here.error("no source is configured").hint(ONE_SOURCE));
        }
        let read = |(name, item): (Located<String>, Item<'_>)| {
            if !is_plain(&name.value, 64) {
                let problem = name.error(format!("invalid source name {:?}", name.value));
                item.report(problem.hint(
                    "the name is part of a URL: use a-z, 0-9, `-` and `_`, at most 64 characters",
                ));
            }
            let source = source(&name.value, &item);
            (name, source)
        };
        Some(members.into_iter().map(read).collect())
    })
}

fn templates() -> Kind<Vec<(Located<String>, Option<TemplateFiles>)>> {
    let expected = "a table of templates, such as [templates.welcome]";
    let template = table::<TemplateFiles>("a table");
    let schema = members(table::<TemplateFiles>(""), "")
        .with(json!({ "propertyNames": { "pattern": "^[a-z0-9_-]+$" } }));
    schema.reading(move |item| {
        let members = item.section(expected)?.members().into_iter();
        let read = |(name, item): (Located<String>, Item<'_>)| {
            if !is_plain(&name.value, usize::MAX) {
                let problem = name.error(format!("invalid template name {:?}", name.value));
                item.report(problem.hint("use a-z, 0-9, `-` and `_`"));
            }
            (name, template.read(&item))
        };
        Some(members.map(read).collect())
    })
}

/// The rules are read once all sources are known.
fn rules() -> Kind<()> {
    let rule = table_then::<RuleKeys, ()>("", |_, _| None);
    let extension = table_then::<ExtendKeys, ()>("", |_, _| None);
    list(either(is_extension, extension, rule), "").reading(|_| Some(()))
}

/// Reads hookmill.toml. `file` is its name in messages.
///
/// # Errors
///
/// Every error of the file, by place.
pub fn parse(file: &str, text: &str) -> Result<Config, Vec<ConfigError>> {
    let (config, errors) = parse_recoverable(file, text);
    if errors.is_empty() { config.ok_or(errors) } else { Err(errors) }
}

/// The same, to check more of a file with errors: returns what could be read, and every error. `None`: the text is not TOML.
pub fn parse_recoverable(file: &str, text: &str) -> (Option<Config>, Vec<ConfigError>) {
    let document = Document::new(file, text);
    let table = document.parse();
    if document.faults() > 0 {
        // The meaning of a text with syntax errors is a guess, and every guess would be one more error.
        return (None, document.into_errors());
    }
    let root = document.root(&table);
    let keys = FileKeys::read(&root);
    let mut errors_of_presets = Vec::new();
    let mut config = keys.map(|keys| keys.config(&root, &mut errors_of_presets));
    root.finish();
    if let Some(config) = &mut config {
        config.warnings = document.warnings();
        config.warnings.sort();
    }
    let mut errors = document.into_errors();
    errors.extend(errors_of_presets);
    errors.sort();
    (config, errors)
}

impl FileKeys {
    fn config(self, root: &Section<'_>, errors_of_presets: &mut Vec<ConfigError>) -> Config {
        let names: BTreeSet<String> =
            self.sources.iter().flatten().map(|(name, _)| name.value.clone()).collect();
        // Sections with errors count as present, to avoid follow-up errors.
        let surroundings = Surroundings {
            unmatched: BTreeMap::new(),
            apis: BTreeMap::new(),
            headers: BTreeMap::new(),
            emails: root
                .at("email")
                .map(|_| self.email.as_ref().map(EmailKeys::providers).unwrap_or_default()),
            sms: root.at("sms").is_some(),
            tracking: TrackingKeys::named(root),
            templates: self
                .templates
                .iter()
                .flatten()
                .map(|(name, _)| name.value.clone())
                .collect(),
        };
        let mut config = Config {
            surroundings,
            ingress: Ingress { sources: Vec::new(), limits: self.ingress },
            presets: BTreeMap::new(),
            unmatched: BTreeMap::new(),
            redact: BTreeMap::new(),
            apis: BTreeMap::new(),
            api_versions: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            reconciliations: BTreeMap::new(),
            rules: Vec::new(),
            retry: self.retry,
            limits: self.limits,
            queue: self.queue,
            retention: self.retention,
            native_only: self.email.as_ref().and_then(EmailKeys::native_only),
            emails: self.email.as_ref().map(EmailKeys::emails),
            sms: self.sms.map(SmsKeys::sms),
            tracking: self.tracking.map(|keys| keys.tracking).unwrap_or_default(),
            templates: BTreeMap::new(),
            tests: self.tests,
            warnings: Vec::new(),
            access: self.admin.access,
            alerts: self.alerts,
            migrations: self.database.migrations,
        };
        let templates = self.templates.into_iter().flatten();
        config.templates =
            templates.filter_map(|(name, files)| Some((name.value, files?))).collect();
        for (name, source) in self.sources.into_iter().flatten() {
            let Some(source) = source else { continue };
            let name = name.value;
            config.presets.extend(source.preset.map(|preset| (name.clone(), preset)));
            config.apis.extend(source.api.map(|api| (name.clone(), api)));
            config.unmatched.insert(name.clone(), source.unmatched);
            config.sweeps.extend(source.sweep.map(|sweep| (name.clone(), sweep)));
            config.reconciliations.extend(source.reconcile.map(|every| (name.clone(), every)));
            config.api_versions.extend(source.api_versions.map(|known| (name.clone(), known)));
            config.redact.insert(name, source.redact);
            config.ingress.sources.extend(source.source);
        }
        let providers = config.apis.iter().map(|(source, api)| (source.clone(), api.provider));
        config.surroundings.apis = providers.collect();
        let sources = config.ingress.sources.iter();
        let headers = sources
            .map(|source| (source.name.clone(), source.keep_headers.iter().cloned().collect()));
        config.surroundings.headers = headers.collect();
        config.surroundings.unmatched.clone_from(&config.unmatched);
        config.rules = read_rules(root, &names, &config.presets, errors_of_presets);
        for given in config.tests.iter().flat_map(|test| &test.given) {
            let source = &given.source;
            if !names.contains(&source.value) {
                let problem = source.error(format!("no source has the name `{}`", source.value));
                root.report(problem.suggest(&source.value, names.iter().map(String::as_str)));
            }
        }
        config
    }
}

/// Reads the rules of the presets and of the file. The errors of presets have a file of their own.
fn read_rules(
    root: &Section<'_>,
    sources: &BTreeSet<String>,
    presets: &BTreeMap<String, Located<&'static str>>,
    errors: &mut Vec<ConfigError>,
) -> Vec<RuleDecl> {
    let entries = root.get("rules").map(|item| item.list("a list of rules: [[rules]]", false));
    let entries = entries.into_iter().flatten();
    let (extensions, own): (Vec<_>, Vec<_>) = entries.partition(is_extension);
    let extensions: Vec<_> = extensions.iter().filter_map(extension).collect();
    let own = own.iter().filter_map(|entry| rule(entry, &Sources::Named(sources)));
    let own: Vec<_> = own.collect();
    let mut of_presets = BTreeSet::new();
    for (i, rule) in own.iter().enumerate() {
        if own[..i].iter().any(|other| other.name.value == rule.name.value) {
            root.report(rule.name.error(format!("two rules have the name {:?}", rule.name.value)));
        }
    }
    let mut rules = Vec::new();
    for preset in PRESETS {
        let users = presets.iter().filter(|(_, name)| name.value == preset.name);
        let (users, places): (Vec<_>, Vec<_>) = users.unzip();
        if users.is_empty() {
            continue;
        }
        let (of_preset, found) = preset.rules(&users);
        errors.extend(found);
        let mut shared = Vec::new();
        for mut rule in of_preset {
            // A rule of the file replaces the preset's rule of the same name.
            let replacement = own.iter().find(|own| own.name.value == rule.name.value);
            errors.extend(replacement.and_then(|own| uncovered(own, preset.name, &users)));
            replacement.and_then(|own| dropped(own, &rule)).into_iter().for_each(|w| root.warn(w));
            if replacement.is_none() {
                of_presets.insert(rule.name.value.clone());
                let extended = extensions.iter().map(|extension| extension.extend(&mut rule));
                errors.extend(extended.filter_map(Result::err).flatten());
            }
            let in_force = replacement.unwrap_or(&rule);
            shared.extend(in_force.table_of_several_sources().map(ToOwned::to_owned));
            if replacement.is_none() {
                rules.push(rule);
            }
        }
        errors.extend(mixed(&users, &places, &shared));
    }
    for name in extensions.iter().flat_map(|extension| &extension.rules) {
        if let Some(own) = own.iter().find(|own| own.name.value == name.value) {
            let problem = name.error(format!("this file has a rule `{}`", own.name.value));
            root.report(problem.hint("add the columns to that rule"));
        } else if !of_presets.contains(&name.value) {
            let problem = name.error(format!("no preset has a rule `{}`", name.value));
            root.report(problem.suggest(&name.value, of_presets.iter().map(String::as_str)));
        }
    }
    rules.extend(own);
    rules
}

/// The warning about a rule that does less than the preset's rule that it replaces.
fn dropped(own: &RuleDecl, replaced: &RuleDecl) -> Option<ConfigError> {
    let (EffectDecl::Table(mine), EffectDecl::Table(theirs)) = (&own.effect, &replaced.effect)
    else {
        return None;
    };
    let sets = |name: &str| mine.key.iter().chain(mine.columns()).any(|(set, _)| set.value == name);
    let columns = theirs.columns().iter().map(|(column, _)| column.value.as_str());
    let columns = columns.filter(|name| mine.table.value == theirs.table.value && !sets(name));
    let covers = |event: &str| own.on.iter().any(|on| on.matches(&on.source, event));
    let events = replaced.on.iter().map(|on| on.event_type.as_str());
    let events: BTreeSet<_> = events.filter(|event| !covers(event)).collect();
    let list = |names: Vec<&str>| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let lost = [
        ("does not set", list(columns.collect())),
        ("does not take the events", list(events.into_iter().collect())),
    ];
    let lost: Vec<_> = lost.iter().filter(|(_, names)| !names.is_empty()).collect();
    if lost.is_empty() {
        return None;
    }
    let lost: Vec<_> = lost.iter().map(|(what, names)| format!("{what} {names}")).collect();
    let problem = format!("it replaces a preset's rule, but {}", lost.join(", and "));
    Some(own.name.error(problem).hint(format!(
        "add them, or add your columns to the preset's rule: extend = {:?}",
        own.name.value
    )))
}

/// The error of two sources with one preset: an event of either would change the rows of both, and a test account could
/// change those of the live one. `tables` are those with such rows.
fn mixed(
    sources: &[&String],
    presets: &[&Located<&str>],
    tables: &[String],
) -> Option<ConfigError> {
    let ([first, .., last], [.., preset]) = (sources, presets) else { return None };
    let (table, others) = tables.split_first()?;
    let others: BTreeSet<_> = others.iter().filter(|other| *other != table).collect();
    let others = match others.len() {
        0 => String::new(),
        1 => " and 1 other table".to_owned(),
        count => format!(" and {count} other tables"),
    };
    let name = preset.value;
    let problem = preset.error(format!(
        "`{first}` has the preset {name:?} too, so events of `{first}` and `{last}` would write the same rows of `{table}`{others}"
    ));
    Some(problem.hint(
        "use a hookmill.toml and a data folder for each account, such as test and live; list several secrets of one account \
         in one source; or replace the preset's rules with rules of the same names that have { event = \"source\" } in `key`",
    ))
}

/// The error of a rule that replaces a preset's rule, but not for every source that has the preset.
fn uncovered(own: &RuleDecl, preset: &str, users: &[&String]) -> Option<ConfigError> {
    let named = |source: &str| own.on.iter().any(|pattern| pattern.source == source);
    let source = users.iter().find(|source| !named(source))?;
    let name = &own.name.value;
    let problem = own.name.error(format!(
        "it replaces the preset's rule {name:?} but does not cover `{source}`, which has the preset {preset:?} as well"
    ));
    Some(problem.hint(format!("name the events of `{source}` in `on`, or choose another name")))
}

#[cfg(test)]
mod tests;
