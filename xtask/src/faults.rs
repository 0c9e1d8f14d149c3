//! `cargo xtask sim --faults`: puts faults into the code, one at a time, and runs the simulated histories until one finds each.
//! A fault that none of them finds shows what the simulation does not check.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::shell::{cargo, output, root, target};

/// A fault: a text of the code, which is there once, and what replaces it.
struct Fault {
    name: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

const SQL: &str = "core/rules/src/sql.rs";
const PLAN: &str = "consumers/src/plan.rs";
const BATCH: &str = "consumers/src/process_batch.rs";
const SENDING: &str = "consumers/src/outbox/send.rs";
const OUTBOX: &str = "consumers/src/outbox/state.rs";
const REPLAY: &str = "dlq/src/replay.rs";
const IMPORT: &str = "consumers/src/import.rs";
const RECONCILE: &str = "consumers/src/reconcile.rs";
const INGRESS: &str = "ingress/src/http.rs";

const FAULTS: &[Fault] = &[
    Fault {
        name: "a request is acknowledged though the queue failed",
        file: INGRESS,
        find: r#"return unavailable(name, "queue_unavailable", error.to_string());"#,
        replace: "let _ = error;",
    },
    Fault {
        name: "a message refers to a body that was not stored",
        file: INGRESS,
        find: r#"return unavailable(name, "object_store_unavailable", error.to_string());"#,
        replace: "let _ = error;",
    },
    Fault {
        name: "an import ends with the first page of a list",
        file: IMPORT,
        find: "let next = match &page.next {",
        replace: "let next = match page.next.as_ref().filter(|_| false) {",
    },
    Fault {
        name: "an import goes on though the queue did not accept its objects",
        file: IMPORT,
        find: "if let Err(error) = sent {",
        replace: "if let (Err(error), true) = (sent, false) {",
    },
    Fault {
        name: "an imported object is as old as its event",
        file: IMPORT,
        find: "version: date - elapsed(started, ended) - UNIT",
        replace: "version: Timestamp::from_millis(0)",
    },
    Fault {
        name: "a repair counts as sent, and is not",
        file: RECONCILE,
        find: "queue.send(sent.clone()).await.map_err(|error| error.to_string())?;",
        replace: "let _ = queue;",
    },
    Fault {
        name: "a reconciliation finds no missing row",
        file: SQL,
        find: r#"            Missing::Always => "true","#,
        replace: r#"            Missing::Always => "false","#,
    },
    Fault {
        name: "the ledger does not end the transaction of a duplicate",
        file: PLAN,
        find: "    value ->> 8\nFROM rows\";",
        replace: "    value ->> 8\nFROM rows WHERE true ON CONFLICT DO NOTHING\";",
    },
    Fault {
        name: "a replayed letter stays open after its event",
        file: PLAN,
        find: "WHERE state IN ('dead', 'replaying', 'replayed') AND EXISTS (",
        replace: "WHERE state IN ('dead', 'replaying') AND EXISTS (",
    },
    Fault {
        name: "an event counts as applied though the store failed",
        file: BATCH,
        find: "fates[write.index] = Some(Fate::Unavailable(error.to_string()));",
        replace: "fates[write.index] = Some(Fate::Applied);",
    },
    Fault {
        name: "no letter is written",
        file: BATCH,
        find: "let all = write(&letters).await;",
        replace: "let all: Result<_, StoreError> = Ok(Default::default());",
    },
    Fault {
        name: "a message is acknowledged though its letter was not written",
        file: BATCH,
        find: "(*fate, *verdict) = (Fate::Unavailable(error), Verdict::Retry { delay });",
        replace: "let _ = (error, delay);",
    },
    Fault {
        name: "the body of an event that is retried is removed",
        file: BATCH,
        find: "settled.verdict == Verdict::Ack);",
        replace: "settled.verdict != Verdict::Bury);",
    },
    Fault {
        name: "an exhausted event gets no letter",
        file: "consumers/src/settle.rs",
        find: "(Fate::Condemned { reason: LetterReason::Exhausted, error }, Verdict::Bury)",
        replace: "(Fate::Condemned { reason: LetterReason::Exhausted, error }, Verdict::Ack)",
    },
    Fault {
        name: "an older event replaces a newer row",
        file: SQL,
        find: r#"             WHERE (excluded.\"_version\", excluded.\"_precedence\", excluded.\"_event_id\")\n\"#,
        replace: r#"             WHERE true OR (excluded.\"_version\", excluded.\"_precedence\", excluded.\"_event_id\")\n\"#,
    },
    Fault {
        name: "a deletion is not final",
        file: "core/rules/src/lib.rs",
        find: "let is_final = deletes && (self.delete.is_final || version.is_none());",
        replace: "let is_final = deletes && version.is_none();",
    },
    Fault {
        name: "a list keeps what is no longer in it",
        file: SQL,
        find: "AND {stored} NOT IN (SELECT {kept} FROM _items){older}",
        replace: "AND {stored} IN (SELECT {kept} FROM _items) AND false{older}",
    },
    Fault {
        name: "an older list replaces a newer one",
        file: SQL,
        find: "WHERE (excluded.version, excluded.precedence, excluded.event_id)\\n",
        replace: "WHERE true OR (excluded.version, excluded.precedence, excluded.event_id)\\n",
    },
    Fault {
        name: "a counter starts again with each event",
        file: SQL,
        find: "coalesce({target}.{name}, 0) + excluded.{name}",
        replace: "0 * coalesce({target}.{name}, 0) + excluded.{name}",
    },
    Fault {
        name: "two events of one version in one batch fetch nothing",
        file: SQL,
        find: "(_ties AND ({version} IS NULL",
        replace: "(false AND _ties AND ({version} IS NULL",
    },
    Fault {
        name: "an event with the version of the row fetches nothing",
        file: SQL,
        find: "OR ({event_id} <> {new_event} AND (",
        replace: "OR (false AND {event_id} <> {new_event} AND (",
    },
    Fault {
        name: "an old bounce counts after a newer lift",
        file: SQL,
        find: "AND _lifted.version > {version})",
        replace: "AND _lifted.version > {version} + 1000000000000)",
    },
    Fault {
        name: "an old lift ends a newer suppression",
        file: SQL,
        find: "AND version < (SELECT _lifted.version",
        replace: "AND version - 1000000000000 < (SELECT _lifted.version",
    },
    Fault {
        name: "the end of a fetch forgets a newer request",
        file: "consumers/src/refetch.rs",
        find: "DELETE FROM refetches WHERE rule = ?1 AND path = ?2 AND event_id = ?3",
        replace: "DELETE FROM refetches WHERE rule = ?1 AND path = ?2 AND ?3 IS NOT NULL",
    },
    Fault {
        name: "an event in the ledger gets a letter",
        file: "dlq/src/bury.rs",
        find: "FROM rows\nWHERE NOT EXISTS (",
        replace: "FROM rows\nWHERE true OR NOT EXISTS (",
    },
    Fault {
        name: "a letter that fails again is not dead",
        file: "dlq/src/bury.rs",
        find: "    state = 'dead', state_at = excluded.state_at",
        replace: "    state_at = excluded.state_at",
    },
    Fault {
        name: "a message that the platform gave up is lost if the store fails",
        file: "dlq/src/drain.rs",
        find: "=> (batch.iter().map(retry).collect(), Some(error)),",
        replace: "=> (vec![Verdict::Bury; batch.len()], Some(error)),",
    },
    Fault {
        name: "a restored backup does not send its letters again",
        file: "dlq/src/recover.rs",
        find: "\"dead_letters.state = 'replayed' AND NOT EXISTS (",
        replace: "\"dead_letters.state = 'none' AND NOT EXISTS (",
    },
    Fault {
        name: "a canceled replay keeps its letters",
        file: REPLAY,
        find: "WHERE state = 'replaying' AND EXISTS (",
        replace: "WHERE state = 'replaying' AND false AND EXISTS (",
    },
    Fault {
        name: "a letter of a clock that was ahead is replayed without end",
        file: REPLAY,
        find: "WHERE state = 'dead' AND last_failed_at > ?2\";",
        replace: "WHERE state = 'dead' AND false AND last_failed_at > ?2\";",
    },
    Fault {
        name: "letters count as replayed though the queue failed",
        file: REPLAY,
        find: "queue.send(messages).await }",
        replace: "queue.send(messages).await.or(Ok::<(), hookmill_core::queue::QueueError>(())) }",
    },
    Fault {
        name: "two processes seal one message",
        file: OUTBOX,
        find: "    WHERE state = 'pending'\n)\nON CONFLICT DO NOTHING\nRETURNING id\";",
        replace: "    WHERE true\n)\nON CONFLICT DO NOTHING\nRETURNING id\";",
    },
    Fault {
        name: "a batch of unknown delivery is sent again without a key",
        file: OUTBOX,
        find: "AND (state = 'sealed' OR ?2)",
        replace: "AND (state = 'sealed' OR true OR ?2)",
    },
    Fault {
        name: "a dissolved batch keeps its messages",
        file: OUTBOX,
        find: "UPDATE outbox SET state = 'pending', batch = NULL, error = ?2, together",
        replace: "UPDATE outbox SET state = 'sealed', error = ?2, together",
    },
    Fault {
        name: "a lesser report replaces a greater one",
        file: SQL,
        find: "AND outcome_rank < rank",
        replace: "",
    },
    Fault {
        name: "a suppressed address gets emails",
        file: OUTBOX,
        find: "WHERE address IN (SELECT value ->> 0 FROM jsonb_each(?1)) GROUP BY address",
        replace: "WHERE false AND address IN (SELECT value ->> 0 FROM jsonb_each(?1)) GROUP BY address",
    },
    Fault {
        name: "a batch that may have arrived is sent under another key",
        file: SENDING,
        find: "let statements = if !batch.arrived {",
        replace: "let statements = if !batch.arrived || true {",
    },
    Fault {
        name: "a lost response counts as no request",
        file: SENDING,
        find: "SendResult::Uncertain(hidden.in_text(&error.to_string()))",
        replace: "SendResult::Unavailable(hidden.in_text(&error.to_string()))",
    },
    Fault {
        name: "another provider sends a batch that may have arrived",
        file: SENDING,
        find: "let may_have_it = arrived || batch.arrived;",
        replace: "let may_have_it = false && batch.arrived;",
    },
    Fault {
        name: "the log contains an email",
        file: SENDING,
        find: "sent.problems.push(format!(\n            \"{error}; a batch",
        replace: "sent.problems.push(batch.body.clone());\n        sent.problems.push(format!(\n            \"{error}; a batch",
    },
    Fault {
        name: "a body is removed though a kept message refers to it",
        file: "dlq/src/bodies.rs",
        find: "    AND NOT EXISTS (SELECT 1 FROM event_messages WHERE body_key = body.value)\n",
        replace: "",
    },
    Fault {
        name: "of two transactions at one time, the first alone is listed",
        file: PLAN,
        find: "    ids = substr(ids, 1, length(ids) - 1) || ',' || substr(excluded.ids, 2)\";",
        replace: "    ids = ids\";",
    },
    Fault {
        name: "the ledger forgets events at once",
        file: "dlq/src/sweep.rs",
        find: "        (&self::events(), events),",
        replace: "        (&self::events(), events.map(|age| age / 1_000_000)),",
    },
];

impl Fault {
    /// The file with the fault.
    fn applied(&self, folder: &Path) -> anyhow::Result<String> {
        let Self { name, file, find, replace } = self;
        let text = fs::read_to_string(folder.join(file)).with_context(|| format!("no {file}"))?;
        match text.matches(find).count() {
            1 => Ok(text.replacen(find, replace, 1)),
            found => bail!("{file} has the text of the fault `{name}` {found} times, and not once"),
        }
    }
}

/// Tries all faults, or those whose name contains this text.
///
/// # Errors
///
/// If a fault does not fit the code, or no history finds it.
pub fn find(named: &str, seeds: u64) -> anyhow::Result<()> {
    let copy = target().join("faults/code");
    copy_to(&copy)?;
    let faults: Vec<_> = FAULTS.iter().filter(|fault| fault.name.contains(named)).collect();
    let mut missed = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let file = copy.join(fault.file);
        let sound = fs::read_to_string(&file)?;
        fs::write(&file, fault.applied(&copy)?)?;
        let begun = Instant::now();
        let found = first_finding(&copy, seeds);
        fs::write(&file, sound)?;
        let (number, seconds) = (number + 1, begun.elapsed().as_secs());
        let found = found?;
        let says = found.as_deref().unwrap_or("NOT FOUND");
        println!("{number:>2}/{} {} ({seconds} s)\n      {says}", faults.len(), fault.name);
        if found.is_none() {
            missed.push(fault.name);
        }
    }
    if !missed.is_empty() {
        bail!("no history of {seeds} seeds finds: {}", missed.join("; "));
    }
    println!("each of {} faults was found", faults.len());
    Ok(())
}

