//! Applies migrations to SQLite, and reads the resulting schema. The crate contains the migrations beside it, which
//! wrangler applies to D1.

pub mod docs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use hookmill_core::schema::{Affinity, Schema, Table, TableColumn};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use thiserror::Error;

/// One file of SQL, applied once and never edited after it was released.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Migration {
    /// Its file name, `NNNN_what.sql`, by which it is known in `d1_migrations`.
    pub name: String,
    /// Its text.
    pub sql: String,
}

/// The migration with the tables of the presets.
const PRESETS: &str = include_str!("../0002_presets.sql");

/// Hookmill's own migrations: their names and their texts.
const OWN: [(&str, &str); 2] =
    [("0001_pipeline.sql", include_str!("../0001_pipeline.sql")), ("0002_presets.sql", PRESETS)];

/// Hookmill's own migrations, in order.
pub fn own() -> Vec<Migration> {
    OWN.map(|(name, sql)| Migration { name: name.to_owned(), sql: sql.to_owned() }).to_vec()
}

/// A migration could not be read or applied.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it was not.
        source: std::io::Error,
    },
    /// A file in the folder is no migration.
    #[error("{0} is not a migration: its name has to be NNNN_what.sql, such as 1000_teams.sql")]
    Name(PathBuf),
    /// A user's migration has a number of Hookmill's.
    #[error("{0} has a number below 1000, as Hookmill's own migrations: number yours from 1000")]
    Number(PathBuf),
    /// SQLite refused it. Those before it stay applied.
    #[error("migration {name} failed")]
    Apply {
        /// The migration.
        name: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database has one of Hookmill's migrations that this version does not know.
    #[error(
        "the data was made by another version of Hookmill: it has the migration {0}, which this version does not know; \
         use that version, or a new data folder"
    )]
    OtherVersion(String),
    /// The list of applied migrations cannot be read or written.
    #[error("the list of applied migrations (table d1_migrations) cannot be used")]
    Record(#[source] rusqlite::Error),
}

/// The migrations in a user's folder, in order. A file that is no migration is an error: skipped quietly, it would be
/// missed at the worst time.
///
/// # Errors
///
/// If the folder cannot be read, or holds anything else.
pub fn in_folder(folder: &Path) -> Result<Vec<Migration>, MigrationError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| MigrationError::Read { path, source }
    };
    let mut migrations = Vec::new();
    for entry in fs::read_dir(folder).map_err(read(folder))? {
        let path = entry.map_err(read(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.split_once('_').map(|(number, _)| number).unwrap_or_default();
        if number.len() < 4
            || !number.bytes().all(|b| b.is_ascii_digit())
            || !name.ends_with(".sql")
        {
            return Err(MigrationError::Name(path));
        }
        if number.len() == 4 && number.starts_with('0') {
            return Err(MigrationError::Number(path));
        }
        let sql = fs::read_to_string(&path).map_err(read(&path))?;
        migrations.push(Migration { name: name.to_owned(), sql });
    }
    migrations.sort();
    Ok(migrations)
}

/// Applies the migrations that have not been applied yet, in order, each in a transaction of its own. Returns their names.
///
/// They are recorded in `d1_migrations`, the table that wrangler keeps on D1.
///
/// # Errors
///
/// At the first migration that fails; and if another version of Hookmill has made the database.
pub fn apply(
    database: &mut Connection,
    migrations: &[Migration],
) -> Result<Vec<String>, MigrationError> {
    let record = MigrationError::Record;
    // By default, SQLite takes a column in double quotes that does not exist for a text.
    for texts in [DbConfig::SQLITE_DBCONFIG_DQS_DDL, DbConfig::SQLITE_DBCONFIG_DQS_DML] {
        database.set_db_config(texts, false).map_err(record)?;
    }
    database
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS d1_migrations(
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                name TEXT UNIQUE,
                applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL
            )",
        )
        .map_err(record)?;
    let others = database
        .prepare(
            "SELECT name FROM d1_migrations WHERE name GLOB '0[0-9][0-9][0-9][_]*' ORDER BY name",
        )
        .and_then(|mut query| {
            query.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()
        })
        .map_err(record)?;
    let is_own = |name: &String| OWN.iter().any(|(own, _)| own == name);
    if let Some(name) = others.into_iter().find(|name| !is_own(name)) {
        return Err(MigrationError::OtherVersion(name));
    }
    let mut applied = Vec::new();
    for migration in migrations {
        let failed = |source| MigrationError::Apply { name: migration.name.clone(), source };
        let transaction = database.transaction().map_err(record)?;
        let known = transaction
            .prepare("SELECT 1 FROM d1_migrations WHERE name = ?1")
            .and_then(|mut query| query.exists([&migration.name]))
            .map_err(record)?;
        if known {
            continue;
        }
        transaction.execute_batch(&migration.sql).map_err(failed)?;
        transaction
            .execute("INSERT INTO d1_migrations (name) VALUES (?1)", [&migration.name])
            .map_err(record)?;
        transaction.commit().map_err(failed)?;
        applied.push(migration.name.clone());
    }
    Ok(applied)
}

