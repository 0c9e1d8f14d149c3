//! What a disk may hold after a power failure, from the records of disk.c.
//!
//! A sync of a file makes its content durable, a sync of a folder its names. Whatever was not synced may be there or not, sector
//! by sector. Names are lost in order, as file systems with a journal lose them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
/// The same as a length in memory.
const BYTES: usize = 512;

/// A record of disk.c.
struct Record {
    kind: u8,
    path: PathBuf,
    at: u64,
    count: u64,
    /// The size of the file before; negative if there was none.
    size: i64,
    bytes: Vec<u8>,
}

/// Reads the records. The last one may be incomplete: the process was killed.
fn records(log: &Path) -> Vec<Record> {
    let bytes = fs::read(log).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while let Some(record) = record(&mut rest) {
        records.push(record);
    }
    records
}

fn record(rest: &mut &[u8]) -> Option<Record> {
    fn number(rest: &mut &[u8]) -> Option<i64> {
        let (number, after) = rest.split_first_chunk::<8>()?;
        *rest = after;
        Some(i64::from_le_bytes(*number))
    }
    let take = |rest: &mut &[u8], count: usize| {
        let (taken, after) = rest.split_at_checked(count)?;
        *rest = after;
        Some(taken.to_vec())
    };
    let kind = take(rest, 1)?[0];
    let length = u32::from_le_bytes(*take(rest, 4)?.first_chunk()?);
    let path = String::from_utf8(take(rest, usize::try_from(length).ok()?)?).ok()?;
    let (at, count, size) = (number(rest)?, number(rest)?, number(rest)?);
    let length = number(rest)?;
    let bytes = take(rest, usize::try_from(length).ok()?)?;
    let (at, count) = (u64::try_from(at).ok()?, u64::try_from(count).ok()?);
    Some(Record { kind, path: path.into(), at, count, size, bytes })
}

/// A sector whose last change is not durable.
#[derive(Default)]
struct Sector {
    /// What the disk may hold instead. Empty: it was beyond the end of the file.
    older: Vec<Vec<u8>>,
    /// A sync failed, so the disk holds none of the newer contents.
    is_stuck: bool,
}

/// A file whose last changes are not durable.
#[derive(Default)]
struct Unsynced {
    sectors: BTreeMap<u64, Sector>,
    sizes: Vec<u64>,
}

impl Unsynced {
    fn written(&mut self, record: &Record) {
        let size = u64::try_from(record.size).unwrap_or(0);
        self.sizes.push(size);
        for number in record.at / SECTOR..(record.at + record.count) / SECTOR {
            let start = usize::try_from(number * SECTOR - record.at).unwrap();
            let held = record.bytes.get(start..).unwrap_or_default();
            let held = held[..held.len().min(BYTES)].to_vec();
            let sector = self.sectors.entry(number).or_default();
            if sector.is_stuck {
                sector.is_stuck = false;
            } else {
                sector.older.push(held);
            }
        }
    }

    fn synced(&mut self) {
        self.sectors.retain(|_, sector| sector.is_stuck);
        self.sizes.clear();
    }

    fn failed(&mut self) {
        for sector in self.sectors.values_mut() {
            sector.is_stuck = true;
        }
    }
}

/// A change of names that is not durable.
enum Naming {
    Created(PathBuf),
    MadeFolder(PathBuf),
    Removed(PathBuf, Vec<u8>),
    /// A file took a name, and the place of the file that had it: both happen or neither does.
    Renamed {
        from: PathBuf,
        to: PathBuf,
        replaced: Option<Vec<u8>>,
    },
}

impl Naming {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Created(path) | Self::MadeFolder(path) | Self::Removed(path, _) => path.parent(),
            Self::Renamed { to, .. } => to.parent(),
        }
    }
}

/// Changes the files as a power failure may: the process has been killed.
pub fn fails(log: &Path, chance: &mut fastrand::Rng) {
    let mut files = BTreeMap::<PathBuf, Unsynced>::new();
    let mut names = VecDeque::<Naming>::new();
    for record in records(log) {
        let path = record.path.clone();
        match record.kind {
            b'W' => files.entry(path).or_default().written(&record),
            b'S' => {
                names.retain(|naming| naming.folder() != Some(&path));
                files.entry(path).or_default().synced();
            }
            b'F' => files.entry(path).or_default().failed(),
            b'C' => {
                files.remove(&path);
                names.push_back(Naming::Created(path));
            }
            b'M' => names.push_back(Naming::MadeFolder(path)),
            b'U' => {
                files.remove(&path);
                names.push_back(Naming::Removed(path, record.bytes));
            }
            b'R' => {
                let from = PathBuf::from(String::from_utf8(record.bytes).unwrap());
                if let Some(unsynced) = files.remove(&from) {
                    files.insert(path.clone(), unsynced);
                }
                // disk.c records the file that is replaced just before.
                let replaced = match names.pop_back() {
                    Some(Naming::Removed(removed, content)) if removed == path => Some(content),
                    other => {
                        names.extend(other);
                        None
                    }
                };
                names.push_back(Naming::Renamed { from, to: path, replaced });
            }
            kind => panic!("a record of the kind {kind}"),
        }
    }
    for (path, unsynced) in files {
        if path.is_file() {
            tear(&path, unsynced, chance);
        }
    }
    let lost = chance.usize(0..=names.len());
    for naming in names.into_iter().rev().take(lost) {
        undo(naming);
    }
    fs::write(log, "").unwrap();
}

/// Gives each unsynced sector one of the contents that it has had.
fn tear(path: &Path, unsynced: Unsynced, chance: &mut fastrand::Rng) {
    // The shared memory of SQLite never reaches the disk.
    if path.extension().is_some_and(|name| name == "db-shm") {
        return fs::remove_file(path).unwrap();
    }
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    for (number, Sector { older, is_stuck }) in unsynced.sectors {
        let choice = chance.usize(0..older.len() + usize::from(!is_stuck));
        let Some(content) = older.get(choice) else { continue };
        let mut sector = [0; BYTES];
        sector[..content.len()].copy_from_slice(content);
        let start = number * SECTOR;
        if start < size {
            let length = usize::try_from((size - start).min(SECTOR)).unwrap();
            file.seek(SeekFrom::Start(start)).unwrap();
            file.write_all(&sector[..length]).unwrap();
        }
    }
    let sizes: Vec<_> = unsynced.sizes.into_iter().chain([size]).collect();
    let chosen = sizes[chance.usize(0..sizes.len())];
    file.set_len(chosen).unwrap();
}

fn undo(naming: Naming) {
    match naming {
        Naming::Created(path) => absent_is_fine(fs::remove_file(path)),
        Naming::MadeFolder(path) => absent_is_fine(fs::remove_dir_all(path)),
        Naming::Removed(path, content) => fs::write(path, content).unwrap(),
        Naming::Renamed { from, to, replaced } => {
            absent_is_fine(fs::rename(&to, from));
            if let Some(content) = replaced {
                fs::write(to, content).unwrap();
            }
        }
    }
}

fn absent_is_fine(result: std::io::Result<()>) {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}
