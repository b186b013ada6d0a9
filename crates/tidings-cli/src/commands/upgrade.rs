//! An upgrade without a refused connection: on SIGUSR2 the running hub starts its successor and hands it the listening socket.
//!
//! The successor is the program that stands under our own name now, with our arguments and environment. Its standard input is one end of
//! a pair of sockets: the listening socket comes over it (`SCM_RIGHTS`), and the word that it serves goes back. Nothing else is inherited, so
//! no descriptor leaks however many upgrades follow each other, and a successor that dies is noticed at once, because its end closes.
//!
//! The kernel's queue of connections belongs to the socket, which is never closed: the one that connects meanwhile waits for the one or the other.
//!
//! A store that one process uses at a time is handed over, too. The successor that finds it in use says so instead, when everything else is in order; this
//! process then ends as soon as those who are connected have been answered, and its end, which closes the link, is what the successor waits for.

use std::{
    env,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    net::TcpListener,
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
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::{listening::Succession, supervisor};

/// Holds the number of the process that waits for its successor. Only its own child believes it, so that it means nothing further down.
const PREDECESSOR: &str = "TIDINGS_PREDECESSOR";
/// What the successor answers when it serves.
const READY: &[u8] = b"ready\n";
/// What it answers when it serves as soon as the store is free. As long as the other word.
const WAITS: &[u8] = b"store\n";
/// What systemd would pass a socket by. It is ours by now, and the successor gets it from us.
const INHERITED: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The process that waits for us to serve.
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// The listening socket and the one who passes it, if this process is a successor. To be called once, early.
    pub(super) fn take() -> io::Result<Option<(TcpListener, Self)>> {
        if Self::pid().is_none() {
            return Ok(None);
        }
        let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        let socket = receive(&link)?;
        Ok(Some((TcpListener::from(socket), Self(link))))
    }

    /// Its number, while it lives and has started this process.
    pub(super) fn pid() -> Option<u32> {
        let parent = rustix::process::getppid()?.as_raw_nonzero().get().unsigned_abs();
        (env::var(PREDECESSOR).ok()? == parent.to_string()).then_some(parent)
    }

    /// Tells it that we serve. It then accepts no more.
    pub(super) fn ready(mut self) {
        if let Err(error) = self.0.write_all(READY) {
            tracing::warn!(%error, "the predecessor has gone without waiting");
        }
    }

    /// Asks it to leave the store to us, and returns when it has ended.
    pub(super) async fn leave(mut self) -> io::Result<()> {
        self.0.write_all(WAITS)?;
        self.0.set_nonblocking(true)?;
        let mut link = tokio::net::UnixStream::from_std(self.0)?;
        // It never says anything: the end of the link is its answer, however it comes.
        let _ = link.read(&mut [0]).await;
        Ok(())
    }
}

/// Waits for the signal and carries upgrades out.
pub(super) struct Upgrades {
    requested: Signal,
    socket: OwnedFd,
}

impl Upgrades {
    /// From now on the signal is ours: before, it would have ended the process.
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        let requested = signal(SignalKind::user_defined2())?;
        Ok(Self { requested, socket: socket.as_fd().try_clone_to_owned()? })
    }

    /// Returns when a successor serves, or has to wait for the store of this process. An upgrade that fails leaves everything as it was; one whose
    /// successor is not as far within this time fails.
    pub(super) async fn succeeded(mut self, patience: Duration, holds_store: bool) -> Succession {
        loop {
            if self.requested.recv().await.is_none() {
                return std::future::pending().await;
            }
            tracing::info!("upgrading: starting a successor");
            match self.succeed(patience, holds_store).await {
                Ok((pid, Succession::Serves)) => {
                    tracing::info!(successor = pid, "a successor has taken over");
                    supervisor::tell(&format!("MAINPID={pid}\nREADY=1"));
                    return Succession::Serves;
                }
                Ok((pid, Succession::WaitsForStore)) => {
                    tracing::info!(successor = pid, "leaving the store to a successor");
                    supervisor::tell(&format!("MAINPID={pid}"));
                    return Succession::WaitsForStore;
                }
                Err(error) => tracing::error!("the upgrade failed, this process goes on serving: {error}"),
            }
        }
    }

    async fn succeed(&self, patience: Duration, holds_store: bool) -> io::Result<(u32, Succession)> {
        let program = env::args_os().next().ok_or_else(|| io::Error::other("the program has no name"))?;
        let (ours, theirs) = UnixStream::pair()?;
        send(&ours, &self.socket)?;
        let mut successor = {
            // The command holds their end; it has to be gone before we wait for the end of ours.
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
            Ok(Ok(_)) if answer == READY => Ok((successor.serves(), Succession::Serves)),
            Ok(Ok(_)) if answer == WAITS && holds_store => {
                // Nobody closes it before this process ends: that is what the successor waits for.
                std::mem::forget(ours.into_std()?);
                Ok((successor.serves(), Succession::WaitsForStore))
            }
            Ok(Ok(_)) if answer == WAITS => {
                successor.end().await;
                Err(io::Error::other("the successor's store is in use by another process"))
            }
            Ok(_) => Err(io::Error::other(format!("the successor ended ({})", successor.ended().await?))),
            Err(_) => {
                successor.end().await;
                let secs = patience.as_secs();
                Err(io::Error::other(format!("the successor did not serve within {secs} s (upgrade_secs)")))
            }
        }
    }
}

/// A successor that does not serve yet: it ends with the attempt.
struct Starting(Option<Child>);

impl Starting {
    /// From here on it is on its own, whether it serves or waits for nothing but our end.
    fn serves(&mut self) -> u32 {
        self.0.take().and_then(|child| child.id()).unwrap_or_default()
    }

    /// Ends it, and waits for that: nothing else would ever ask for its status.
    async fn end(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill().await;
        }
    }

    /// Its end of the link has closed, so it is ending.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let child = self.0.as_mut().expect("it does not serve");
        let ended = timeout(GRACE, child.wait()).await;
        if let Ok(status) = ended {
            return status;
        }
        self.end().await;
        Err(io::Error::other("it closed its standard input and lived on"))
    }
}

/// How long a successor that has closed its end of the link may take to end.
const GRACE: Duration = Duration::from_secs(5);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.start_kill();
        }
    }
}

fn send(link: &UnixStream, socket: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    // Rights travel with at least one byte.
    sendmsg(link, &[IoSlice::new(b"\n")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive(link: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    #[cfg(target_os = "linux")]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = RecvFlags::empty();
    recvmsg(link, &mut [IoSliceMut::new(&mut [0])], &mut control, flags)?;
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    sockets.flatten().next().ok_or_else(|| io::Error::other("the predecessor passed no socket"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_socket_arrives_as_another_handle_to_the_same_one() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&ours, &OwnedFd::from(socket)).unwrap();
        let received = TcpListener::from(receive(&theirs).unwrap());
        assert_eq!(received.local_addr().unwrap(), address);
    }

    #[test]
    fn without_a_socket_there_is_an_error_and_nothing_waits() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"\n").unwrap();
        assert!(receive(&theirs).is_err());
        drop(ours);
        assert!(receive(&theirs).is_err());
        let mut rest = Vec::new();
        (&theirs).read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }

    #[test]
    fn a_process_that_nobody_started_as_a_successor_is_none() {
        assert!(Predecessor::take().unwrap().is_none());
    }
}
