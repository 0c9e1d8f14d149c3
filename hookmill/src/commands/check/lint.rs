//! Warnings about rules: event types and paths that no sample of the provider knows, conditions that no sample can meet,
//! fields that a handler does not return, tables with deleted rows that no view leaves out, and constraints between rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

use hookmill_config::{ConfigError, Located, Source, distance, nearest};
use hookmill_core::message::{Verified, decode};
use hookmill_core::schema::{Affinity, Schema, Table, TableColumn};
use hookmill_loader::Loaded;
use hookmill_migrations::{apply, read_by_views, schema};
use hookmill_native::now;
use hookmill_providers::Event;
use hookmill_rules::agree::overlapping;
use hookmill_rules::api::lists;
use hookmill_rules::ast::{
    ConditionDecl, DeleteDecl, EffectDecl, RuleDecl, StepDecl, TableDecl, TableWrite, ValueDecl,
};
use hookmill_rules::handler::Handler;
use hookmill_rules::{EventField, Form, GUARD_COLUMNS, Path, Pattern, Step, ValuePath};
use rusqlite::Connection;
use serde_json::Value;

use super::dead;
use super::rule_tests::deliveries;
use crate::samples;
use crate::trial::{Headers, Unsigned, events, quoted};

/// Members whose own members are the user's, so that no sample can know them; so are those whose names end in `metadata`.
const OPEN: [&str; 12] = [
    "custom_args",
    "custom_data",
    "custom_fields",
    "headers",
    "hidden",
    "old_record",
    "passthrough",
    "previous_attributes",
    "properties",
    "record",
    "tags",
    "user-variables",
];

/// Schemes of many providers: their samples are those of one.
const SHARED: [&str; 2] = ["standard-webhooks", "svix"];

/// The typing errors in an unknown type that make it a probable mistake, if not all types of its provider are known.
const TYPOS: usize = 2;

/// The warnings of a configuration, by place. The rules of presets are not the user's, so they get none.
///
/// # Errors
///
/// If the migrations cannot be applied to a new database.
pub fn warnings(config: &FilePath, loaded: &Loaded) -> anyhow::Result<Vec<ConfigError>> {
    let mut known = known(loaded);
    learn(&mut known, config, loaded);
    let mut warnings = loaded.config.warnings.clone();
    warnings.extend(of_rules(loaded, &known, of_user));
    let overlapping = overlapping(&loaded.config.rules).into_iter();
    let overlapping = overlapping.filter(|(table, _)| of_user(&table.place()));
    warnings.extend(overlapping.map(|(table, other)| {
        let problem = format!("rule `{}` writes the same row for the same event", other.value);
        table.error(problem).hint(
            "the rule that is later in the file counts; give the rules conditions that exclude each other",
        )
    }));
    warnings.extend(of_tables(loaded, &known, of_user)?);
    warnings.extend(dead::warnings(loaded, &known)?);
    warnings.sort();
    warnings.dedup();
    Ok(warnings)
}

/// What a valid choice costs, by place. No warning: there may be no better choice.
pub fn notes(loaded: &Loaded) -> Vec<ConfigError> {
    let rules = loaded.config.rules.iter();
    let newest = rules.filter_map(|rule| match &rule.effect {
        EffectDecl::Table(table) => table.newest(),
        _ => None,
    });
    let versions = newest.map(|newest| &newest.version).filter(|value| of_user(&value.place()));
    let mut notes: Vec<_> = versions.filter_map(cost_of_version).collect();
    notes.extend(tables_of_several_sources(&loaded.config.rules));
    notes.extend(unseen_by_imports(loaded));
    notes.sort();
    notes.dedup();
    notes
}

/// An import shows rules each object as an event of one type.
fn unseen_by_imports(loaded: &Loaded) -> Vec<ConfigError> {
    let mut notes = Vec::new();
    for rule in &loaded.config.rules {
        let EffectDecl::Table(decl) = &rule.effect else { continue };
        let keeps = matches!(decl.write, TableWrite::Upsert { .. } | TableWrite::List { .. });
        if !keeps || !of_user(&decl.table.place()) {
            continue;
        }
        for (source, api) in &loaded.config.apis {
            for list in lists(api.provider) {
                let types = list.event_type.trim_end_matches("updated");
                let is_about = |on: &&Pattern| {
                    let rest = on.event_type.strip_prefix(types);
                    on.source == *source && rest.is_some_and(|rest| !rest.contains('.'))
                };
                let about = rule.on.iter().any(|on| is_about(&on));
                if about && !rule.on.iter().any(|on| on.matches(source, &list.event_type)) {
                    let problem = format!(
                        "`hookmill import {source}` fills this table without the objects of `{}`",
                        list.name
                    );
                    notes.push(decl.table.error(problem).hint(format!(
                        "an import shows each object as `{}`; if the rule should see it, add \"{source}:{0}\" to `on`",
                        list.event_type
                    )));
                }
            }
        }
    }
    notes
}

/// The ids of events are unique only within their source.
fn tables_of_several_sources(rules: &[RuleDecl]) -> Vec<ConfigError> {
    let mut tables = BTreeMap::<&str, (BTreeSet<&str>, &Located<String>)>::new();
    for rule in rules {
        let EffectDecl::Table(decl) = &rule.effect else { continue };
        let is_source = |(_, value): &(_, Located<ValueDecl>)| {
            matches!(value.value, ValueDecl::Event(EventField::Source) | ValueDecl::Constant(_))
        };
        if decl.newest().is_none() || decl.key.iter().any(is_source) {
            continue;
        }
        let (sources, _) =
            tables.entry(&decl.table.value).or_insert_with(|| (BTreeSet::new(), &decl.table));
        sources.extend(rule.on.iter().map(|on| on.source.as_str()));
    }
    let several = tables
        .into_values()
        .filter(|(sources, table)| sources.len() > 1 && of_user(&table.place()));
    let note = |(sources, table): (BTreeSet<&str>, &Located<String>)| {
        let sources: Vec<_> = sources.into_iter().map(|source| format!("`{source}`")).collect();
        let problem = format!("rules write this table for events of {}", sources.join(" and "));
        table.error(problem).hint(
            "if two of their events have the same version and the same id, the later arrival counts; if their objects are different ones, add the source to the key: { event = \"source\" }",
        )
    };
    several.map(note).collect()
}

