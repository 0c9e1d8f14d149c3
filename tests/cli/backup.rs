//! `hookmill backup` and `hookmill restore`.

use serde_json::Value;

use crate::{Dev, hookmill, shown, with_example};

#[test]
fn a_backup_of_a_running_pipeline_can_be_restored() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    for _ in 0..3 {
        assert_eq!(
            hookmill(example.path(), &["send", "stripe", "customer.created"]).status.code(),
            Some(0)
        );
    }
    insta::assert_snapshot!(
        [
            shown(example.path(), &["backup", "copy"]),
            shown(example.path(), &["backup", ".hookmill/copy"]),
            shown(example.path(), &["backup", "copy"]),
            shown(example.path(), &["restore", "copy", "--data", "restored"]),
            shown(example.path(), &["restore", "copy"]),
            shown(example.path(), &["restore", "nothing", "--data", "other"]),
        ]
        .concat(),
        @"
    exit code 0
    --- stdout
    --- stderr
    copied .hookmill to copy
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill/copy is inside .hookmill; use another folder
    exit code 1
    --- stdout
    --- stderr
    error: copy already exists; use a new folder
    exit code 0
    --- stdout
    --- stderr
    restored the backup to restored; `hookmill serve` continues from there
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill already exists; use a new folder
    exit code 1
    --- stdout
    --- stderr
    error: nothing contains no backup; `hookmill backup` creates one
    "
    );
    dev.stop();
    let events = |data: &str| {
        let output = hookmill(example.path(), &["events", "--json", "--data", data]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(events("restored").as_array().map(Vec::len), Some(3));
    assert_eq!(events("restored"), events(".hookmill"));
    std::fs::write(example.path().join("copy/data.db"), "damaged").unwrap();
    let damaged = hookmill(example.path(), &["restore", "copy", "--data", "other"]);
    assert_eq!(damaged.status.code(), Some(1));
    // A failed backup leaves no file under any name.
    let mut left: Vec<_> = std::fs::read_dir(example.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".hookmill", "copy", "hookmill.toml", "restored", "templates"]);
}

#[test]
fn damage_in_a_data_folder_is_found() {
    let example = with_example();
    let folder = example.path();
    hookmill(folder, &["migrate"]);
    let verify = || shown(folder, &["verify-data"]);
    let mut found = vec![verify()];
    let file = folder.join(".hookmill/data.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch(
            r#"INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
            VALUES ('a', 'refused', 'no', 'f', 1, 0, 0, '{"v":1,"body":{"object":{"key":"s/1","bytes":9}}}')"#,
        )
        .unwrap();
    let root: i64 = database
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'dead_letters'", [], |row| {
            row.get(0)
        })
        .unwrap();
    drop(database);
    found.push(verify());
    let bodies = folder.join(".hookmill/bodies/s");
    std::fs::create_dir_all(&bodies).unwrap();
    for body in ["torn", "the whole"] {
        std::fs::write(bodies.join("1"), body).unwrap();
        found.push(verify());
    }
    insta::assert_snapshot!(found.concat());
    // The page of the letters.
    let mut bytes = std::fs::read(&file).unwrap();
    let page = usize::try_from((root - 1) * 4096).unwrap();
    bytes[page..page + 512].fill(0xFF);
    std::fs::write(&file, bytes).unwrap();
    let output = hookmill(folder, &["verify-data", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["whole"], false);
    assert!(found["problems"][0].as_str().unwrap().starts_with("data.db: "), "{found}");
}

#[cfg(unix)]
#[test]
fn a_link_in_a_backup_is_refused_by_name() {
    use std::os::unix::fs::symlink;

    let example = with_example();
    hookmill(example.path(), &["migrate"]);
    let folder = example.path();
    std::fs::create_dir_all(folder.join(".hookmill/bodies/s")).unwrap();
    std::fs::write(folder.join(".hookmill/bodies/s/body"), "x").unwrap();
    drop(rusqlite::Connection::open(folder.join(".hookmill/queue.db")).unwrap());
    std::fs::write(folder.join("secret"), "not for a copy").unwrap();
    for link in ["data.db", "queue.db", "salt", "bodies", "bodies/t", "bodies/s/other"] {
        let made = hookmill(folder, &["backup", "copy"]);
        assert_eq!(made.status.code(), Some(0), "{made:?}");
        let path = folder.join("copy").join(link);
        let (target, original) = (folder.join("secret"), folder.join("moved"));
        match link {
            "data.db" | "queue.db" | "bodies" => {
                std::fs::rename(&path, &original).unwrap();
                symlink(&original, &path).unwrap();
            }
            "bodies/t" => symlink(folder, &path).unwrap(),
            _ => symlink(target, &path).unwrap(),
        }
        let refused = hookmill(folder, &["restore", "copy", "--data", "restored"]);
        assert_eq!(refused.status.code(), Some(1), "{link}: {refused:?}");
        let stderr = String::from_utf8(refused.stderr).unwrap();
        let expected =
            format!("error: copy/{link} is a link; a backup contains only folders and files\n");
        assert_eq!(stderr, expected);
        assert!(!folder.join("restored").exists());
        std::fs::remove_dir_all(folder.join("copy")).unwrap();
        let _ = std::fs::remove_file(&original).or_else(|_| std::fs::remove_dir_all(&original));
    }
}

#[test]
fn the_sql_for_d1_is_printed_and_does_the_same() {
    let example = with_example();
    hookmill(example.path(), &["migrate"]);
    let printed = hookmill(example.path(), &["restore", "--sql"]);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let sql = String::from_utf8(printed.stdout).unwrap();
    let database = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    let letter = |state: &str| {
        format!(
            "INSERT INTO dead_letters (id, source, event_id, generation, type, reason, error, fingerprint, attempts,
                first_failed_at, last_failed_at, state, replay, replays, message)
            VALUES ('{state}', 's', 'e', 0, 't', 'refused', 'no', 'f', 1, 0, 0, '{state}', 'r', 1, '')"
        )
    };
    for state in ["replayed", "discarded"] {
        database.execute(&letter(state), []).unwrap();
    }
    database
        .execute_batch(
            "INSERT INTO replays (id, filter, state, total, sent, planned_by, planned_at)
            VALUES ('r', '{\"all\":true}', 'done', 2, 2, 'ines', 0)",
        )
        .unwrap();
    database.execute_batch(&sql).unwrap();
    let states: String = database
        .query_row(
            "SELECT group_concat(state) FROM (SELECT state FROM dead_letters ORDER BY id)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(states, "discarded,dead");
    let replay: (String, u32) = database
        .query_row("SELECT state, sent FROM replays", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(replay, ("running".to_owned(), 1));
}
