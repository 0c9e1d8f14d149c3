//! Keeps SQLite's write-ahead log short without blocking the writer.
//!
//! Copying the log into the database file delays every writer meanwhile. So a thread with its own connection copies the
//! log, and the writer copies only what was added meanwhile. Then the log starts over.

use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::sqlite;

/// The size of the log at which it is copied, in bytes. A page that is written often is copied once, so a longer log means
/// fewer writes, above all in large tables; recovery after a crash reads all of it.
const LOG_BYTES: u32 = 64 * 1024 * 1024;
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The checkpoints of one database. They end when the value is dropped: its connection is closed when the drop returns.
pub(crate) struct Checkpoints {
    /// The size of the log, in pages, and the size at which it is copied.
    pages: Arc<AtomicUsize>,
    limit: usize,
    /// Whether the thread was asked to copy and has not answered yet.
    copying: bool,
    ask: Option<Sender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. It replaces SQLite's own checkpoints on the writer's connection.
    ///
    /// # Errors
    ///
    /// If the database cannot be opened a second time, or no thread can be started.
    pub(crate) fn start(
        path: &Path,
        page_bytes: u32,
        writer: &mut Connection,
    ) -> rusqlite::Result<Self> {
        let database = sqlite::open(path, page_bytes)?;
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = pages.clone();
        writer.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            counted.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (sender, requests) = channel();
        let (say, done) = channel();
        let thread = spawn("checkpoint", move || {
            while requests.recv().is_ok() {
                // Pages that were not copied stay in the log, where they are durable.
                let _ = database.query_row(CHECKPOINT, [], |_| Ok(()));
                let _ = say.send(());
            }
        })?;
        let limit = usize::try_from(LOG_BYTES / page_bytes).unwrap_or(usize::MAX);
        Ok(Self { pages, limit, copying: false, ask: Some(sender), done, thread: Some(thread) })
    }

    /// The writer calls this after each transaction.
    pub(crate) fn keep_short(&mut self, writer: &Connection) {
        if self.copying {
            // Without the thread, the writer copies the whole log itself.
            if self.done.try_recv() != Err(TryRecvError::Empty) {
                let _ = writer.query_row(CHECKPOINT, [], |_| Ok(()));
                self.copying = false;
            }
        } else if self.pages.load(Ordering::Relaxed) > self.limit {
            self.copying = true;
            let _ = self.ask.as_ref().map(|ask| ask.send(()));
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a thread with a name.
pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> rusqlite::Result<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_short_without_the_thread() {
        const LIMIT: usize = 10;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let mut writer = sqlite::open(&path, 4096).unwrap();
        writer.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        let mut checkpoints = Checkpoints::start(&path, 4096, &mut writer).unwrap();
        checkpoints.limit = LIMIT;
        checkpoints.ask = None;
        checkpoints.thread.take().unwrap().join().unwrap();
        for _ in 0..20 * LIMIT {
            writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
            checkpoints.keep_short(&writer);
        }
        let pages = std::fs::metadata(folder.path().join("data.db-wal")).unwrap().len() / 4096;
        assert!(pages < 4 * LIMIT as u64, "{pages}");
    }
}