/// The cost of a version that the body does not have.
fn cost_of_version(version: &Located<ValueDecl>) -> Option<ConfigError> {
    if let ValueDecl::Event(EventField::ReceivedAt) = version.value {
        let note = version.error("the order of arrival is not the order of events");
        return Some(note.hint(
            "a late retry of the provider overwrites newer rows; if the provider sends a time in a header, use it: version = { rfc3339 = \"header:X-Sent-At\" }",
        ));
    }
    if version.value.names_zone() {
        let note = version.error("the version is the time of a clock with daylight saving time");
        return Some(note.hint(
            "in the hour that such a clock shows twice, an older event may win; if the provider sends an offset or UTC, use it",
        ));
    }
    version.value.paths().find(|path| matches!(path, ValuePath::Header(_)))?;
    let note = version.error("the version is in a header, which signatures rarely cover");
    Some(note.hint(
        "with another header, a captured request can overwrite newer rows; if the body has a version, use it alone",
    ))
}

/// Whether a place is in a file of the user.
pub(super) fn of_user(place: &Located<()>) -> bool {
    !place.at.file.starts_with("presets/")
}

/// What the samples tell about each source.
fn known(loaded: &Loaded) -> BTreeMap<&str, Known> {
    let sources = loaded.config.ingress.sources.iter();
    sources.filter_map(|source| Some((source.name.as_str(), Known::new(loaded, source)?))).collect()
}

/// Adds the bodies of `[[tests]]`. A test that cannot be read is an error elsewhere.
fn learn<'l>(known: &mut BTreeMap<&'l str, Known>, config: &FilePath, loaded: &'l Loaded) {
    for given in loaded.config.tests.iter().flat_map(|test| &test.given) {
        let known = known.entry(given.source.value.as_str()).or_default();
        for delivery in deliveries(config, loaded, 0, given).into_iter().flatten() {
            let Ok(message) = decode(&delivery.text) else { continue };
            let body = serde_json::from_slice(&message.body).ok();
            known.of_tests.extend(body.map(|body| (message.envelope.kind, body)));
        }
    }
}

/// The warnings about rules, at the places that `concerns` selects.
fn of_rules(
    loaded: &Loaded,
    known: &BTreeMap<&str, Known>,
    concerns: impl Fn(&Located<()>) -> bool,
) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    for rule in &loaded.config.rules {
        let name = whole(rule);
        if concerns(&name) {
            let types = rule.on.iter().filter_map(|on| {
                let meant = known.get(on.source.as_str())?.meant(on)?;
                let problem = format!("`{}` has no event of type `{}`", on.source, on.event_type);
                Some(name.error(problem).hint(format!("did you mean `{meant}`?")))
            });
            warnings.extend(types);
        }
        let types = event_types(rule).into_iter().filter(|(place, _)| concerns(place));
        warnings.extend(types.filter_map(|(place, glob)| no_type(&place, glob, rule, known)));
        let paths = paths(rule).into_iter().filter(|(place, _)| concerns(place));
        if let Some(handler) = &rule.handler {
            let found = hookmill_handlers::find(&handler.value);
            let fields = found.map(Handler::fields).unwrap_or_default();
            warnings.extend(
                paths.filter_map(|(place, path)| no_field(&place, path, &handler.value, fields)),
            );
        } else {
            let bodies = Bodies::new(rule, known);
            warnings.extend(paths.filter_map(|(place, path)| bodies.no_path(&place, path)));
            if concerns(&name) {
                warnings.extend(rule.more.as_ref().and_then(|more| bodies.no_more(&name, more)));
            }
            if concerns(&name) {
                let conditions = rule.conditions();
                warnings.extend(conditions.filter_map(|when| bodies.never_equal(&name, when)));
            }
        }
    }
    warnings
}

/// The warnings about the tables that rules write.
fn of_tables(
    loaded: &Loaded,
    known: &BTreeMap<&str, Known>,
    concerns: impl Fn(&Located<()>) -> bool,
) -> anyhow::Result<Vec<ConfigError>> {
    let mut database = Connection::open_in_memory()?;
    apply(&mut database, &loaded.migrations)?;
    let schema = schema(&database)?;
    let mut warnings = constraints(loaded, &schema, &database)?;
    warnings.extend(triggers_and_checks(loaded, &database, &concerns)?);
    let rules = loaded.config.rules.iter();
    warnings.extend(
        rules.flat_map(|rule| needed_by_deletions(rule, known, (&schema, &database), &concerns)),
    );
    warnings.extend(respelled(loaded, &schema, &concerns));
    warnings.extend(without_views(loaded, &schema, &mut database, &concerns)?);
    Ok(warnings)
}

/// Where a rule names its table. For a rule of a preset, where the preset is named.
fn place_of_table(loaded: &Loaded, rule: &RuleDecl, decl: &TableDecl) -> Located<()> {
    let of_preset = rule.on.first().filter(|_| rule.preset);
    let preset = of_preset.and_then(|on| loaded.config.presets.get(&on.source));
    preset.map_or_else(|| decl.table.place(), Located::place)
}

