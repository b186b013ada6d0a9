//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them, with a limit on everything that a
//! client can make the server hold or wait for.
//!
//! A connection of a trusted proxy begins with a PROXY header where its listener demands that
//! (`proxied`). Then comes one task per connection ([`Driver::drive`]): it waits for request headers and for admission
//! (`admission`), has the service answer each request (`http1`), and closes the connection so that
//! the client still receives the response. If the response is a stream, the task ends: the hub
//! takes the socket together with the connection's permit (`permits`), so that it still counts. A
//! connection that begins with the HTTP/2 preface is driven by `http2`, with the same service.
//!
//! Invariant: no task outlives [`serve`].

pub(crate) mod admission;
mod body;
pub(crate) mod driver;
mod http2;
pub(crate) mod linger;
pub(crate) mod metrics;
pub(crate) mod peer;
pub(crate) mod permits;
mod proxied;
mod proxy_header_log;
mod rejected;
mod settings;
pub(crate) mod stage;
mod waiting;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tower::Service;

pub(crate) use self::{
    body::{BodyBudget, ReadBody},
    http2::join_cookies,
    rejected::REJECTED_MAX,
};
pub use self::{
    body::{BodyError, read_body},
    metrics::ConnectionMetrics,
    rejected::NoCapacity,
    settings::ConnectionSettings,
};
use self::{
    driver::Driver,
    peer::Peer,
    permits::{ConnectionPermit, ConnectionPermits},
    proxied::read_proxy_header,
    rejected::REJECTED_TIME_MAX,
    stage::{Stage, ending},
};
use crate::{
    acceptor::{Accepted, Acceptor},
    http1::{Connection, Next, RequestBody, Then, Transport, exchange},
    limit_log::Limit,
    listener::Listener,
    tls::Stream,
};

/// The name of the limit in the log.
const CONNECTIONS: Limit = Limit::Setting("connections_max");

/// Of the time over which streams end, the share after which a server that has been succeeded ends
/// idle connections: what they send in the last moment is answered before the hub is closed.
const IDLE_SHARE: f64 = 0.875;

/// How a server ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drain {
    /// No other process takes over: idle connections are closed at once.
    AtOnce,
    /// A new process accepts from the same socket, now or as soon as this server has ended, and the
    /// service ends its streams over this time, after which it refuses requests. A connected client
    /// may send one more until then: the response says `Connection: close`. Connections that are
    /// idle after seven eighths of the time are closed.
    Succeeded(Duration),
}

/// Serves the connections of all listeners until `shutdown` is ready, and then for at most
/// `drain_secs`, until all connections are closed; `shutdown` says how.
///
/// A request has its [`Client`](crate::Client) in its extensions. Responses whose type is
/// `text/event-stream` last as long as the client keeps its side open, and are ended by the service
/// when the server stops. Any other response is delivered also to a client that has shut its
/// sending side.
pub async fn serve<S, B>(
    listeners: Vec<Listener>,
    service: S,
    settings: ConnectionSettings,
    metrics: Arc<ConnectionMetrics>,
    shutdown: impl Future<Output = Drain>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let mut acceptor = Acceptor::new(listeners, Duration::from_secs(settings.dead_peer_secs));
    metrics.open_max.store(settings.connections_max as u64, Relaxed);
    let driver = Driver::new(service, &settings, &metrics);
    let rejecting = driver.rejecting();
    let permits = ConnectionPermits::new(&metrics);
    let rejected = ConnectionPermits::new(&metrics);
    let (stop, stopping) = watch::channel(Stage::Serving);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let drain = loop {
        let has_capacity = || permits.taken() < settings.connections_max;
        let accepts =
            rejected.taken() < REJECTED_MAX || (has_capacity() && !acceptor.is_short_of_descriptors());
        tokio::select! {
            drain = &mut shutdown => break drain,
            Some(ended) = connections.join_next() => report(ended),
            () = permits.returned(), if !accepts => {}
            Accepted { stream, peer, listener, has_descriptor } = acceptor.accept(&metrics), if accepts => {
                metrics.accepted.fetch_add(1, Relaxed);
                let peer = Peer::new(peer, listener);
                let stopping = stopping.clone();
                let has_capacity = has_capacity();
                if has_descriptor && !has_capacity {
                    driver.limits_reached.reached(CONNECTIONS, None);
                }
                // The connection that is closed for this one needs a moment to go, so there may be
                // some more than the limit for as long.
                if (has_capacity && has_descriptor) || driver.admission.free_capacity() {
                    connections.spawn(serve_one(driver.clone(), stream, peer, permits.take(), stopping));
                } else {
                    metrics.refused_full.fetch_add(1, Relaxed);
                    let connection = serve_one(rejecting.clone(), stream, peer, rejected.take(), stopping);
                    connections.spawn(timeout(REJECTED_TIME_MAX, connection).map(|_| ()));
                }
            }
        }
    };

    acceptor.close(drain == Drain::AtOnce);
    tracing::info!(open = permits.taken(), "draining connections");
    let time = Duration::from_secs(settings.drain_secs);
    let leaving = match drain {
        Drain::AtOnce => Duration::ZERO,
        Drain::Succeeded(over) => over.mul_f64(IDLE_SHARE).min(time),
    };
    stop.send_replace(Stage::Leaving);
    let drained = async {
        let all = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        let mut all = pin!(all);
        if timeout(leaving, &mut all).await.is_err() {
            stop.send_replace(Stage::Ending);
            all.await;
        }
        permits.all_returned().await;
    };
    if timeout(time, drained).await.is_err() {
        tracing::warn!(open = permits.taken(), "connections did not end in time and are closed");
    }
    connections.shutdown().await;
}

