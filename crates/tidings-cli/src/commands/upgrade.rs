//! An upgrade that refuses no connection: on SIGUSR2 the running hub (the old process) starts a new
//! process and passes it all listening sockets.
//!
//! The new process runs the program that is now at the path of the old one, with the same arguments
//! and environment. Its standard input is one end of a socket pair: the listening sockets arrive
//! over it (`SCM_RIGHTS`), each with its name (`sockets`), and the answer that the new process
//! serves goes back. Nothing else is inherited, so upgrades leak no descriptors. If the new process
//! dies, its end closes, which the old process notices at once.
//!
//! The kernel's queue of connections belongs to the socket, which is never closed: a connection
//! that arrives meanwhile waits in it until one of the two processes accepts it.
//!
//! A store that only one process can use is handed over as well. If the new process finds it in
//! use, and everything else is in order, it answers so. The old process then ends as soon as its
//! connections have been answered, which closes its end of the socket pair: the new process waits
//! for that.

use std::{
    env,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use tidings_server::Leaving;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::{
    sockets::{SOCKETS_MAX, Socket},
    supervisor,
    takeover::Takeover,
};

/// Holds the ID of the old process. Only its direct child accepts it, so processes that a child
/// starts ignore it.
const PREDECESSOR: &str = "TIDINGS_PREDECESSOR";
/// The answer of a new process that serves.
const READY: &[u8] = b"ready\n";
/// The answer of a new process that serves as soon as the store is free. As long as [`READY`].
const WAITS: &[u8] = b"store\n";
/// Most bytes of the names of all sockets.
const NAMES_BYTES_MAX: usize = 64 * 1024;
/// The variables of socket activation. They are not passed on: the new process gets the sockets from
/// us.
const INHERITED: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// A listening socket, behind its name.
pub(super) type NamedSocket = (String, OwnedFd);

/// The old process, which waits for this one to serve.
pub(super) struct OldProcess(UnixStream);

impl OldProcess {
    /// The listening sockets with their names, and the old process, if an upgrade started this
    /// process. Call it once, early.
    pub(super) fn take() -> io::Result<Option<(Vec<NamedSocket>, Self)>> {
        if Self::pid().is_none() {
            return Ok(None);
        }
        let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        let sockets = receive(&link)?;
        Ok(Some((sockets, Self(link))))
    }

    /// The ID of the old process, while it runs and if it started this process.
    pub(super) fn pid() -> Option<u32> {
        let parent = rustix::process::getppid()?.as_raw_nonzero().get().unsigned_abs();
        (env::var(PREDECESSOR).ok()? == parent.to_string()).then_some(parent)
    }

    /// Notifies the old process that this one serves. It then stops accepting.
    pub(super) fn ready(mut self) {
        if let Err(error) = self.0.write_all(READY) {
            tracing::warn!(%error, "the old process has ended already");
        }
    }

    /// Asks the old process to leave the store, and returns when it has ended.
    pub(super) async fn leave(mut self) -> io::Result<()> {
        self.0.write_all(WAITS)?;
        self.0.set_nonblocking(true)?;
        let mut link = tokio::net::UnixStream::from_std(self.0)?;
        // It sends nothing: closing the connection is its answer, however that happens.
        let _ = link.read(&mut [0]).await;
        Ok(())
    }
}

/// Why a process is not upgraded.
pub(super) struct UpgradeRefusal {
    pub(super) always: Option<&'static str>,
    /// The new process would not know that it is to stop.
    pub(super) leaving: Leaving,
}

impl UpgradeRefusal {
    fn reason(&self) -> Option<&'static str> {
        self.always.or_else(|| self.leaving.has_begun().then_some("this process was asked to stop"))
    }
}

/// Waits for SIGUSR2 and carries out upgrades.
pub(super) struct Upgrades {
    requested: Signal,
    sockets: Vec<NamedSocket>,
}

impl Upgrades {
    /// Catches the signal, which would otherwise end the process.
    pub(super) fn of(sockets: &[Socket]) -> io::Result<Self> {
        let requested = signal(SignalKind::user_defined2())?;
        let clone =
            |Socket { name, listener }: &Socket| Ok((name.clone(), listener.as_fd().try_clone_to_owned()?));
        Ok(Self { requested, sockets: sockets.iter().map(clone).collect::<io::Result<_>>()? })
    }

    /// Returns when a new process serves, or waits for the store of this process. A failed upgrade
    /// changes nothing. An upgrade fails if the new process does not answer within `patience`. None is
    /// tried while there is a reason to refuse it.
    pub(super) async fn succeeded(
        mut self,
        patience: Duration,
        holds_store: bool,
        refusal: UpgradeRefusal,
    ) -> Takeover {
        loop {
            if self.requested.recv().await.is_none() {
                return std::future::pending().await;
            }
            if let Some(reason) = refusal.reason() {
                tracing::error!("the upgrade is refused, and nothing has changed: {reason}");
                continue;
            }
            tracing::info!("upgrading: starting a new process");
            match self.succeed(patience, holds_store).await {
                Ok((pid, Takeover::Serves)) => {
                    tracing::info!(new_pid = pid, "upgraded: the new process serves");
                    supervisor::notify(&format!("MAINPID={pid}\nREADY=1"));
                    return Takeover::Serves;
                }
                Ok((pid, Takeover::WaitsForStore)) => {
                    tracing::info!(new_pid = pid, "upgrading: leaving the store to the new process");
                    supervisor::notify(&format!("MAINPID={pid}"));
                    return Takeover::WaitsForStore;
                }
                Err(error) => {
                    tracing::error!("the upgrade failed, and this process continues to serve: {error}");
                }
            }
        }
    }

