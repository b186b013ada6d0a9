//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them, with a limit on everything that a
//! client can make the server hold or wait for.
//!
//! One task per connection: it waits for the first request headers ([`GatedIo`]) and for admission
//! ([`Admission`]), answers requests that arrive complete on the fast path (`whole`), leaves
//! everything else to hyper, and closes the connection so that the client still receives the
//! response. If the response is a stream, the connection leaves hyper and the task ends: the hub
//! takes over the socket (`takeover`) together with the connection's permit ([`Place`]), so that it
//! still counts. A connection that begins with the HTTP/2 preface is driven by `http2`, with the
//! same service.
//!
//! Invariant: no task outlives [`serve`].

mod admission;
mod body;
mod exchange;
mod gated;
mod http2;
mod metrics;
mod no_room;
mod places;
mod takeover;
mod waiting;
mod whole;

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, ready},
};
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet, yield_now},
    time::timeout,
};
use tower::Service;

use self::{
    admission::Admission,
    exchange::{AnswerBody, Exchange, answer},
    gated::GatedIo,
    http2::PassQueue,
    no_room::REJECTED_TIME_MAX,
    places::{Place, Places},
    takeover::{Taken, Transport},
};
pub(crate) use self::{
    body::{BodyBudget, ReadBody},
    no_room::REJECTED_MAX,
};
pub use self::{
    body::{BodyError, read_body},
    exchange::PeerAddress,
    metrics::ConnectionMetrics,
    no_room::NoRoom,
    whole::RequestBody,
};
use crate::{
    head::HeadLimits,
    listener::{Accepted, DEAD_PEER_DEFAULT, Listener, connections_for_file_limit},
};

/// Most bytes of an answer that hyper buffers for a reader that is slow, and its unit of reading. A
/// response body that yields larger pieces is asked for the next one only when this much is gone.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Of `drain_secs`, the share after which a server that has been succeeded ends connections without
/// a request, so that answers of the last moment have the rest.
const IDLE_SHARE: f64 = 0.9;

/// Everything a connection may cost before a handler sees its request, each limit with its default,
/// and with what a client receives that goes beyond it. (A body's limits are the handlers', see
/// [`read_body`].)
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionSettings {
    /// Most connections at a time, subscribers included. One more takes the room of a head that is
    /// still waited for, see `heads_waiting_max`, or else of a connection without a request: the
    /// address that has the most of them loses the one that has been idle longest. If there is none
    /// either, it is served one request, marked with [`NoRoom`]: the hub tells its health, asks
    /// browsers to come back later, and answers 503 with Retry-After to everybody else. The same
    /// holds where the system has no more files. Default: what the limit of open files leaves room
    /// for, see [`connections_for_file_limit`].
    pub connections_max: usize,
    /// Seconds from the start of a connection to its first byte. Default 5. A silent connection is
    /// closed without an answer.
    pub first_byte_secs: u64,
    /// Seconds from the start of a connection, or from the first byte of a later request, to the
    /// end of the head. Default 10. Answer: 408.
    pub head_secs: u64,
    /// Seconds that a connection is kept after an answer until the next request begins. Default 75.
    /// It is then closed without an answer, and sooner where others need the room, see
    /// `connections_max`.
    pub keep_alive_secs: u64,
    /// Most bytes of a request line and its headers. Default 32 KiB. Answer: 431.
    pub head_bytes_max: usize,
    /// Most complete first heads that are being answered at a time. Further ones wait for their
    /// turn, in the order in which they came, for at most 5 seconds. Requests whose body is still
    /// to come do not count. Default 1,024, which costs some 20 MiB.
    pub heads_max: usize,
    /// Most heads that are waited for at a time: connections that have said nothing yet, or only a
    /// part of a head. Default 4,096. One more, or one connection more than `connections_max`, and
    /// the address that has the most of them loses its oldest. Answer: 408.
    pub heads_waiting_max: usize,
    /// Whether the sockets of streams over HTTP/1.1 are given to the hub, which spends far less on
    /// each than hyper does. Default: yes on Linux; it means nothing elsewhere. Both ways behave
    /// alike.
    pub raw_streams: bool,
    /// Whether connections may begin with the preface of HTTP/2 (without TLS, "prior knowledge"),
    /// as proxies speak to what stands behind them. Such a connection carries 128 requests at a
    /// time, streams included, and costs some 24 KiB, each stream 2 more. Default: yes. Otherwise
    /// it is answered 505.
    pub http2: bool,
    /// Seconds that the other end of a connection may acknowledge nothing, or take nothing, before
    /// the connection is reset. Default 30: with a heartbeat every 15 seconds, the one that
    /// vanishes is found within 45.
    pub dead_peer_secs: u64,
    /// Seconds that a client may take to receive an answer other than a stream, however little of
    /// it at a time. Default 60. The connection is then reset; over HTTP/2 the request is.
    pub response_secs: u64,
    /// Seconds that running answers are given to end when the server stops. Default 10. What is
    /// left is cut.
    pub drain_secs: u64,
}