/// Reads the tables and views of a database.
///
/// # Errors
///
/// What SQLite says.
pub fn schema(database: &Connection) -> rusqlite::Result<Schema> {
    let mut schema = Schema::default();
    let mut tables = database.prepare(
        "SELECT name, strict FROM pragma_table_list
         WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'd1_migrations'",
    )?;
    let mut views = database
        .prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'view'")?;
    let mut columns = database.prepare(
        "SELECT name, upper(type), \"notnull\", dflt_value IS NOT NULL, pk > 0
         FROM pragma_table_info(?1)",
    )?;
    let mut indexes = database.prepare(
        "SELECT (SELECT json_group_array(name) FROM (SELECT name FROM pragma_index_info(list.name) ORDER BY seqno)),
            list.\"unique\" = 1 AND origin <> 'pk'
         FROM pragma_index_list(?1) AS list WHERE partial = 0",
    )?;
    let column = |row: &rusqlite::Row<'_>, is_strict: bool| {
        let kind: String = row.get(1)?;
        Ok(TableColumn {
            name: row.get(0)?,
            affinity: Affinity::of(&kind, is_strict),
            kind,
            not_null: row.get(2)?,
            default: row.get(3)?,
            key: row.get(4)?,
        })
    };
    let mut folding = database.prepare(
        "SELECT part.name FROM pragma_index_list(?1) AS list JOIN pragma_index_xinfo(list.name) AS part
         WHERE list.origin = 'pk' AND part.key = 1 AND part.coll <> 'BINARY'",
    )?;
    let mut generated =
        database.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3)")?;
    let mut definitions = database.prepare("SELECT sql FROM sqlite_schema WHERE name = ?1")?;
    let table = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
    for table in tables.query_map([], table)? {
        let (name, is_strict) = table?;
        let columns = columns.query_map([&name], |row| column(row, is_strict))?;
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let index =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
        let (mut unique, mut all) = (Vec::new(), Vec::new());
        for index in indexes.query_map([&name], index)? {
            let (columns, is_unique) = index?;
            // The columns of an index of an expression have no names.
            let Ok(columns) = serde_json::from_str::<Vec<String>>(&columns) else { continue };
            if is_unique {
                unique.push(columns.clone());
            }
            all.push(columns);
        }
        let mut folding: Vec<String> =
            folding.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for column in &columns {
            let found = database.column_metadata(None, name.as_str(), column.name.as_str())?;
            if found.1.is_some_and(|collation| collation != c"BINARY") {
                folding.push(column.name.clone());
            }
        }
        let generated =
            generated.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let definition: String = definitions.query_row([&name], |row| row.get(0))?;
        let definition = definition.to_ascii_uppercase();
        let mut conflicts = definition.split("ON CONFLICT").skip(1).map(str::trim_start);
        let drops_rows =
            conflicts.any(|rest| ["REPLACE", "IGNORE"].iter().any(|word| rest.starts_with(word)));
        let table = Table { columns, generated, unique, indexes: all, folding, drops_rows };
        schema.tables.insert(name, table);
    }
    for name in views.query_map([], |row| row.get::<_, String>(0))? {
        let name = name?;
        let found =
            columns.query_map([&name], |row| column(row, false)).and_then(Iterator::collect);
        match found {
            Ok(columns) => {
                schema.views.insert(name, Table { columns, ..Table::default() });
            }
            Err(error) => {
                schema.broken_views.insert(name, error.to_string());
            }
        }
    }
    Ok(schema)
}