/// One connection, with what comes before HTTP.
async fn serve_one<S, B>(
    driver: Driver<S>,
    mut stream: TcpStream,
    mut peer: Peer,
    permit: ConnectionPermit,
    stopping: watch::Receiver<Stage>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    if peer.sends_proxy_header() {
        // Boxed, so that it takes no memory afterwards.
        let header = Box::pin(read_proxy_header(driver.shared(), &mut stream, &peer, stopping.clone()));
        let Some(from) = header.await else { return };
        peer.is_proxied_from(from);
    }
    let stream = Stream::new(stream, peer.tls());
    driver.drive(stream, peer, permit, stopping).await;
}

/// A handler that panics ends its own connection, and nothing else.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended with a panic");
    }
}

impl<S> Driver<S> {
    /// One connection, from its first byte to its last, or until the hub has it.
    pub(crate) async fn drive<IO, B>(
        mut self,
        io: IO,
        peer: Peer,
        permit: ConnectionPermit,
        stopping: watch::Receiver<Stage>,
    ) where
        IO: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let mut connection =
            Connection::new(io, peer.neighbourhood(), self.limits, &self.admission, &self.metrics);
        let mut stage = stopping.clone();
        // Fused, because it is polled before each request.
        let mut ending = pin!(ending(&mut stage).fuse());
        let mut is_first = true;
        let refusal = loop {
            let received = match next(&mut connection, ending.as_mut()).await {
                Ok(Next::Request(received)) => received,
                Ok(Next::Http2) => {
                    let (io, early) = connection.into_parts();
                    return Box::pin(self.drive_http2(io, &early, peer, stopping)).await;
                }
                Ok(Next::End) => break None,
                Ok(Next::Refused(refusal)) => {
                    self.log_refused(refusal, &peer);
                    break Some(refusal);
                }
                Err(error) => return tracing::debug!(%error, "a connection failed between two requests"),
            };
            // Boxed, so that an idle connection holds nothing of it.
            let is_first = mem::take(&mut is_first);
            match Box::pin(exchange(&mut connection, &mut self, received, &peer, is_first, &stopping)).await {
                Ok(Then::Next) => {}
                Ok(Then::Close) => break None,
                Ok(Then::HandOver { headers, stream }) => match connection.into_socket() {
                    Ok((socket, early_bytes)) => {
                        return stream.drive_socket(socket, headers, early_bytes, permit);
                    }
                    Err(error) => {
                        return tracing::warn!(%error, "a connection could not be handed over to the hub");
                    }
                },
                // The permit stays with this task, which ends with the server at the latest.
                Ok(Then::Tunnel { headers, end }) => {
                    let (io, early) = connection.into_parts();
                    if let Err(error) = Box::pin(end.carry(io, &headers, &early)).await {
                        tracing::debug!(%error, "a tunnel failed");
                    }
                    return;
                }
                Err(error) => return tracing::debug!(%error, "a connection failed"),
            }
        };
        Box::pin(connection.close(refusal)).await;
    }
}

/// Waits for a request, unless the server ends before a byte of it has arrived.
async fn next<IO: Transport>(
    connection: &mut Connection<IO>,
    ending: Pin<&mut impl Future<Output = ()>>,
) -> io::Result<Next> {
    tokio::select! {
        biased;
        next = poll_fn(|cx| connection.poll_next(cx)) => return next,
        () = ending => {}
    }
    if connection.is_idle() { Ok(Next::End) } else { poll_fn(|cx| connection.poll_next(cx)).await }
}
