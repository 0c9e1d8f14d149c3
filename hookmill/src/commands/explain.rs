//! `hookmill explain`: the effect of rules on an event. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_config::{Consumers, Source};
use hookmill_consumers::Fate;
use hookmill_consumers::explain::{About, Explained, RuleResult, explain};
use hookmill_core::delivery::Delivery;
use hookmill_core::message::{Verified, decode};
use hookmill_core::schema::{ROW_GUARDS, Schema};
use hookmill_core::store::Param;
use hookmill_core::time::Timestamp;
use hookmill_loader::Loaded;
use hookmill_native::{DataFolder, FolderError, Reader, now};
use hookmill_rules::ast::EffectDecl;
use hookmill_rules::{DELETION, FINAL, row};
use rusqlite::{Connection, params_from_iter, types};
use serde::Serialize;
use serde_json::Value;

use crate::client::{Client, Target, encoded};
use crate::list::{json, note, plain, put};
use crate::run::pipeline::load;
use crate::samples;
use crate::trial::{
    Row, Trial, Unsigned, admit, contradiction, delivery, literal, parse_header, quoted,
    with_headers,
};

/// Explain the effects of an event: which rules run and why others do not, their SQL, and the changes to rows
///
/// The event is one that Hookmill received, or a file with a body. The command applies it to a copy of its rows, as if it
/// arrived for the first time; it writes and sends nothing.
#[derive(clap::Args)]
pub struct Arguments {
    /// The source in the configuration.
    source: String,
    /// The provider's event id.
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// A file with the body, as the provider would send it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// With --file: the event type, for providers that send it in a header.
    #[arg(long, value_name = "TYPE", requires = "file")]
    event: Option<String>,
    /// With --file: a header that the provider would send: 'Name: value'.
    #[arg(long, value_name = "HEADER", value_parser = parse_header, requires = "file")]
    header: Vec<(String, String)>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Print a JSON array with an object for each event.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The explanation of an event.
#[derive(Serialize)]
struct Explanation {
    source: String,
    id: String,
    r#type: String,
    /// `applied`, `recorded`, `ignored` or `dead_letter`.
    outcome: &'static str,
    /// The error of a dead letter.
    error: Option<String>,
    rules: Vec<RuleOf>,
    rows: Vec<Change>,
}

/// The result of a rule.
#[derive(Serialize)]
struct RuleOf {
    name: String,
    /// Whether it matches events of this source.
    of_source: bool,
    carried_out: bool,
    /// Why it did not run, or its error.
    why: Option<String>,
    /// Why it leaves rows as they are: other events about them outrank this one.
    outranked: Vec<String>,
    /// Its statements, which take `?1`, or `?1` and `?2`.
    sql: Vec<String>,
    /// Their parameters: an array with an array for each row; and for a list, one with an array for each element.
    parameters: Vec<Value>,
}

/// The change of a row.
#[derive(Serialize)]
struct Change {
    table: String,
    /// `null` if it did not exist.
    before: Option<Row>,
    after: Option<Row>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)?;
    let consumers = loaded.consumers();
    let mut sources = loaded.config.ingress.sources.iter();
    let source = sources.find(|source| source.name == arguments.source);
    let source = source.with_context(|| {
        format!("no source `{}` in {}", arguments.source, arguments.config.display())
    })?;
    let batch = match &arguments.file {
        Some(file) => from_file(arguments, source, file)?,
        None => vec![stored(arguments)?],
    };
    let live = match arguments.target.folder().map(DataFolder::read) {
        Some(Err(FolderError::Empty(_))) | None => None,
        Some(live) => Some(live?),
    };
    if live.is_none() && !arguments.json {
        note!("there is no data folder here; the tables are treated as empty");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let explanation =
        |delivery| runtime.block_on(explained(&loaded, &consumers, live.as_ref(), delivery));
    let explanations = batch.iter().map(explanation).collect::<Result<Vec<_>, _>>()?;
    if arguments.json {
        return put(json(&explanations)?);
    }
    put(explanations.iter().map(Explanation::text).collect::<Vec<_>>().join("\n\n"))
}

fn from_file(arguments: &Arguments, source: &Source, file: &Path) -> anyhow::Result<Vec<Delivery>> {
    let body = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let id = arguments.id.as_deref().unwrap_or("explained");
    let kind = arguments.event.as_deref().unwrap_or_default();
    let headers = samples::unsigned_headers(&source.scheme_name, now());
    let headers = with_headers(headers, &arguments.header);
    let batch = admit(source, Unsigned { body: &body, id, kind, headers: &headers })
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{} is not an event of `{}`", file.display(), source.name))?;
    let given = (arguments.id.as_deref(), arguments.event.as_deref());
    let first = batch.first().and_then(|delivery| decode(&delivery.text).ok());
    if let Some(first) = first
        && let Some(text) = contradiction(given, (&first.envelope.id, &first.envelope.kind))
    {
        note!("{text}");
    }
    Ok(batch)
}

/// A received event whose message is kept.
fn stored(arguments: &Arguments) -> anyhow::Result<Delivery> {
    let Arguments { source, id, .. } = arguments;
    let id = id.as_deref().unwrap_or_default();
    let client = Client::new(&arguments.target)?;
    let path = format!("/events/{}/{}", encoded(source), encoded(id));
    let story = client.get(&path, &[])?;
    let shown = client.get(&format!("{path}/body"), &[])?;
    let text = shown["body"].as_str().unwrap_or_default();
    let body = match shown["body_form"].as_str() {
        Some("text") => text.as_bytes().to_vec(),
        Some("base64") => STANDARD.decode(text)?,
        _ => bail!("its body is redacted, so its effects are unknown; use --file"),
    };
    let mut steps = story["steps"].as_array().into_iter().flatten();
    let received = steps.find(|step| step["what"] == "received");
    let received = received.context("its type is unknown")?;
    let kind = received["detail"]["type"].as_str().unwrap_or_default();
    let received_at = received["at"].as_i64().map_or_else(now, Timestamp::from_millis);
    let verified = Verified { secret: 0, signed_at: None };
    let headers = serde_json::from_value(shown["headers"].clone())?;
    Ok(delivery(source, (id, kind), received_at, (verified, headers), &body))
}

async fn explained(
    loaded: &Loaded,
    consumers: &Consumers,
    live: Option<&Reader>,
    delivery: &Delivery,
) -> anyhow::Result<Explanation> {
    let message = decode(&delivery.text)?;
    let rules = explain(consumers, &message.envelope, &message.body, now());
    let about = rules.iter().filter_map(|rule| match &rule.result {
        RuleResult::Rows { about, .. } => Some(about.as_slice()),
        _ => None,
    });
    let about = about.collect::<Vec<_>>().concat();
    let trial = Trial::new(loaded, consumers, |database| match live {
        Some(live) => copy(database, live, loaded, &about),
        None => Ok(()),
    })?;
    let links = Link::all(loaded, &trial.schema);
    let children: BTreeSet<_> = links.iter().map(|link| link.child).collect();
    let own = rows(&trial, &about, &BTreeSet::new()).await?;
    let before = rows(&trial, &about, &children).await?;
    let mut explained = Vec::new();
    for rule in &rules {
        let outranked = match &rule.result {
            RuleResult::Rows { about, .. } => {
                outranked(&trial, about, &message.envelope.id).await?
            }
            _ => Vec::new(),
        };
        explained.push(RuleOf::new(rule, &message.envelope.source, outranked));
    }
    let fate = trial.apply(std::slice::from_ref(delivery)).await.pop();
    let mut after = rows(&trial, &about, &children).await?;
    let mut changes = Vec::new();
    for (key, row) in before {
        let after = after.remove(&key);
        // Of the rows below, those are shown that change.
        if own.contains_key(&key) || after.as_ref() != Some(&row) {
            changes.push(Change { table: key.0, before: Some(row), after });
        }
    }
    let created =
        after.into_iter().map(|((table, _), row)| Change { table, before: None, after: Some(row) });
    changes.extend(created);
    changes.sort_by(|one, other| one.table.cmp(&other.table));
    let (outcome, error) = match fate {
        Some(Fate::Condemned { reason, error }) => {
            ("dead_letter", Some(format!("{reason}: {error}")))
        }
        Some(fate) => (fate.as_str(), None),
        None => bail!("the event had no result"),
    };
    let source = message.envelope.source;
    Ok(Explanation {
        rules: explained,
        source,
        id: message.envelope.id,
        r#type: message.envelope.kind,
        outcome,
        error,
        rows: changes,
    })
}

/// A column with the keys of another table, whose deleted rows delete those that refer to them: `parents` of a rule.
struct Link<'l> {
    child: &'l str,
    column: &'l str,
    parent: &'l str,
    key: &'l str,
}

