//! The load client: one thread, one edge-triggered epoll loop, plain records.
//!
//! - A **subscriber** is a socket, a phase and the beginning of a mark that the edge of a read may
//!   have cut (`subscribers.rs`).
//! - A **publisher** is a keep-alive connection with at most one request outstanding
//!   (`publishers.rs`).
//! - All reads go into one shared buffer, which is searched for marks in place.
//!
//! It must not limit a measurement: nothing is allocated per event, and [`Engine::processor_time`]
//! returns how busy the thread was.

mod publishers;
mod records;
mod sockets;
mod subscribers;

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
        timerfd_settime,
    },
};

pub(crate) use self::records::{Ending, Load, Manner};
use self::records::{Publisher, Subscriber};
use crate::{
    BenchError, careful::Careful, histogram::Histogram, ledger::Ledger, mark::Scanner, target::Requests,
};

/// The size of a read. A hub that coalesces sends 64 KiB at once; more takes a second read.
const READ_BYTES: usize = 256 << 10;
/// Events taken from the kernel at once. Few, so that publishers are served between subscribers.
const READY_MAX: usize = 256;
/// Distinguishes publishers from subscribers in the tokens of epoll.
const PUBLISHER: u64 = 1 << 32;
const TIMER: u64 = 1 << 33;

pub(crate) struct Engine {
    pub(crate) requests: Requests,
    pub(crate) ledger: Ledger,
    pub(crate) latency: Histogram,
    pub(crate) replies: Histogram,
    /// Faults that the ledger does not record.
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) disconnected: u64,
    /// Streams that were resumed from the last id.
    pub(crate) resumed: u64,
    /// Reads that brought bytes of a stream.
    pub(crate) reads: u64,
    pub(crate) last_delivery_nanos: u64,
    pub(crate) last_reply_nanos: u64,
    began: Instant,
    epoll: OwnedFd,
    timer: OwnedFd,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
    scanner: Scanner,
    subscribers: Vec<Subscriber>,
    /// Incomplete response headers.
    heads: HashMap<u32, Vec<u8>>,
    careful: HashMap<u32, Careful>,
    /// Ids that subscribers resume from.
    resuming: HashMap<u32, String>,
    /// Subscribers that wait to be connected, and how many are connecting.
    waiting: VecDeque<u32>,
    on_their_way: usize,
    streaming: usize,
    /// Whether connections are opened without a request.
    hold_requests: bool,
    /// Whether a stream that ends is opened again, so its end is not a fault.
    endings_expected: bool,
    /// Whether events covered by a gap notice do not count as lost.
    pub(crate) gaps_excused: bool,
    publishers: Vec<Publisher>,
    idle_publishers: Vec<u32>,
    load: Load,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    payload: Vec<u8>,
    body: Vec<u8>,
}

impl Engine {
    pub(crate) fn new(requests: Requests, ledger: Ledger) -> Result<Self, BenchError> {
        let refused = |error: Errno| BenchError::machine("cannot watch sockets", error);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(refused)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), edge).map_err(refused)?;
        Ok(Self {
            requests,
            ledger,
            latency: Histogram::default(),
            replies: Histogram::default(),
            refused: 0,
            first_refusal: None,
            disconnected: 0,
            resumed: 0,
            reads: 0,
            last_delivery_nanos: 0,
            last_reply_nanos: 0,
            began: Instant::now(),
            epoll,
            timer,
            ready: Vec::with_capacity(READY_MAX),
            buffer: vec![0; READ_BYTES],
            scanner: Scanner::new(),
            subscribers: Vec::new(),
            heads: HashMap::new(),
            careful: HashMap::new(),
            resuming: HashMap::new(),
            waiting: VecDeque::new(),
            on_their_way: 0,
            streaming: 0,
            hold_requests: false,
            endings_expected: false,
            gaps_excused: false,
            publishers: Vec::new(),
            idle_publishers: Vec::new(),
            load: Load::default(),
            scratch: Scratch::default(),
        })
    }

    /// Nanoseconds on the clock of this run.
    #[expect(clippy::cast_possible_truncation, reason = "584 years")]
    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Processor time of this thread so far.
    pub(crate) fn processor_time() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    /// Waits for sockets, at most this long, and serves those that are ready.
    pub(crate) fn turn(&mut self, timeout: Duration) -> Result<(), BenchError> {
        let timeout = Timespec::try_from(timeout).expect("it was made from seconds");
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(BenchError::machine("cannot wait for sockets", error)),
        }
        let mut done = Ok(());
        for event in &ready {
            let (token, flags) = (event.data.u64(), event.flags);
            let number = u32::try_from(token & u64::from(u32::MAX)).expect("32 bits");
            done = match token & !u64::from(u32::MAX) {
                PUBLISHER => self.publisher_ready(number, flags),
                TIMER => self.publish_what_is_due(),
                _ => self.subscriber_ready(number, flags),
            };
            if done.is_err() {
                break;
            }
        }
        self.ready = ready;
        done
    }

    /// Continues for this long, so that superfluous events have time to arrive.
    pub(crate) fn linger(&mut self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(left)?;
        }
        Ok(())
    }

    /// Wakes [`turn`](Self::turn) at a time of this run's clock.
    fn wake_at(&self, nanos: u64) -> Result<(), BenchError> {
        let left = Duration::from_nanos(nanos.saturating_sub(self.now()).max(1));
        let it_value = Timespec::try_from(left).expect("it was made from nanoseconds");
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
            .map(|_| ())
            .map_err(|error| BenchError::machine("cannot set a timer", error))
    }

    fn watch(&self, socket: &OwnedFd, token: u64) -> Result<(), BenchError> {
        use epoll::EventFlags;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)
            .map_err(|error| BenchError::machine("cannot watch a socket", error))
    }
}
