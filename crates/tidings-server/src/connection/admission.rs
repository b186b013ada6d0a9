//! Admission: which incomplete requests are waited for, and how many requests are answered at a
//! time.
//!
//! Two limits, before and after the request headers are complete. Before, a connection costs
//! little, but slow ones can take all capacity: at the limit, and also when no connection is free,
//! one of them is closed for each new one (`waiting` chooses). After, a connection costs what hyper
//! and the handler need, some 20 KiB: after a restart, all subscribers reconnect at once, and most
//! of them wait here for admission.
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
use crate::slots::Neighbourhood;

/// Longest time that a complete head waits for its turn. It then goes on without: should those
/// before it wait for a log that does not answer, the others, a question for the hub's health among
/// them, are late but not shut out.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Most memory that incomplete heads take together. Beyond, each one that grows makes the address
/// with the most of them lose its oldest. A head can be as large as `head_bytes_max`, so their
/// number alone would bound little.
const HEAD_BYTES_TOGETHER_MAX: usize = 32 * 1024 * 1024;

/// The limits of one server, and who counts towards them.
#[derive(Debug)]
pub(super) struct Admission {
    head_bytes: AtomicUsize,
    heads: Mutex<Waiting<Arc<Notifier>>>,
    idle: Mutex<Idle>,
    turns: Arc<Semaphore>,
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
pub(super) enum Awaited {
    /// The rest of a head, or the first byte of the first one.
    Head,
    /// Another request, of which nothing has come.
    Request,
}

/// A head's right to be answered now, given back when it is dropped; none if it has waited too long
/// for one.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

impl Admission {
    pub(super) fn with_limits(heads_waiting_max: usize, heads_max: usize) -> Self {
        Self {
            head_bytes: AtomicUsize::new(0),
            heads: Mutex::new(Waiting::new(heads_waiting_max.max(1))),
            idle: Mutex::default(),
            turns: Arc::new(Semaphore::new(heads_max.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits until a complete head may be answered, in the order of asking.
    pub(super) async fn turn(&self) -> Turn {
        timeout(TURN_WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await.ok().and_then(Result::ok)
    }

    /// Begins to wait for somebody at this address.
    pub(super) fn wait_for(self: &Arc<Self>, awaited: Awaited, address: Neighbourhood) -> WaitedFor {
        let notifier = Arc::<Notifier>::default();
        let line = match awaited {
            Awaited::Head => {
                let now = Instant::now().into_std();
                let (age, gone) = self.heads().enter(address, now, Arc::clone(&notifier));
                if let Some(gone) = gone {
                    gone.ring();
                }
                Line::Heads(address, age)
            }
            Awaited::Request => {
                let mut idle = self.idle();
                idle.last_number += 1;
                let number = idle.last_number;
                idle.connections.insert(number, Arc::clone(&notifier));
                Line::Idle(number)
            }
        };
        WaitedFor { admission: Arc::clone(self), line, notifier, bytes: 0 }
    }

    /// Gives up a head that is waited for, or else the connection that has been without a request
    /// longest, so that another one finds room. False if there is none.
    pub(super) fn make_room(&self) -> bool {
        let head = self.heads().give_up();
        let gone = head.or_else(|| self.idle().connections.pop_first().map(|(_, notifier)| notifier));
        gone.inspect(|notifier| notifier.ring()).is_some()
    }

    fn heads(&self) -> MutexGuard<'_, Waiting<Arc<Notifier>>> {
        self.heads.lock().expect(NO_PANIC)
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
    fn ring(&self) {
        self.notified.store(true, Relaxed);
        self.waker.wake();
    }
}

/// One connection that is being waited for, until this is dropped.
#[derive(Debug)]
pub(super) struct WaitedFor {
    admission: Arc<Admission>,
    line: Line,
    notifier: Arc<Notifier>,
    /// What has come of a head takes this much memory.
    bytes: usize,
}

/// Where it waits.
#[derive(Debug)]
enum Line {
    Heads(Neighbourhood, Age),
    Idle(u64),
}

impl WaitedFor {
    pub(super) fn awaited(&self) -> Awaited {
        match self.line {
            Line::Heads(..) => Awaited::Head,
            Line::Idle(_) => Awaited::Request,
        }
    }

    /// What has come of the head takes this much memory. If that is too much for all of them
    /// together, one of them is given up.
    pub(super) fn hold(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return;
        }
        self.bytes = bytes;
        let before = self.admission.head_bytes.fetch_add(more, Relaxed);
        if before + more > HEAD_BYTES_TOGETHER_MAX {
            let gone = self.admission.heads().give_up();
            gone.inspect(|notifier| notifier.ring());
        }
    }

    /// Whether there was no room for it any more; if not yet, the task is woken when that changes.
    pub(super) fn is_given_up(&self, cx: &Context<'_>) -> bool {
        self.notifier.waker.register(cx.waker());
        self.notifier.notified.load(Relaxed)
    }
}

impl Drop for WaitedFor {
    fn drop(&mut self) {
        self.admission.head_bytes.fetch_sub(self.bytes, Relaxed);
        // Nothing happens if it has been given up.
        match self.line {
            Line::Heads(address, age) => drop(self.admission.heads().leave(address, age)),
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
    };

    use super::super::{ConnectionMetrics, ConnectionSettings, Driver, RequestBody, Stage, places::Places};
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Connects clients to a server that answers one head at a time, and `/never` never.
    fn server() -> impl Fn(&'static [u8]) -> DuplexStream {
        let service = tower::service_fn(async |request: Request<RequestBody>| {
            if request.uri().path() == "/never" {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
        });
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver =
            Driver::new(service, &ConnectionSettings { heads_max: 1, ..Default::default() }, &metrics);
        let (stop, stopping) = watch::channel(Stage::Serving);
        move |request| {
            let _running = &stop;
            let (mut client, theirs) = duplex(4096);
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let place = Places::new(&metrics).take();
            tokio::spawn(driver.clone().drive(theirs, peer, place, stopping.clone()));
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
    async fn a_head_waits_for_its_turn_but_not_for_ever() {
        let connect = server();
        let _holds_the_turn = connect(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
        tokio::task::yield_now().await;
        assert_eq!(secs_to_answer(connect(GET)).await, TURN_WAIT_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_connection_and_a_body_that_is_still_to_come_hold_no_turn() {
        let connect = server();
        let mut kept = connect(GET);
        kept.read_exact(&mut [0; 12]).await.expect("an answer");
        let _body_to_come = connect(b"POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
        tokio::task::yield_now().await;
        assert_eq!(secs_to_answer(connect(GET)).await, 0);
    }

    #[tokio::test]
    async fn incomplete_heads_together_stay_within_their_memory() {
        let admission = Arc::new(Admission::with_limits(4096, 1));
        let address = |last: u8| Neighbourhood::of(Some(std::net::Ipv4Addr::new(192, 0, 2, last).into()));
        let is_given_up = |waited_for: &WaitedFor| waited_for.notifier.notified.load(Relaxed);
        let mut quiet = admission.wait_for(Awaited::Head, address(1));
        quiet.hold(100);
        let mut large = Vec::new();
        for _ in 0..4096 {
            let mut waited_for = admission.wait_for(Awaited::Head, address(2));
            waited_for.hold(32 * 1024);
            large.push(waited_for);
            large.retain(|waited_for| !is_given_up(waited_for));
            assert!(admission.head_bytes.load(Relaxed) <= HEAD_BYTES_TOGETHER_MAX);
        }
        assert!(large.len() > 1_000 && !is_given_up(&quiet));
        drop((large, quiet));
        assert_eq!(admission.head_bytes.load(Relaxed), 0);
    }
}