impl<'l> Link<'l> {
    fn all(loaded: &'l Loaded, schema: &'l Schema) -> Vec<Self> {
        let mut links = Vec::new();
        for rule in &loaded.config.rules {
            let EffectDecl::Table(table) = &rule.effect else { continue };
            for (column, parent) in table.newest().into_iter().flat_map(|newest| &newest.parents) {
                let found = schema.tables.get(&parent.value);
                let key = found.and_then(|table| table.columns.iter().find(|column| column.key));
                links.extend(key.map(|key| Self {
                    child: &table.table.value,
                    column: &column.value,
                    parent: &parent.value,
                    key: &key.name,
                }));
            }
        }
        links
    }
}

/// The maximum number of rows that are copied for one parent, or for one child.
const RELATED: usize = 100;

/// Copies the rows that an event changes, and their guards; then the rows above and below them, which `parents` links.
fn copy(
    database: &Connection,
    live: &Reader,
    loaded: &Loaded,
    about: &[About],
) -> anyhow::Result<()> {
    let schema = hookmill_migrations::schema(database)?;
    let links = Link::all(loaded, &schema);
    let found = live.data(|live| {
        let mut found = Vec::new();
        let mut related = Vec::new();
        for About { table, columns, values, .. } in about {
            let conditions: Vec<_> =
                columns.iter().map(|(column, _)| format!("{} = ?", quoted(column))).collect();
            let key = columns.iter().map(|(_, value)| bound(value)).collect();
            let guard = [table.clone(), guard_key(columns)].map(types::Value::Text).to_vec();
            found.push(Found::new(live, &schema, table, &conditions.join(" AND "), key)?);
            let condition = "table_name = ?1 AND key = ?2";
            found.push(Found::new(live, &schema, ROW_GUARDS, condition, guard)?);
            // The rows that refer to this one need not exist yet, nor does this one.
            let set = |name: &str| values.iter().find(|(column, _)| column == name);
            for link in &links {
                let (above, below) = (link.child == table, link.parent == table);
                if let Some((_, value)) = set(link.column).filter(|_| above) {
                    related.push((link.parent, link.key, bound(value)));
                }
                if let Some((_, value)) = set(link.key).filter(|_| below) {
                    related.push((link.child, link.column, bound(value)));
                }
            }
        }
        related.extend(found.iter().flat_map(|found| found.related(&links)));
        let mut seen = BTreeSet::new();
        while let Some((table, column, value)) = related.pop() {
            if !seen.insert((table, column, format!("{value:?}"))) {
                continue;
            }
            let condition = format!("{} = ? LIMIT {RELATED}", quoted(column));
            let more = Found::new(live, &schema, table, &condition, vec![value])?;
            related.extend(more.related(&links));
            found.push(more);
        }
        Ok(found)
    });
    let migrations = loaded.migrations.len();
    let found = found.with_context(|| {
        format!(
            "the database lacks tables of these {migrations} migrations; run `hookmill migrate`"
        )
    })?;
    for Found { table, columns, rows } in found {
        let names = columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let values = vec!["?"; columns.len()].join(", ");
        let insert =
            format!("INSERT OR IGNORE INTO {} ({names}) VALUES ({values})", quoted(&table));
        for row in rows {
            database.execute(&insert, params_from_iter(row))?;
        }
    }
    Ok(())
}