    async fn succeed(&self, patience: Duration, holds_store: bool) -> io::Result<(u32, Takeover)> {
        let program = env::args_os().next().ok_or_else(|| io::Error::other("the program has no name"))?;
        let (ours, theirs) = UnixStream::pair()?;
        send(&ours, &self.sockets)?;
        let mut new_process = {
            // The command holds the other end, which must be closed here before we wait for its
            // end.
            let mut command = Command::new(&program);
            command.args(env::args_os().skip(1)).stdin(Stdio::from(OwnedFd::from(theirs)));
            command.env(PREDECESSOR, std::process::id().to_string());
            for name in INHERITED {
                command.env_remove(name);
            }
            let spawned = command.spawn().map_err(|error| {
                io::Error::other(format!("{} cannot be started: {error}", program.to_string_lossy()))
            })?;
            Starting(Some(spawned))
        };
        ours.set_nonblocking(true)?;
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        let mut answer = [0; READY.len()];
        match timeout(patience, ours.read_exact(&mut answer)).await {
            Ok(Ok(_)) if answer == READY => Ok((new_process.serves(), Takeover::Serves)),
            Ok(Ok(_)) if answer == WAITS && holds_store => {
                // Stays open until this process ends: the new process waits for that.
                std::mem::forget(ours.into_std()?);
                Ok((new_process.serves(), Takeover::WaitsForStore))
            }
            Ok(Ok(_)) if answer == WAITS => {
                new_process.end().await;
                Err(io::Error::other("the store of the new process is in use by another process"))
            }
            Ok(_) => {
                Err(io::Error::other(format!("the new process exited ({})", new_process.ended().await?)))
            }
            Err(_) => {
                new_process.end().await;
                let secs = patience.as_secs();
                Err(io::Error::other(format!("the new process did not serve within {secs} s (upgrade_secs)")))
            }
        }
    }
}

/// A new process that does not serve yet: dropping this value kills it.
struct Starting(Option<Child>);

impl Starting {
    /// Releases the process, which serves or waits only for the end of this one.
    fn serves(&mut self) -> u32 {
        self.0.take().and_then(|child| child.id()).unwrap_or_default()
    }

    /// Kills the process and reaps it.
    async fn end(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill().await;
        }
    }

    /// The exit status of a process that has closed its end of the connection.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let child = self.0.as_mut().expect("the process was not released");
        let ended = timeout(GRACE, child.wait()).await;
        if let Ok(status) = ended {
            return status;
        }
        self.end().await;
        Err(io::Error::other("it closed its standard input and kept running"))
    }
}

/// How long a process may take to exit after it has closed its end of the connection.
const GRACE: Duration = Duration::from_secs(5);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have exited already.
            let _ = child.start_kill();
        }
    }
}

/// Sends the names, each in a line, an empty line behind them, and with their first byte the sockets.
fn send(link: &UnixStream, sockets: &[NamedSocket]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let mut names = sockets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("\n");
    names.push_str("\n\n");
    let sent = sendmsg(link, &[IoSlice::new(names.as_bytes())], &mut control, SendFlags::empty())?;
    (&*link).write_all(&names.as_bytes()[sent..])
}

fn receive(link: &UnixStream) -> io::Result<Vec<NamedSocket>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    #[cfg(target_os = "linux")]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = RecvFlags::empty();
    let mut message = vec![0; NAMES_BYTES_MAX];
    let mut length = recvmsg(link, &mut [IoSliceMut::new(&mut message)], &mut control, flags)?.bytes;
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let sockets: Vec<OwnedFd> = sockets.flatten().collect();
    while !message[..length].ends_with(b"\n\n") {
        let read = (&*link).read(&mut message[length..])?;
        if read == 0 {
            return Err(io::Error::other("the message is incomplete"));
        }
        length += read;
    }
    let names = std::str::from_utf8(&message[..length - 1]).map_err(io::Error::other)?;
    let names: Vec<String> = names.lines().map(str::to_owned).collect();
    if names.is_empty() || names.len() != sockets.len() {
        let (expected, count) = (names.len(), sockets.len());
        return Err(io::Error::other(format!("the message names {expected} sockets and contains {count}")));
    }
    Ok(names.into_iter().zip(sockets).collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sockets_arrive_with_their_names_as_other_handles_to_the_same_ones() {
        let sockets: Vec<_> = (0..SOCKETS_MAX)
            .map(|number| {
                let socket = TcpListener::bind("127.0.0.1:0").unwrap();
                (format!("listen {number} {}", "x".repeat(500)), socket)
            })
            .collect();
        let addresses: Vec<_> =
            sockets.iter().map(|(name, socket)| (name.clone(), socket.local_addr().unwrap())).collect();
        let sockets: Vec<_> =
            sockets.into_iter().map(|(name, socket)| (name, OwnedFd::from(socket))).collect();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&ours, &sockets).unwrap();
        drop(sockets);
        let received = receive(&theirs).unwrap().into_iter();
        let received: Vec<_> =
            received.map(|(name, socket)| (name, TcpListener::from(socket).local_addr().unwrap())).collect();
        assert_eq!(received, addresses);
    }

    #[test]
    fn a_message_without_sockets_or_end_is_an_error() {
        for message in ["\n\n", "listen 0 127.0.0.1:0\n\n", "listen 0 127.0.0.1:0\n", ""] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(message.as_bytes()).unwrap();
            drop(ours);
            assert!(receive(&theirs).is_err(), "{message:?}");
        }
    }

    #[test]
    fn a_process_not_started_by_an_upgrade_has_no_predecessor() {
        assert!(OldProcess::take().unwrap().is_none());
    }
}