/// The warnings about constraints that depend on other rows, and so on the order in which events arrive. The user's migrations
/// may also add them to the table of a preset.
fn constraints(
    loaded: &Loaded,
    schema: &Schema,
    database: &Connection,
) -> anyhow::Result<Vec<ConfigError>> {
    let mut parents =
        database.prepare("SELECT \"table\", \"from\" FROM pragma_foreign_key_list(?1)")?;
    let mut children = database.prepare(
        "WITH RECURSIVE links AS MATERIALIZED (
            SELECT child.name AS child, parent.\"table\" AS parent, parent.on_delete
            FROM sqlite_schema AS child JOIN pragma_foreign_key_list(child.name) AS parent WHERE child.type = 'table'),
         removed (name) AS (
            VALUES (?1) UNION
            SELECT child FROM links JOIN removed ON parent = removed.name COLLATE NOCASE WHERE on_delete = 'CASCADE')
         SELECT DISTINCT child, name FROM links JOIN removed ON parent = name COLLATE NOCASE
         WHERE on_delete IN ('NO ACTION', 'RESTRICT') ORDER BY child",
    )?;
    // An expression has no name.
    let mut indexes = database.prepare(
        "SELECT (SELECT json_group_array(name) FROM (SELECT name FROM pragma_index_info(list.name) ORDER BY seqno)), partial
         FROM pragma_index_list(?1) AS list WHERE list.\"unique\" = 1 AND origin <> 'pk' ORDER BY seq",
    )?;
    let mut warnings = BTreeMap::new();
    for rule in &loaded.config.rules {
        let EffectDecl::Table(decl) = &rule.effect else { continue };
        let (name, place) = (&decl.table.value, place_of_table(loaded, rule, decl));
        let mut warn = |problem: String, hint: &str| {
            let warning = place.error(problem.as_str()).hint(hint);
            warnings.entry(problem).or_insert(warning);
        };
        let columns = decl.key.iter().chain(decl.columns()).map(|(name, _)| name.value.as_str());
        // The application writes the others.
        let written: BTreeSet<_> = columns.collect();
        let table = schema.tables.get(name);
        let pair =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        for parent in parents.query_map([name], pair)? {
            let (parent, column) = parent?;
            let has_default =
                table.and_then(|table| table.column(&column)).is_some_and(|c| c.default);
            if written.contains(column.as_str()) || has_default {
                warn(
                    format!("a foreign key of `{name}` refers to `{parent}`"),
                    "an event that arrives before the row that it refers to is retried, and then becomes a dead letter; remove the foreign key",
                );
            }
        }
        let removes = matches!(decl.write, TableWrite::List { .. } | TableWrite::Remove { .. });
        for child in children.query_map([name], pair)? {
            let (child, removed) = child?;
            if removes {
                let why = if removed.eq_ignore_ascii_case(name) {
                    "rules remove".to_owned()
                } else {
                    format!("a foreign key removes with those of `{name}`")
                };
                warn(
                    format!("a foreign key of `{child}` refers to `{removed}`, whose rows {why}"),
                    "an event that removes such a row is retried, and then becomes a dead letter; remove the foreign key, or add ON DELETE CASCADE",
                );
            }
        }
        let is_generated =
            |name: &String| table.is_some_and(|table| table.generated.contains(name));
        let index = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
        for index in indexes.query_map([name], index)? {
            let (columns, is_partial): (_, bool) = index?;
            let columns: Vec<Option<String>> = serde_json::from_str(&columns)?;
            // Expressions, conditions and generated columns read other columns.
            let depends = |name: &Option<String>| {
                name.as_ref()
                    .is_none_or(|name| written.contains(name.as_str()) || is_generated(name))
            };
            let has = |column: &str| columns.iter().any(|name| name.as_deref() == Some(column));
            let has_key = decl.key.iter().all(|(name, _)| has(&name.value));
            if has_key || !(is_partial || columns.iter().any(depends)) {
                continue;
            }
            let columns = columns.into_iter().map(|name| name.unwrap_or("an expression".into()));
            let columns = columns.collect::<Vec<_>>().join(", ");
            let some = if is_partial { " for some rows" } else { "" };
            warn(
                format!("`{name}` is UNIQUE in ({columns}){some}"),
                "if such a value moves from one object to another and the second event arrives first, it is retried, and then becomes a dead letter; use an index that is not UNIQUE",
            );
        }
    }
    Ok(warnings.into_values().collect())
}

/// The warnings about what a deletion may lack, if no event is known that deletes. It may have no more than the id.
fn needed_by_deletions(
    rule: &RuleDecl,
    known: &BTreeMap<&str, Known>,
    (schema, database): (&Schema, &Connection),
    concerns: impl Fn(&Located<()>) -> bool,
) -> Vec<ConfigError> {
    let EffectDecl::Table(decl) = &rule.effect else { return Vec::new() };
    let (Some(newest), Some(table)) = (decl.newest(), schema.tables.get(&decl.table.value)) else {
        return Vec::new();
    };
    let types: Vec<_> = newest
        .delete
        .iter()
        .filter_map(|delete| match delete {
            DeleteDecl::Type(glob) => Some(glob.value.as_str()),
            DeleteDecl::When(_) => None,
        })
        .collect();
    let deletes = |on: &Pattern, kind: &str| {
        let is_deleted = |glob: &&str| {
            Pattern { source: on.source.clone(), event_type: (*glob).to_owned() }
                .matches(&on.source, kind)
        };
        on.matches(&on.source, kind) && types.iter().any(is_deleted)
    };
    let is_known = rule.on.iter().any(|on| {
        let events = known.get(on.source.as_str()).into_iter().flat_map(Known::events);
        events.into_iter().any(|(kind, _)| deletes(on, kind))
    });
    if types.is_empty() || is_known || matches!(decl.write, TableWrite::List { .. }) {
        return Vec::new();
    }
    let needed = newest.set.iter().filter(|(name, value)| {
        let column = table.column(&name.value);
        let reads = matches!(value.value, ValueDecl::Paths { .. } | ValueDecl::Money { .. });
        reads && concerns(&name.place()) && column.is_some_and(|column| column.not_null)
    });
    let warning = |(name, _): &(Located<String>, Located<ValueDecl>)| {
        let problem =
            format!("the column `{}` is NOT NULL, and a deletion may lack its value", name.value);
        name.error(problem).hint(
            "such an event becomes a dead letter; allow NULL in the column, or add a test with an event that deletes",
        )
    };
    let mut warnings: Vec<_> = needed.map(warning).collect();
    if warnings.is_empty()
        && concerns(&decl.table.place())
        && let Some(why) = refused_deletion(decl, table, database)
    {
        let problem =
            format!("`{}` refuses a deletion that has only the key: {why}", decl.table.value);
        warnings.push(decl.table.error(problem).hint(
            "such an event becomes a dead letter; change the constraint, or add a test with an event that deletes",
        ));
    }
    warnings
}

