//! Files that are complete or absent.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use crate::private::create_file;

/// Writes a private file to `incoming` and renames that file, so that the file is complete or absent, even after a power failure or on a
/// full disk. `incoming` is on the same file system, and no other writer uses it.
pub(crate) fn write_durably(path: &Path, incoming: &Path, content: &[u8]) -> std::io::Result<()> {
    let written = (|| {
        let mut file = create_file(incoming)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(incoming, path)
    })();
    if written.is_err() {
        // The remains would take the space that the next file needs.
        let _ = fs::remove_file(incoming);
    }
    written?;
    // The new name is durable once the folder is.
    path.parent().map_or(Ok(()), sync)
}

/// Makes the entries of a folder durable.
pub(crate) fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// `None` if the file does not exist.
pub(crate) fn absent_as_none<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, incoming) = (folder.path().join("a"), folder.path().join("a.incoming"));
        // Remains of a process that was killed.
        fs::write(&incoming, "a part of it, and longer than the whole").unwrap();
        for content in ["one", "another"] {
            write_durably(&path, &incoming, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        // No file can take this name.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        write_durably(&taken, &incoming, b"x").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