/// Rows of a table: the values of its columns.
struct Found {
    table: String,
    columns: Vec<String>,
    rows: Vec<Vec<types::Value>>,
}

impl Found {
    fn new(
        live: &Connection,
        schema: &Schema,
        table: &str,
        condition: &str,
        values: Vec<types::Value>,
    ) -> rusqlite::Result<Self> {
        let columns = schema.tables.get(table).into_iter().flat_map(|table| &table.columns);
        let columns: Vec<_> = columns.map(|column| column.name.clone()).collect();
        let names = columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let table = table.to_owned();
        let sql = format!("SELECT {names} FROM {} WHERE {condition}", quoted(&table));
        let mut query = live.prepare(&sql)?;
        let row =
            |row: &rusqlite::Row<'_>| (0..columns.len()).map(|column| row.get(column)).collect();
        let rows = query.query_map(params_from_iter(values), row)?.collect::<Result<_, _>>()?;
        drop(query);
        Ok(Self { table, columns, rows })
    }

    /// The parents and the children of its rows: their tables, and a column with its value.
    fn related<'l>(&self, links: &[Link<'l>]) -> Vec<(&'l str, &'l str, types::Value)> {
        let values = |name: &str| {
            let place = self.columns.iter().position(|column| column == name);
            self.rows.iter().filter_map(move |row| row.get(place?).cloned())
        };
        let mut related = Vec::new();
        for &Link { child, column, parent, key } in links {
            if child == self.table {
                related.extend(values(column).map(|value| (parent, key, value)));
            }
            if parent == self.table {
                related.extend(values(key).map(|value| (child, column, value)));
            }
        }
        related
    }
}

