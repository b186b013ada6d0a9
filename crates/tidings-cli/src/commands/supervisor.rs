//! Notifications for a supervisor that sets `NOTIFY_SOCKET`, as systemd does for services of
//! `Type=notify` (sd_notify(3)): one datagram with lines such as `READY=1`. Without the variable
//! nothing is sent.

#[cfg(unix)]
use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
};

/// Sends a state. The hub serves on even if the supervisor cannot be reached.
#[cfg(unix)]
pub(super) fn notify(state: &str) {
    let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else { return };
    if let Err(error) = send(&address, state) {
        tracing::warn!(%error, "NOTIFY_SOCKET cannot be reached");
    }
}

/// Reports that the configuration is being reloaded; `READY=1` reports its end. (`Type=notify-reload`
/// demands the time.)
#[cfg(unix)]
pub(super) fn notify_reloading() {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

#[cfg(not(unix))]
pub(super) fn notify_reloading() {}

#[cfg(not(unix))]
pub(super) fn notify(_state: &str) {}

/// An address that begins with `@` is a name in the abstract namespace of Linux.
#[cfg(unix)]
fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A supervisor that reads nothing must not block a thread that serves.
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        return socket.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?).map(drop);
    }
    socket.send_to(state.as_bytes(), address).map(drop)
}
