//! `hookmill token`.

use crate::{Dev, command, hookmill, shown, with_example};

#[test]
fn a_token_is_not_replaced_without_a_request() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let create = ["token", "create", "ines", "--role", "read"];
    assert_eq!(hookmill(example.path(), &create).status.code(), Some(0));
    insta::assert_snapshot!(shown(example.path(), &create), @"
    exit code 1
    --- stdout
    --- stderr
    error: a token ines already exists; `hookmill token revoke ines` revokes it
    ");
    assert_eq!(hookmill(example.path(), &["token", "revoke", "ines"]).status.code(), Some(0));
    assert_eq!(hookmill(example.path(), &create).status.code(), Some(0));
    let audit = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    let mut audit = audit.prepare("SELECT action || ' ' || target FROM audit ORDER BY id").unwrap();
    let acts = audit.query_map([], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(
        acts.collect::<Result<Vec<_>, _>>().unwrap(),
        ["token.create ines", "token.revoke ines", "token.create ines"]
    );
}

/// The statements for D1 do what the command does.
#[test]
fn a_token_for_d1_is_in_the_audit() {
    let example = with_example();
    assert_eq!(hookmill(example.path(), &["migrate", "--data", "data"]).status.code(), Some(0));
    let create = ["token", "create", "ines", "--role", "operate", "--sql"];
    let output = command(example.path(), &create).env("USER", "o'brien").output().unwrap();
    let sql = String::from_utf8(output.stderr).unwrap();
    assert!(!sql.contains('"') && sql.lines().count() == 1, "for a shell: {sql}");
    let database = rusqlite::Connection::open(example.path().join("data/data.db")).unwrap();
    database.execute_batch(&sql).unwrap();
    let row = "SELECT actor || ' ' || action || ' ' || target || ' ' || role FROM audit JOIN admin_tokens ON name = target";
    let row: String = database.query_row(row, [], |row| row.get(0)).unwrap();
    assert_eq!(row, "o'brien token.create ines operate");
}
