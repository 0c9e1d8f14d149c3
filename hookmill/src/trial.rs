//! A trial: events are signed, verified and applied to an in-memory database. It changes no data of the user, and sends
//! nothing.

use std::collections::BTreeMap;

use anyhow::Context as _;
use hookmill_config::{Consumers, Source};
use hookmill_consumers::{Fate, process_batch};
use hookmill_core::delivery::Delivery;
use hookmill_core::message::{BodyForm, Envelope, VERSION, Verified, encode};
use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::request::Request;
use hookmill_core::schema::{Schema, Table};
use hookmill_core::store::{Statement, Store as _, StoreError, answer, read_json};
use hookmill_core::time::Timestamp;
use hookmill_loader::Loaded;
use hookmill_migrations::{apply, schema};
use hookmill_native::{Sqlite, now};
use hookmill_providers::{Admitted, Event, UnsignedEvent, Verifier, sign};
use rusqlite::Connection;
use serde_json::{Map, Value};

use crate::run::secrets::development_keys;

/// A row as a JSON object.
pub type Row = Map<String, Value>;

/// A database in memory, and its configuration.
pub struct Trial<'l> {
    /// The configuration.
    pub loaded: &'l Loaded,
    /// The consumers' part of it.
    pub consumers: &'l Consumers,
    /// The tables.
    pub schema: Schema,
    store: Sqlite,
}

/// A store that keeps nothing.
pub struct NoObjects;

impl Objects for NoObjects {
    async fn put(&self, _: &str, _: &[u8]) -> Result<(), ObjectError> {
        Ok(())
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(None)
    }

    async fn delete(&self, _: &str) -> Result<(), ObjectError> {
        Ok(())
    }

    async fn list(&self, _: &str) -> Result<Vec<StoredObject>, ObjectError> {
        Ok(Vec::new())
    }
}

impl<'l> Trial<'l> {
    /// A database with the tables of the migrations, prepared by `fill`.
    ///
    /// # Errors
    ///
    /// If the database cannot be created, or `fill` fails.
    pub fn new(
        loaded: &'l Loaded,
        consumers: &'l Consumers,
        fill: impl FnOnce(&Connection) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut database = Connection::open_in_memory()?;
        apply(&mut database, &loaded.migrations)?;
        let schema = schema(&database)?;
        fill(&database)?;
        Ok(Self { loaded, consumers, schema, store: Sqlite::new(database) })
    }

    /// Applies a batch; returns each delivery's fate.
    pub async fn apply(&self, batch: &[Delivery]) -> Vec<Fate> {
        let result =
            process_batch(&self.store, &NoObjects, self.consumers, batch, now(), |_, _| {}).await;
        result.settled.into_iter().map(|settled| settled.fate).collect()
    }

    /// The rows of a query, each a JSON text.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub async fn ask(&self, sql: &str) -> Result<Vec<Row>, StoreError> {
        let rows = self.store.execute(vec![Statement::new(sql, Vec::new())]).await?;
        read_json(answer(&rows, 0))
    }

    /// The query for every row of a table or view as a JSON object.
    pub fn select(&self, table: &str) -> String {
        let columns = self.schema.relation(table).into_iter().flat_map(Table::names);
        let columns = columns.map(|name| {
            let (name, value) = (literal(name), quoted(name));
            // JSON has neither bytes nor an infinity.
            format!(
                "{name}, CASE WHEN typeof({value}) = 'blob' THEN hex({value}) \
                 WHEN {value} IN (9e999, -9e999) THEN CAST({value} AS TEXT) ELSE {value} END"
            )
        });
        // A function has a maximum number of arguments.
        let parts: Vec<_> = columns.collect();
        let parts = parts.chunks(40).map(|part| format!("json_object({})", part.join(", ")));
        let object = parts.reduce(|all, part| format!("json_patch({all}, {part})"));
        format!("SELECT {} FROM {}", object.unwrap_or_else(|| "'{}'".to_owned()), quoted(table))
    }
}

