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
        for file in entries(&provider) {
            let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
            let file_name = name(&file);
            let Some((stem, _)) = file_name.rsplit_once('.') else { continue };
            let path = file.display().to_string();
            let _ = writeln!(list, "({:?}, {stem:?}, include_str!({path:?})),", name(&provider));
        }
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("fixtures.rs"), list).expect("the output folder can be written");
}

/// What a folder contains, by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the fixtures are in the repository");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
