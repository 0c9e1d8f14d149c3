//! The object store on files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hookmill_core::objects::{LISTED, ObjectError, Objects, StoredObject};
use hookmill_core::panics::Panicked;

use crate::durable::{absent_as_none, write_durably};
use crate::private::create_folder;
use crate::timestamp;

/// The objects of a folder, read-only.
#[derive(Clone, Debug)]
pub struct Bodies(PathBuf);

/// A folder with a file for each object. Only the process that has locked the data folder has one: see
/// [`DataFolder::objects`](crate::DataFolder::objects).
#[derive(Clone, Debug)]
pub struct Files {
    bodies: Bodies,
    /// The folders that this process has synced.
    made: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// The folder of files before they get their name; no source can have this name.
const INCOMING: &str = ".incoming";

impl Bodies {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The object, if it exists.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let path = self.0.join(key);
        blocking(move || absent_as_none(fs::read(path))).await
    }
}

impl Files {
    /// The objects in this folder. Removes partial files of the last process.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub(crate) fn open(folder: PathBuf) -> std::io::Result<Self> {
        let incoming = folder.join(INCOMING);
        absent_as_none(fs::remove_dir_all(&incoming))?;
        create_folder(&incoming)?;
        Ok(Self { bodies: Bodies(folder), made: Arc::default() })
    }

    /// The same objects, read-only.
    pub fn bodies(&self) -> Bodies {
        self.bodies.clone()
    }

    fn root(&self) -> &Path {
        &self.bodies.0
    }

    fn write(&self, key: &str, body: &[u8]) -> std::io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = self.root().join(key);
        let folder = path.parent().unwrap_or(self.root());
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_made = made().contains(folder);
        if !is_made {
            create_folder(folder)?;
            made().insert(folder.to_owned());
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let incoming = self.root().join(INCOMING).join(number.to_string());
        write_durably(&path, &incoming, body)
    }
}

/// Runs a closure that blocks on the disk.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ObjectError> {
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ObjectError(error.to_string())),
        Err(_) => Err(ObjectError(Panicked.to_string())),
    }
}

impl Objects for Files {
    async fn put(&self, key: &str, body: &[u8]) -> Result<(), ObjectError> {
        let (files, key, body) = (self.clone(), key.to_owned(), body.to_vec());
        blocking(move || files.write(&key, &body)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        self.bodies.get(key).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let path = self.root().join(key);
        blocking(move || absent_as_none(fs::remove_file(path)).map(drop)).await
    }

    async fn list(&self, after: &str) -> Result<Vec<StoredObject>, ObjectError> {
        let (root, after) = (self.root().to_owned(), after.to_owned());
        blocking(move || list(&root, &after)).await
    }
}

fn list(root: &Path, after: &str) -> std::io::Result<Vec<StoredObject>> {
    let mut keys = BTreeSet::new();
    for source in names(root)?.filter(|source| source != INCOMING) {
        let folder = root.join(&source);
        keys.extend(
            names(&folder)?
                .map(|file| format!("{source}/{file}"))
                .filter(|key| key.as_str() > after),
        );
        while keys.len() > LISTED {
            keys.pop_last();
        }
    }
    let mut objects = Vec::new();
    for key in keys {
        // A consumer may have removed it meanwhile.
        if let Some(found) = absent_as_none(fs::metadata(root.join(&key)))? {
            let stored_at = timestamp(found.modified()?);
            objects.push(StoredObject { key, stored_at });
        }
    }
    Ok(objects)
}

/// The names in a folder; none if there is no such folder.
fn names(folder: &Path) -> std::io::Result<impl Iterator<Item = String>> {
    let entries = absent_as_none(fs::read_dir(folder))?;
    let entries: Vec<_> = entries.into_iter().flatten().collect::<std::io::Result<_>>()?;
    // Hookmill's own names are valid Unicode.
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_object_can_be_read_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().to_owned()).unwrap();
        assert_eq!(files.get("stripe/ab").await, Ok(None));
        files.put("stripe/ab", b"body").await.unwrap();
        files.put("stripe/ab", b"body").await.unwrap();
        assert_eq!(files.get("stripe/ab").await, Ok(Some(b"body".to_vec())));
        files.delete("stripe/ab").await.unwrap();
        files.delete("stripe/ab").await.unwrap();
        assert_eq!(files.get("stripe/ab").await, Ok(None));
        for left in ["stripe", INCOMING] {
            assert_eq!(fs::read_dir(folder.path().join(left)).unwrap().count(), 0, "{left}");
        }
    }

    #[tokio::test]
    async fn objects_are_listed_part_by_part_in_the_order_of_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().to_owned()).unwrap();
        assert_eq!(files.list("").await, Ok(Vec::new()));
        let mut keys = Vec::new();
        for source in ["b", "a-b", "a"] {
            for number in 0..LISTED {
                let key = format!("{source}/{number:04x}");
                let path = folder.path().join(&key);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
                keys.push(key);
            }
        }
        keys.sort();
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let part = files.list(&after).await.unwrap();
            let Some(last) = part.last() else { break };
            assert!(
                part.len() <= LISTED && crate::now() - last.stored_at < Duration::from_secs(3600)
            );
            after.clone_from(&last.key);
            found.extend(part.into_iter().map(|object| object.key));
        }
        assert_eq!(found, keys);
    }
}