fn bound(value: &Value) -> types::Value {
    match value {
        Value::Null => types::Value::Null,
        Value::Bool(truth) => types::Value::Integer(i64::from(*truth)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => types::Value::Integer(number),
            None => types::Value::Real(number.as_f64().unwrap_or_default()),
        },
        value => types::Value::Text(plain_text(value)),
    }
}

/// The condition that columns have these values.
fn conditions(columns: &[(String, Value)]) -> String {
    let conditions = columns.iter().map(|(column, value)| {
        let value = match bound(value) {
            types::Value::Text(text) => literal(&text),
            types::Value::Integer(number) => number.to_string(),
            types::Value::Real(number) => number.to_string(),
            _ => "NULL".to_owned(),
        };
        format!("{} = {value}", quoted(column))
    });
    conditions.collect::<Vec<_>>().join(" AND ")
}

/// A key as `row_guards` stores it.
fn guard_key(columns: &[(String, Value)]) -> String {
    let key: Vec<_> = columns.iter().map(|(_, value)| plain_text(value)).collect();
    serde_json::to_string(&key).unwrap_or_default()
}

fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The rows that an event changes, by table and primary key, and all rows of these tables.
async fn rows(
    trial: &Trial<'_>,
    about: &[About],
    whole: &BTreeSet<&str>,
) -> anyhow::Result<BTreeMap<(String, String), Row>> {
    let mut found = BTreeMap::new();
    let about = about.iter().map(|About { table, columns, .. }| (&**table, conditions(columns)));
    let whole = whole.iter().map(|table| (*table, "true".to_owned()));
    for (table, conditions) in about.chain(whole) {
        let known = trial.schema.tables.get(table);
        let keys: Vec<_> = known.into_iter().flat_map(|table| &table.columns).collect();
        for row in trial.ask(&format!("{} WHERE {conditions}", trial.select(table))).await? {
            let key = keys.iter().filter(|column| column.key).map(|column| &row[&column.name]);
            let key = key.map(Value::to_string).collect::<Vec<_>>().join(",");
            found.insert((table.to_owned(), key), row);
        }
    }
    Ok(found)
}

