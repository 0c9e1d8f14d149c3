//! The object store on files.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hookmill_core::objects::{ObjectError, Objects};

/// A folder with a file for each object.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

impl Files {
    /// Objects in this folder, which has to exist.
    pub const fn new(folder: PathBuf) -> Self {
        Self(folder)
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
        let (path, body) = (self.0.join(key), body.to_vec());
        blocking(move || write_durably(&path, &body)).await
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

/// Writes beside the file and renames, so that a file is whole or not there; then makes the folder's entry durable too.
fn write_durably(path: &Path, body: &[u8]) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        File::open(folder.parent().unwrap_or(folder))?.sync_all()?;
    }
    let beside = path.with_extension(format!("{}.tmp", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut file = File::create(&beside)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_comes_back_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path().to_owned());
        assert_eq!(files.get("stripe/ab").await, Ok(None));
        files.put("stripe/ab", b"body").await.unwrap();
        files.put("stripe/ab", b"body").await.unwrap();
        assert_eq!(files.get("stripe/ab").await, Ok(Some(b"body".to_vec())));
        files.delete("stripe/ab").await.unwrap();
        files.delete("stripe/ab").await.unwrap();
        assert_eq!(files.get("stripe/ab").await, Ok(None));
        assert_eq!(
            fs::read_dir(folder.path().join("stripe")).unwrap().count(),
            0,
            "nothing is left over"
        );
    }
}