/// Why a table refuses the row of a deletion that has only the key, if not because of the key.
fn refused_deletion(decl: &TableDecl, table: &Table, database: &Connection) -> Option<String> {
    let is_key = |name: &str| table.column(name).is_some_and(|column| column.key);
    let any = |name: &str| match table.column(name)?.affinity {
        Affinity::Integer | Affinity::Real | Affinity::Numeric => Some("1"),
        Affinity::Text | Affinity::AsIs => Some("'x'"),
    };
    let mut values = Vec::new();
    for (name, _) in &decl.key {
        values.push((name.value.as_str(), any(&name.value)?));
    }
    for (name, value) in decl.columns() {
        // A deletion has a constant as well.
        let is_constant = matches!(value.value, ValueDecl::Constant(_));
        let value = if is_constant { any(&name.value)? } else { "NULL" };
        values.push((name.value.as_str(), value));
    }
    values.extend(GUARD_COLUMNS.into_iter().zip(["1", "1", "'x'", "1"]));
    let (names, values): (Vec<_>, Vec<_>) =
        values.into_iter().map(|(name, value)| (quoted(name), value)).unzip();
    let insert = format!(
        "SAVEPOINT deletion; INSERT INTO {} ({}) VALUES ({})",
        quoted(&decl.table.value),
        names.join(", "),
        values.join(", ")
    );
    let refused = database.execute_batch(&insert).err();
    let undone = database.execute_batch("ROLLBACK TO deletion; RELEASE deletion");
    let why = refused.filter(|_| undone.is_ok())?.to_string();
    let of_key = |word: &str| is_key(word) || word == "FOREIGN";
    let words = why.split(|c: char| !c.is_alphanumeric() && c != '_');
    (why.contains("constraint failed") && !words.into_iter().any(of_key)).then_some(why)
}

/// The warnings about triggers that change what rules write, and about conditions on counters. A trigger may be one of any table,
/// and the user's migrations may add one to the table of a preset.
fn triggers_and_checks(
    loaded: &Loaded,
    database: &Connection,
    concerns: impl Fn(&Located<()>) -> bool,
) -> anyhow::Result<Vec<ConfigError>> {
    let mut definitions = database.prepare(
        "SELECT type, name, upper(tbl_name), upper(sql) FROM sqlite_schema
         WHERE type IN ('table', 'trigger') AND sql IS NOT NULL ORDER BY name",
    )?;
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?))
    };
    let definitions: Vec<(String, String, String, String)> =
        definitions.query_map([], row)?.collect::<Result<_, _>>()?;
    let mut warnings = BTreeMap::new();
    for rule in &loaded.config.rules {
        let EffectDecl::Table(decl) = &rule.effect else { continue };
        let (name, place) = (&decl.table.value, place_of_table(loaded, rule, decl));
        let counts = matches!(decl.write, TableWrite::Count { .. });
        let table = name.to_ascii_uppercase();
        for (kind, own, of, sql) in &definitions {
            let words: Vec<_> = sql
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|w| !w.is_empty())
                .collect();
            let has = |sought: &[&str]| words.windows(sought.len()).any(|found| found == sought);
            let writes = [&["UPDATE", &*table][..], &["INTO", &table], &["DELETE", "FROM", &table]];
            let updates = words
                .windows(4)
                .any(|found| matches!(found, ["UPDATE", "OR", _, other] if *other == table));
            let ignores = *of == table && has(&["RAISE", "IGNORE"]);
            if kind == "trigger" && (ignores || updates || writes.iter().any(|w| has(w))) {
                let warning = place.error(format!(
                    "the trigger `{own}` may change what rules write into `{name}`"
                ));
                warnings.entry(own).or_insert(warning.hint(
                    "rows would depend on the order in which events arrive; write other tables in the trigger",
                ));
            } else if kind == "table"
                && *of == table
                && counts
                && has(&["CHECK"])
                && concerns(&place)
            {
                let warning =
                    place.error(format!("`{name}` has a CHECK, and the rule adds to its rows"));
                warnings.entry(own).or_insert(warning.hint(
                    "SQLite checks each amount by itself, so an event with a negative amount may become a dead letter; remove the CHECK",
                ));
            }
        }
    }
    Ok(warnings.into_values().collect())
}

/// Types of columns that store texts of numbers as numbers, and rarely get any.
const NO_NUMBERS: [&str; 3] = ["BOOL", "DATE", "TIME"];

/// The warnings about columns that may store another text than the event has.
fn respelled(
    loaded: &Loaded,
    schema: &Schema,
    concerns: impl Fn(&Located<()>) -> bool,
) -> Vec<ConfigError> {
    let mut warnings = BTreeMap::new();
    for rule in &loaded.config.rules {
        let EffectDecl::Table(decl) = &rule.effect else { continue };
        let Some(table) = schema.tables.get(&decl.table.value) else { continue };
        for (name, value) in decl.columns() {
            let is_plain =
                matches!(value.value, ValueDecl::Paths { form: Form::AsIs | Form::Json, .. });
            let column = table.column(&name.value).filter(|_| is_plain && concerns(&name.place()));
            let respells = |column: &&TableColumn| {
                column.affinity == Affinity::Numeric
                    && !NO_NUMBERS.iter().any(|part| column.kind.contains(part))
            };
            let Some(column) = column.filter(respells) else { continue };
            let is_json = matches!(value.value, ValueDecl::Paths { form: Form::Json, .. });
            let what = if is_json {
                "rounds a number of more than 64 bits"
            } else {
                "stores the text \"007\" as 7"
            };
            let warning = name
                .error(format!("the column `{}` is {}, so SQLite {what}", name.value, column.kind));
            warnings.entry((&decl.table.value, &name.value)).or_insert(
                warning.hint("use TEXT for texts and JSON, and INTEGER or REAL for numbers"),
            );
        }
    }
    warnings.into_values().collect()
}