/// A version: a time in microseconds, or a number.
fn shown_version(version: i64, is_time: bool) -> String {
    if is_time { Timestamp::from_millis(version / 1000).to_string() } else { version.to_string() }
}

/// Why an event leaves rows as they are: the event that has written a row, or its guard, outranks it.
async fn outranked(
    trial: &Trial<'_>,
    about: &[About],
    event_id: &str,
) -> anyhow::Result<Vec<String>> {
    let mut reasons = Vec::new();
    for About { table, columns, order, is_time, is_list, .. } in about {
        let Some((version, precedence)) = *order else { continue };
        let known = trial.schema.tables.get(table);
        // The rows of a list have the order of their owner, or one each.
        let has_order = !is_list && known.is_some_and(|known| known.column("_version").is_some());
        let conditions = conditions(columns);
        let of_row = format!(
            "SELECT _version, _precedence, _event_id FROM {} WHERE {conditions}",
            quoted(table)
        );
        let of_guard = format!(
            "SELECT version, precedence, event_id FROM {ROW_GUARDS} WHERE table_name = {} AND key = {}",
            literal(table),
            literal(&guard_key(columns))
        );
        let both = [has_order.then_some(of_row), Some(of_guard)].into_iter().flatten();
        let both = both.collect::<Vec<_>>().join(" UNION ALL ");
        let newest = format!(
            "WITH held (version, precedence, event_id) AS ({both})
             SELECT json_object('version', version, 'precedence', precedence, 'event', event_id) FROM held
             WHERE (version, precedence, event_id) >= ({version}, {precedence}, {})
             ORDER BY version DESC, precedence DESC, event_id DESC LIMIT 1",
            literal(event_id)
        );
        for held in trial.ask(&newest).await? {
            let number = |name: &str| held[name].as_i64().unwrap_or_default();
            let event = held["event"].as_str().unwrap_or_default();
            let newer = number("version");
            let why = if (newer, number("precedence"), event) == (version, precedence, event_id) {
                "it shows this event already".to_owned()
            } else if newer >= FINAL {
                format!("the deletion by event {event} is final")
            } else if newer > version {
                let [newer, own] = [newer, version].map(|version| shown_version(version, *is_time));
                format!(
                    "event {event} is newer: its version is {newer}, and that of this event is {own}"
                )
            } else if number("precedence") >= DELETION {
                format!("event {event} has the same version and deletes")
            } else if number("precedence") > precedence {
                format!("event {event} has the same version and a higher precedence")
            } else {
                format!("event {event} has the same version, and its id is the greater one")
            };
            let row = columns.iter().map(|(name, value)| format!("{name} = {value}"));
            let row = row.collect::<Vec<_>>().join(", ");
            reasons.push(format!("`{table}` ({row}): {why}"));
        }
    }
    Ok(reasons)
}

