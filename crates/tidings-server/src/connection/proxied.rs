//! The header of the PROXY protocol, with which the connections of trusted proxies begin on a
//! listener that demands it.
//!
//! It comes before everything else, TLS included, and nothing behind it is read here. It is never
//! guessed: a trusted peer has to send one, and from any other peer it is a malformed request.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
    time::sleep,
};

use super::{
    admission::Awaited,
    driver::Shared,
    peer::Peer,
    proxy_header_log::RefusedHeader,
    stage::{Stage, ending},
};
use crate::proxy_header::{InvalidProxyHeader, ProxiedFrom, ProxyHeader};

/// Why a connection has no header.
enum NoHeader {
    /// It ended, or was closed for others, before anything arrived: a health check, perhaps.
    Ended,
    /// It is incomplete, too late or malformed.
    Refused { reason: &'static str, error: String },
}

/// Reads the header. Without one, the connection is to be closed.
pub(super) async fn read_proxy_header(
    shared: Arc<Shared>,
    io: &mut (impl AsyncRead + Unpin),
    peer: &Peer,
    mut stopping: watch::Receiver<Stage>,
) -> Option<ProxiedFrom> {
    // It may be closed when others need the capacity, like one whose request headers are incomplete.
    let wait = shared.admission.wait_for(Awaited::Headers, None);
    let given_up = poll_fn(|cx| if wait.is_given_up(cx) { Poll::Ready(()) } else { Poll::Pending });
    let mut bytes = Vec::new();
    let outcome = tokio::select! {
        outcome = read(io, &mut bytes) => outcome,
        () = given_up => Err(NoHeader::Ended),
        () = ending(&mut stopping) => Err(NoHeader::Ended),
        () = sleep(shared.limits.first_byte) => Err(NoHeader::Refused {
            reason: "late",
            error: "its PROXY header did not arrive in time".to_owned(),
        }),
    };
    match outcome {
        Ok(from) => return Some(from),
        Err(NoHeader::Ended) => {}
        Err(NoHeader::Refused { reason, error }) => {
            shared.metrics.refused_proxy_header.fetch_add(1, Relaxed);
            shared.proxy_headers.record(reason, RefusedHeader { peer: peer.address(), error });
        }
    }
    None
}

async fn read(io: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<ProxiedFrom, NoHeader> {
    loop {
        let more = match ProxyHeader::parse(bytes) {
            Ok(ProxyHeader::Complete { from, .. }) => return Ok(from),
            Ok(ProxyHeader::Incomplete(more)) => more,
            Err(error) => {
                let reason = if error == InvalidProxyHeader::Absent { "absent" } else { "malformed" };
                return Err(NoHeader::Refused { reason, error: error.to_string() });
            }
        };
        let start = bytes.len();
        bytes.resize(start + more, 0);
        // Each part is looked at as it arrives: a peer that sends something else is refused at once.
        let arrived = io.read(&mut bytes[start..]).await;
        bytes.truncate(start + *arrived.as_ref().unwrap_or(&0));
        match arrived {
            Ok(0) if start == 0 => return Err(NoHeader::Ended),
            Ok(0) => {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof).to_string();
                return Err(NoHeader::Refused { reason: "incomplete", error });
            }
            Ok(_) => {}
            Err(_) => return Err(NoHeader::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::{
        io::{AsyncWriteExt, DuplexStream, duplex},
        task::{JoinHandle, yield_now},
        time::Instant,
    };

    use super::{
        super::{ConnectionMetrics, ConnectionSettings, Driver},
        *,
    };
    use crate::{client_address::ClientAddress, listener::ListenerSettings, proxies::ClientAddressSource};

    /// A connection of a trusted proxy.
    struct Proxy {
        io: DuplexStream,
        shared: Arc<Shared>,
        stop: watch::Sender<Stage>,
        header: JoinHandle<Option<ProxiedFrom>>,
        start: Instant,
    }

    impl Proxy {
        /// It has sent a part of its header.
        async fn connect() -> Self {
            let (mut io, mut theirs) = duplex(1024);
            io.write_all(b"PROXY TCP4 192.0.2.1").await.expect("room");
            let metrics = Arc::<ConnectionMetrics>::default();
            let shared = Driver::new((), &ConnectionSettings::default(), &metrics).shared();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let settings = ListenerSettings {
                client_address: ClientAddressSource::ProxyProtocol,
                trusted_proxies: ["127.0.0.1".parse().expect("a proxy")].into_iter().collect(),
                ..ListenerSettings::default()
            };
            let peer = Peer::new(ClientAddress::of(address.ip()), Arc::new(settings));
            let (stop, stopping) = watch::channel(Stage::Serving);
            let start = Instant::now();
            let reading = Arc::clone(&shared);
            let header =
                tokio::spawn(async move { read_proxy_header(reading, &mut theirs, &peer, stopping).await });
            yield_now().await;
            Self { io, shared, stop, header, start }
        }

        /// Whether there was a header, after how many seconds, and how often one was refused.
        async fn outcome(self) -> (bool, u64, u64) {
            let header = self.header.await.expect("no panic");
            let refused = self.shared.metrics.refused_proxy_header.load(Relaxed);
            (header.is_some(), self.start.elapsed().as_secs(), refused)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_header_is_waited_for_until_others_need_the_capacity() {
        let mut proxy = Proxy::connect().await;
        proxy.io.write_all(b" 192.0.2.2 1 2\r\n").await.expect("room");
        assert_eq!(proxy.outcome().await, (true, 0, 0));

        assert_eq!(Proxy::connect().await.outcome().await, (false, 5, 1));

        let proxy = Proxy::connect().await;
        assert!(proxy.shared.admission.free_capacity());
        assert_eq!(proxy.outcome().await, (false, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_header_does_not_delay_the_end_of_the_server() {
        let proxy = Proxy::connect().await;
        proxy.stop.send_replace(Stage::Ending);
        assert_eq!(proxy.outcome().await, (false, 0, 0));
    }
}
