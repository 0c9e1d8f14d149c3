//! [`load`]: a hookmill.toml, checked with its templates and against the schema of its migrations.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use hookmill_config::{
    Admin, Config, ConfigError, Consumers, Located, overview, parse_recoverable,
};
use hookmill_core::email::TemplateText;
use hookmill_core::schema::{OWN_TABLES, Schema};
use hookmill_migrations::{Migration, MigrationError, apply, in_folder, own, schema};
use hookmill_rules::Program;
use hookmill_rules::ast::EffectDecl;
use rusqlite::Connection;
use thiserror::Error;

use crate::templates;

/// A configuration that has been checked whole.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// Its rules, compiled.
    pub program: Program,
    /// The texts of its templates.
    pub templates: BTreeMap<String, TemplateText>,
    /// Hookmill's migrations and the user's, in order.
    pub migrations: Vec<Migration>,
    /// The loaded configuration, for people: [`hookmill_config::overview()`].
    pub overview: String,
    /// The handlers that its rules may name.
    handlers: Vec<&'static str>,
}

impl Loaded {
    /// What the consumers carry of it.
    pub fn consumers(&self) -> Consumers {
        Consumers {
            program: self.program.clone(),
            retry: self.config.retry.clone(),
            limits: self.config.limits,
            apis: self.config.apis.clone(),
            api_versions: self.config.api_versions.clone(),
            sweeps: self.config.sweeps.clone(),
            reconciliations: self.config.reconciliations.clone(),
            keep_messages: self.config.retention.messages.is_some(),
            emails: self.config.emails.clone(),
            sms: self.config.sms.clone(),
            tracking: self.config.tracking.clone(),
            templates: self.templates.clone(),
            alerts: self.config.alerts.clone(),
        }
    }

    /// What the admin API carries of it.
    pub fn admin(&self) -> Admin {
        Admin {
            retention: self.config.retention,
            redact: self.config.redact.clone(),
            access: self.config.access.clone(),
            overview: self.overview.clone(),
        }
    }

    /// Checks the rules against the schema of a database that these migrations were applied to. The schema
    /// differs if an applied migration was changed.
    ///
    /// # Errors
    ///
    /// The faults of rules that the database has no tables or columns for.
    pub fn check_against(&self, schema: &Schema) -> Result<(), Faults> {
        self.config.compile(schema, &self.handlers).map(drop).map_err(Faults)
    }
}

/// Why a configuration was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it was not read.
        source: std::io::Error,
    },
    /// Every fault of the file.
    #[error("{0}")]
    Faults(Faults),
    /// Hookmill's own migrations do not make a schema.
    #[error("Hookmill's own migrations cannot be applied")]
    Own(#[source] MigrationError),
    /// The schema cannot be read.
    #[error("the schema cannot be read")]
    Schema(#[from] rusqlite::Error),
}

/// The faults of a configuration, at least one.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub struct Faults(pub Vec<ConfigError>);

/// Each fault on a line of its own, and how many there are. The caller writes `error: ` in front, as for any other error.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        let (count, plural) = (lines.len(), if lines.len() == 1 { "" } else { "s" });
        write!(f, "{}\n{count} error{plural} in the configuration", lines.join("\nerror: "))
    }
}