/// The warnings about tables that keep deleted rows, if no view has the others.
fn without_views(
    loaded: &Loaded,
    schema: &Schema,
    database: &mut Connection,
    concerns: impl Fn(&Located<()>) -> bool,
) -> anyhow::Result<Vec<ConfigError>> {
    let reads = read_by_views(database)?;
    // The view of the children also reads `_deleted` of their parent, and the key.
    let has_view = |name: &str, table: &Table| {
        let views = reads.iter().filter(|read| read.table == name && read.column == "_deleted");
        let mut views = views.map(|read| read.view.as_str());
        let is_key = |name: &str| table.column(name).is_some_and(|column| column.key);
        let has_other = table.columns.iter().any(|c| !c.key && !is_guard(&c.name));
        views.any(|view| {
            let columns = reads.iter().filter(|read| read.view == view && read.table == name);
            let mut columns = columns.map(|read| read.column.as_str());
            !has_other || columns.any(|column| !is_key(column) && !is_guard(column))
        })
    };
    let mut warnings = BTreeMap::new();
    for rule in &loaded.config.rules {
        let EffectDecl::Table(decl) = &rule.effect else { continue };
        let (newest, live) = match &decl.write {
            TableWrite::Upsert { newest, .. } => (newest, "_deleted = 0"),
            // Rows that no event has changed have no value.
            TableWrite::Update { newest } => (newest, "_deleted IS NOT 1"),
            _ => continue,
        };
        let name = &decl.table.value;
        let deletes = !newest.delete.is_empty() || !newest.parents.is_empty();
        let table = schema.tables.get(name).filter(|table| !has_view(name, table));
        let Some(table) = table.filter(|_| deletes && concerns(&decl.table.place())) else {
            continue;
        };
        let select = |name_of: fn(&str) -> String| {
            let columns = table.columns.iter().filter(|column| !is_guard(&column.name));
            let columns: Vec<_> = columns.map(|column| name_of(&column.name)).collect();
            format!("SELECT {} FROM {} WHERE {live}", columns.join(", "), name_of(name))
        };
        let plain = select(str::to_owned);
        let needs_quotes = database.prepare(&plain).is_err();
        let select = if needs_quotes { select(quoted) } else { plain };
        let view = format!("live_{name}");
        let view = if needs_quotes { quoted(&view) } else { view };
        let warning = decl.table.error(format!("no view leaves out the deleted rows of `{name}`"));
        warnings.entry(name).or_insert_with(|| {
            warning.hint(format!(
                "applications should read a view; add to a migration: CREATE VIEW {view} AS {select};"
            ))
        });
    }
    Ok(warnings.into_values().collect())
}

/// Whether a column says which event wrote the row.
fn is_guard(column: &str) -> bool {
    GUARD_COLUMNS.contains(&column)
}

/// The event types that a rule names besides those in `on`: in `delete`, and in its tie.
fn event_types(rule: &RuleDecl) -> Vec<(Located<()>, &str)> {
    let newest = match &rule.effect {
        EffectDecl::Table(table) => table.newest(),
        _ => None,
    };
    let Some(newest) = newest else { return Vec::new() };
    let mut found = Vec::new();
    found.extend(newest.delete.iter().filter_map(|delete| match delete {
        DeleteDecl::Type(glob) => Some((glob.place(), glob.value.as_str())),
        DeleteDecl::When(_) => None,
    }));
    if let Some(tie) = &newest.tie {
        let orders = tie.value.iter().filter_map(|step| match step {
            StepDecl::Type(order) => Some(order),
            StepDecl::Value { .. } => None,
        });
        found.extend(orders.flatten().map(|glob| (tie.place(), glob.as_str())));
    }
    found
}

/// The warning about a type that no source of the rule has.
fn no_type(
    place: &Located<()>,
    glob: &str,
    rule: &RuleDecl,
    known: &BTreeMap<&str, Known>,
) -> Option<ConfigError> {
    let meant = |source: &str| {
        let on = Pattern { source: source.to_owned(), event_type: glob.to_owned() };
        known.get(source)?.meant(&on)
    };
    let sources: BTreeSet<_> = rule.on.iter().map(|on| on.source.as_str()).collect();
    let alike: Vec<_> = sources.iter().filter_map(|source| meant(source)).collect();
    let near = alike.first().filter(|_| alike.len() == sources.len())?;
    let sources: Vec<_> = sources.iter().map(|source| format!("`{source}`")).collect();
    let problem = format!("{} has no event of type `{glob}`", sources.join(" or "));
    Some(place.error(problem).hint(format!("did you mean `{near}`?")))
}

/// The warning about a field that a handler does not return.
fn no_field(
    place: &Located<()>,
    path: &ValuePath,
    handler: &str,
    fields: &[&str],
) -> Option<ConfigError> {
    let Some((Start::Body, path)) = start(path) else { return None };
    let Step::Key(field) = path.steps.first()? else { return None };
    // A handler does not have to declare its fields.
    if fields.is_empty() || fields.contains(&field.as_str()) {
        return None;
    }
    let warning = place.error(format!("the values of handler `{handler}` have no `{field}`"));
    Some(warning.suggest(field, fields.iter().copied()))
}

/// A rule as a whole, at its name.
pub(super) fn whole(rule: &RuleDecl) -> Located<()> {
    let name = rule.name.place();
    Located { key: name.key.trim_end_matches(".name").to_owned(), ..name }
}

/// The paths of a rule, with their places. A condition is at the rule's name.
pub(super) fn paths(rule: &RuleDecl) -> Vec<(Located<()>, &ValuePath)> {
    let mut found = Vec::new();
    found.extend(rule.each.iter().map(|each| (each.place(), &each.value)));
    found.extend(rule.more.iter().map(|more| (whole(rule), more)));
    // Samples need not have a value that must be missing.
    let absence = |when: &&ConditionDecl| !when.not && when.any_of == ["null"];
    for when in rule.conditions().filter(|when| !absence(when)) {
        found.extend(when.paths.iter().map(|path| (whole(rule), path)));
    }
    for value in rule.values() {
        found.extend(value.value.paths().map(|path| (value.place(), path)));
    }
    let newest = match &rule.effect {
        EffectDecl::Table(table) => table.newest(),
        _ => None,
    };
    for tie in newest.iter().filter_map(|newest| newest.tie.as_ref()) {
        for step in &tie.value {
            if let StepDecl::Value { value, .. } = step {
                found.extend(value.paths().map(|path| (tie.place(), path)));
            }
        }
    }
    found
}

/// Where a path begins.
enum Start {
    Body,
    Element,
}

