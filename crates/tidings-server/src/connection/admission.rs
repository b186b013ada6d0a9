//! Admission: which incomplete requests are waited for, and how many requests are answered at a
//! time.
//!
//! Two limits, before and after the request headers are complete. Before, a connection costs
//! little, but slow ones can take all capacity: at the limit, and also when no connection is free,
//! one of them is closed for each new one (`waiting` chooses). After, a connection costs what the
//! handler needs, some 10 KiB: after a restart, all subscribers reconnect at once, and most of them
//! wait here for admission.
//!
//! Connections that are idle between two requests have no limit of their own, but are tracked here
//! too, because they are closed when no connection is free and none has incomplete request headers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Context,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::waiting::{Age, Waiting};
use crate::{
    client_address::Neighbourhood,
    limit_log::{Limit, LimitLog},
};

/// Longest time that a complete request waits for its permit. It then goes on without: should those
/// before it wait for a log that does not answer, the others, health checks among them, are late
/// but not shut out.
const PERMIT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Most memory that incomplete request headers take together. Beyond, each connection whose headers
/// grow makes the address with the most of them lose its oldest. Headers can be as large as
/// `request_headers_bytes_max`, so their number alone would bound little.
const HEADERS_BYTES_TOGETHER_MAX: usize = 32 * 1024 * 1024;

/// The names of the limits in the log.
const REQUESTS_ARRIVING: Limit = Limit::Setting("requests_arriving_max");
const HEADERS_BYTES: Limit = Limit::Fixed("memory for request headers that are still arriving");

/// The limits of one server, and who counts towards them.
pub(crate) struct Admission {
    limits: Arc<LimitLog>,
    headers_bytes: AtomicUsize,
    incomplete: Mutex<Waiting<Arc<Notifier>>>,
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
}

/// The connections that are kept for a next request, by the order in which they began to wait for
/// it. Each request of a publisher enters and leaves it, so it knows no addresses.
#[derive(Default, Debug)]
struct Idle {
    last_number: u64,
    connections: BTreeMap<u64, Arc<Notifier>>,
}

/// What a connection waits for that may be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// The rest of request headers, or the first byte of the first ones.
    Headers,
    /// Another request, of which nothing has come.
    Request,
}

/// A request's permission to be answered now, returned when it is dropped; none if it has waited too
/// long for one.
pub(crate) type AnswerPermit = Option<OwnedSemaphorePermit>;

/// The permit of one request, or of several, until one of those that share it gives it back. In the
/// extensions of a request it lets a handler give it back that waits for somebody else, for as long
/// as they need.
#[derive(Clone, Debug)]
pub(crate) struct SharedPermit(Arc<Mutex<AnswerPermit>>);

impl SharedPermit {
    pub(crate) fn new(permit: AnswerPermit) -> Self {
        Self(Arc::new(Mutex::new(permit)))
    }

    pub(crate) fn give_back(&self) {
        *self.0.lock().expect(NO_PANIC) = None;
    }
}