/// Reads a configuration and checks all of it: its text, its templates, its migrations, its rules against the schema and
/// against the names of the handlers that are built in.
///
/// # Errors
///
/// [`LoadError`]; faults of the file are reported all at once.
pub fn load(path: &Path, handlers: &[&'static str]) -> Result<Loaded, LoadError> {
    let text = fs::read_to_string(path)
        .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let (config, mut faults) = parse_recoverable(&path.display().to_string(), &text);
    let Some(config) = config else { return Err(LoadError::Faults(Faults(faults))) };

    let base = path.parent().unwrap_or(Path::new(""));
    let templates = templates::read(&config, base, &mut faults);
    let mut database = Connection::open_in_memory()?;
    let mut migrations = own();
    apply(&mut database, &migrations).map_err(LoadError::Own)?;
    let mut migrated = true;
    if let Some(folder) = &config.migrations {
        let before = schema(&database)?;
        match users(&mut database, &base.join(&folder.value), folder) {
            Ok(users) => migrations.extend(users),
            Err(fault) => {
                migrated = false;
                faults.push(fault);
            }
        }
        let after = schema(&database)?;
        for (view, error) in &after.broken_views {
            faults.push(folder.error(format!("the view `{view}` cannot be read: {error}")));
        }
        for table in OWN_TABLES {
            // An index of the user's own does no harm.
            let shape = |schema: &Schema| {
                let table = schema.tables.get(table);
                table.map(|table| (table.columns.clone(), table.unique.clone()))
            };
            if shape(&before) != shape(&after) {
                let problem = format!("a migration changes `{table}`, Hookmill's own table");
                faults.push(folder.error(problem));
            }
        }
    }
    if !migrated {
        // Without the user's tables, nothing can be said about the rules.
        faults.sort();
        return Err(LoadError::Faults(Faults(faults)));
    }
    let compiled = config.compile(&schema(&database)?, handlers);
    if let Ok(program) = &compiled {
        faults.extend(unprepared(&config, program, &database)?);
    }
    match compiled {
        Ok(program) if faults.is_empty() => {
            let overview = overview(&text, &program, &config.apis);
            let handlers = handlers.to_vec();
            Ok(Loaded { config, program, templates, migrations, overview, handlers })
        }
        compiled => {
            faults.extend(compiled.err().unwrap_or_default());
            faults.sort();
            Err(LoadError::Faults(Faults(faults)))
        }
    }
}

/// Rules whose statements the database refuses, whatever their rows, for instance because a foreign key refers to a table that
/// does not exist. D1 and the native database enforce foreign keys.
fn unprepared(
    config: &Config,
    program: &Program,
    database: &Connection,
) -> Result<Vec<ConfigError>, rusqlite::Error> {
    database.pragma_update(None, "foreign_keys", true)?;
    let mut faults = Vec::new();
    for rule in &program.rules {
        let error = rule.sql.iter().find_map(|sql| database.prepare(&sql.text).err());
        let decl = config.rules.iter().find(|decl| decl.name.value == rule.name);
        let (Some(error), Some(decl)) = (error, decl) else { continue };
        let place = match &decl.effect {
            EffectDecl::Table(table) => table.table.place(),
            _ => decl.name.place(),
        };
        // The statement itself does not belong into the message.
        let cause = match error {
            rusqlite::Error::SqlInputError { msg, .. } => msg,
            error => error.to_string(),
        };
        let problem = place.error(format!("the database refuses the rule's statements: {cause}"));
        faults.push(problem.hint("a migration must change the table, or what refers to it"));
    }
    Ok(faults)
}

/// Applies the user's migrations to the scratch database.
fn users(
    database: &mut Connection,
    folder: &Path,
    named: &Located<String>,
) -> Result<Vec<Migration>, ConfigError> {
    let fault = |error: MigrationError| {
        let cause =
            std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        named.error(format!("{error}{cause}"))
    };
    let migrations = in_folder(folder).map_err(fault)?;
    apply(database, &migrations).map_err(fault)?;
    Ok(migrations)
}

#[cfg(test)]
mod tests {
    use hookmill_rules::TieStep;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// Every preset.
    fn presets() -> Loaded {
        let sources = [
            ("stripe", "stripe"),
            ("clerk", "standard-webhooks"),
            ("paddle", "paddle"),
            ("resend", "resend"),
            ("sendgrid", "sendgrid"),
            ("shopify", "shopify"),
            ("github", "github"),
            ("twilio", "twilio"),
        ];
        let sources = sources.map(|(preset, scheme)| {
            format!(
                "[sources.{preset}]\nscheme = '{scheme}'\nsecrets = ['env:A']\npreset = '{preset}'\n"
            )
        });
        // The last one's.
        let config = sources.concat() + "public_url = 'https://example.com/webhooks/twilio'\n";
        let folder = folder(&[("hookmill.toml", &config)]);
        load(&folder.path().join("hookmill.toml"), &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn no_rule_writes_a_table_of_hookmills_own() {
        let mut database = Connection::open_in_memory().unwrap();
        apply(&mut database, &own()).unwrap();
        let rules = presets().program.rules;
        let written: Vec<_> = rules.iter().filter_map(|rule| rule.effect.table()).collect();
        let tables = schema(&database).unwrap().tables.into_keys();
        let own: Vec<_> = tables.filter(|table| !written.contains(&table.as_str())).collect();
        assert_eq!(own, OWN_TABLES);
    }

    #[test]
    fn a_list_in_a_table_that_does_not_suit_it_is_refused() {
        let rule = |table: &str| {
            format!(
                "[[rules]]\nname = 'list'\non = ['s:*']\neach = 'list'\ntable = '{table}'\n\
                 key = {{ team = 'team', id = '@.id' }}\nversion = 'v'\n"
            )
        };
        assert_eq!(faults(&rule("members")), "none");
        assert_eq!(faults(&rule("indexed")), "none");
        insta::assert_snapshot!(faults(&rule("untyped")), @r#"
        hookmill.toml:11:24: rule "list".key.id: the type of the column `id` is ANY
          hint: use TEXT or INTEGER; otherwise a number and its text would be two keys
        1 error in the configuration
        "#);
        insta::assert_snapshot!(faults(&rule("folded")), @r#"
        hookmill.toml:11:24: rule "list".key.id: the column `id` has a collating sequence
          hint: remove COLLATE; otherwise two objects or two events could be one
        1 error in the configuration
        "#);
        insta::assert_snapshot!(faults(&rule("backwards")), @r#"
        hookmill.toml:10:9: rule "list".table: no index of `backwards` begins with (team), so each event would read the whole table
          hint: begin the primary key with the columns of the list's owner, or add an index: CREATE INDEX … ON backwards (team)
        1 error in the configuration
        "#);
    }

    #[test]
    fn a_key_that_could_be_two_objects_is_refused() {
        let rule = "[[rules]]\nname = 'tally'\non = ['s:*']\ntable = 'tally'\nkey = { id = 'id' }\nadd = { n = 1 }\n";
        insta::assert_snapshot!(faults(rule), @r#"
        hookmill.toml:10:9: rule "tally".key.id: the column `id` has a collating sequence
          hint: remove COLLATE; otherwise two objects or two events could be one
        1 error in the configuration
        "#);
    }

    #[test]
    fn a_migration_that_changes_a_table_of_hookmill_is_refused() {
        let text = format!("{SOURCE}[database]\nmigrations = 'app'\n");
        let folder = folder(&[("hookmill.toml", &text)]);
        fs::create_dir(folder.path().join("app")).unwrap();
        fs::write(folder.path().join("app/1000_a.sql"), "DROP TABLE outbox").unwrap();
        let error = load(&folder.path().join("hookmill.toml"), &[]).unwrap_err().to_string();
        assert!(error.contains("a migration changes `outbox`, Hookmill's own table"), "{error}");
    }

    const SOURCE: &str = "[sources.s]\nscheme = 'stripe'\nsecrets = ['env:A']\n";

    /// The faults of a configuration with these rules, on a schema with a few tables.
    fn faults(rules: &str) -> String {
        let folder = folder(&[(
            "hookmill.toml",
            &format!("{SOURCE}[database]\nmigrations = 'app'\n{rules}"),
        )]);
        let app = folder.path().join("app");
        fs::create_dir(&app).unwrap();
        let guard = "_version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL";
        let sql = format!(
            "CREATE TABLE teams (org TEXT, id TEXT, name TEXT NOT NULL, size INTEGER, note TEXT, label TEXT AS (upper(name)), {guard}, PRIMARY KEY (org, id)) STRICT;
             CREATE TABLE tallies (id TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) STRICT;
             CREATE TABLE sums (id TEXT PRIMARY KEY, n REAL NOT NULL DEFAULT 0) STRICT;
             CREATE TABLE textual (id TEXT PRIMARY KEY, _version TEXT, _precedence INT, _event_id INTEGER, _deleted INTEGER) STRICT;
             CREATE TABLE members (team TEXT, id TEXT, name TEXT, PRIMARY KEY (team, id)) STRICT;
             CREATE TABLE backwards (id TEXT, team TEXT, PRIMARY KEY (id, team)) STRICT;
             CREATE TABLE untyped (team TEXT, id ANY, PRIMARY KEY (team, id)) STRICT;
             CREATE TABLE numbers (id INTEGER PRIMARY KEY, {guard}) STRICT;
             CREATE TABLE loose (id ANY PRIMARY KEY, {guard}) STRICT;
             CREATE TABLE untidy (id STRING PRIMARY KEY, size INTEGER, share REAL, _version ANY, _precedence INTEGER, _event_id ANY, _deleted INTEGER);
             CREATE TABLE excluded (id TEXT PRIMARY KEY, {guard}) STRICT;
             CREATE VIEW live_owners AS SELECT id FROM owners;
             CREATE TABLE sorts (id TEXT PRIMARY KEY, blob BLOB, share REAL, size INTEGER, _version INTEGER, _precedence INTEGER, _event_id TEXT COLLATE NOCASE, _deleted BOOLEAN);
             CREATE TABLE drops (id TEXT PRIMARY KEY, mail TEXT UNIQUE ON CONFLICT REPLACE, {guard}) STRICT;
             CREATE TABLE keyless (id TEXT, {guard}) STRICT;
             CREATE TABLE owners (id TEXT PRIMARY KEY, {guard}) STRICT;
             CREATE TABLE links (id TEXT PRIMARY KEY, team TEXT REFERENCES nowhere (id), {guard}) STRICT;
             CREATE TABLE tally (id TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER) STRICT;
             CREATE TABLE folded (team TEXT, id TEXT COLLATE NOCASE, PRIMARY KEY (team, id)) STRICT;
             CREATE TABLE indexed (id TEXT, team TEXT, PRIMARY KEY (id, team)) STRICT;
             CREATE INDEX indexed_team ON indexed (team);
             CREATE TABLE accounts (id TEXT PRIMARY KEY, customer TEXT UNIQUE, plan TEXT, {guard}) STRICT;"
        );
        fs::write(app.join("1000_teams.sql"), sql).unwrap();
        let path = folder.path().join("hookmill.toml");
        match load(&path, &["stripe-revenue"]) {
            Ok(_) => "none".to_owned(),
            Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one configuration with every fault")]
    fn rules_that_do_not_fit_the_schema_are_reported_all_at_once() {
        insta::assert_snapshot!(faults(r#"
            [[rules]]
            name = "no-such-table"
            on = "s:*"
            table = "teems"
            key = { id = "id" }
            version = "v"

            [[rules]]
            name = "own-table"
            on = "s:*"
            table = "events"
            key = { id = "id" }
            version = "v"

            [[rules]]
            name = "columns"
            on = "s:*"
            table = "teams"
            key = { id = "id" }
            version = "v"
            set = { nme = "n", label = "n", _version = "v" }

            [[rules]]
            name = "precedence"
            on = "s:*"
            table = "teams"
            key = { org = "o", id = "id" }
            version = "v"
            tie = { precedence = { column = "nme", order = [] } }
            set = { name = "n", size = "s" }

            [[rules]]
            name = "other-columns"
            on = "s:*"
            table = "teams"
            key = { org = "o", id = "id" }
            version = "v"
            set = { name = "n", note = "s" }

            [[rules]]
            name = "erases-what-cannot-be-null"
            on = "s:deleted"
            table = "teams"
            key = { org = "o", id = "id" }
            version = "v"
            delete = "*"

            [[rules]]
            name = "neither"
            on = "s:*"
            table = "teams"
            key = { org = "o", id = "id" }

            [[rules]]
            name = "sets-without-a-version"
            on = "s:*"
            table = "tallies"
            key = { id = "id" }
            set = { n = "n" }

            [[rules]]
            name = "adds-with-a-version"
            on = "s:*"
            table = "teams"
            key = { org = "o", id = "id" }
            version = "v"
            set = { name = "n", size = "s" }
            add = { note = 1 }

            [[rules]]
            name = "version-where-there-is-none"
            on = "s:*"
            table = "tallies"
            key = { id = "id" }
            version = "v"
            set = { n = "n" }

            [[rules]]
            name = "adds-and-deletes"
            on = "s:*"
            table = "tallies"
            key = { id = "id" }
            add = { n = 1 }
            delete = "*"
        "#), @r#"
        hookmill.toml:10:21: rule "no-such-table".table: there is no table `teems`
          hint: did you mean `teams`?
        error: hookmill.toml:17:21: rule "own-table".table: `events` is Hookmill's own table
          hint: use a table of your application
        error: hookmill.toml:24:21: rule "columns".table: column `name` is NOT NULL, but the rule does not set it
          hint: add `name` to `set`, or allow NULL in the column
        error: hookmill.toml:24:21: rule "columns".table: the primary key of `teams` is (id, org), and `key` names (id)
          hint: `key` must contain the whole primary key, and nothing else
        error: hookmill.toml:27:21: rule "columns".set.nme: table `teams` has no column `nme`
          hint: did you mean `name`?
        error: hookmill.toml:27:32: rule "columns".set.label: `label` is a generated column
          hint: remove it; SQLite computes its value
        error: hookmill.toml:27:45: rule "columns".set._version: Hookmill maintains `_version`
          hint: remove it; its value follows from `version`, `tie` and `delete`
        error: hookmill.toml:32:21: rule "precedence".table: rules `columns` and `precedence` both write `teams`, but only one of them sets `name`, `size`, `_version`, `label`, `nme`
          hint: the newest event sets the whole row, so all rules of a table must set the same columns; move the others to a separate table
        error: hookmill.toml:35:34: rule "precedence".tie.precedence: `nme` is not set by this rule
          hint: did you mean `name`?
        error: hookmill.toml:35:60: rule "precedence".tie.precedence.order: the list is empty
          hint: expected a list, weakest first
        error: hookmill.toml:41:21: rule "other-columns".table: rules `columns` and `other-columns` both write `teams`, but only one of them sets `name`, `note`, `_version`, `label`, `nme`
          hint: the newest event sets the whole row, so all rules of a table must set the same columns; move the others to a separate table
        error: hookmill.toml:49:21: rule "erases-what-cannot-be-null".table: column `name` is NOT NULL, but the rule does not set it
          hint: add `name` to `set`, or allow NULL in the column
        error: hookmill.toml:55:20: rule "neither".name: the rule needs `version` or `add`
          hint: add what orders the events (version = "created"), or what to count (add = { total = 1 })
        error: hookmill.toml:57:21: rule "neither".table: column `name` is NOT NULL, but the rule does not set it
          hint: add `name` to `set`, or allow NULL in the column
        error: hookmill.toml:57:21: rule "neither".table: rules write the table `teams` by version
          hint: count in a separate table
        error: hookmill.toml:61:20: rule "sets-without-a-version".name: the rule needs `version` or `add`
          hint: add what orders the events (version = "created"), or what to count (add = { total = 1 })
        error: hookmill.toml:70:21: rule "adds-with-a-version".table: rules `columns` and `adds-with-a-version` both write `teams`, but only one of them sets `name`, `size`, `_version`, `label`, `nme`
          hint: the newest event sets the whole row, so all rules of a table must set the same columns; move the others to a separate table
        error: hookmill.toml:74:21: rule "adds-with-a-version".add.note: a rule with a `version` cannot `add`
          hint: count in a separate table, with a rule without `version` and `set`
        error: hookmill.toml:79:21: rule "version-where-there-is-none".table: table `tallies` lacks _version, _precedence, _event_id, _deleted
          hint: a table with a version needs: _version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL
        error: hookmill.toml:85:20: rule "adds-and-deletes".name: `delete`, `final`, `parents`, `tie`, `update` and `tombstone` need a `version`
        20 errors in the configuration
        "#);
    }

    const UNSAYABLE: &str = r#"
            [[rules]]
            name = "values"
            on = "s:*"
            table = "accounts"
            key = { id = "@.id" }
            version = { text = "v" }
            when = { "@.kept" = true }
            set = { plan = { decimal = "a" }, customer = { event = "ip", value = 1 } }

            [[rules]]
            name = "versions"
            on = "s:*"
            table = "accounts"
            key = { id = "id" }
            version = { event = "received_at" }
            set = { plan = { integr = "a" }, customer = { json = [] } }

            [[rules]]
            name = "constant"
            on = "s:*"
            table = "accounts"
            key = { id = "id" }
            version = { value = 1 }
            set = { plan = "p", customer = "c" }

            [[rules]]
            name = "lists"
            on = "s:*"
            each = "@.list"
            table = "members"
            key = { team = "id", id = "id" }
            version = "v"
            update = true
            tie = { precedence = { column = "name", order = ["a"] } }
            set = { name = "@.name" }

            [[rules]]
            name = "a-list-in-a-table-kept-by-version"
            on = "s:*"
            each = "list"
            table = "accounts"
            key = { id = "@.id" }
            version = "v"
            set = { plan = "p", customer = "c" }

            [[rules]]
            name = "updates"
            on = "s:*"
            table = "accounts"
            key = { plan = "plan" }
            update = true
            tombstone = false
            version = { rfc3339 = "v" }
            tie = { refetch = true }
            set = { customer = "c" }

            [[rules]]
            name = "asks-nobody"
            on = ["s:*"]
            handler = "stripe-revenu"
            table = "accounts"
            key = { id = "id" }
            version = "v"
            tie = { refetch = true }
            set = { plan = "p", customer = "c" }

            [[rules]]
            name = "counts-with-what-is-for-versions"
            on = "s:*"
            table = "tallies"
            key = { id = "id" }
            add = { n = 1 }
            update = true
            tie = { refetch = true }

            [[rules]]
            name = "sends-a-list"
            on = "s:*"
            each = "list"
            suppress = { address = "@.email", reason = "x" }
        "#;

    #[test]
    fn invalid_rules_are_reported_with_hints() {
        insta::assert_snapshot!(faults(UNSAYABLE), @r#"
        hookmill.toml:8:20: rule "values".name: `when` asks for "@.kept", but `each` is missing
          hint: `@` refers to an element of the list that `each` selects: each = "data.object.items.data"
        error: hookmill.toml:11:26: rule "values".key.id: `each` is missing
          hint: `@` refers to an element of the list that `each` selects: each = "data.object.items.data"
        error: hookmill.toml:12:23: rule "values".version: not a usable version
          hint: expected a path to a whole number, or to a time: { rfc3339 = "occurred_at" }
        error: hookmill.toml:14:28: rule "values".set.plan: `scale` is missing
          hint: add the number of decimal places: { decimal = "amount", scale = 2 }
        error: hookmill.toml:14:58: rule "values".set.customer: a value has exactly one form
          hint: expected one of value, event, text, json, boolean, integer, decimal, unix_seconds, unix_milliseconds, rfc3339, time
        error: hookmill.toml:14:68: rule "values".set.customer.event: found "ip"
          hint: did you mean `id`?
        error: hookmill.toml:22:30: rule "versions".set.plan: unknown key `integr`
          hint: did you mean `integer`?
        error: hookmill.toml:22:66: rule "versions".set.customer.json: no path is given
          hint: expected a path, or a list of paths (the first one found is used)
        error: hookmill.toml:29:23: rule "constant".version: all events have the same version, but `tie` is missing
          hint: add what orders the events: tie = { precedence = … }
        error: hookmill.toml:33:20: rule "lists".name: `update` and `tombstone` cannot be combined with `each`
          hint: remove them: Hookmill removes rows that leave the list
        error: hookmill.toml:35:20: rule "lists".each: found "@.list"
          hint: expected a path into the body; `@` refers to an element of this list
        error: hookmill.toml:40:34: rule "lists".tie.precedence: events about a list do not compare by its elements
          hint: precedence = { type = ["*.created", "*"] }, or the path of a value outside the list
        error: hookmill.toml:47:21: rule "a-list-in-a-table-kept-by-version".table: `key` must identify the owner of the list and the element
          hint: key = { subscription_id = "data.object.id", id = "@.id" }
        error: hookmill.toml:47:21: rule "a-list-in-a-table-kept-by-version".table: rules `versions` and `a-list-in-a-table-kept-by-version` both write `accounts`, but only one of them has `each`
          hint: all rules of a table must agree in this
        error: hookmill.toml:47:21: rule "a-list-in-a-table-kept-by-version".table: rules write the table `accounts` by version
          hint: the rows of a list share one version; remove the columns _version, _precedence, _event_id, _deleted
        error: hookmill.toml:53:20: rule "updates".name: a rule with `update` cannot remove rows
          hint: remove `tombstone`: `_deleted` marks deleted rows
        error: hookmill.toml:58:25: rule "updates".tombstone: `tombstone` needs `delete`
          hint: add the event types that delete: delete = "*.deleted"
        error: hookmill.toml:60:31: rule "updates".tie.refetch: `refetch` works only in a rule that keeps the newest state of rows
          hint: remove it, or remove `update`, `tombstone`, `add` and `handler`
        error: hookmill.toml:66:23: rule "asks-nobody".handler: there is no handler `stripe-revenu`
          hint: did you mean `stripe-revenue`?
        error: hookmill.toml:70:31: rule "asks-nobody".tie.refetch: `refetch` works only in a rule that keeps the newest state of rows
          hint: remove it, or remove `update`, `tombstone`, `add` and `handler`
        error: hookmill.toml:74:20: rule "counts-with-what-is-for-versions".name: `delete`, `final`, `parents`, `tie`, `update` and `tombstone` need a `version`
        error: hookmill.toml:85:20: rule "sends-a-list".each: `each` works only with `table`
          hint: remove `each`: this rule has the effect `suppress`
        22 errors in the configuration
        "#);
    }

    #[test]
    fn a_suppression_has_a_time_and_sendgrid_numbers_its_groups() {
        let rules = r#"
            [[rules]]
            name = "by-number"
            on = "s:*"
            suppress = { address = "email", reason = "x", version = "number" }

            [[rules]]
            name = "without-reason"
            on = "s:*"
            lift = { address = "email", reason = [] }

            [[rules]]
            name = "newsletter"
            on = "s:*"
            email = { template = "t", to = "email", group = "news" }

            [templates.t]
            subject = "News"
            html = "t.html"

            [email]
            provider = "resend"
            fallback = "sendgrid"
            from = "a@example.com"
        "#;
        insta::assert_snapshot!(faults(rules), @r#"
        hookmill.toml:10:69: rule "by-number".suppress.version: the version of a suppression is not a time
          hint: expected the form of a time: { rfc3339 = "created_at" }
        error: hookmill.toml:15:50: rule "without-reason".lift.reason: the list of reasons is empty
          hint: expected the reason of the suppression
        error: hookmill.toml:20:61: rule "newsletter".email.group: found "news"
          hint: expected the number of an unsubscribe group of SendGrid, such as "4711"
        error: hookmill.toml:24:20: templates.t.html: cannot read t.html: No such file or directory (os error 2)
        4 errors in the configuration
        "#);
    }

    #[test]
    fn a_rule_names_a_handler_of_this_build() {
        let rule = "[[rules]]\nname = 'r'\non = 's:*'\nhandler = 'a'\ntable = 't'\nkey = { id = 'id' }\nadd = { n = 1 }\n";
        let config = format!("{SOURCE}[database]\nmigrations = 'app'\n{rule}");
        let folder = folder(&[("hookmill.toml", &config)]);
        fs::create_dir(folder.path().join("app")).unwrap();
        let sql = "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) STRICT";
        fs::write(folder.path().join("app/1000_t.sql"), sql).unwrap();
        let path = folder.path().join("hookmill.toml");
        assert!(load(&path, &["a", "b"]).is_ok());
        let refused = |handlers: &[&'static str]| {
            let error = load(&path, handlers).unwrap_err().to_string();
            error.replace(&format!("{}/", folder.path().display()), "")
        };
        insta::assert_snapshot!(refused(&["longer-name"]), @r#"
        hookmill.toml:9:11: rule "r".handler: there is no handler `a`
          hint: possible here: `longer-name`
        1 error in the configuration
        "#);
        insta::assert_snapshot!(refused(&[]), @r#"
        hookmill.toml:9:11: rule "r".handler: there is no handler `a`
          hint: this build has no handlers; add one in consumers/handlers
        1 error in the configuration
        "#);
    }

    #[test]
    fn a_rule_that_takes_a_presets_place_takes_it_for_all_its_sources() {
        let rule = |on: &str| {
            format!(
                "[sources.a]\nscheme = 'resend'\nsecrets = ['env:A']\npreset = 'resend'\n\
                 [sources.b]\nscheme = 'resend'\nsecrets = ['env:B']\npreset = 'resend'\n\
                 [[rules]]\nname = 'resend-suppress-bounced'\non = {on}\n\
                 suppress = {{ address = 'data.to[0]', reason = 'bounced' }}\n"
            )
        };
        assert_eq!(faults(&rule("['a:email.bounced', 'b:email.bounced']")), "none");
        insta::assert_snapshot!(faults(&rule("'a:email.bounced'")), @r#"
        hookmill.toml:15:8: rule "resend-suppress-bounced".name: it replaces the preset's rule "resend-suppress-bounced" but does not cover `b`, which has the preset "resend" as well
          hint: name the events of `b` in `on`, or choose another name
        1 error in the configuration
        "#);
    }

    #[test]
    fn an_unusable_api_is_reported_with_a_hint() {
        insta::assert_snapshot!(faults(r#"
            [sources.b]
            scheme = "stripe"
            secrets = ["env:A"]
            api = {}

            [sources.c]
            scheme = "github"
            secrets = ["env:A"]
            api = {}

            [[rules]]
            name = "no-such-object"
            on = ["b:customer.updated", "b:customer_portal.updated"]
            table = "accounts"
            key = { id = "id" }
            version = "v"
            tie = { refetch = true }
            set = { plan = "p", customer = "c" }

            [[rules]]
            name = "two-apis"
            on = ["b:customer.updated", "s:customer.updated"]
            table = "accounts"
            key = { id = "id" }
            version = "v"
            tie = { refetch = true }
            set = { plan = "p", customer = "c" }
        "#), @r#"
        hookmill.toml:15:19: sources.c.api: Hookmill cannot fetch objects from this provider's API
          hint: remove `api`; it is supported for Stripe, Clerk and Paddle
        error: hookmill.toml:23:31: rule "no-such-object".tie.refetch: the API of stripe has no object for "customer_portal.updated"
          hint: its objects are charge.*, charge.dispute.*, charge.refund.*, checkout.session.*, credit_note.*, customer.*, customer.subscription.*, invoice.*, invoice_payment.*, payment_intent.*, payment_method.*, payout.*, price.*, product.*, radar.early_fraud_warning.*, refund.*, subscription_schedule.*
        error: hookmill.toml:32:31: rule "two-apis".tie.refetch: `refetch` needs the API of one provider
          hint: add [sources.b.api] and [sources.s.api], all of the same provider
        3 errors in the configuration
        "#);
    }

    #[test]
    fn rules_that_fit_are_compiled() {
        assert_eq!(
            faults(
                r#"
            [[rules]]
            name = "teams"
            on = ["s:team.created", "s:team.updated"]
            table = "teams"
            key = { org = "o", id = "id" }
            version = "v"
            set = { name = "n", size = "s" }

            [[rules]]
            name = "tallies"
            on = "s:*"
            table = "tallies"
            key = { id = "id" }
            add = { n = 1 }
            "#
            ),
            "none"
        );
    }

    /// A rule of `teams` or `members` about the object `id`.
    fn mirror(name: &str, list: bool, more: &str) -> String {
        let into = if list {
            "table = 'members'\neach = 'list'\nkey = { team = 'id', id = '@.id' }"
        } else {
            "table = 'accounts'\nkey = { id = 'id' }"
        };
        let version = if more.contains("version") { "" } else { "version = 'v'\n" };
        format!("[[rules]]\nname = '{name}'\n{into}\n{version}{more}\n")
    }

    #[test]
    fn rules_that_mirror_one_object_and_order_its_events_differently_are_refused() {
        let pair = |one: &str, other: &str| {
            faults(&(mirror("whole", false, one) + &mirror("list", true, other)))
        };
        // Both are about events of `team.*`.
        let team = |more: &str| format!("on = 's:team.*'\n{more}");
        let tie = |steps: &str| team(&format!("tie = {{ precedence = {steps} }}"));
        let differing = [
            pair(&tie("{ type = ['*.created', '*'] }"), &tie("{ type = ['*', '*.created'] }")),
            pair(
                &tie("{ type = ['*.created', '*.updated'] }"),
                &tie("{ type = ['*.created', '*'] }"),
            ),
            pair(
                &tie("{ path = 'status', order = ['a', 'b'] }"),
                &tie("{ path = 'status', order = ['b', 'a'] }"),
            ),
            pair(
                &tie("[{ path = 'status', order = ['a'] }, { type = ['*'] }]"),
                &tie("{ path = 'status', order = ['a'] }"),
            ),
            pair(&team("version = 'v'"), &team("version = 'w'")),
            pair(
                &team("delete = '*.gone'\nfinal = true"),
                &team("delete = '*.gone'\nfinal = false"),
            ),
        ];
        insta::assert_snapshot!(differing.join("\n"));
        // A fallback does not hide that both are about one object.
        let list = mirror("list", true, &tie("{ type = ['*', '*.created'] }"));
        let list = list.replace("team = 'id'", "team = ['id', 'team_id']");
        let found =
            faults(&(mirror("whole", false, &tie("{ type = ['*.created', '*'] }")) + &list));
        assert!(found.contains("mirror one object"), "{found}");
    }

    #[test]
    fn rules_that_order_the_events_of_one_object_alike_are_compiled() {
        let pair = |one: &str, other: &str| {
            faults(&(mirror("whole", false, one) + &mirror("list", true, other)))
        };
        let tie = |on: &str, steps: &str| format!("on = {on}\ntie = {{ precedence = {steps} }}");
        for (one, other) in [
            // Spelled otherwise, and of the same meaning for the events of both.
            (
                tie("'s:team.*'", "{ type = ['team.created', '*'] }"),
                tie("'s:team.*'", "{ type = ['*.created', '*'] }"),
            ),
            (
                tie(
                    "['s:team.created', 's:team.updated']",
                    "{ type = ['*.created', '*.updated'] }",
                ),
                tie("'s:team.*'", "{ type = ['*.created', '*'] }"),
            ),
            // Without a common event.
            (
                tie("'s:team.*'", "{ type = ['*.created', '*'] }"),
                tie("'s:user.*'", "{ type = ['*', '*.created'] }"),
            ),
            (
                tie("'s:*'", "{ type = ['*.created', '*'] }") + "\nwhen = { kind = 'team' }",
                tie("'s:*'", "{ type = ['*', '*.created'] }")
                    + "\nwhen = { kind = ['user', 'bot'] }",
            ),
            // Only one of them says something.
            (tie("'s:team.*'", "{ type = ['*.created', '*'] }"), "on = 's:team.*'".to_owned()),
            (
                "on = 's:team.*'\nversion = ['v', 'w']".to_owned(),
                "on = 's:team.*'\nversion = 'v'".to_owned(),
            ),
        ] {
            assert_eq!(pair(&one, &other), "none", "{one}\n{other}");
        }
    }

    #[test]
    fn parents_that_may_return_or_cannot_be_found_are_refused() {
        let child = |more: &str| {
            let set = "set = { customer = 'c', plan = 'p' }";
            faults(&mirror("child", false, &format!("on = 's:team.*'\n{set}\n{more}")))
        };
        let list = mirror("list", true, "on = 's:team.*'\nparents = { team = 'accounts' }");
        let owners = |delete: &str| {
            let key = "table = 'owners'\nkey = { id = 'id' }\nversion = 'v'";
            format!(
                "[[rules]]\nname = 'owners'\non = 's:owner.*'\n{key}\ndelete = '*.deleted'\n{delete}\n"
            )
        };
        let of_owners = mirror(
            "child",
            false,
            "on = 's:team.*'\nset = { customer = 'c' }\nparents = { customer = 'owners' }",
        );
        let refused = [
            faults(&(owners("") + &of_owners)),
            child("parents = { plan = 'teams', plann = 'accounts', customer = 'account' }"),
            child("parents = { customer = 'tallies' }"),
            faults(&list),
            child("parents = { customer = 'accounts' }\ndelete = '*.deleted'\nfinal = true"),
        ];
        insta::assert_snapshot!(refused.join("\n"));
        insta::assert_snapshot!(child("parents = { customer = 'numbers', plan = 'loose' }"), @r#"
        hookmill.toml:13:13: rule "child".parents.customer: `customer` is TEXT, and the key of `numbers` is INTEGER
          hint: use the same type for both
        error: hookmill.toml:13:24: rule "child".parents.customer: no rule writes the table `numbers`
        error: hookmill.toml:13:35: rule "child".parents.plan: no index of `accounts` begins with plan, so each deletion of a parent would read the whole table
          hint: CREATE INDEX … ON accounts (plan)
        error: hookmill.toml:13:42: rule "child".parents.plan: no rule writes the table `loose`
        error: hookmill.toml:13:42: rule "child".parents.plan: the type of the column `id` is ANY
          hint: use TEXT or INTEGER; otherwise a number and its text would be two keys
        5 errors in the configuration
        "#);
        assert_eq!(faults(&(owners("final = true") + &of_owners)), "none");
    }

    #[test]
    fn a_rule_without_a_tie_has_that_of_the_rule_that_mirrors_the_same_object() {
        let program = presets().program;
        let guard = |name: &str| {
            let rule = program.rules.iter().find(|rule| rule.name == name).unwrap();
            rule.effect.guard().unwrap()
        };
        for (list, whole) in [
            ("stripe-subscription-items", "stripe-subscriptions"),
            ("paddle-subscription-items", "paddle-subscriptions"),
        ] {
            assert!(!guard(whole).tie.is_empty(), "{whole}");
            assert_eq!(guard(list).tie, guard(whole).tie, "{list}");
            assert_eq!(guard(list).delete, guard(whole).delete, "{list}");
            assert_eq!(guard(list).version, guard(whole).version, "{list}");
        }
    }

    #[test]
    fn a_rule_that_deletes_more_than_the_preset_deletes_for_a_while() {
        let is_final = |delete: &str| {
            let config = format!(
                "[sources.stripe]\nscheme = 'stripe'\nsecrets = ['env:A']\npreset = 'stripe'\n[database]\nmigrations = 'app'\n\
                 [[rules]]\nname = 'access'\non = 'stripe:customer.subscription.*'\ntable = 'access'\nkey = {{ id = 'data.object.id' }}\n\
                 version = {{ unix_seconds = 'created' }}\ndelete = {delete}\n"
            );
            let folder = folder(&[("hookmill.toml", &config)]);
            fs::create_dir(folder.path().join("app")).unwrap();
            let sql = "CREATE TABLE access (id TEXT PRIMARY KEY, _version INTEGER, _precedence INTEGER, _event_id TEXT, _deleted INTEGER) STRICT";
            fs::write(folder.path().join("app/1000_access.sql"), sql).unwrap();
            let program = load(&folder.path().join("hookmill.toml"), &[]).unwrap().program;
            let rule = program.rules.iter().find(|rule| rule.name == "access").unwrap();
            rule.effect.guard().unwrap().delete.is_final
        };
        assert!(is_final("'customer.subscription.deleted'"));
        assert!(is_final("'*.deleted'"));
        let unpaid = "{ 'data.object.status' = ['past_due', 'unpaid'] }";
        assert!(!is_final(&format!("['*.deleted', {unpaid}]")));
        assert!(!is_final("['*.deleted', '*.paused']"));
        assert!(!is_final(&format!("['*.deleted', {unpaid}]\nfinal = false")));
    }

    #[test]
    fn columns_that_would_not_compare_or_add_up_are_refused() {
        let guard = "name = 'r'\non = 's:*'\ntable = 'textual'\nkey = { id = 'id' }\nversion = 'v'";
        let sum = "name = 'c'\non = 's:*'\ntable = 'sums'\nkey = { id = 'id' }\nadd = { n = 'n' }";
        insta::assert_snapshot!(faults(&format!("[[rules]]\n{guard}\n[[rules]]\n{sum}\n")), @r#"
        hookmill.toml:9:9: rule "r".table: the column `_event_id` of `textual` is INTEGER, so versions would not compare
          hint: use TEXT
        error: hookmill.toml:9:9: rule "r".table: the column `_version` of `textual` is TEXT, so versions would not compare
          hint: use INTEGER
        error: hookmill.toml:17:9: rule "c".add.n: the column `n` is REAL
          hint: add to an INTEGER: sums of other numbers depend on the order of the events
        3 errors in the configuration
        "#);
    }

    #[test]
    fn columns_that_respell_keys_and_texts_are_refused() {
        let rule = "[[rules]]\nname = 'r'\non = 's:*'\ntable = 'untidy'\nkey = { id = 'id' }\nversion = 'v'\n\
                    set = { size = { text = 'n' }, share = { text = 'n' } }";
        insta::assert_snapshot!(faults(rule), @r#"
        hookmill.toml:9:9: rule "r".table: the column `_event_id` of `untidy` is ANY, so versions would not compare
          hint: use TEXT
        error: hookmill.toml:10:9: rule "r".key.id: the type of the column `id` is STRING
          hint: use TEXT or INTEGER; otherwise the texts "007" and "7" would be one key
        error: hookmill.toml:12:16: rule "r".set.size: the column `size` is INTEGER
          hint: it would store the text of a number as a number; use TEXT, or remove `text`
        error: hookmill.toml:12:40: rule "r".set.share: the column `share` is REAL
          hint: it would store the text of a number as a number; use TEXT, or remove `text`
        4 errors in the configuration
        "#);
    }

    #[test]
    fn tables_that_cannot_hold_what_rules_write_are_refused() {
        let rule = |name: &str, more: &str| {
            format!(
                "[[rules]]\nname = '{name}'\non = 's:*'\ntable = '{name}'\nkey = {{ id = 'id' }}\nversion = 'v'\n{more}\n"
            )
        };
        let values = "set = { blob = 'b', share = { integer = 'n' }, size = { json = 'n' } }";
        let rules = [
            rule("sorts", values),
            rule("drops", "set = { mail = { decimal = 'n', currency = 'EUR' } }"),
            rule("keyless", ""),
            rule("live_owners", ""),
            rule("excluded", ""),
            rule("tallies", "").replace("{ id = 'id' }", "{ n = 'n' }"),
        ];
        insta::assert_snapshot!(faults(&rules.concat()), @r#"
        hookmill.toml:9:9: rule "sorts".table: the column `_event_id` has a collating sequence
          hint: remove COLLATE; otherwise two objects or two events could be one
        error: hookmill.toml:12:16: rule "sorts".set.blob: the column `blob` is BLOB
          hint: rules store texts and numbers; use TEXT
        error: hookmill.toml:12:29: rule "sorts".set.share: the column `share` is REAL
          hint: it would round a large whole number; use INTEGER
        error: hookmill.toml:12:55: rule "sorts".set.size: the column `size` is INTEGER
          hint: JSON is text; use TEXT
        error: hookmill.toml:16:9: rule "drops".table: `drops` has ON CONFLICT IGNORE or REPLACE, so an event could drop the row of another object
          hint: remove it from the table's definition
        error: hookmill.toml:19:16: rule "drops".set.mail: `currency` is a path, and found "EUR"
          hint: if every amount is in EUR, write instead: scale = 2
        error: hookmill.toml:23:9: rule "keyless".table: `keyless` has no primary key
          hint: add to its definition: PRIMARY KEY (id)
        error: hookmill.toml:30:9: rule "live_owners".table: `live_owners` is a view
          hint: rules write tables; name the table that the view reads
        error: hookmill.toml:37:9: rule "excluded".table: `excluded` has a meaning in Hookmill's statements
          hint: use another name, without `_` at its beginning
        error: hookmill.toml:44:9: rule "tallies".table: table `tallies` lacks _version, _precedence, _event_id, _deleted
          hint: a table with a version needs: _version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL
        error: hookmill.toml:44:9: rule "tallies".table: the primary key of `tallies` is (id), and `key` names (n)
          hint: Hookmill finds rows by their primary key; make it (n)
        11 errors in the configuration
        "#);
    }

    #[test]
    fn two_rules_that_write_the_list_of_one_owner_are_refused() {
        let rule = |name: &str, key: &str| {
            format!(
                "[[rules]]\nname = '{name}'\non = 's:*'\neach = '{name}'\ntable = 'members'\n\
                 key = {{ team = {key}, id = '@.id' }}\nversion = 'v'\n"
            )
        };
        let both = rule("lines", "'id'") + &rule("addons", "'id'");
        insta::assert_snapshot!(faults(&both), @r#"
        hookmill.toml:16:8: rule "addons".each: rules `lines` and `addons` both write the whole list of one owner into `members`
          hint: the second would remove the rows of the first; use another table, or add a column with a constant to `key`
        1 error in the configuration
        "#);
        let apart = rule("lines", "{ value = 'a' }") + &rule("addons", "{ value = 'b' }");
        assert_eq!(faults(&apart), "none");
    }

    #[test]
    fn a_version_that_no_event_has_is_refused() {
        let rule = |version: &str| {
            format!(
                "[[rules]]\nname = 'r'\non = 's:*'\neach = 'list'\ntable = 'members'\nkey = {{ team = 'team', id = '@.id' }}\n\
                 version = {version}\n"
            )
        };
        insta::assert_snapshot!(faults(&rule("'header:X-At'")), @r#"
        hookmill.toml:12:11: rule "r".version: the version is in a header, and a header is text
          hint: add its form: { rfc3339 = "header:x-at" }, or { integer = "header:x-at" } for a whole number
        1 error in the configuration
        "#);
        insta::assert_snapshot!(faults(&rule("'@.at'")), @r#"
        hookmill.toml:12:11: rule "r".version: the version is that of an element
          hint: the rows of a list share one version; use a path that does not begin with `@`
        1 error in the configuration
        "#);
    }

    #[test]
    fn two_scales_of_a_version_in_one_table_are_refused() {
        let rule = |name: &str, scale: u8| {
            let version = format!("version = {{ decimal = 'v', scale = {scale} }}");
            mirror(name, false, &format!("on = 's:{name}.*'\n{version}"))
        };
        insta::assert_snapshot!(faults(&(rule("a", 0) + &rule("b", 2))), @r#"
        hookmill.toml:14:9: rule "b".table: rules `a` and `b` both write `accounts`, but only one of them has this `scale` in its version
          hint: all rules of a table must agree in this
        1 error in the configuration
        "#);
    }

    #[test]
    fn the_order_of_a_converted_column_is_that_of_its_stored_values() {
        let rule = |value: &str, order: &str| {
            let tie = format!("tie = {{ precedence = {{ column = 'plan', order = {order} }} }}");
            mirror("r", false, &format!("on = 's:*'\nset = {{ plan = {value} }}\n{tie}"))
        };
        let order = |value: &str, order: &str| -> Vec<String> {
            let folder = folder(&[(
                "hookmill.toml",
                &format!("{SOURCE}[database]\nmigrations = 'app'\n{}", rule(value, order)),
            )]);
            fs::create_dir(folder.path().join("app")).unwrap();
            let sql = "CREATE TABLE accounts (id TEXT PRIMARY KEY, plan, _version INTEGER, _precedence INTEGER, _event_id TEXT, _deleted INTEGER)";
            fs::write(folder.path().join("app/1000_a.sql"), sql).unwrap();
            let loaded = load(&folder.path().join("hookmill.toml"), &[]).unwrap();
            match &loaded.program.rules[0].effect.guard().unwrap().tie[..] {
                [TieStep::Value { order, .. }] => order.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(order("{ boolean = 'p' }", "['false', 'true']"), ["0", "1"]);
        assert_eq!(order("{ decimal = 'p', scale = 2 }", "['1.50', '2']"), ["150", "200"]);
        assert_eq!(order("'p'", "['1.50', 'true']"), ["1.50", "true"]);
        insta::assert_snapshot!(faults(&rule("{ boolean = 'p' }", "['no', 'yes']")), @r#"
        hookmill.toml:13:50: rule "r".tie.precedence.order[0]: "no" is not a valid boolean, as the column requires
          hint: use the values of the provider
        error: hookmill.toml:13:56: rule "r".tie.precedence.order[1]: "yes" is not a valid boolean, as the column requires
          hint: use the values of the provider
        2 errors in the configuration
        "#);
        insta::assert_snapshot!(faults(&rule("{ json = 'p' }", "['no']")), @r#"
        hookmill.toml:13:50: rule "r".tie.precedence.order[0]: JSON and amounts of money do not compare with the words of `order`
          hint: use `path`
        1 error in the configuration
        "#);
    }

    #[test]
    fn a_foreign_key_to_a_table_that_does_not_exist_is_refused() {
        let rule = "[[rules]]\nname = 'r'\non = 's:*'\ntable = 'links'\nkey = { id = 'id' }\nversion = 'v'";
        insta::assert_snapshot!(faults(rule), @r#"
        hookmill.toml:9:9: rule "r".table: the database refuses the rule's statements: no such table: main.nowhere
          hint: a migration must change the table, or what refers to it
        1 error in the configuration
        "#);
    }

    #[test]
    fn a_rule_may_name_fewer_types_than_the_preset_that_mirrors_the_same_object() {
        let own = |order: &str| {
            let source =
                "[sources.stripe]\nscheme = 'stripe'\nsecrets = ['env:A']\npreset = 'stripe'\n";
            let rule = "on = 'stripe:payment_intent.*'\ntable = 'accounts'\nkey = { id = 'data.object.id' }\nversion = 'created'";
            format!(
                "{source}[[rules]]\nname = 'own'\n{rule}\ntie = {{ precedence = {{ type = {order} }} }}\n"
            )
        };
        let alike =
            "['payment_intent.created', 'payment_intent.canceled', 'payment_intent.succeeded']";
        assert_eq!(faults(&own(alike)), "none");
        let otherwise =
            "['payment_intent.created', 'payment_intent.succeeded', 'payment_intent.canceled']";
        assert!(faults(&own(otherwise)).contains("order its events differently"));
    }

    #[test]
    fn a_migration_of_the_user_that_fails_is_a_fault_of_the_configuration() {
        let folder =
            folder(&[("hookmill.toml", &format!("{SOURCE}[database]\nmigrations = 'app'\n"))]);
        let shown = |folder: &tempfile::TempDir| {
            let error = load(&folder.path().join("hookmill.toml"), &[]).unwrap_err().to_string();
            error.replace(&format!("{}/", folder.path().display()), "")
        };
        insta::assert_snapshot!(shown(&folder), @"
        hookmill.toml:5:14: database.migrations: cannot read app: No such file or directory (os error 2)
        1 error in the configuration
        ");
        fs::create_dir(folder.path().join("app")).unwrap();
        fs::write(folder.path().join("app/1000_a.sql"), "NONSENSE").unwrap();
        insta::assert_snapshot!(shown(&folder), @r#"
        hookmill.toml:5:14: database.migrations: migration 1000_a.sql failed: near "NONSENSE": syntax error in NONSENSE at offset 0
        1 error in the configuration
        "#);
    }

    #[test]
    fn the_presets_fit_the_schema() {
        let loaded = presets();
        let rules: Vec<_> = loaded.program.rules.iter().map(|rule| rule.name.as_str()).collect();
        insta::assert_debug_snapshot!(rules, @r#"
        [
            "clerk-users",
            "clerk-users-deleted",
            "clerk-organizations",
            "clerk-organizations-deleted",
            "clerk-organization-memberships",
            "clerk-organization-memberships-deleted",
            "clerk-organization-domains",
            "clerk-organization-domains-deleted",
            "clerk-organization-roles",
            "clerk-organization-roles-deleted",
            "github-installations",
            "github-repositories",
            "github-pull-requests",
            "github-workflow-runs",
            "paddle-customers",
            "paddle-subscriptions",
            "paddle-subscription-items",
            "paddle-transactions",
            "paddle-adjustments",
            "paddle-products",
            "paddle-prices",
            "resend-delayed",
            "resend-delivered",
            "resend-opened",
            "resend-clicked",
            "resend-failed",
            "resend-bounced",
            "resend-suppress-bounced",
            "resend-complained",
            "resend-suppress-complained",
            "resend-suppress-added",
            "resend-lift-removed",
            "sendgrid-delayed",
            "sendgrid-delivered",
            "sendgrid-opened",
            "sendgrid-clicked",
            "sendgrid-dropped",
            "sendgrid-bounced",
            "sendgrid-suppress-bounced",
            "sendgrid-complained",
            "sendgrid-suppress-complained",
            "sendgrid-unsubscribed",
            "sendgrid-suppress-unsubscribed",
            "sendgrid-suppress-group",
            "sendgrid-lift-group",
            "shopify-orders",
            "shopify-orders-deleted",
            "shopify-order-line-items",
            "shopify-customers",
            "shopify-customers-deleted",
            "shopify-customers-redacted",
            "shopify-products",
            "shopify-products-deleted",
            "shopify-refunds",
            "shopify-refund-transactions",
            "shopify-compliance-requests",
            "stripe-customers",
            "stripe-customers-deleted",
            "stripe-subscriptions",
            "stripe-subscription-items",
            "stripe-entitlements",
            "stripe-invoices",
            "stripe-invoice-lines",
            "stripe-invoices-deleted",
            "stripe-invoice-payments",
            "stripe-payment-intents",
            "stripe-checkout-sessions",
            "stripe-charges",
            "stripe-refunds",
            "stripe-disputes",
            "stripe-products",
            "stripe-prices",
            "stripe-payment-methods",
            "stripe-subscription-schedules",
            "stripe-credit-notes",
            "stripe-payouts",
            "stripe-early-fraud-warnings",
            "twilio-delivered",
            "twilio-read",
            "twilio-failed",
            "twilio-undelivered",
            "twilio-messages",
            "twilio-inbound-messages",
            "twilio-calls",
        ]
        "#);
        insta::assert_snapshot!(loaded.program.rules[0].sql[0].text, @r#"
        -- rule clerk-users
        WITH _rows AS MATERIALIZED (SELECT key AS _place, value AS _row FROM jsonb_each(?1))
        INSERT INTO "users" ("id", "banned", "created_at", "email", "external_id", "first_name", "image_url", "last_name", "last_sign_in_at", "locked", "public_metadata", "updated_at", "username", "_version", "_precedence", "_event_id", "_deleted")
        SELECT _row ->> 6, _row ->> 7, _row ->> 8, _row ->> 9, _row ->> 10, _row ->> 11, _row ->> 12, _row ->> 13, _row ->> 14, _row ->> 15, _row ->> 16, _row ->> 17, _row ->> 18, _row ->> 3, _row ->> 4, _row ->> 1, _row ->> 5 FROM _rows
        WHERE true
        ON CONFLICT ("id") DO UPDATE SET "banned" = excluded."banned", "created_at" = excluded."created_at", "email" = excluded."email", "external_id" = excluded."external_id", "first_name" = excluded."first_name", "image_url" = excluded."image_url", "last_name" = excluded."last_name", "last_sign_in_at" = excluded."last_sign_in_at", "locked" = excluded."locked", "public_metadata" = excluded."public_metadata", "updated_at" = excluded."updated_at", "username" = excluded."username", "_version" = excluded."_version", "_precedence" = excluded."_precedence", "_event_id" = excluded."_event_id", "_deleted" = excluded."_deleted"
        WHERE (excluded."_version", excluded."_precedence", excluded."_event_id")
        >= ("users"."_version", "users"."_precedence", "users"."_event_id")
        "#);
    }
}