/// A column that a view reads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReadByView {
    /// The view.
    pub view: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
}

/// The columns that the views of a database read. A view that does not work reads nothing.
///
/// # Errors
///
/// What SQLite says.
pub fn read_by_views(database: &mut Connection) -> rusqlite::Result<BTreeSet<ReadByView>> {
    let names = "SELECT name FROM sqlite_schema WHERE type = 'view'";
    let views: Vec<String> =
        database.prepare(names)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let (sender, reads) = mpsc::channel();
    // SQLite asks for each column that a statement reads, when it prepares the statement.
    database.authorizer(Some(move |context: AuthContext<'_>| {
        if let (AuthAction::Read { table_name, column_name }, Some(view)) =
            (context.action, context.accessor)
        {
            let [view, table, column] = [view, table_name, column_name].map(ToOwned::to_owned);
            let _ = sender.send(ReadByView { view, table, column });
        }
        Authorization::Allow
    }))?;
    for view in views {
        let _ = database.prepare(&format!("SELECT * FROM \"{}\"", view.replace('"', "\"\"")));
    }
    database.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    Ok(reads.try_iter().collect())
}

#[cfg(test)]
mod tests {
    use hookmill_core::words::{
        Channel, LetterReason, LetterState, OutboxState, ReplayState, Role, Word,
    };

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn every_file_beside_this_crate_is_compiled_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        files.sort();
        let own: Vec<_> = own().into_iter().map(|migration| migration.name).collect();
        assert_eq!(own, files);
    }

    #[test]
    fn every_table_of_a_preset_has_a_view_of_its_live_rows() {
        let mut database = Connection::open_in_memory().unwrap();
        apply(&mut database, &own()).unwrap();
        let names = |table: &str| -> Vec<String> {
            let mut query = database.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
            query.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let schema = schema(&database).unwrap();
        let own = |name: &str| hookmill_core::schema::OWN_TABLES.contains(&name);
        let mut tables = schema.tables.keys().filter(|name| !own(name)).peekable();
        assert!(tables.peek().is_some());
        let mut shown = Vec::new();
        for table in tables {
            let mut columns = names(table);
            columns.retain(|name| !name.starts_with('_'));
            assert_eq!(names(&format!("live_{table}")), columns, "{table}");
            shown.push((table.as_str(), columns));
        }
        // The reference has all of them.
        let mut documented = docs::columns();
        documented.sort_unstable();
        let documented: Vec<_> = documented
            .into_iter()
            .map(|(table, columns)| (table, columns.into_iter().map(ToOwned::to_owned).collect()))
            .collect();
        assert_eq!(documented, shown);
    }

    #[test]
    fn the_columns_that_views_read_are_known() {
        let mut database = Connection::open_in_memory().unwrap();
        database
            .execute_batch(
                "CREATE TABLE a (id, x, _deleted);
                CREATE TABLE b (id, a_id);
                CREATE VIEW \"live a\" AS SELECT id, x FROM a WHERE _deleted = 0;
                CREATE VIEW live_b AS
                    SELECT id FROM b WHERE NOT EXISTS (SELECT 1 FROM a WHERE a.id = a_id AND _deleted = 1);
                CREATE VIEW broken AS SELECT y FROM a;
                CREATE VIEW of_view AS SELECT x FROM \"live a\";",
            )
            .unwrap();
        let reads = read_by_views(&mut database).unwrap().into_iter();
        let reads: Vec<_> =
            reads.map(|read| format!("{}: {}.{}", read.view, read.table, read.column)).collect();
        assert_eq!(
            reads,
            [
                "live a: a._deleted",
                "live a: a.id",
                "live a: a.x",
                "live_b: a._deleted",
                "live_b: a.id",
                "live_b: b.a_id",
                "live_b: b.id",
                "of_view: live a.x",
            ]
        );
        // Nothing watches the connection any more.
        database.execute_batch("SELECT * FROM of_view").unwrap();
    }

    #[test]
    fn migrations_are_applied_once() {
        let mut database = Connection::open_in_memory().unwrap();
        assert_eq!(apply(&mut database, &own()).unwrap().len(), own().len());
        assert_eq!(apply(&mut database, &own()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_name_in_double_quotes_is_no_text() {
        let mut database = Connection::open_in_memory().unwrap();
        let migration = |sql: &str| Migration { name: "1000_a.sql".into(), sql: sql.into() };
        let view = "CREATE TABLE a (x); CREATE VIEW v AS SELECT \"y\" FROM a;";
        apply(&mut database, &[migration(view)]).unwrap();
        let broken = schema(&database).unwrap().broken_views;
        assert!(broken["v"].contains("no such column"), "{broken:?}");
        let mut database = Connection::open_in_memory().unwrap();
        let default = "CREATE TABLE a (x); INSERT INTO a VALUES (\"y\");";
        apply(&mut database, &[migration(default)]).unwrap_err();
    }

    #[test]
    fn the_database_takes_the_words_of_the_enums() {
        fn list<W: Word>() -> String {
            W::words().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ")
        }
        let mut database = Connection::open_in_memory().unwrap();
        apply(&mut database, &own()).unwrap();
        for (table, column, words) in [
            ("dead_letters", "reason", list::<LetterReason>()),
            ("dead_letters", "state", list::<LetterState>()),
            ("outbox", "channel", list::<Channel>()),
            ("outbox", "state", list::<OutboxState>()),
            ("replays", "state", list::<ReplayState>()),
            ("admin_tokens", "role", list::<Role>()),
        ] {
            let sql: String = database
                .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [table], |row| {
                    row.get(0)
                })
                .unwrap();
            let check = format!("CHECK ({column} IN ({words}))");
            assert!(sql.contains(&check), "{table}: {check}");
        }
    }

    #[test]
    fn data_of_another_version_is_refused() {
        let mut database = Connection::open_in_memory().unwrap();
        apply(&mut database, &own()).unwrap();
        let record = |name: &str| format!("INSERT INTO d1_migrations (name) VALUES ('{name}')");
        // A user's migration that is gone changes nothing.
        database.execute_batch(&record("1000_gone.sql")).unwrap();
        apply(&mut database, &own()).unwrap();
        database.execute_batch(&record("0009_later.sql")).unwrap();
        let error = apply(&mut database, &own()).unwrap_err();
        assert!(matches!(&error, MigrationError::OtherVersion(name) if name == "0009_later.sql"));
    }

    #[test]
    fn a_failing_migration_leaves_nothing_and_those_before_it_stay() {
        let mut database = Connection::open_in_memory().unwrap();
        let migration = |name: &str, sql: &str| Migration { name: name.into(), sql: sql.into() };
        let migrations = [
            migration("1000_a.sql", "CREATE TABLE a (x)"),
            migration("1001_b.sql", "CREATE TABLE b (x); NONSENSE"),
        ];
        let error = apply(&mut database, &migrations).unwrap_err();
        assert_eq!(error.to_string(), "migration 1001_b.sql failed");
        assert_eq!(schema(&database).unwrap().tables.into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn the_body_that_a_letter_refers_to_is_known() {
        let mut database = Connection::open_in_memory().unwrap();
        apply(&mut database, &own()).unwrap();
        let large = r#"{"v":1,"body":{"object":{"key":"s/1","bytes":9}}}"#;
        database
            .execute_batch(&format!(
                r#"CREATE TABLE cases (id TEXT, message TEXT);
                INSERT INTO cases VALUES ('a', '{large}' || char(10)), ('b', 'm'), ('c', '{{}}' || char(10) || '{large}'),
                    ('d', '{large} '), ('e', '"body":{{"object"');
                INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
                SELECT id, 'refused', 'x', 'f', 1, 0, 0, message FROM cases;"#
            ))
            .unwrap();
        let mut query = database
            .prepare("SELECT id || ' ' || coalesce(body_key, '-') FROM dead_letters ORDER BY id")
            .unwrap();
        let letters: Vec<String> =
            query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(letters, ["a s/1", "b -", "c -", "d s/1", "e -"]);
    }

    #[test]
    fn a_file_that_is_not_a_migration_is_an_error() {
        for name in ["notes.txt", "1_a.sql", "abcd_a.sql", "0001_pipeline.sql", "0999_a.sql"] {
            assert!(in_folder(folder(&[(name, "")]).path()).is_err(), "{name}");
        }
        let users = in_folder(folder(&[("1001_b.sql", "B"), ("1000_a.sql", "A")]).path()).unwrap();
        assert_eq!(users.iter().map(|m| m.sql.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    }
}
