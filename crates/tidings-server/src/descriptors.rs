//! The limit on file descriptors of the process, and how many connections it allows.

use std::io;

/// File descriptors that the process needs apart from its connections: segments of its log, its own
/// connections to backends, the listeners, the reserve, connections that are being rejected.
const FILES_RESERVED: u64 = 256;
/// Where the system has no limit on file descriptors, or a very large one, memory is the limit; an
/// operator can raise `connections_max`.
const CONNECTIONS_DEFAULT_MAX: u64 = 1_000_000;

/// How many connections the limit on file descriptors allows.
pub fn connections_for_file_limit() -> usize {
    connections_for(file_limit())
}

/// With a small limit, half of the descriptors are for connections.
fn connections_for(files: Option<u64>) -> usize {
    let room =
        files.map_or(CONNECTIONS_DEFAULT_MAX, |files| files.saturating_sub(FILES_RESERVED).max(files / 2));
    usize::try_from(room.min(CONNECTIONS_DEFAULT_MAX)).unwrap_or(usize::MAX)
}

/// The soft limit on file descriptors; none where there is no limit.
#[cfg(unix)]
fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn file_limit() -> Option<u64> {
    None
}

/// Raises the soft limit on file descriptors to the hard one, and returns it; none where there is
/// no limit. Must be called before [`connections_for_file_limit`].
#[cfg(unix)]
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}

/// This system has no limit on file descriptors to raise.
#[cfg(not(unix))]
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_file_descriptors_for_everything_else() {
        assert_eq!(connections_for(Some(256)), 128);
        assert_eq!(connections_for(Some(1_024)), 1_024 - 256);
        assert_eq!(connections_for(Some(20_000)), 20_000 - 256);
        assert_eq!(connections_for(None), 1_000_000);
    }
}
