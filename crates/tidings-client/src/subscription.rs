//! The life cycle of a subscription: connect, read, wait, reconnect. Sockets are behind
//! [`Connect`], so that every time-out can be tested on a stopped clock.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{BoxStream, StreamExt},
};
use tidings_net::FAR_AWAY;
use tidings_sse::{Item, Limits, Parser};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    ClientError, ClientEvent, Notice,
    backoff::{Backoff, JITTER_MAX},
};

/// How long a server may send nothing, not even a comment, before the connection counts as dead. A
/// hub sends a heartbeat every 15 s, so two may be lost.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Before as many heartbeats that the hub has announced are missing, a connection is not dead.
const HEARTBEATS_MISSING: u32 = 3;

/// What arrives on one connection.
pub(crate) type Body = BoxStream<'static, Result<Bytes, ClientError>>;

/// An attempt to open a stream. `None` tells the client to stop.
pub(crate) type Attempt = BoxFuture<'static, Result<Option<Body>, ClientError>>;

/// Opens an event stream.
pub(crate) trait Connect: Send {
    /// Opens the stream after the event with this id, or at the beginning if it is empty.
    fn connect(&self, last_event_id: &str) -> Attempt;
}

/// How a stream is received.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) last_event_id: String,
    pub(crate) comments: bool,
    pub(crate) limits: Limits,
    pub(crate) idle_timeout: Option<Duration>,
    /// The reconnection time until the server sends one.
    pub(crate) reconnect_delay: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            last_event_id: String::new(),
            comments: false,
            limits: Limits::default(),
            idle_timeout: Some(IDLE_TIMEOUT),
            reconnect_delay: None,
        }
    }
}

/// The events of one subscription, over as many connections as needed.
///
/// It is a [`Stream`]: nothing is sent before it is polled. It ends after an error that another
/// attempt cannot fix, which is its last item, or when the server tells the client to stop (204);
/// it survives everything else.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use tidings_client::{ClientEvent, EventSource};
///
/// # async fn example() -> Result<(), tidings_client::ClientError> {
/// let mut events = EventSource::new("https://example.com/events").open()?;
/// while let Some(event) = events.next().await {
///     match event? {
///         ClientEvent::Message(message) => println!("{}", message.data),
///         ClientEvent::Waiting { reason, .. } => eprintln!("{reason}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    source: Box<dyn Connect>,
    comments: bool,
    idle_timeout: Option<Duration>,
    parser: Parser,
    backoff: Backoff,
    state: State,
    /// Ends a pause, or a connection on which nothing arrives. There is none before the first poll,
    /// which is the first call that needs a runtime.
    timer: Option<Pin<Box<Sleep>>>,
    /// The heartbeat that the hub has announced on this connection.
    heartbeat: Option<Duration>,
}

enum State {
    Unconnected,
    Waiting,
    Connecting(Attempt),
    Reading(Reading),
    Ended,
}

struct Reading {
    body: Body,
    unread: Bytes,
    opened: Instant,
}

impl Subscription {
    pub(crate) fn new(source: Box<dyn Connect>, options: Options) -> Self {
        let mut backoff = Backoff::default();
        if let Some(delay) = options.reconnect_delay {
            backoff.retry(delay);
        }
        Self {
            source,
            comments: options.comments,
            idle_timeout: options.idle_timeout,
            parser: Parser::with_limits(options.limits).resuming_from(options.last_event_id),
            backoff,
            state: State::Unconnected,
            timer: None,
            heartbeat: None,
        }
    }

