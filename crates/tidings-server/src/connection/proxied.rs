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