/// `None`: it is a header, which samples do not have.
fn start(path: &ValuePath) -> Option<(Start, &Path)> {
    match path {
        ValuePath::Body(path) => Some((Start::Body, path)),
        ValuePath::Element(path) => Some((Start::Element, path)),
        ValuePath::Header(_) => None,
    }
}

/// What the samples and the tests tell about the events of a source.
#[derive(Default)]
pub(super) struct Known {
    /// The types of the samples, and their bodies as rules read them.
    pub(super) samples: Vec<(String, Value)>,
    /// The same of `[[tests]]`.
    of_tests: Vec<(String, Value)>,
    /// All types that the provider documents, if they are known.
    documented: Option<Vec<String>>,
    /// Whether senders add members of their own to the events themselves.
    is_open: bool,
}

impl Known {
    /// `None` if there are no samples of the provider.
    fn new(loaded: &Loaded, source: &Source) -> Option<Self> {
        let preset = loaded.config.presets.get(&source.name).map(|preset| preset.value);
        let scheme = source.scheme_name.as_str();
        let provider = preset.or_else(|| (!SHARED.contains(&scheme)).then_some(scheme))?;
        let known = Self::of_bodies(source, provider, samples::bodies(provider, "evt_1", now()));
        (!known.samples.is_empty()).then_some(known)
    }

    fn of_bodies(source: &Source, provider: &str, bodies: Vec<(String, Value)>) -> Self {
        let mut samples = Vec::new();
        for (kind, body) in bodies {
            let body = body.as_str().map_or_else(|| body.to_string(), ToOwned::to_owned);
            let request =
                Unsigned { body: body.as_bytes(), id: "evt_1", kind: &kind, headers: &[] };
            let read = |_: &Verified, _: &Headers, event: Event<'_>| {
                Some((event.kind.clone(), serde_json::from_slice(&event.body).ok()?))
            };
            samples.extend(events(source, request, read).into_iter().flatten().flatten());
        }
        let (documented, is_open) = (samples::documented_types(provider), provider == "sendgrid");
        Self { samples, of_tests: Vec::new(), documented, is_open }
    }

    /// All of them.
    fn events(&self) -> impl Iterator<Item = &(String, Value)> {
        self.samples.iter().chain(&self.of_tests)
    }

    /// The known type that the user probably means instead of an unknown one. A provider may have new types, which are like
    /// no other.
    fn meant(&self, on: &Pattern) -> Option<String> {
        // Few events have tests.
        if self.samples.is_empty() {
            return None;
        }
        let known = self.events().map(|(kind, _)| kind.as_str());
        let types = known.chain(self.documented.iter().flatten().map(String::as_str));
        let types: BTreeSet<_> = types.collect();
        if types.iter().any(|kind| on.matches(&on.source, kind)) {
            return None;
        }
        let glob = on.event_type.as_str();
        let alike = types.into_iter().flat_map(|kind| like(glob, kind));
        let alike: BTreeSet<_> = alike.collect();
        let near = nearest(glob, alike.iter().map(String::as_str));
        let near = near.filter(|near| self.documented.is_some() || distance(glob, near) <= TYPOS);
        near.map(ToOwned::to_owned)
    }
}

/// Patterns that a type matches, of the form of another: `customer.*`, `*.created`, or the type itself.
fn like(glob: &str, kind: &str) -> Vec<String> {
    let dots = kind.match_indices('.').map(|(at, _)| at);
    match (glob.strip_prefix('*'), glob.strip_suffix('*')) {
        (None, None) => vec![kind.to_owned()],
        (None, Some(_)) => dots.map(|at| format!("{}.*", &kind[..at])).collect(),
        _ => dots.map(|at| format!("*{}", &kind[at..])).collect(),
    }
}

/// The bodies that a rule may read.
struct Bodies<'k> {
    /// The types of events with samples, as the rule names them.
    types: BTreeSet<&'k str>,
    all: Vec<&'k Value>,
    /// The members of the events themselves that are no objects, in any sample. An event may have them whatever its type:
    /// Stripe's `account` is only in those of connected accounts.
    own: BTreeSet<&'k str>,
    /// The elements of the rule's list.
    elements: Vec<&'k Value>,
    /// Whether none of them is a sample.
    are_of_tests: bool,
}