    /// The id in force after the item that was returned last: a subscription that resumes after it
    /// gets exactly what this one has not returned yet. Empty if there is none.
    ///
    /// A hub sends an id before the first event, so a program that stores the id after each item
    /// misses nothing when it ends and starts again.
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// use tidings_client::{Client, Subscribe};
    ///
    /// # fn stored() -> String { String::new() }
    /// # fn store(id: &str) {}
    /// # async fn example() -> Result<(), tidings_client::ClientError> {
    /// let client = Client::new("http://127.0.0.1:8080", None)?;
    /// let mut orders = client.subscribe(&Subscribe::new().topic("orders").last_event_id(stored()))?;
    /// while let Some(event) = orders.next().await {
    ///     println!("{:?}", event?);
    ///     store(orders.last_event_id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// Drops the connection, or ends the pause: the next poll connects at once, after the last id.
    /// A subscription that has ended begins again.
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// use tidings_client::EventSource;
    ///
    /// # async fn network_changed() {}
    /// # async fn example() -> Result<(), tidings_client::ClientError> {
    /// let mut events = EventSource::new("https://example.com/events").open()?;
    /// loop {
    ///     tokio::select! {
    ///         event = events.next() => match event {
    ///             Some(event) => println!("{:?}", event?),
    ///             None => break,
    ///         },
    ///         () = network_changed() => events.restart(),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn restart(&mut self) {
        self.parser.end_of_stream();
        self.state = State::Unconnected;
    }

    /// How long nothing may arrive on this connection; `None` for any time.
    fn silence_max(&self) -> Option<Duration> {
        match self.heartbeat {
            // This hub sends none.
            Some(Duration::ZERO) => None,
            Some(heartbeat) => Some(self.idle_timeout?.max(heartbeat.saturating_mul(HEARTBEATS_MISSING))),
            None => self.idle_timeout,
        }
    }

    /// Something has arrived, or may arrive from now on.
    fn reset_idle_timer(&mut self) {
        if let Some(silence_max) = self.silence_max() {
            self.set_timer(silence_max);
        }
    }

    fn set_timer(&mut self, delay: Duration) {
        let at = Instant::now() + delay.min(FAR_AWAY);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(sleep_until(at))),
        }
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.poll_unpin(context))
    }

    /// Ready when nothing has arrived for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<ClientError> {
        match self.silence_max() {
            Some(silence_max) => self.poll_timer(context).map(|()| ClientError::Silent(silence_max)),
            None => Poll::Pending,
        }
    }

    /// What an item of the stream means; `None` if the caller has no use for it.
    fn received(&mut self, item: Item) -> Option<ClientEvent> {
        match item {
            Item::Event(event) => {
                self.backoff.succeeded();
                let event = ClientEvent::from(event);
                if let ClientEvent::Notice { notice: Notice::Hello { heartbeat_secs, .. }, .. } = &event {
                    self.heartbeat = heartbeat_secs.map(Duration::from_secs);
                    self.reset_idle_timer();
                }
                Some(event)
            }
            Item::Retry(millis) => {
                self.backoff.retry(Duration::from_millis(millis));
                None
            }
            Item::Comment(text) => self.comments.then_some(ClientEvent::Comment(text)),
        }
    }

    /// Decides between another attempt and the end.
    fn failed(&mut self, error: ClientError) -> Result<ClientEvent, ClientError> {
        // A stream without events that lasted long enough counts like one with events.
        if let State::Reading(reading) = &self.state
            && reading.opened.elapsed() >= JITTER_MAX
        {
            self.backoff.succeeded();
        }
        self.parser.end_of_stream();
        if !error.is_transient() {
            self.state = State::Ended;
            return Err(error);
        }
        // Without randomness the wait is merely not spread.
        let delay = self.backoff.delay(error.retry_after(), tidings_net::random_share());
        self.state = State::Waiting;
        self.set_timer(delay);
        Ok(ClientEvent::Waiting { delay, reason: error })
    }
}

impl Stream for Subscription {
    type Item = Result<ClientEvent, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let error = match &mut this.state {
                State::Ended => return Poll::Ready(None),
                State::Waiting => {
                    ready!(this.poll_timer(context));
                    this.state = State::Unconnected;
                    continue;
                }
                State::Unconnected => {
                    this.heartbeat = None;
                    this.state = State::Connecting(this.source.connect(this.parser.last_event_id()));
                    this.reset_idle_timer();
                    continue;
                }
                State::Connecting(attempt) => match attempt.poll_unpin(context) {
                    Poll::Ready(Ok(Some(body))) => {
                        let reading = Reading { body, unread: Bytes::new(), opened: Instant::now() };
                        this.state = State::Reading(reading);
                        this.reset_idle_timer();
                        return Poll::Ready(Some(Ok(ClientEvent::Open)));
                    }
                    Poll::Ready(Ok(None)) => {
                        this.state = State::Ended;
                        continue;
                    }
                    Poll::Ready(Err(error)) => error,
                    Poll::Pending => ready!(this.poll_silence(context)),
                },
                State::Reading(reading) => match this.parser.next(&mut reading.unread) {
                    Some(Ok(item)) => match this.received(item) {
                        Some(event) => return Poll::Ready(Some(Ok(event))),
                        None => continue,
                    },
                    Some(Err(error)) => error.into(),
                    // Before the timer: a caller that pauses is not a server that is silent.
                    None => match reading.body.poll_next_unpin(context) {
                        Poll::Ready(Some(Ok(bytes))) => {
                            reading.unread = bytes;
                            this.reset_idle_timer();
                            continue;
                        }
                        Poll::Ready(Some(Err(error))) => error,
                        Poll::Ready(None) => ClientError::Ended,
                        Poll::Pending => ready!(this.poll_silence(context)),
                    },
                },
            };
            return Poll::Ready(Some(this.failed(error)));
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("last_event_id", &self.last_event_id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
