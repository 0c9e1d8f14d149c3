//! `hookmill migrate`.

use crate::{hookmill, readme_block, shown, with_example};

#[test]
fn migrate_applies_missing_migrations() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["migrate"]), @"
    exit code 0
    --- stdout
    0001_pipeline.sql
    0002_presets.sql
    --- stderr
    ");
    insta::assert_snapshot!(shown(example.path(), &["migrate"]), @"
    exit code 0
    --- stdout
    --- stderr
    the database is up to date
    ");
    insta::assert_snapshot!(shown(example.path(), &["migrate", "--json"]), @r#"
    exit code 0
    --- stdout
    {"applied":[]}
    --- stderr
    "#);
}

#[test]
fn a_migration_that_was_changed_after_it_was_applied_is_an_error_at_the_start() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let text = std::fs::read_to_string(&path).unwrap() + &readme_block("[database]");
    std::fs::write(&path, &text).unwrap();
    let migration = example.path().join("migrations/app/1000_refunded_charges.sql");
    std::fs::create_dir_all(migration.parent().unwrap()).unwrap();
    let sql = readme_block("-- migrations/app/1000_refunded_charges.sql");
    std::fs::write(&migration, &sql).unwrap();
    assert_eq!(hookmill(example.path(), &["migrate"]).status.code(), Some(0));
    std::fs::write(&migration, sql.replace("amount", "cents")).unwrap();
    std::fs::write(&path, text.replace("{ amount =", "{ cents =")).unwrap();
    assert_eq!(hookmill(example.path(), &["check"]).status.code(), Some(0));
    insta::assert_snapshot!(shown(example.path(), &["dev"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: the database is not what the migrations make; was one changed after it had been applied? Leave it as it was, and add another: hookmill.toml:126:9: rule "refunded-charges".set.cents: table `refunded_charges` has no column `cents`
      hint: add it in a migration: ALTER TABLE refunded_charges ADD COLUMN cents …
    1 error in the configuration
    "#);
}
