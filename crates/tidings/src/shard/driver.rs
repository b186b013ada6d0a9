//! Runs a shard: passes it sockets, time and pending feeds, in a task of its own.
//!
//! The task sleeps on three things: the shard's inbox, its epoll instance, and the next sweep or
//! end of a stream. While there is work it makes a slice, yields to the other tasks of the runtime,
//! and looks at all three again; so on a small machine one thread serves requests and fans out, and
//! events that were published meanwhile are sent along.

use std::{
    any::Any,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tidings_log::vital::catch_panic;
use tokio::{io::unix::AsyncFd, runtime, time::Instant};

use super::{Key, Shard, socket::Socket, subscriber::NewSubscriber};
use crate::{
    counts::{self, closed::CloseReason, reader_lag::LagSurvey},
    engine::Engine,
    replay::Replayed,
    shard::inbox::{FeedNotifier, Inbox},
    shard::lag::ShardProgress,
};

/// Sockets whose readiness is learned in one call.
const EVENTS_MAX: usize = 256;

/// The shards of a hub. They end with this.
#[derive(Debug)]
pub(crate) struct Shards {
    inboxes: Vec<Arc<Inbox<Message>>>,
    next: AtomicUsize,
}

/// A handle that keeps the hub alive.
pub(crate) type KeepAlive = Box<dyn Any + Send>;

/// What a shard is notified of.
pub(crate) enum Message {
    NewSubscriber(Box<NewSubscriber<Socket>>, KeepAlive),
    Page(Key, Replayed),
    /// No page will come: reading it has panicked.
    NoPage(Key),
    /// The topics of this subscriber are to be changed.
    Edit(Key),
    /// The hub is gone.
    Stop,
}

impl Shards {
    /// Starts shards, each in a thread of its own; none means one, in a task of the runtime that
    /// this is called in. Everything that the system may refuse is asked of it here, not when the
    /// first subscriber comes.
    pub(crate) fn start(threads: usize, engine: &Arc<Engine>) -> io::Result<Self> {
        let mut shards = Self { inboxes: Vec::new(), next: AtomicUsize::new(0) };
        for number in 0..threads.max(1) {
            let progress = engine.lag.add_shard();
            let inbox = Arc::new(Inbox::new(progress.pending_feeds()));
            let poll = epoll::create(CreateFlags::CLOEXEC)?;
            shards.inboxes.push(Arc::clone(&inbox));
            let running = run(number, inbox, progress, poll, Arc::downgrade(engine));
            if threads == 0 {
                tokio::spawn(running);
                continue;
            }
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new().name(format!("shard-{number}"));
            thread.spawn(move || runtime.block_on(running))?;
        }
        Ok(shards)
    }

    /// Gives a subscriber to one of the shards. Where all are gone, the connection is closed.
    pub(crate) fn take(&self, new_subscriber: NewSubscriber<Socket>, hub: KeepAlive) {
        let mut message = Message::NewSubscriber(Box::new(new_subscriber), hub);
        for _ in 0..self.inboxes.len() {
            let next = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len();
            match self.inboxes[next].send(message) {
                Ok(()) => return,
                Err(returned) => message = returned,
            }
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for inbox in &self.inboxes {
            let _ = inbox.send(Message::Stop);
        }
    }
}

/// Runs a shard until the hub is gone. If it ends otherwise, its connections are closed and the hub
/// fails: what a panic has left of a shard cannot be trusted, and a hub that goes on with fewer
/// shards than it was given would be too slow and say nothing.
async fn run(
    number: usize,
    inbox: Arc<Inbox<Message>>,
    progress: ShardProgress,
    poll: OwnedFd,
    engine: Weak<Engine>,
) {
    // Until a subscriber comes, a hub needs no I/O driver in its runtime.
    inbox.notified().await;
    let Some(heartbeat) = engine.upgrade().map(|engine| engine.settings.heartbeat) else { return };
    let running = async {
        let driver = Driver::new(number, Arc::clone(&inbox), progress, poll, heartbeat)?;
        driver.run(&engine).await
    };
    let reason = match catch_panic(running).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("cannot poll its sockets: {error}"),
        Err(panicked) => panicked.to_string(),
    };
    inbox.close();
    if let Some(engine) = engine.upgrade() {
        engine.fail(format!("shard-{number} has ended: {reason}"));
    }
}

struct Driver {
    /// Which of the shards this is.
    number: usize,
    shard: Shard<Socket>,
    inbox: Arc<Inbox<Message>>,
    poll: AsyncFd<OwnedFd>,
    /// Kept while there are subscribers: they keep the hub alive.
    hub: Option<KeepAlive>,
    grown: Vec<u32>,
    messages: Vec<Message>,
    /// Where this shard reports how far it is.
    progress: ShardProgress,
    /// What had been written when the inbox was emptied for the last time.
    looked_at: u64,
}

impl Driver {
    fn new(
        number: usize,
        inbox: Arc<Inbox<Message>>,
        progress: ShardProgress,
        poll: OwnedFd,
        heartbeat: Duration,
    ) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor may change, which an OwnedFd's does not; its replacement is unsafe to call"
        )]
        let poll = AsyncFd::new(poll)?;
        Ok(Self {
            number,
            shard: Shard::new(heartbeat),
            inbox,
            poll,
            hub: None,
            grown: Vec::new(),
            messages: Vec::new(),
            looked_at: 0,
            progress,
        })
    }

    /// Ends when the hub is gone, or with what keeps it from waiting for sockets.
    async fn run(mut self, engine: &Weak<Engine>) -> io::Result<()> {
        let mut sweep_at = Instant::now() + self.shard.sweep_interval;
        let mut timer = pin!(tokio::time::sleep_until(sweep_at));
        let mut is_busy = false;
        loop {
            // Upgraded for one turn only: the hub may end while its shards sleep.
            let Some(engine) = engine.upgrade() else { return Ok(()) };
            let is_outrun = is_busy && self.inbox.is_notified();
            if !self.take_inbox(&engine) {
                return Ok(());
            }
            self.look_at_sockets(&engine)?;
            let now = Instant::now();
            if sweep_at <= now {
                self.shard.begin_sweep();
                sweep_at = now + self.shard.sweep_interval;
            }
            let has_more = self.shard.slice(&engine, now.into_std());
            self.progress.set_served(self.shard.served());
            self.measure(&engine);
            let has_pages = self.read_pages(&engine);
            if self.shard.is_empty() {
                self.hub = None;
                // There are no sweeps then.
                engine.counts.readers.put(self.number, LagSurvey::default());
            }
            drop(engine);
            is_busy = has_more || has_pages;
            if is_busy {
                if is_outrun {
                    // Events arrive faster than they are sent. Where all cores are busy, publishers
                    // go first: the more events a send takes along, the less each of them costs.
                    thread::yield_now();
                }
                tokio::task::yield_now().await;
                continue;
            }
            let has_subscribers = !self.shard.is_empty();
            let wake_at = self.shard.next_end().map_or(sweep_at, |end| sweep_at.min(end.into()));
            if timer.deadline() != wake_at {
                timer.as_mut().reset(wake_at);
            }
            tokio::select! {
                biased;
                () = self.inbox.notified() => {}
                // Nothing is lost: the look that follows takes everything.
                guard = self.poll.readable() => guard?.clear_ready(),
                () = &mut timer, if has_subscribers => {}
            }
        }
    }

    /// Takes in what the inbox has. False when the hub is gone.
    fn take_inbox(&mut self, engine: &Engine) -> bool {
        // Before the inbox: what has been announced by now is in it.
        let written = engine.lag.written();
        let since = std::mem::replace(&mut self.looked_at, written);
        if !self.inbox.is_notified() {
            return true;
        }
        self.inbox.take(&mut self.grown, &mut self.messages);
        self.progress.take_feeds(self.grown.len());
        for group in self.grown.drain(..) {
            self.shard.grown(group, since);
        }
        let mut messages = std::mem::take(&mut self.messages);
        for message in messages.drain(..) {
            match message {
                Message::NewSubscriber(new_subscriber, hub) => {
                    self.hub.get_or_insert(hub);
                    self.adopt(*new_subscriber, engine);
                }
                Message::Page(key, page) => self.shard.take_page(key, page),
                Message::NoPage(key) => self.shard.drop_subscriber(key, CloseReason::Error, engine),
                Message::Edit(key) => self.edit(key, engine),
                Message::Stop => return false,
            }
        }
        self.messages = messages;
        true
    }

    fn adopt(&mut self, new_subscriber: NewSubscriber<Socket>, engine: &Engine) {
        let Self { shard, inbox, .. } = self;
        let new_notifier = |group| FeedNotifier::new(inbox, group);
        let key = shard.adopt(new_subscriber, new_notifier, Instant::now().into_std());
        let wire = shard.wire(key).expect("it has just been adopted");
        let data = EventData::new_u64(u64::from(key.serial) << 32 | u64::from(key.slot));
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if let Err(error) = epoll::add(self.poll.get_ref(), wire.as_fd(), data, events) {
            tracing::warn!(%error, "cannot poll a connection; it is closed");
            shard.drop_subscriber(key, CloseReason::Error, engine);
        }
        let inbox = Arc::clone(inbox);
        shard.notify_of_edits(key, move || drop(inbox.send(Message::Edit(key))));
        // One may have been requested before.
        self.edit(key, engine);
    }

    fn edit(&mut self, key: Key, engine: &Engine) {
        let Self { shard, inbox, .. } = self;
        shard.edit(key, |group| FeedNotifier::new(inbox, group), engine, Instant::now().into_std());
    }

    /// Learns which sockets can be read or written again, without waiting.
    fn look_at_sockets(&mut self, engine: &Engine) -> io::Result<()> {
        let mut events =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS_MAX];
        loop {
            let count =
                match epoll::wait(self.poll.get_ref(), &mut events, Some(&rustix::time::Timespec::default()))
                {
                    Ok(count) => count,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
            for epoll::Event { flags, data } in events[..count].iter().copied() {
                let data = data.u64();
                let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).expect("32 bits");
                let key = Key { slot: half(data), serial: half(data >> 32) };
                if flags.contains(EventFlags::OUT) {
                    self.shard.writable(key);
                }
                // A connection that was reset after the client had ended its side looks like one
                // that has only ended its side when it is read.
                if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                    let error = self.shard.wire(key).and_then(Socket::error);
                    let reason = error.map_or(CloseReason::Client, CloseReason::of_io);
                    self.shard.drop_subscriber(key, reason, engine);
                } else if flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
                    self.shard.readable(key, engine);
                }
            }
            if count < EVENTS_MAX {
                return Ok(());
            }
        }
    }

    /// Counts what the slice has found out.
    fn measure(&mut self, engine: &Engine) {
        for mark in self.shard.take_served_marks() {
            engine.counts.of(counts::Driver::Shard).lag.record(mark.elapsed());
        }
        if let Some(survey) = self.shard.surveyed.take() {
            engine.counts.readers.put(self.number, survey);
        }
    }

    /// Has the history read that subscribers are behind by. What another subscriber has had read a
    /// moment ago is there at once: after a restart that is nearly everything. Whether any was.
    fn read_pages(&mut self, engine: &Arc<Engine>) -> bool {
        let mut is_any_at_hand = false;
        for (key, request) in std::mem::take(&mut self.shard.requests) {
            if let Some(page) = engine.replays.page_at_hand(&request) {
                self.shard.take_page(key, page);
                is_any_at_hand = true;
                continue;
            }
            let reading = engine.read_page(request);
            let inbox = Arc::clone(&self.inbox);
            tokio::spawn(async move {
                let page = catch_panic(reading).await;
                let message = page.map_or(Message::NoPage(key), |page| Message::Page(key, page));
                // A shard that is gone has no subscribers.
                let _ = inbox.send(message);
            });
        }
        is_any_at_hand
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    use futures_util::FutureExt;
    use tidings_topic::NewEvent;

    use super::*;
    use crate::{
        EditProof, Hub, Subscribe, TopicEdit,
        shard::{
            lag::{Lag, PENDING_FEEDS_MAX},
            subscriber::Phase,
            wire::Wire,
        },
    };

    /// Nothing here takes so long unless it never comes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("it listens")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        server.set_nonblocking(true).expect("it does not block");
        (client, server)
    }

    async fn new_subscriber(hub: &Hub, stream: TcpStream) -> NewSubscriber<Socket> {
        let ask = Subscribe::new([hub.validator().exact("chat").expect("valid")]);
        let (_, parts) = hub.subscribe(ask).await.expect("memory is there").into_parts();
        NewSubscriber {
            wire: Socket::plain(stream, Box::new(|_| ())),
            headers: Vec::new(),
            input_bytes: 0,
            parts,
        }
    }

    /// The first message of each pair wakes the shard, the second arrives at some moment of its
    /// turn: while it takes the first, while it looks once more, while it goes to sleep. Nothing
    /// else wakes it then.
    #[test]
    fn a_message_that_arrives_while_a_shard_looks_wakes_it() {
        const PAIRS: usize = 60_000;
        let inbox = Arc::new(Inbox::new(Arc::<Lag>::default().add_shard().pending_feeds()));
        let (report, reported) = mpsc::channel();
        let shard = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || {
                let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(async {
                    let mut taken = Vec::new();
                    let mut count = 0;
                    while count < 2 * PAIRS {
                        inbox.notified().await;
                        inbox.take(&mut Vec::new(), &mut taken);
                        count += taken.len();
                        for number in taken.drain(..) {
                            report.send(number).expect("the test listens");
                        }
                    }
                });
            }
        });
        for number in 0..PAIRS {
            let send = |message| inbox.send(message).expect("it is open");
            send(2 * number);
            // Some come while it wakes up, some while it goes to sleep.
            for _ in 0..number % [300, 1_000, 8_000][number % 3] {
                std::hint::spin_loop();
            }
            send(2 * number + 1);
            for expected in [2 * number, 2 * number + 1] {
                assert_eq!(reported.recv_timeout(PATIENCE), Ok(expected), "the shard missed a wake-up");
            }
        }
        shard.join().expect("no panic");
    }

    #[tokio::test]
    async fn new_subscribers_go_to_the_shards_in_turn() {
        let hub = Hub::in_memory().await;
        let pending_feeds = || hub.state.engine.lag.add_shard().pending_feeds();
        let inboxes: Vec<_> = (0..3).map(|_| Arc::new(Inbox::new(pending_feeds()))).collect();
        let shards = Shards { inboxes: inboxes.clone(), next: AtomicUsize::new(0) };
        for _ in 0..6 {
            shards.take(new_subscriber(&hub, pair().1).await, Box::new(hub.clone()));
        }
        for inbox in inboxes {
            let mut messages = Vec::new();
            inbox.take(&mut Vec::new(), &mut messages);
            assert_eq!(messages.len(), 2);
        }
    }

    fn epoll_fd() -> OwnedFd {
        epoll::create(CreateFlags::CLOEXEC).expect("epoll is there")
    }

    #[tokio::test]
    async fn new_subscribers_go_to_the_shards_that_are_left() {
        let hub = Hub::in_memory().await;
        let pending_feeds = || hub.state.engine.lag.add_shard().pending_feeds();
        let inboxes: Vec<_> = (0..3).map(|_| Arc::new(Inbox::new(pending_feeds()))).collect();
        let shards = Shards { inboxes: inboxes.clone(), next: AtomicUsize::new(0) };
        inboxes[1].close();
        for _ in 0..6 {
            shards.take(new_subscriber(&hub, pair().1).await, Box::new(hub.clone()));
        }
        let taken = [&inboxes[0], &inboxes[2]].map(|inbox| {
            let mut messages = Vec::new();
            inbox.take(&mut Vec::new(), &mut messages);
            messages.len()
        });
        assert_eq!(taken.iter().sum::<usize>(), 6, "{taken:?}");
        for inbox in &inboxes {
            inbox.close();
        }
        let (mut client, server) = pair();
        shards.take(new_subscriber(&hub, server).await, Box::new(hub.clone()));
        assert_eq!(
            Read::read(&mut client, &mut [0; 1]).expect("an end, not an error"),
            0,
            "no shard can serve it"
        );
    }

    fn driver(hub: &Hub) -> Driver {
        let progress = hub.state.engine.lag.add_shard();
        let inbox = Arc::new(Inbox::new(progress.pending_feeds()));
        Driver::new(0, inbox, progress, epoll_fd(), Duration::ZERO).expect("epoll is there")
    }

    /// Its client knows the name of the stream while the stream is on its way to a shard.
    #[tokio::test]
    async fn a_change_that_is_requested_before_a_shard_has_the_stream_is_made() {
        const PROOF: EditProof = EditProof([1; 32]);
        let hub = Hub::in_memory().await;
        let mut driver = driver(&hub);
        let request = Subscribe::topics(["chat"]).editable(PROOF, None);
        let (_, parts) = hub.subscribe(request).await.expect("memory is there").into_parts();
        let add = vec![hub.validator().exact("news").expect("valid")];
        let edit = hub.edit(parts.reader.connection, PROOF, TopicEdit { add, ..TopicEdit::default() });
        let mut edit = Box::pin(edit);
        assert!((&mut edit).now_or_never().is_none());
        let (_client, server) = pair();
        let wire = Socket::plain(server, Box::new(|_| ()));
        driver.adopt(NewSubscriber { wire, headers: Vec::new(), input_bytes: 0, parts }, &hub.state.engine);
        let edited = edit.now_or_never().expect("the shard has answered").expect("changed");
        assert_eq!(edited.topics, ["chat", "news"]);
    }

    #[tokio::test]
    async fn publishers_wait_for_no_feed_that_a_shard_has_taken_note_of() {
        let hub = Hub::in_memory().await;
        let engine = &hub.state.engine;
        let mut driver = driver(&hub);
        let (_client, server) = pair();
        driver.adopt(new_subscriber(&hub, server).await, engine);
        for _ in 0..4 * PENDING_FEEDS_MAX {
            while driver.shard.slice(engine, Instant::now().into_std()) {}
            let published = hub.publish(NewEvent::new("chat", "x")).now_or_never();
            published.expect("nothing is to be waited for").expect("published");
            while !driver.inbox.is_notified() {
                tokio::task::yield_now().await;
            }
            assert!(driver.take_inbox(engine));
        }
    }

    /// A read of such a socket finds the end of its input and no error, and nothing is written to it
    /// while it waits for history.
    #[tokio::test]
    async fn a_reset_after_the_client_has_ended_its_side_is_noticed() {
        let hub = Hub::builder().feed_bytes_max(0).start().await.expect("memory is there");
        let engine = &hub.state.engine;
        let mut driver = driver(&hub);
        let (mut client, server) = pair();
        driver.adopt(new_subscriber(&hub, server).await, engine);
        while driver.shard.slice(engine, Instant::now().into_std()) {}
        hub.publish(NewEvent::new("chat", "x")).await.expect("published");
        while !driver.inbox.is_notified() {
            tokio::task::yield_now().await;
        }
        assert!(driver.take_inbox(engine));
        while driver.shard.slice(engine, Instant::now().into_std()) {}
        assert_eq!(driver.shard.requests.len(), 1, "it waits for history");
        client.shutdown(std::net::Shutdown::Write).expect("it is open");
        let has_ended_its_side = |driver: &Driver| {
            driver.shard.subscribers.iter().all(|(_, subscriber)| subscriber.phase == Phase::InputEnded)
        };
        look_until(&mut driver, engine, has_ended_its_side).await;
        // What it has not read makes its end a reset.
        assert!(Read::read(&mut client, &mut [0; 1]).is_ok());
        drop(client);
        look_until(&mut driver, engine, |driver| driver.shard.is_empty()).await;
    }

    async fn look_until(driver: &mut Driver, engine: &Engine, has_come: impl Fn(&Driver) -> bool) {
        let looking = async {
            while !has_come(driver) {
                driver.look_at_sockets(engine).expect("epoll is there");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("it is noticed");
    }

    /// Readiness is reported once: a socket that a shard does not learn of now, it may never learn
    /// of again.
    #[tokio::test]
    async fn a_shard_learns_of_every_writable_socket_however_many_they_are() {
        let hub = Hub::in_memory().await;
        let engine = &hub.state.engine;
        let mut driver = driver(&hub);
        let mut clients = Vec::new();
        for _ in 0..=EVENTS_MAX {
            let (client, server) = pair();
            clients.push(client);
            driver.adopt(new_subscriber(&hub, server).await, engine);
        }
        while driver.shard.slice(engine, Instant::now().into_std()) {}
        for (_, subscriber) in &mut driver.shard.subscribers {
            subscriber.is_blocked = true;
        }
        driver.look_at_sockets(engine).expect("epoll is there");
        let blocked = driver.shard.subscribers.iter().filter(|(_, subscriber)| subscriber.is_blocked);
        assert_eq!(blocked.count(), 0);
    }

    #[tokio::test]
    async fn a_shard_ends_with_its_hub_which_ends_with_its_last_socket() {
        let hub = Hub::in_memory().await;
        let inbox = Arc::downgrade(&hub.state.shards.inboxes[0]);
        let (client, server) = pair();
        let new_subscriber = new_subscriber(&hub, server).await;
        hub.state.shards.take(new_subscriber, Box::new(hub.clone()));
        drop(hub);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(inbox.strong_count() > 0, "the socket keeps the hub");
        drop(client);
        let ended = async {
            while inbox.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the shard has ended");
    }

    #[test]
    fn closing_frames_survive_input_that_was_not_read() {
        let (mut client, server) = pair();
        let mut server = Socket::plain(server, Box::new(|_| ()));
        client.write_all(b"unasked").expect("it is open");
        // More than the client's side holds: some of it has not left when the connection is closed.
        let mut written = 0;
        while let Ok(taken) = Wire::write(&mut server, &[b'x'; 16 * 1024]) {
            written += taken;
        }
        Wire::shut_down(&mut server);
        drop(server);
        let mut received = Vec::new();
        client.set_read_timeout(Some(PATIENCE)).expect("a time");
        client.read_to_end(&mut received).expect("an end, not a reset");
        assert_eq!(received.len(), written);
    }
}
