//! Lists the bodies in tests/fixtures, which are samples for `send` and `check` too.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let folder = folder.join("../tests/fixtures");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut list = "&[\n".to_owned();
    for provider in entries(&folder) {
        let name = provider.file_name().unwrap_or_default().display().to_string();
        for file in files(&provider) {
            let within = file.strip_prefix(&provider).unwrap_or(&file).display().to_string();
            let Some((stem, _)) = within.rsplit_once('.') else { continue };
            let path = file.display().to_string();
            let _ = writeln!(list, "({name:?}, {stem:?}, include_str!({path:?})),");
        }
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("fixtures.rs"), list).expect("the output folder can be written");
}

/// The files in a folder and its folders, by path. A type such as `orders/create` is a file in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let found = entries(folder).into_iter();
    found.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a folder contains, by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the fixtures are in the repository");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