/// How a server ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drain {
    /// Nobody takes over: connections without a request are closed at once.
    AtOnce,
    /// Somebody else accepts from the same socket already. The one that is connected may still ask
    /// once: the answer says `Connection: close`. What is idle after nine tenths of `drain_secs` is
    /// closed.
    Succeeded,
    /// Somebody else accepts from the same socket as soon as this server has ended. The same, but
    /// what is idle is closed after this time.
    HandOver(Duration),
}

/// What connections know of the server's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Serving,
    /// The next answer is the last one.
    Leaving,
    /// What is idle is closed.
    Ending,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connections_max: connections_for_file_limit(),
            first_byte_secs: 5,
            head_secs: 10,
            keep_alive_secs: 75,
            head_bytes_max: 32 * 1024,
            heads_max: 1024,
            heads_waiting_max: 4096,
            raw_streams: true,
            http2: true,
            dead_peer_secs: DEAD_PEER_DEFAULT.as_secs(),
            response_secs: 60,
            drain_secs: 10,
        }
    }
}

/// Serves until `shutdown` is ready, and then for at most `drain_secs`, until all connections are
/// closed; `shutdown` says how.
///
/// A request finds the other end's [`PeerAddress`] in its extensions. Answers whose type is
/// `text/event-stream` last as long as the client keeps its side open, and are ended by the one
/// that makes them when the server stops. Any other answer is delivered also to a client that has
/// shut its sending side.
pub async fn serve<S, B>(
    mut listener: Listener,
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
    listener.reset_dead_peers_after(Duration::from_secs(settings.dead_peer_secs));
    let driver = Driver::new(service, &settings, &metrics);
    let without_room = driver.without_room();
    let places = Places::new(&metrics);
    let farewells = Places::new(&metrics);
    let (stop, stopping) = watch::channel(Stage::Serving);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let drain = loop {
        let has_place = || places.taken() < settings.connections_max;
        let accepts =
            farewells.taken() < REJECTED_MAX || (has_place() && !listener.is_short_of_descriptors());
        tokio::select! {
            drain = &mut shutdown => break drain,
            Some(ended) = connections.join_next() => report(ended),
            () = places.given_back(), if !accepts => {}
            Accepted { stream, peer, has_descriptor } = listener.accept(&metrics), if accepts => {
                metrics.accepted.fetch_add(1, Relaxed);
                let stopping = stopping.clone();
                // The one that makes room needs a moment to go, so there may be some connections
                // more than the limit for as long.
                if (has_place() && has_descriptor) || driver.admission.make_room() {
                    connections.spawn(driver.clone().drive(stream, peer, places.take(), stopping));
                } else {
                    metrics.refused_full.fetch_add(1, Relaxed);
                    let farewell = without_room.clone().drive(stream, peer, farewells.take(), stopping);
                    connections.spawn(timeout(REJECTED_TIME_MAX, farewell).map(|_| ()));
                }
            }
        }
    };

    drop(listener);
    tracing::info!(open = places.taken(), "draining connections");
    let time = Duration::from_secs(settings.drain_secs);
    let leaving = match drain {
        Drain::AtOnce => Duration::ZERO,
        Drain::Succeeded => time.mul_f64(IDLE_SHARE),
        Drain::HandOver(idle) => time.mul_f64(IDLE_SHARE).min(idle),
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
        places.emptied().await;
    };
    if timeout(time, drained).await.is_err() {
        tracing::warn!(open = places.taken(), "connections did not end in time and are closed");
    }
    connections.shutdown().await;
}

/// A handler that panics ends its own connection, and nothing else.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended with a panic");
    }
}

/// What every connection's task needs.
#[derive(Clone)]
struct Driver<S> {
    service: S,
    limits: HeadLimits,
    http: http1::Builder,
    dead_peer: Duration,
    answer_time: Duration,
    raw_streams: bool,
    /// Otherwise each request is marked with [`NoRoom`].
    has_room: bool,
    admission: Arc<Admission>,
    busy: PassQueue,
    metrics: Arc<ConnectionMetrics>,
}