impl Admission {
    pub(super) fn with_limits(incomplete_max: usize, requests_max: usize, limits: &Arc<LimitLog>) -> Self {
        Self {
            limits: Arc::clone(limits),
            headers_bytes: AtomicUsize::new(0),
            incomplete: Mutex::new(Waiting::new(incomplete_max.max(1))),
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(requests_max.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits until a complete request may be answered, in the order of arrival.
    pub(crate) async fn answer_permit(&self) -> AnswerPermit {
        timeout(PERMIT_WAIT_MAX, Arc::clone(&self.permits).acquire_owned()).await.ok().and_then(Result::ok)
    }

    /// Begins to wait for a client at this address; `None` if it is not known yet.
    pub(crate) fn wait_for(self: &Arc<Self>, awaited: Awaited, address: Option<Neighbourhood>) -> Wait {
        let notifier = Arc::<Notifier>::default();
        let line = match awaited {
            Awaited::Headers => {
                let now = Instant::now().into_std();
                let (age, gone) = self.incomplete().enter(address, now, Arc::clone(&notifier));
                if let Some(gone) = gone {
                    gone.notify();
                    self.limits.reached(REQUESTS_ARRIVING, None);
                }
                Line::Incomplete(address, age)
            }
            Awaited::Request => {
                let mut idle = self.idle();
                idle.last_number += 1;
                let number = idle.last_number;
                idle.connections.insert(number, Arc::clone(&notifier));
                Line::Idle(number)
            }
        };
        Wait { admission: Arc::clone(self), line, notifier, bytes: 0 }
    }

    /// Gives up a connection with incomplete request headers, or else the one that has been idle
    /// longest, so that another one finds capacity. False if there is none.
    pub(crate) fn free_capacity(&self) -> bool {
        let incomplete = self.incomplete().give_up();
        let gone = incomplete.or_else(|| self.idle().connections.pop_first().map(|(_, notifier)| notifier));
        gone.inspect(|notifier| notifier.notify()).is_some()
    }

    fn incomplete(&self) -> MutexGuard<'_, Waiting<Arc<Notifier>>> {
        self.incomplete.lock().expect(NO_PANIC)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect(NO_PANIC)
    }
}

const NO_PANIC: &str = "nothing panics while it holds this";

/// Tells a connection that it has been given up.
#[derive(Default, Debug)]
struct Notifier {
    notified: AtomicBool,
    waker: AtomicWaker,
}

impl Notifier {
    fn notify(&self) {
        self.notified.store(true, Relaxed);
        self.waker.wake();
    }
}

/// One connection that is being waited for, until this is dropped.
pub(crate) struct Wait {
    admission: Arc<Admission>,
    line: Line,
    notifier: Arc<Notifier>,
    /// What has arrived of its request headers takes this much memory.
    bytes: usize,
}

/// Where it waits.
#[derive(Debug)]
enum Line {
    Incomplete(Option<Neighbourhood>, Age),
    Idle(u64),
}

impl Wait {
    pub(crate) fn awaited(&self) -> Awaited {
        match self.line {
            Line::Incomplete(..) => Awaited::Headers,
            Line::Idle(_) => Awaited::Request,
        }
    }

    /// What has arrived of the request headers takes this much memory. If that is too much for all
    /// of them together, one of them is given up.
    pub(crate) fn hold(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return;
        }
        self.bytes = bytes;
        let before = self.admission.headers_bytes.fetch_add(more, Relaxed);
        if before + more > HEADERS_BYTES_TOGETHER_MAX {
            let gone = self.admission.incomplete().give_up();
            gone.inspect(|notifier| notifier.notify());
            self.admission.limits.reached(HEADERS_BYTES, None);
        }
    }

    /// Whether there is no capacity for it any more; if not yet, the task is woken when that
    /// changes.
    pub(crate) fn is_given_up(&self, cx: &Context<'_>) -> bool {
        self.notifier.waker.register(cx.waker());
        self.notifier.notified.load(Relaxed)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.admission.headers_bytes.fetch_sub(self.bytes, Relaxed);
        // Nothing happens if it has been given up.
        match self.line {
            Line::Incomplete(address, age) => drop(self.admission.incomplete().leave(address, age)),
            Line::Idle(number) => drop(self.admission.idle().connections.remove(&number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, net::SocketAddr};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        sync::watch,
        time::sleep,
    };

    use super::super::{
        ConnectionMetrics, ConnectionSettings, Driver, Peer, RequestBody, Stage, permits::ConnectionPermits,
    };
    use super::*;
    use crate::http1::HTTP2_PREFACE;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Connects clients to a server that answers one request at a time, but never `/never`, nor
    /// `/waits`, which gives its permit back.
    fn server() -> impl Fn(&[u8]) -> DuplexStream {
        let service = tower::service_fn(async |request: Request<RequestBody>| {
            let path = request.uri().path();
            if path == "/waits" {
                request.extensions().get::<SharedPermit>().inspect(|permit| permit.give_back());
            }
            if matches!(path, "/never" | "/waits") {
                pending::<()>().await;
            }
            let length = if path == "/large" { 64 * 1024 } else { 5 };
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(vec![b'x'; length])))
        });
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver =
            Driver::new(service, &ConnectionSettings { requests_max: 1, ..Default::default() }, &metrics);
        let (stop, stopping) = watch::channel(Stage::Serving);
        move |request| {
            let _running = &stop;
            let (mut client, theirs) = duplex(4096);
            let peer = Peer::of(SocketAddr::from(([127, 0, 0, 1], 1)));
            let permit = ConnectionPermits::new(&metrics).take();
            tokio::spawn(driver.clone().drive(theirs, peer, permit, stopping.clone()));
            let sent = futures_util::FutureExt::now_or_never(client.write_all(request));
            sent.expect("there is room").expect("open");
            client
        }
    }

    async fn secs_to_answer(mut client: DuplexStream) -> u64 {
        let start = Instant::now();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 200");
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_its_permit_but_not_for_ever() {
        let connect = server();
        let mut kept = connect(GET);
        let _ = kept.read(&mut [0; 4096]).await.expect("an answer");
        let _holds_the_permit = connect(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
        tokio::task::yield_now().await;
        kept.write_all(GET).await.expect("there is room");
        assert_eq!(secs_to_answer(kept).await, 0, "only the first request of a connection waits");
        assert_eq!(secs_to_answer(connect(GET)).await, PERMIT_WAIT_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn answered_connections_and_an_incomplete_body_hold_no_permit() {
        let connect = server();
        let mut kept = connect(GET);
        kept.read_exact(&mut [0; 12]).await.expect("an answer");
        let _unread_response = connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        let _body_to_come = connect(b"POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
        tokio::task::yield_now().await;
        assert_eq!(secs_to_answer(connect(GET)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_waits_for_somebody_else_can_give_its_permit_back() {
        let http1 = b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n";
        let http2 = b"\0\0\0\x04\0\0\0\0\0\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x04\x06/waits\x41\x01a";
        for request in [&http1[..], &[HTTP2_PREFACE, http2].concat()] {
            let connect = server();
            let _waits = connect(request);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(secs_to_answer(connect(GET)).await, 0);
        }
    }

    #[tokio::test]
    async fn incomplete_headers_together_stay_within_their_memory() {
        let admission = Arc::new(Admission::with_limits(4096, 1, &Arc::default()));
        let address =
            |last: u8| Some(Neighbourhood::Network(std::net::Ipv4Addr::new(192, 0, 2, last).into()));
        let is_given_up = |wait: &Wait| wait.notifier.notified.load(Relaxed);
        let mut quiet = admission.wait_for(Awaited::Headers, address(1));
        quiet.hold(100);
        let mut large = Vec::new();
        for _ in 0..4096 {
            let mut wait = admission.wait_for(Awaited::Headers, address(2));
            wait.hold(32 * 1024);
            large.push(wait);
            large.retain(|wait| !is_given_up(wait));
            assert!(admission.headers_bytes.load(Relaxed) <= HEADERS_BYTES_TOGETHER_MAX);
        }
        assert!(large.len() > 1_000 && !is_given_up(&quiet));
        drop((large, quiet));
        assert_eq!(admission.headers_bytes.load(Relaxed), 0);
    }
}
