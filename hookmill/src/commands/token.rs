//! `hookmill token`: tokens of the admin API.

use std::path::{Path, PathBuf};

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookmill_admin::auth::{PREFIX, keep_token, token_hash};
use hookmill_admin::token_changed;
use hookmill_core::params;
use hookmill_core::store::{Statement, answer};
use hookmill_core::time::Timestamp;
use hookmill_core::words::{AuditAction, Role};
use hookmill_native::{DataFolder, now, transaction};
use rusqlite::{Row, TransactionBehavior};
use serde::Serialize;

use crate::client::user;
use crate::list::print_line;
use crate::list::{note, print};
use crate::words::word;

/// Tokens for the admin API: create, list, revoke
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create a token, print it once, and store its hash
#[derive(clap::Args)]
struct Create {
    /// The name, which the audit records with every change.
    name: String,
    /// The role: `read` can only view; `operate` can change things.
    #[arg(long, value_parser = word::<Role>())]
    role: Role,
    /// Print the SQL that stores the hash instead of storing it: for D1, with `wrangler d1 execute`.
    #[arg(long)]
    sql: bool,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

/// List tokens
#[derive(clap::Args)]
struct List {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Print a JSON array; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

/// Revoke a token
#[derive(clap::Args)]
struct Revoke {
    /// The name.
    name: String,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Create(create) => run_create(create),
        Command::List(list) => run_list(list),
        Command::Revoke(revoke) => run_revoke(revoke),
    }
}

fn run_create(create: &Create) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if create.name.is_empty() || create.name.len() > 64 || !create.name.chars().all(plain) {
        bail!(
            "invalid token name {:?}; use at most 64 of a-z, A-Z, 0-9, `-`, `_`, `.` and `@`",
            create.name
        );
    }
    let token = random()?;
    if create.sql {
        // It consists of hexadecimal digits, Hookmill's own words, and a name of plain characters.
        note!(
            "INSERT OR REPLACE INTO admin_tokens (name, hash, role, created_at) VALUES ('{name}', '{}', '{}', {at}); \
             INSERT INTO audit (at, actor, action, target, reason, detail) VALUES ({at}, '{}', '{}', '{name}', '', '{{}}');",
            token_hash(&token),
            create.role,
            user().replace('\'', "''"),
            AuditAction::TokenCreate,
            name = create.name,
            at = now().millis(),
        );
    } else {
        let database = DataFolder::write(&create.data)?;
        let there = database.query_row(
            "SELECT count(*) FROM admin_tokens WHERE name = ?1",
            [&create.name],
            |row| row.get::<_, u32>(0),
        )?;
        if there > 0 {
            bail!(
                "a token {0} already exists; `hookmill token revoke {0}` revokes it",
                create.name
            );
        }
        let (name, at) = (create.name.as_str(), now());
        let created = token_changed(&user(), AuditAction::TokenCreate, name, at);
        let statements = [keep_token(name, &token, create.role, at), created];
        let mut database = DataFolder::write(&create.data)?;
        transaction(&mut database, TransactionBehavior::Immediate, &statements)?;
        note!("the token is shown only once; `hookmill token revoke {}` revokes it", create.name);
    }
    print_line!("{token}");
    Ok(())
}

/// A random token.
fn random() -> anyhow::Result<String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

fn keep(data: &Path, name: &str, token: &str, role: Role) -> anyhow::Result<()> {
    let keep = keep_token(name, token, role, now());
    transaction(&mut DataFolder::write(data)?, TransactionBehavior::Immediate, &[keep])?;
    Ok(())
}

/// A token for development with the role `operate`, valid until the next one is created.
pub fn for_development(data: &Path) -> anyhow::Result<String> {
    let token = random()?;
    keep(data, "dev", &token, Role::Operate)?;
    Ok(token)
}

/// A token, without its secret.
#[derive(Serialize)]
struct Token {
    name: String,
    role: String,
    created_at: Timestamp,
}

fn run_list(list: &List) -> anyhow::Result<()> {
    let token = |row: &Row<'_>| {
        let created_at = Timestamp::from_millis(row.get(2)?);
        Ok(Token { name: row.get(0)?, role: row.get(1)?, created_at })
    };
    let tokens = DataFolder::read(&list.data)?.data(|database| {
        let sql = "SELECT name, role, created_at FROM admin_tokens ORDER BY name";
        database.prepare(sql)?.query_map([], token)?.collect::<Result<Vec<_>, _>>()
    })?;
    let row = |token: Token| [token.name, token.role, token.created_at.to_string()];
    let nothing = "no tokens; `hookmill token create NAME --role read` creates one";
    print(tokens, list.json, nothing, ["NAME", "ROLE", "CREATED"], row)
}

fn run_revoke(revoke: &Revoke) -> anyhow::Result<()> {
    let mut database = DataFolder::write(&revoke.data)?;
    let sql = "DELETE FROM admin_tokens WHERE name = ?1 RETURNING json_object('name', name)";
    let statements = [
        Statement::new(sql, params![&revoke.name]),
        token_changed(&user(), AuditAction::TokenRevoke, &revoke.name, now()),
    ];
    let rows = transaction(&mut database, TransactionBehavior::Immediate, &statements)?;
    if answer(&rows, 0).is_empty() {
        bail!("no token {:?}; `hookmill token list` lists tokens", revoke.name);
    }
    note!("revoked {}", revoke.name);
    Ok(())
}