/// A connection that has left hyper.
struct Left<IO> {
    gated: GatedIo<IO>,
    /// What hyper has read of what the client sent last.
    read_bytes: usize,
    /// The stream that the hub is to carry; none if there will be no more requests.
    taken: Option<Taken>,
}

impl<S> Driver<S> {
    fn new(service: S, settings: &ConnectionSettings, metrics: &Arc<ConnectionMetrics>) -> Self {
        let limits = HeadLimits {
            first_byte: Duration::from_secs(settings.first_byte_secs),
            head: Duration::from_secs(settings.head_secs),
            keep_alive: Duration::from_secs(settings.keep_alive_secs),
            head_bytes_max: settings.head_bytes_max,
            http2: settings.http2,
        };
        let mut http = http1::Builder::new();
        // hyper's buffer must hold the largest head that the gate lets through.
        http.max_buf_size(BUFFER_BYTES_MAX.max(2 * settings.head_bytes_max));
        Self {
            service,
            limits,
            http,
            dead_peer: Duration::from_secs(settings.dead_peer_secs),
            answer_time: Duration::from_secs(settings.response_secs),
            raw_streams: settings.raw_streams,
            has_room: true,
            admission: Arc::new(Admission::with_limits(settings.heads_waiting_max, settings.heads_max)),
            busy: PassQueue::new(),
            metrics: Arc::clone(metrics),
        }
    }

    fn gate<IO: Transport>(&self, io: IO, peer: SocketAddr) -> GatedIo<IO> {
        let peer = peer.ip().to_canonical();
        GatedIo::new(io, peer, self.limits, self.answer_time, &self.admission, &self.metrics)
    }

