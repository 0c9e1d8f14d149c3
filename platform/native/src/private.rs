//! Files and folders that only their owner can read, whatever the umask: they contain customers' data.
//!
//! On systems without Unix permissions, the folder's own access rules apply.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use crate::durable::absent_as_none;
use crate::durable::sync;

/// Creates a folder, and the folders above it that do not exist. Syncs the folder above, so that a power failure does not remove
/// the new one, also if another thread or a killed process created it.
///
/// # Errors
///
/// If it cannot be created.
pub fn create_folder(path: &Path) -> std::io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        // The root of a file system.
        None => return Ok(()),
    };
    if !parent.is_dir() {
        create_folder(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    // A recursive builder accepts a folder that exists.
    builder.recursive(true).create(path)?;
    match sync(parent) {
        // A user may use a folder without being allowed to list it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Creates an empty file, or empties it.
///
/// # Errors
///
/// If it cannot be created.
pub fn create_file(path: &Path) -> std::io::Result<File> {
    options().truncate(true).open(path)
}

/// Creates a file unless it exists. SQLite gives the files beside a database the permissions of the database.
///
/// It never opens an existing file: to close a database would release the locks that SQLite holds in this process, and
/// another process would remove its log.
pub(crate) fn create_if_absent(path: &Path) -> std::io::Result<()> {
    match options().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create(true);
    options
}

/// Closes a folder to other users, with everything in it. Returns whether it was open. Links are left alone.
#[cfg(unix)]
pub(crate) fn close(folder: &Path) -> Result<bool, (PathBuf, std::io::Error)> {
    use std::os::unix::fs::PermissionsExt as _;

    let is_open = |found: &fs::Metadata| found.permissions().mode() & 0o077 != 0;
    let found = fs::metadata(folder).map_err(|error| (folder.to_owned(), error))?;
    if !is_open(&found) {
        return Ok(false);
    }
    let mut open = vec![(folder.to_owned(), found)];
    while let Some((path, found)) = open.pop() {
        let closed = (|| {
            if is_open(&found) {
                let mode = found.permissions().mode() & 0o700;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
            if found.is_dir() {
                for entry in fs::read_dir(&path)? {
                    let entry = entry?.path();
                    // SQLite removes the files beside a database when another process closes it.
                    let found = absent_as_none(fs::symlink_metadata(&entry))?;
                    open.extend(
                        found.filter(|found| !found.is_symlink()).map(|found| (entry, found)),
                    );
                }
            }
            Ok(())
        })();
        absent_as_none(closed).map_err(|error| (path, error))?;
    }
    Ok(true)
}

#[cfg(not(unix))]
pub(crate) fn close(_: &Path) -> Result<bool, (PathBuf, std::io::Error)> {
    Ok(false)
}