/// Copies the repository's files.
fn copy_to(copy: &Path) -> anyhow::Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = output(list.current_dir(root())).context("git cannot list the files")?;
    for name in files.split_terminator('\0') {
        let (from, to) = (root().join(name), copy.join(name));
        // Those that were removed are still in the index.
        if from.exists() {
            fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// What the first failing history says; none if all end well.
fn first_finding(copy: &Path, seeds: u64) -> anyhow::Result<Option<String>> {
    let simulation = || {
        let mut test = cargo();
        test.args(["test", "--quiet", "--package", "hookmill-tests", "--test", "sim"]);
        // cargo takes the packages of a copy for those of the original.
        test.current_dir(copy).env("CARGO_TARGET_DIR", target().join("faults/target"));
        test
    };
    let built = simulation().arg("--no-run").output()?;
    if !built.status.success() {
        bail!("the fault does not compile: {}", String::from_utf8_lossy(&built.stderr));
    }
    let mut test = simulation();
    test.args(["every_history"]).env("HOOKMILL_SIM_SEEDS", format!("0..{seeds}"));
    let ran = test.env("HOOKMILL_SIM_SHORTEN", "no").output()?;
    if ran.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let failed = text.lines().find(|line| line.starts_with("seed "));
    let failed = failed.with_context(|| format!("the simulation did not run: {text}"))?;
    Ok(Some(failed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_fits_the_code() {
        for fault in FAULTS {
            fault.applied(&root()).unwrap();
        }
    }
}