impl RuleOf {
    fn new(
        Explained { rule, result }: &Explained<'_>,
        source: &str,
        outranked: Vec<String>,
    ) -> Self {
        let sql = || rule.sql.iter().map(|sql| sql.text.to_string()).collect();
        let (why, sql, parameters) = match result {
            RuleResult::NotNamed => {
                let on: Vec<_> = rule.on.iter().map(ToString::to_string).collect();
                (Some(format!("`on` matches only {}", on.join(", "))), Vec::new(), Vec::new())
            }
            RuleResult::Unfulfilled(values) => {
                let values: Vec<_> = values
                    .iter()
                    .map(|(path, found)| {
                        let found = if found == "null" { "nothing" } else { found };
                        format!("the value at `{path}` is {found}")
                    })
                    .collect();
                let reason = format!("`when` does not match: {}", values.join(", and "));
                (Some(reason), Vec::new(), Vec::new())
            }
            RuleResult::Nothing(why) => (Some((*why).to_owned()), Vec::new(), Vec::new()),
            RuleResult::Failed(error) => (Some(error.clone()), sql(), Vec::new()),
            RuleResult::Rows { rows, .. } => {
                // If the rows do not fit into one statement, the parameters of the first.
                let first = |sql| row::Row::statements(sql, rows).into_iter().next();
                let statements: Vec<_> = rule.sql.iter().filter_map(first).collect();
                let sql = statements.iter().map(|statement| statement.sql.to_string()).collect();
                let parameters = statements.into_iter().map(|statement| statement.params);
                let parameters = parameters.max_by_key(Vec::len).unwrap_or_default();
                let json = |param: &Param| match param {
                    Param::Text(text) => serde_json::from_str(text).ok(),
                    Param::Integer(_) | Param::Null | Param::Now => None,
                };
                let parameters = parameters.iter().filter_map(json);
                (None, sql, parameters.collect())
            }
        };
        let carried_out = !parameters.is_empty();
        let of_source = rule.on.iter().any(|pattern| pattern.source == source);
        let name = rule.name.clone();
        Self { name, of_source, carried_out, why, outranked, sql, parameters }
    }
}

impl Explanation {
    /// For people.
    fn text(&self) -> String {
        let mut text = format!("{}: {} {}\n", self.source, plain(&self.r#type), plain(&self.id));
        // A dead letter changes nothing.
        let runs = if self.error.is_some() { "would run" } else { "runs" };
        for rule in self.rules.iter().filter(|rule| rule.carried_out) {
            let _ = write!(text, "\nrule {} {runs}:\n", rule.name);
            for sql in &rule.sql {
                let _ = write!(text, "{}\n\n", indented(sql));
            }
            for (index, parameter) in rule.parameters.iter().enumerate() {
                let _ = writeln!(text, "    ?{} = {}", index + 1, plain(&parameter.to_string()));
            }
            for why in &rule.outranked {
                let _ = writeln!(text, "\n    It leaves a row as it is. {}", plain(why));
            }
        }
        text.push('\n');
        let others = self.rules.iter().filter(|rule| !rule.carried_out);
        let (of_source, elsewhere): (Vec<_>, Vec<_>) = others.partition(|rule| rule.of_source);
        for rule in of_source {
            let why = rule.why.as_deref().unwrap_or_default();
            let _ = writeln!(text, "rule {} does not run: {}", rule.name, plain(why));
        }
        if !elsewhere.is_empty() {
            let _ = writeln!(text, "rules of other sources: {}", elsewhere.len());
        }
        for change in &self.rows {
            let _ = write!(text, "\n{}", change.text());
        }
        match &self.error {
            Some(error) => {
                let _ = write!(text, "\nThe event becomes a dead letter: {}", plain(error));
            }
            None => {
                let _ = write!(text, "\nThe event is {}.", self.outcome);
            }
        }
        text
    }
}

impl Change {
    fn text(&self) -> String {
        let what = match (&self.before, &self.after) {
            (None, _) => "a new row",
            (Some(_), None) => "a removed row",
            (before, after) if before == after => "an unchanged row",
            _ => "a changed row",
        };
        let mut text = format!("{}: {what}\n", self.table);
        let empty = Row::new();
        let (before, after) = (self.before.as_ref(), self.after.as_ref());
        let names = before.or(after).unwrap_or(&empty).keys();
        for name in names {
            let (old, new) =
                (before.and_then(|row| row.get(name)), after.and_then(|row| row.get(name)));
            let mut line = |sign: &str, value: Option<&Value>| {
                if let Some(value) = value {
                    let _ = writeln!(text, "  {sign} {name} = {}", plain(&value.to_string()));
                }
            };
            if old == new {
                line(" ", new);
            } else {
                line("-", old);
                line("+", new);
            }
        }
        text
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
