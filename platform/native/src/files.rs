//! The object store on files.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hookmill_core::objects::{ObjectError, Objects};

/// A folder with a file for each object.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

/// Where files are written before they get their name; no source can be called like this.
const INCOMING: &str = ".incoming";

impl Files {
    /// Objects in this folder. What was being written when the last process ended is removed.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn open(folder: PathBuf) -> std::io::Result<Self> {
        let incoming = folder.join(INCOMING);
        absent_as_none(fs::remove_dir_all(&incoming))?;
        fs::create_dir_all(&incoming)?;
        Ok(Self(folder))
    }
}

/// Runs a closure that blocks on the disk.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ObjectError> {
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ObjectError(error.to_string())),
        Err(error) => Err(ObjectError(error.to_string())),
    }
}

impl Objects for Files {
    async fn put(&self, key: &str, body: &[u8]) -> Result<(), ObjectError> {
        let (root, key, body) = (self.0.clone(), key.to_owned(), body.to_vec());
        blocking(move || write_durably(&root, &key, &body)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let path = self.0.join(key);
        blocking(move || absent_as_none(fs::read(path))).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let path = self.0.join(key);
        blocking(move || absent_as_none(fs::remove_file(path)).map(drop)).await
    }
}

fn absent_as_none<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes elsewhere and renames, so that a file is whole or not there; then makes the folder's entry durable too.
fn write_durably(root: &Path, key: &str, body: &[u8]) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let path = root.join(key);
    let folder = path.parent().unwrap_or(root);
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        File::open(root)?.sync_all()?;
    }
    let incoming = root.join(INCOMING).join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    let mut file = File::create(&incoming)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&incoming, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_comes_back_until_it_is_deleted() {
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
}
