//! What `serve` and `demo` share: a socket, a log, and signals.

use std::{
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tidings_server::Listener;
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

use crate::{config::LogFormat, failure::Failure};

/// The socket that was inherited (`LISTEN_FDS`), or else one at this address; and where it listens.
pub(super) fn listen(address: SocketAddr) -> Result<(Listener, SocketAddr), Failure> {
    let inherited = Listener::inherited().map_err(Failure::runtime)?;
    let listener = match inherited {
        Some(listener) => listener,
        None => Listener::bind(address).map_err(|error| Failure::runtime(format!("--listen: {error}")))?,
    };
    let address = listener
        .local_addr()
        .map_err(|error| Failure::runtime(format!("the socket does not say where it listens: {error}")))?;
    Ok((listener, address))
}

/// How this machine reaches an address that it listens on.
pub(super) fn base_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

/// Logs to standard error: warnings, and what operators want to know. `RUST_LOG` asks for more or less.
pub(super) fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Waits until the program was asked to stop this many times, with Ctrl-C or SIGTERM.
pub(super) async fn stop_requested(times: usize) {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).expect("the runtime handles signals")
    };
    for _ in 0..times {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_means_all_is_reached_at_this_one() {
        for (listen, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            assert_eq!(base_url(listen.parse().unwrap()), url);
        }
    }
}
