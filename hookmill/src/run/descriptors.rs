//! File descriptors, which connections share with databases and files.

use hookmill_native::http::CONNECTIONS;
use tracing::warn;

/// The number of descriptors for everything except connections: databases, files of large events, requests to providers.
const RESERVED: usize = 256;

/// Raises the process's limit of file descriptors as far as it may, and returns the number of connections that this limit
/// allows.
#[cfg(unix)]
pub fn connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let connections = allowed(limit);
    if connections < CONNECTIONS {
        let recommended = CONNECTIONS + RESERVED;
        warn!(limit, recommended, connections, "the limit of open files is low (ulimit -n)");
    }
    connections
}

/// Windows has no limit that matters here.
#[cfg(not(unix))]
pub const fn connections() -> usize {
    CONNECTIONS
}

/// The number of connections with this limit of descriptors.
fn allowed(limit: usize) -> usize {
    limit.saturating_sub(RESERVED).max(limit / 4).min(CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        for (limit, expected) in
            [(64, 16), (256, 64), (400, 144), (1024, 768), (1280, 1024), (usize::MAX, 1024)]
        {
            assert_eq!(allowed(limit), expected);
        }
    }
}
