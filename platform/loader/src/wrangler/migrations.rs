//! Whether wrangler finds the migrations: Hookmill's own, beside the Workers, and those of the user.

use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use hookmill_config::{ConfigError, Located};

use super::deployment::Resource;

/// Hookmill's own, as the Workers see them.
const OWN: &str = "../../migrations";

/// Errors in a database's migration settings. `users` is `database.migrations` of hookmill.toml.
///
/// Source: <https://developers.cloudflare.com/d1/reference/migrations/>.
pub(super) fn check(database: &Resource, users: Option<&Located<String>>) -> Option<ConfigError> {
    let folder = folder_of(&database.here.at.file);
    let said = database.get("migrations_pattern").or(database.get("migrations_dir"));
    let here = said.map_or(database.here.clone(), |said| said.clone().map(|_| ()));
    let hint =
        format!("migrations_dir = \"{OWN}\"\n        migrations_pattern = \"{OWN}/**/*.sql\"");
    let own = resolve(folder, OWN);
    if !reaches(database, folder, &own) {
        let problem = "this does not find Hookmill's own migrations, so no table would be created";
        return Some(here.error(problem).hint(hint));
    }
    let users = users?;
    let theirs = resolve(folder_of(&users.at.file), &users.value);
    if reaches(database, folder, &theirs) {
        return None;
    }
    let problem =
        format!("this does not find the migrations in {:?}, which {} names", users.value, users.at);
    let hint = if theirs.starts_with(&own) {
        hint
    } else {
        // A pattern has to begin with the one migrations_dir.
        "wrangler reads one folder and its subfolders: move them below `migrations`, such as migrations/app"
            .to_owned()
    };
    Some(here.error(problem).hint(hint))
}

fn folder_of(file: &str) -> &Path {
    Path::new(file).parent().unwrap_or(Path::new(""))
}

/// Whether a migration in a folder is among those that wrangler applies.
fn reaches(database: &Resource, from: &Path, folder: &Path) -> bool {
    let text = |key| database.get(key).map(|said| said.value.as_str());
    let directory = text("migrations_dir").unwrap_or("migrations");
    let default = || format!("{directory}/*.sql");
    let pattern = text("migrations_pattern").map_or_else(default, ToOwned::to_owned);
    // What only wrangler understands is left to it.
    if pattern.contains(['{', '(', '!']) {
        return true;
    }
    let literal: PathBuf =
        from.iter().map(|part| Pattern::escape(&part.to_string_lossy())).collect();
    let pattern = resolve(&literal, &pattern);
    let Ok(pattern) = Pattern::new(&pattern.to_string_lossy()) else { return true };
    let like_a_shell = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    pattern.matches_path_with(&folder.join("1000_any.sql"), like_a_shell)
}

/// A path as it is from a folder, without looking at any disk.
fn resolve(folder: &Path, path: &str) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in folder.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if resolved.file_name().is_some() => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    resolved
}