/// Where a path leads.
enum Found<'v> {
    /// To these values.
    Values(Vec<&'v Value>),
    /// To members that samples cannot know.
    Anything,
    /// To nothing. The values before have these members.
    Nothing { step: Step, members: BTreeSet<&'v str> },
}

impl<'k> Bodies<'k> {
    fn new(rule: &'k RuleDecl, known: &'k BTreeMap<&str, Known>) -> Self {
        let (mut types, mut bodies, mut own) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        let mut are_of_tests = true;
        for on in &rule.on {
            let Some(known) = known.get(on.source.as_str()).filter(|known| !known.is_open) else {
                // An event that cannot be known may have any member.
                let (types, all, own, elements) = Default::default();
                return Self { types, all, own, elements, are_of_tests };
            };
            let members = known.events().filter_map(|(_, body)| body.as_object()).flatten();
            let plain = members.filter(|(_, value)| !value.is_object() && !value.is_array());
            own.extend(plain.map(|(name, _)| name.as_str()));
            let matches = |(kind, _): &&(String, Value)| on.matches(&on.source, kind);
            are_of_tests &= !known.samples.iter().any(|event| matches(&event));
            let before = bodies.len();
            bodies.extend(known.events().filter(matches).map(|(_, body)| body));
            if bodies.len() > before {
                types.insert(on.event_type.as_str());
            }
        }
        let list = rule.each.as_ref().and_then(|each| Some(start(&each.value)?.1));
        let elements = match list.map(|list| look(&bodies, &bodies, list)) {
            Some(Found::Values(lists)) => {
                lists.into_iter().filter_map(Value::as_array).flatten().collect()
            }
            _ => Vec::new(),
        };
        Self { types, all: bodies, own, elements, are_of_tests }
    }

    /// What the bodies are.
    const fn noun(&self) -> &'static str {
        if self.are_of_tests { "test" } else { "sample" }
    }

    /// The warning about a condition whose values are of another type than those in all samples.
    fn never_equal(&self, place: &Located<()>, when: &ConditionDecl) -> Option<ConfigError> {
        let [path] = when.paths.as_slice() else { return None };
        let (start, steps) = start(path)?;
        let from = match start {
            Start::Body => &self.all,
            Start::Element => &self.elements,
        };
        let Found::Values(values) = look(from, &self.all, steps) else { return None };
        let found: BTreeSet<_> = values.iter().filter_map(|value| type_of(value)).collect();
        let expected = when
            .any_of
            .iter()
            .map(|json| serde_json::from_str(json).ok().as_ref().and_then(type_of));
        // `null` is no type: it compares with a missing value.
        let expected: BTreeSet<_> = expected.collect::<Option<_>>()?;
        if found.is_empty() || !found.is_disjoint(&expected) {
            return None;
        }
        let words = |types: &BTreeSet<&str>| types.iter().copied().collect::<Vec<_>>().join(" or ");
        let problem = format!(
            "the value at `{path}` is {} in every {}, and a condition compares it with {}",
            words(&found),
            self.noun(),
            words(&expected)
        );
        let hint = if expected.contains("a text") {
            "it never equals; write the value without quotes"
        } else if found.contains("a text") {
            "it never equals; write the value in quotes"
        } else {
            "it never equals"
        };
        Some(place.error(problem).hint(hint))
    }

    /// The warning about a `more` that leads nowhere in every test: the list would always count as complete. For samples,
    /// [`Self::no_path`] warns.
    fn no_more(&self, place: &Located<()>, path: &ValuePath) -> Option<ConfigError> {
        let (_, steps) = start(path).filter(|_| self.are_of_tests)?;
        let Found::Nothing { .. } = look(&self.all, &self.all, steps) else { return None };
        let problem = format!("no test has the path of `more`, `{path}`");
        Some(place.error(problem).hint(
            "without it, every list counts as complete, and rows that it lacks are removed; add a test with an incomplete list",
        ))
    }

    /// The warning about a path that leads nowhere in every sample. A test may leave out what a provider sends, so it proves
    /// only a misspelling.
    fn no_path(&self, place: &Located<()>, path: &ValuePath) -> Option<ConfigError> {
        let (start, steps) = start(path)?;
        let (from, prefix) = match start {
            Start::Body => (&self.all, ""),
            Start::Element => (&self.elements, "@."),
        };
        let Found::Nothing { step: Step::Key(name), members } = look(from, &self.all, steps) else {
            return None;
        };
        let is_own = self.own.contains(name.as_str()) && steps.steps.len() == 1;
        if matches!(start, Start::Body) && is_own {
            return None;
        }
        let near = nearest(&name, members.iter().copied()).map(ToOwned::to_owned);
        // A form lacks its blank fields, and numbers the others.
        let is_form = self.all.iter().all(|body| is_flat(body));
        let number = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        if is_form && near.as_ref().is_none_or(|near| number(near) == number(&name)) {
            return None;
        }
        let near = if self.are_of_tests {
            near.filter(|near| is_misspelling(&name, near))
        } else {
            near.or_else(|| {
                let elsewhere = from.iter().filter_map(|body| place_of(body, &name));
                Some(format!("{prefix}{}", elsewhere.min_by_key(String::len)?))
            })
        };
        let types: Vec<_> = self.types.iter().map(|kind| format!("`{kind}`")).collect();
        let problem = format!("no {} of {} has `{path}`", self.noun(), types.join(", "));
        let warning = place.error(problem);
        match near {
            Some(near) => Some(warning.hint(format!("did you mean `{near}`?"))),
            None if name.parse::<f64>().is_ok() && steps.steps.len() == 1 => Some(
                warning.hint(format!("text in quotes is a path; for a constant, write {name}")),
            ),
            None if self.are_of_tests => None,
            None => Some(warning),
        }
    }
}

/// Whether two names differ by one typing error. Names that differ only in a digit, such as `line1` and `line2`, are both right.
fn is_misspelling(name: &str, other: &str) -> bool {
    let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    distance(name, other) == 1 && letters(name) != letters(other)
}

/// The type of a value; `None` for `null`.
fn type_of(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    })
}

/// Whether the members of an object are the fields of a form: texts, or nothing.
fn is_flat(body: &Value) -> bool {
    let is_field = |value: &Value| value.is_string() || value.is_null();
    body.as_object().is_some_and(|members| members.values().all(is_field))
}

/// Whether a path leads to a value in a body.
pub(super) fn has(body: &Value, path: &Path) -> bool {
    match look(&[body], &[body], path) {
        Found::Values(values) => values.iter().any(|value| !value.is_null()),
        Found::Anything | Found::Nothing { .. } => false,
    }
}

/// Where a path leads from these values. The path of a selection begins at the top of the bodies.
fn look<'v>(from: &[&'v Value], bodies: &[&'v Value], path: &Path) -> Found<'v> {
    let found = follow(from.to_vec(), &path.steps);
    let (Found::Values(lists), Some(select)) = (&found, &path.select) else { return found };
    let elements: Vec<_> = lists.iter().filter_map(|list| list.as_array()).flatten().collect();
    for nothing in [
        follow(elements.clone(), &[Step::Key(select.field.clone())]),
        follow(bodies.to_vec(), &select.equals),
    ] {
        if !matches!(nothing, Found::Values(_)) {
            return nothing;
        }
    }
    follow(elements, &select.rest)
}

fn follow<'v>(mut values: Vec<&'v Value>, steps: &[Step]) -> Found<'v> {
    let mut before = "";
    for step in steps {
        if values.is_empty() || before.ends_with("metadata") || OPEN.contains(&before) {
            return Found::Anything;
        }
        let mut next = Vec::new();
        let mut is_open = false;
        for value in &values {
            match (value, step) {
                (Value::Object(members), Step::Key(name)) => {
                    next.extend(members.get(name));
                    is_open |= members.is_empty();
                }
                (Value::Array(elements), Step::Index(_)) => {
                    next.extend(elements);
                    is_open |= elements.is_empty();
                }
                (value, _) => is_open |= value.is_null(),
            }
        }
        if next.is_empty() {
            let members = values.iter().filter_map(|value| value.as_object());
            let members = members.flat_map(|members| members.keys().map(String::as_str)).collect();
            let nothing = Found::Nothing { step: step.clone(), members };
            return if is_open { Found::Anything } else { nothing };
        }
        values = next;
        before = match step {
            Step::Key(name) => name,
            Step::Index(_) => "",
        };
    }
    Found::Values(values)
}