/// A name in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Reads a header of the command line: 'Name: value'.
///
/// # Errors
///
/// If there is no colon.
pub fn parse_header(line: &str) -> anyhow::Result<(String, String)> {
    // Not quoted, since it may be a signature.
    let (name, value) =
        line.split_once(':').context("a header has no colon; expected 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// These headers, and those of the others that have other names.
pub fn with_headers(
    mut others: Vec<(String, String)>,
    own: &[(String, String)],
) -> Vec<(String, String)> {
    others.retain(|(name, _)| !own.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
    others.extend_from_slice(own);
    others
}

/// A request before its provider signs it.
#[derive(Clone, Copy)]
pub struct Unsigned<'r> {
    /// Its body.
    pub body: &'r [u8],
    /// The event's id, for providers that send it in a header.
    pub id: &'r str,
    /// The event's type, for providers that send it in a header.
    pub kind: &'r str,
    /// Other headers.
    pub headers: &'r [(String, String)],
}

/// The messages of a request, signed and verified as if its provider had sent it.
///
/// # Errors
///
/// Why ingress rejects it.
pub fn admit(source: &Source, request: Unsigned<'_>) -> Result<Vec<Delivery>, String> {
    let at = now();
    events(source, request, |verified, headers, event| {
        let identity = (event.id.as_str(), event.kind.as_str());
        delivery(&source.name, identity, at, (verified.clone(), headers.clone()), &event.body)
    })
}

/// Why an event has not the id or the type that the user gave: the provider sends it in the body.
pub fn contradiction(
    (id, kind): (Option<&str>, Option<&str>),
    (found, found_kind): (&str, &str),
) -> Option<String> {
    if kind.is_some_and(|kind| kind != found_kind) {
        return Some(format!("the type of this event is in its body: {found_kind}"));
    }
    // Some ids have a hash of the body at their end.
    id.filter(|id| !found.starts_with(id))?;
    Some(format!("the id of this event is in its body: {found}"))
}

/// The headers that an event keeps.
pub type Headers = BTreeMap<String, String>;

/// What `read` makes of each event of a request, signed and verified as if its provider had sent it.
///
/// # Errors
///
/// Why ingress rejects it.
pub fn events<T>(
    source: &Source,
    request: Unsigned<'_>,
    read: impl Fn(&Verified, &Headers, Event<'_>) -> T,
) -> Result<Vec<T>, String> {
    let Unsigned { body, id, kind, headers } = request;
    let keys = source.secrets.iter().find_map(|secret| development_keys(source, &secret.name));
    let keys = keys.ok_or("the source has no secret to sign with")?;
    let at = now();
    let outgoing = UnsignedEvent { id, kind, at, query: None, body };
    let signed = sign(source, &keys.signing, outgoing);
    let signed = signed.map_err(|problem| format!("cannot sign it: {problem}"))?;
    let verifier = Verifier::new(source, |_| Some(keys.verifying.clone()));
    let verifier = verifier.map_err(|error| error.to_string())?;
    let headers = [&signed.headers, headers].concat();
    let request = Request { method: "POST", query: None, headers: &headers, body: &signed.body };
    match verifier.verify(&request, at) {
        Ok(Admitted::Events(verified, events)) => {
            let headers = verifier.kept_headers(&request);
            Ok(events.into_iter().map(|event| read(&verified, &headers, event)).collect())
        }
        Ok(Admitted::Handshake(_)) => Err("this is a handshake, not an event".to_owned()),
        Err(rejection) => {
            Err(format!("ingress rejects it: {}: {}", rejection.reason, rejection.detail))
        }
    }
}

/// An event with this id and type, as the queue delivers it.
pub fn delivery(
    source: &str,
    (id, kind): (&str, &str),
    received_at: Timestamp,
    (verified, headers): (Verified, Headers),
    body: &[u8],
) -> Delivery {
    let mut envelope = envelope(source, (id, kind), received_at);
    (envelope.verified, envelope.headers) = (verified, headers);
    Delivery { attempts: 1, text: encode(&mut envelope, body) }
}

/// The same event for one rule alone, as in a reprocessing.
pub fn delivery_to(
    rule: &str,
    source: &str,
    (id, kind): (&str, &str),
    received_at: Timestamp,
    body: &[u8],
) -> Delivery {
    let mut envelope = envelope(source, (id, kind), received_at);
    (envelope.generation, envelope.rules) = (1, vec![rule.to_owned()]);
    Delivery { attempts: 1, text: encode(&mut envelope, body) }
}

fn envelope(source: &str, (id, kind): (&str, &str), received_at: Timestamp) -> Envelope {
    Envelope {
        v: VERSION,
        source: source.to_owned(),
        id: id.to_owned(),
        kind: kind.to_owned(),
        received_at,
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: Headers::new(),
        api_version: None,
        from_api: None,
        body: BodyForm::Text,
    }
}

/// A configuration with every preset, each in a source of its name.
#[cfg(test)]
pub fn presets() -> Loaded {
    let source = |name: &str| {
        let url = "public_url = 'https://hooks.example.com/webhooks/twilio'\n";
        format!(
            "[sources.{name}]\nscheme = '{name}'\nsecrets = ['env:A']\npreset = '{name}'\n{}",
            if name == "twilio" { url } else { "" }
        )
    };
    let presets = hookmill_rules::preset::PRESETS.iter();
    let config: String = presets.map(|preset| source(preset.name)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookmill.toml");
    std::fs::write(&path, config).unwrap();
    hookmill_loader::load(&path, &[]).unwrap()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use hookmill_core::store::read;

    use super::*;
    use crate::samples;

    /// The examples in docs/tables.md, with their results after every fixture.
    #[tokio::test]
    async fn the_examples_of_the_tables_find_rows_of_the_fixtures() {
        let loaded = presets();
        let consumers = loaded.consumers();
        let trial = Trial::new(&loaded, &consumers, |_| Ok(())).unwrap();
        for source in &loaded.config.ingress.sources {
            let headers = samples::unsigned_headers(&source.name, now());
            for (name, kind, body) in samples::fixtures(&source.name) {
                let body = body.trim_end().as_bytes();
                let event = admit(source, Unsigned { body, id: name, kind, headers: &headers });
                let event = event.unwrap_or_else(|problem| panic!("{name}: {problem}"));
                for fate in trial.apply(&event).await {
                    assert!(matches!(fate, Fate::Applied | Fate::Recorded), "{name}: {fate:?}");
                }
            }
        }
        let mut results = String::new();
        for (table, sql) in hookmill_migrations::docs::examples() {
            let rows = trial.store.execute(vec![Statement::new(sql.as_str(), Vec::new())]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{table}: {error}\n{sql}"));
            let rows: Vec<Row> = read(answer(&rows, 0)).unwrap();
            assert!(!rows.is_empty(), "{table}: no rows\n{sql}");
            assert!(sql.contains(&format!("live_{table}")), "{table}: applications read the view");
            let _ = writeln!(results, "{table}");
            for row in rows {
                let _ = writeln!(results, "  {}", Value::Object(row));
            }
        }
        insta::assert_snapshot!(results);
    }
}
