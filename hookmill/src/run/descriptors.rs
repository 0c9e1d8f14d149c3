//! File descriptors, which connections share with databases and files.

use hookmill_native::http::CONNECTIONS;
use tracing::warn;

/// The number of descriptors for everything except connections: databases, files of large events, requests to providers.
const RESERVED: usize = 256;

/// The limit that is enough in any case. Not the system's maximum, which some systems do not accept.
const ENOUGH: u64 = 4096;

/// Raises the process's limit of file descriptors if that is allowed, and returns the number of connections that the limit
/// permits.
pub fn connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let unlimited = u64::MAX;
    let before = current.unwrap_or(unlimited);
    let raised = before.max(maximum.unwrap_or(unlimited).min(ENOUGH));
    let wanted = Rlimit { current: Some(raised), maximum };
    let may_raise = raised > before && setrlimit(Resource::Nofile, wanted).is_ok();
    let limit = if may_raise { raised } else { before };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let connections = allowed(limit);
    if connections < CONNECTIONS {
        let recommended = CONNECTIONS + RESERVED;
        warn!(limit, recommended, connections, "the limit of open files is low (ulimit -n)");
    }
    connections
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