/// The path of a member with this name, wherever it is.
fn place_of(value: &Value, name: &str) -> Option<String> {
    let Value::Object(members) = value else { return None };
    if members.contains_key(name) {
        return Some(name.to_owned());
    }
    let inner = |(key, value): (&String, &Value)| Some(format!("{key}.{}", place_of(value, name)?));
    members.iter().filter_map(inner).min_by_key(String::len)
}

#[cfg(test)]
mod tests {
    use hookmill_rules::preset::PRESETS;

    use super::*;
    use crate::trial::presets;

    #[test]
    fn the_samples_know_every_path_of_the_presets() {
        let loaded = presets();
        assert_eq!(of_rules(&loaded, &known(&loaded), |_| true), []);
    }

    #[test]
    fn every_table_of_the_presets_has_a_view() {
        let loaded = presets();
        assert_eq!(of_tables(&loaded, &known(&loaded), |_| true).unwrap(), []);
    }

    /// What a rule reads of fixtures: each body, and an element of its list, or the body again.
    fn reads<'k>(rule: &RuleDecl, known: &'k Known) -> Vec<[&'k Value; 2]> {
        let list = rule.each.as_ref().and_then(|each| Some(start(&each.value)?.1));
        let matches = |kind: &str| rule.on.iter().any(|on| on.matches(&on.source, kind));
        let bodies = known.samples.iter().filter(|(kind, _)| matches(kind)).map(|(_, body)| body);
        bodies
            .flat_map(|body| match list.map(|list| look(&[body], &[body], list)) {
                None => vec![[body, body]],
                Some(Found::Values(lists)) => {
                    let elements = lists.into_iter().filter_map(Value::as_array).flatten();
                    elements.map(|element| [body, element]).collect()
                }
                Some(Found::Anything | Found::Nothing { .. }) => Vec::new(),
            })
            .collect()
    }

    fn has_value(path: &ValuePath, [body, element]: [&Value; 2]) -> bool {
        let Some((start, path)) = start(path) else { return false };
        let from = match start {
            Start::Body => body,
            Start::Element => element,
        };
        let is_blank = |value: &&Value| value.is_null() || **value == "";
        let open = |step: &Step| matches!(step, Step::Key(name) if OPEN.contains(&name.as_str()));
        match look(&[from], &[body], path) {
            Found::Values(values) => !values.iter().all(is_blank),
            Found::Anything => path.steps.iter().any(open),
            Found::Nothing { .. } => false,
        }
    }

    /// Paths without a value in the fixtures of each rule: `account` is in the events of connected accounts, whatever their
    /// types, and only the API has canceled payments of invoices.
    const ELSEWHERE: [&str; 2] = ["account", "data.object.status_transitions.canceled_at"];

    /// So there is a fixture in each shape that an object has had in the versions of an API.
    #[test]
    fn every_path_of_the_presets_has_a_value_in_a_fixture() {
        let loaded = presets();
        let mut unused = Vec::new();
        for source in &loaded.config.ingress.sources {
            let fixtures = samples::fixtures(&source.name);
            let fixtures = fixtures.map(|(_, kind, text)| (kind.to_owned(), samples::parsed(text)));
            let known = Known::of_bodies(source, &source.name, fixtures.collect());
            let rules = loaded.config.rules.iter();
            for rule in rules.filter(|rule| rule.on[0].source == source.name) {
                let read = reads(rule, &known);
                for value in rule.values() {
                    let alternatives = match &value.value {
                        ValueDecl::Paths { paths, .. } => vec![paths],
                        ValueDecl::Money { amount, currency } => vec![amount, currency],
                        ValueDecl::Constant(_) | ValueDecl::Event(_) => Vec::new(),
                    };
                    for paths in alternatives {
                        // The first path that leads to a value counts.
                        let first = |read: &[&Value; 2]| {
                            paths.iter().position(|path| has_value(path, *read))
                        };
                        let used: BTreeSet<_> = read.iter().filter_map(first).collect();
                        // Fixtures have no headers.
                        let rest = paths
                            .iter()
                            .enumerate()
                            .filter(|(place, path)| !used.contains(place) && start(path).is_some());
                        let rest = rest.map(|(_, path)| path.to_string());
                        let rest = rest.filter(|path| !ELSEWHERE.contains(&path.as_str()));
                        unused.extend(rest.map(|path| format!("{}: {path}", rule.name.value)));
                    }
                }
            }
        }
        assert_eq!(unused, Vec::<String>::new());
    }

    #[test]
    fn every_type_that_a_preset_names_has_a_sample() {
        let loaded = presets();
        let mut missing = BTreeSet::new();
        for rule in &loaded.config.rules {
            let newest = match &rule.effect {
                EffectDecl::Table(table) => table.newest(),
                _ => None,
            };
            let tie = newest.iter().filter_map(|newest| newest.tie.as_ref());
            let steps = tie.flat_map(|tie| &tie.value).filter_map(|step| match step {
                StepDecl::Type(order) => Some(order),
                StepDecl::Value { .. } => None,
            });
            let named = steps.flatten().map(|glob| Pattern {
                source: rule.on[0].source.clone(),
                event_type: glob.clone(),
            });
            for on in named.chain(rule.on.iter().cloned()) {
                let types = samples::types(&on.source);
                if !types.iter().any(|kind| on.matches(&on.source, kind)) {
                    missing.insert(on.to_string());
                }
            }
        }
        assert_eq!(missing, BTreeSet::new());
    }

    #[test]
    fn every_sample_has_a_type_that_its_provider_documents() {
        for preset in &PRESETS {
            let documented = samples::documented_types(preset.name).unwrap();
            for kind in samples::types(preset.name) {
                assert!(documented.contains(&kind), "{}: {kind}", preset.name);
            }
        }
    }
}
