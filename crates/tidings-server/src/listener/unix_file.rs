//! The file of a Unix socket: its mode, what is done about one that is there already, and its
//! removal.
//!
//! Invariants: nothing can connect before the file has its mode; a file is removed only if it still
//! is the one of this socket.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a listening socket, removed when this is dropped, if it is owned.
#[derive(Debug)]
pub(super) struct UnixFile {
    path: PathBuf,
    /// Device and inode: another process may have replaced the file.
    identity: Option<(u64, u64)>,
    pub(super) is_owned: bool,
}

impl UnixFile {
    /// The file of a socket that listens already.
    pub(super) fn existing(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path), is_owned: false }
    }

    /// Creates the file of a socket, which then listens. A file that no process listens on any more
    /// is replaced.
    pub(super) fn create(path: &Path, mode: u32, backlog: i32) -> io::Result<(Socket, Self)> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                check_stale(path, &address)?;
                fs::remove_file(path)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let mut file = Self::existing(path);
        file.is_owned = true;
        // Until the socket listens, connecting fails whatever the mode is.
        file.set_mode(mode)?;
        socket.listen(backlog)?;
        Ok((socket, file))
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if self.is_owned
            && self.identity.is_some()
            && self.identity == identity(&self.path)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the file of a Unix socket cannot be removed");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Refuses a path that is in use, by a process or by a file of another kind.
fn check_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let in_use = |why: &str| io::Error::new(io::ErrorKind::AddrInUse, why);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("there is a file that is not a socket; choose another path"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue would block.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(in_use("another program listens there; stop it or choose another path")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_file_has_its_mode_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("hub.sock");
        for mode in [0o600, 0o660, 0o666] {
            let (_socket, file) = UnixFile::create(&path, mode, 8).expect("created");
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, mode);
            drop(file);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("hub.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a socket leaves its file");
        let (_socket, file) = UnixFile::create(&path, 0o600, 8).expect("a stale file is replaced");
        UnixStream::connect(&path).expect("it listens");
        let refused = UnixFile::create(&path, 0o600, 8).expect_err("it is in use");
        assert!(refused.to_string().contains("another program listens there"), "{refused}");
        drop(file);

        fs::write(&path, "precious").expect("written");
        let refused = UnixFile::create(&path, 0o600, 8).expect_err("it is not a socket");
        assert!(refused.to_string().contains("not a socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");
    }

    #[test]
    fn a_file_that_was_replaced_or_is_not_owned_is_left_alone() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("hub.sock");
        let (_socket, file) = UnixFile::create(&path, 0o600, 8).expect("created");
        // Moved, so that its inode is not used again.
        fs::rename(&path, folder.path().join("old.sock")).expect("moved");
        let _other = UnixListener::bind(&path).expect("bound");
        drop(file);
        assert!(path.exists(), "it is the file of another process");
        drop(UnixFile::existing(&path));
        assert!(path.exists(), "it is not owned");
    }
}