    /// One connection, from its first byte to its last, or until the hub has it.
    async fn drive<IO, B>(self, io: IO, peer: SocketAddr, place: Place, mut stopping: watch::Receiver<Stage>)
    where
        IO: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let mut gated = self.gate(io, peer);
        match next_head(&mut gated, &mut stopping).await {
            Ok(true) => {}
            Ok(false) => return gated.close().await,
            Err(error) => return tracing::debug!(%error, "a connection failed before its first request"),
        }
        if gated.speaks_http2() {
            // Boxed for the same reason as below.
            return Box::pin(self.drive_http2(gated, peer, stopping)).await;
        }
        // A body may take its time, and need not be waited for by others.
        let turn = if gated.is_answering() { self.admission.turn().await } else { None };
        gated.exchange().begin(self.raw_streams && IO::IS_SOCKET, turn);
        // hyper's state is large, and boxed so that a connection without a head does not have it.
        match Box::pin(self.exchange(gated, peer, stopping)).await {
            Ok(Left { gated, taken: None, .. }) => gated.close().await,
            Ok(Left { gated, read_bytes, taken: Some(taken) }) => match gated.into_socket() {
                Ok((socket, early_bytes)) => taken.hand_over(socket, read_bytes + early_bytes, place),
                Err(error) => tracing::warn!(%error, "a connection could not be handed over to the hub"),
            },
            Err(error) => tracing::debug!(%error, "a connection failed"),
        }
    }

    /// Answers requests until one side ends it or a stream begins, and takes the socket back:
    /// itself as long as they come whole, then by way of hyper.
    async fn exchange<IO, B>(
        self,
        mut gated: GatedIo<IO>,
        peer: SocketAddr,
        mut stopping: watch::Receiver<Stage>,
    ) -> Result<Left<IO>, Box<dyn Error + Send + Sync>>
    where
        IO: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let peer = PeerAddress(SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        let exchange = gated.exchange();
        let for_hyper = loop {
            let Some(bytes) = gated.take_whole() else { break None };
            let Some(request) = whole::request(&bytes) else {
                gated.give_back(&bytes);
                break None;
            };
            let answer = pin!(self.answer(request, peer, &exchange, &stopping));
            let answer = match or_taken(answer, &exchange).await {
                Ok(answer) => answer,
                Err(taken) => return Ok(Left { gated, read_bytes: 0, taken: Some(taken) }),
            };
            if !whole::is_whole(&answer) {
                gated.give_back(&bytes);
                break Some(answer);
            }
            let is_last = whole::closes(&answer);
            let answer = whole::answer_bytes(answer, SystemTime::now()).await?;
            // The one that else has asked is received first, and then the answers leave together: a
            // publisher with several connections is woken once for all of them instead of once for
            // each, which costs us more than to make an answer.
            yield_now().await;
            gated.write_answer(&answer).await?;
            if is_last || !next_head(&mut gated, &mut stopping).await? {
                return Ok(Left { gated, read_bytes: 0, taken: None });
            }
        };
        // Boxed, because few connections come here and hyper's state is large.
        Ok(Box::pin(self.exchange_by_hyper(gated, for_hyper, peer, stopping)).await?)
    }

    async fn exchange_by_hyper<IO, B>(
        self,
        gated: GatedIo<IO>,
        first_answer: Option<Response<AnswerBody<B>>>,
        peer: PeerAddress,
        mut stopping: watch::Receiver<Stage>,
    ) -> hyper::Result<Left<IO>>
    where
        IO: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let mut http = self.http.clone();
        // Then the answer says `Connection: close`, so that the client does not send another
        // request in vain.
        http.keep_alive(self.has_room && *stopping.borrow() == Stage::Serving);
        let exchange = gated.exchange();
        let first_answer = Mutex::new(first_answer);
        let service = {
            let (exchange, stopping) = (Arc::clone(&exchange), stopping.clone());
            service_fn(move |request: Request<Incoming>| {
                let first_answer = first_answer.lock().expect("nothing panics while it holds this").take();
                let answer = match first_answer {
                    Some(answer) => Either::Left(ready(answer)),
                    None => {
                        Either::Right(self.answer(request.map(RequestBody::from), peer, &exchange, &stopping))
                    }
                };
                answer.map(Ok::<_, Infallible>)
            })
        };
        let mut connection = http.serve_connection(gated, service);
        let left = tokio::select! {
            biased; // hyper takes the head that waits before it receives that it should stop
            left = done_or_taken(&mut connection, &exchange) => Some(left),
            () = stopped(&mut stopping) => None,
        };
        let taken = if let Some(left) = left {
            left?
        } else {
            Pin::new(&mut connection).graceful_shutdown();
            done_or_taken(&mut connection, &exchange).await?
        };
        let parts = connection.into_parts();
        Ok(Left { gated: parts.io, read_bytes: parts.read_buf.len(), taken })
    }

    /// Has the service answer one request.
    fn answer<B>(
        &self,
        mut request: Request<RequestBody>,
        peer: PeerAddress,
        exchange: &Arc<Exchange>,
        stopping: &watch::Receiver<Stage>,
    ) -> impl Future<Output = Response<AnswerBody<B>>> + use<S, B>
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone,
    {
        self.metrics.requests.fetch_add(1, Relaxed);
        let has_room = self.has_room;
        if !has_room {
            request.extensions_mut().insert(NoRoom);
        }
        let stage = stopping.clone();
        answer(self.service.clone(), request, peer, Arc::clone(exchange)).map(move |mut response| {
            if !has_room || *stage.borrow() != Stage::Serving {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        })
    }
}

/// Polls hyper until it is done, or has nothing to do but wait for an answer that was taken from
/// it.
async fn done_or_taken(
    connection: &mut (impl Future<Output = hyper::Result<()>> + Unpin),
    exchange: &Exchange,
) -> hyper::Result<Option<Taken>> {
    match or_taken(Pin::new(connection), exchange).await {
        Ok(done) => done.map(|()| None),
        Err(taken) => Ok(Some(taken)),
    }
}

/// Polls an answer until it is there, or is a stream that was taken from it.
async fn or_taken<F: Future>(mut answer: Pin<&mut F>, exchange: &Exchange) -> Result<F::Output, Taken> {
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Ok(answer)),
        Poll::Pending => exchange.take_taken().map_or(Poll::Pending, |taken| Poll::Ready(Err(taken))),
    })
    .await
}

/// Waits for a head, unless the server stops before a byte of it has come.
async fn next_head<IO: Transport>(
    gated: &mut GatedIo<IO>,
    stopping: &mut watch::Receiver<Stage>,
) -> io::Result<bool> {
    tokio::select! {
        biased;
        head = poll_fn(|cx| gated.poll_released(cx)) => return head,
        () = stopped(stopping) => {}
    }
    if gated.is_quiet() { Ok(false) } else { poll_fn(|cx| gated.poll_released(cx)).await }
}

async fn stopped(stopping: &mut watch::Receiver<Stage>) {
    // An error means that the server is gone, which ends this task too.
    let _ = stopping.wait_for(|stage| *stage == Stage::Ending).await;
}

#[cfg(test)]
mod tests;
