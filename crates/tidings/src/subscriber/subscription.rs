//! The pulled driver of a cursor: a subscription as a stream of bytes.
//!
//! Responses over HTTP/2 and HTTP/1.0 and library users pull their bytes; nothing is queued for
//! them beyond one page of history. Each item is one event (or notice, or comment) of Server-Sent
//! Events, without chunk framing.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tidings_log::{Cursor, Unavailable};
use tidings_topic::{ConnectionId, EventId, Since};
use tokio::time::{Instant, Sleep};

use crate::{
    counts::{Driver, closed::CloseReason, deliveries::Delivered},
    edits::{EditError, Edited, Registration, TopicEdit, texts},
    error::Error,
    feed::encode::{EndReason, Notice},
    feed::frames::Frame,
    hub::Hub,
    jitter::{FAR_AWAY, jittered, jittered_millis, random_share},
    presence::Membership,
    replay::{PageReading, ReplayRequest, Replayed},
    subscriber::backlog::{Backlog, ControlFrame},
    subscriber::end::End,
    subscriber::parts::Parts,
    subscriber::reader::{Reader, Step},
    subscriber::start::{self, Range, Start},
    subscriber::subscribe::{Checked, Subscribe},
};

/// The answer to one subscriber: an endless [`Stream`] of bytes and an [`http_body::Body`] of type
/// `text/event-stream`.
///
/// It ends, after a notice of kind `reconnect`, when the hub closes or at its maximum age, and
/// after one of kind `expired` when its credential expires, which one of kind `expiring` announces,
/// and after one of kind `revoked` by [`Hub::end`]. A [finite read](Subscribe::until) ends after one
/// of kind `end`. Dropping it ends the subscription.
pub struct Subscription {
    /// Also keeps the hub alive.
    hub: Hub,
    reader: Reader,
    waker: Arc<AtomicWaker>,
    backlog: Backlog,
    /// The cursor up to which everything has been sent; the reader is ahead of it by the backlog.
    sent: Cursor,
    replay: Option<PageReading>,
    timer: Pin<Box<Sleep>>,
    last_sent: Instant,
    heartbeat: Duration,
    ends: Vec<End>,
    resumed_from: Option<Resumed>,
    /// Why the stream has ended, if it has.
    ended: Option<CloseReason>,
    ends_when_caught_up: bool,
    /// Where a finite read ends.
    end: Option<Box<Cursor>>,
    /// Whether it is to end; there once it has been polled, and can be woken.
    is_to_end: Option<Arc<AtomicBool>>,
    /// Reports that this subscriber has disconnected when it is dropped.
    membership: Option<Membership>,
    /// Where its topics can be changed, if they can be.
    editable: Option<Box<Registration>>,
}

/// Where a subscription was resumed, for the response header that reports it (the Mercure protocol,
/// "Reconciliation").
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resumed {
    /// After the event with this id, as the request spelled it.
    After(String),
    /// At the oldest event that is kept: the client asked for it, or the id is not known any more.
    Earliest,
}

impl Resumed {
    /// The value of the header: the id, or `earliest`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::After(id) => id,
            Self::Earliest => "earliest",
        }
    }
}

impl Hub {
    /// Subscribes. The subscription receives every matching event from its start on, in the order
    /// of the log, each once. A text is the name of the one topic.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// use futures_util::StreamExt;
    /// use tidings::{Hub, NewEvent, Since, Subscribe};
    ///
    /// let hub = Hub::in_memory().await;
    /// hub.publish(NewEvent::new("chat", "hello")).await?;
    /// let mut stream = hub.subscribe(Subscribe::topics(["chat"]).since(Since::Last(10))).await?;
    /// let preface = stream.next().await.expect("a stream begins with a comment");
    /// let event = stream.next().await.expect("the event");
    /// assert!(event.ends_with(b"data: hello\n\n"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(&self, request: impl Into<Subscribe>) -> Result<Subscription, Error> {
        Subscription::open(self.clone(), request.into(), Audience::Outside).await
    }
}

/// Who reads a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Audience {
    /// A client, which is present.
    Outside,
    /// The application itself.
    Inside,
}

impl Subscription {
    pub(crate) async fn open(hub: Hub, mut request: Subscribe, audience: Audience) -> Result<Self, Error> {
        let Checked { filter, starts } = request.check(&hub).await?;
        let state = &hub.state;
        let engine = &state.engine;
        let Range { start, stages, end } =
            start::find_range(&*state.log, &state.validator, &starts, request.until.as_ref()).await?;
        let (since, _) = &starts[0];
        let requested_id = if let Since::Id(id) = since { Some(id.clone()) } else { None };
        let has_cursor = starts.len() == 1 && matches!(since, Since::Id(_) | Since::Earliest);
        let waker = Arc::new(AtomicWaker::new());
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).expect("the system provides random numbers");
        // RFC 9562, section 5.4: so that it is a UUID, too, by which presence APIs name a subscriber.
        bits[6] = (bits[6] & 0x0f) | 0x40;
        bits[8] = (bits[8] & 0x3f) | 0x80;
        let connection = ConnectionId::from_random(bits);
        let mut reader = match end {
            None => Reader::join(&engine.feeds, filter, request.format, connection, &waker)?,
            Some(_) => Reader::of_history(&engine.feeds, filter, request.format, connection),
        };
        reader.begin_with(stages);
        let is_present = audience == Audience::Outside && end.is_none();

        let now = Instant::now();
        let settings = &engine.settings;
        let lifetime = settings.lifetime_max.into_iter().chain(request.lifetime_max).min();
        let lifetime =
            lifetime.map(|lifetime| End::new((now + jittered(lifetime)).into_std(), EndReason::Lifetime));
        let expiry = request.expires_in.map(|expires_in| End::of_credential(now.into_std(), expires_in));
        let heartbeat = if settings.heartbeat.is_zero() { FAR_AWAY } else { settings.heartbeat };
        let heartbeat = jittered(heartbeat);
        let preface = tidings_sse::preface(jittered_millis(settings.retry_millis)).into();
        let mut backlog = Backlog::default();
        backlog.control_frames.push_back(ControlFrame { place: None, bytes: preface });

        let has_history = if end.is_some() {
            reader.place = start.place;
            reader.has_stages() || start.gap.is_some()
        } else {
            !(start.at_end && reader.begin_at_end(start.place))
        };
        let mut subscription = Self {
            sent: reader.place,
            reader,
            waker,
            backlog,
            replay: None,
            timer: Box::pin(tokio::time::sleep_until(now + heartbeat)),
            last_sent: now,
            heartbeat,
            ends: expiry.into_iter().chain(lifetime).min_by_key(|end| end.at).into_iter().collect(),
            resumed_from: None,
            ended: None,
            ends_when_caught_up: false,
            end: end.map(Box::new),
            is_to_end: None,
            membership: None,
            editable: None,
            hub,
        };
        let page = if has_history {
            Some(subscription.first_page(start, requested_id, has_cursor).await?)
        } else {
            None
        };
        let secret = match request.editable {
            Some((proof, secret)) if subscription.end.is_none() => {
                let state = &subscription.hub.state;
                let matchers_max = state.validator.matchers_max;
                let registration = state.engine.edits.register(connection, proof, matchers_max);
                subscription.editable = Some(Box::new(registration));
                secret
            }
            _ => None,
        };
        let hello = request.hello.then(|| subscription.hello(secret));
        subscription.begin(hello, page);
        // Last: one that cannot be opened was never present.
        if is_present {
            let Self { hub, reader, .. } = &subscription;
            let (matchers, label) = (&reader.filter.matchers, request.label);
            let membership = hub.state.presence.join(connection, matchers, label, request.payloads);
            subscription.membership = Some(membership);
        }
        Ok(subscription)
    }

    /// The first page is read before the response begins, because its headers report whether the
    /// cursor was found.
    async fn first_page(
        &mut self,
        start: Start,
        requested: Option<String>,
        has_cursor: bool,
    ) -> Result<Replayed, Unavailable> {
        self.reader.place = start.place;
        self.reader.reported = start.promises.then_some(start.place.position);
        self.sent = start.place;
        let mut request = ReplayRequest { requested, gap: start.gap, ..self.replay_request() };
        if self.end.is_some() && !self.reader.has_stages() {
            // It ends before it starts, and only a gap is to be reported.
            request.until = Some(start.place.position);
        }
        let page = self.hub.state.engine.replays.next_page(request).await?;
        if has_cursor {
            let found = start.found.filter(|_| page.gap.is_none());
            self.resumed_from = Some(found.map_or(Resumed::Earliest, Resumed::After));
        }
        Ok(page)
    }

    /// What is sent first: a gap, before any other id could move the client past it; then the name
    /// of the connection, then the events.
    fn begin(&mut self, hello: Option<Notice>, page: Option<Replayed>) {
        let place = page.as_ref().map_or(self.reader.place, |page| page.from);
        let hello = hello.map(|hello| ControlFrame::notice(&hello, place));
        match page {
            None => self.backlog.control_frames.extend(hello),
            Some(page) => {
                if page.gap.is_none() {
                    self.sent = place;
                }
                self.take_page(page, hello);
            }
        }
    }

    fn hello(&self, secret: Option<String>) -> Notice {
        let heartbeat = self.hub.state.engine.settings.heartbeat;
        let (topics, patterns) = texts(&self.reader.filter.matchers);
        Notice::Hello {
            connection: self.reader.connection.to_string(),
            heartbeat_secs: heartbeat.as_secs() + u64::from(heartbeat.subsec_nanos() > 0),
            topics,
            patterns,
            secret,
        }
    }

    /// The name of this connection: an event published with
    /// [`NewEvent::except`](crate::NewEvent::except) of it is not delivered here.
    pub fn connection(&self) -> ConnectionId {
        self.reader.connection
    }

    /// Where this subscription was resumed, if the request had a cursor.
    #[doc(hidden)]
    pub fn resumed_from(&self) -> Option<&Resumed> {
        self.resumed_from.as_ref()
    }

    /// The position of this subscription as a generated event id: a subscription that starts after
    /// it receives the events that this one has not received yet.
    #[doc(hidden)]
    pub fn place(&self) -> EventId {
        self.sent.to_event_id()
    }

    /// Where a finite read ends, as a generated event id: a subscription that starts after it
    /// receives what this one does not. `None` for a subscription that goes on.
    pub fn end(&self) -> Option<EventId> {
        self.end.as_ref().map(|end| end.to_event_id())
    }

    /// From now on the stream ends as soon as everything due has been sent: for a client that has
    /// ended its side of the connection after its request.
    #[doc(hidden)]
    pub fn end_when_caught_up(&mut self) {
        self.ends_when_caught_up = true;
    }

    /// The headers that a response with this body needs: media type, and headers that keep caches
    /// and proxies from holding events back.
    pub fn headers() -> HeaderMap {
        HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ])
    }

    fn replay_request(&self) -> ReplayRequest {
        self.reader.replay_request(&self.hub.state.engine.feeds)
    }

    /// Takes a page. Its end means nothing in another epoch, in which a finite read ends with the
    /// notice of the gap.
    fn take_page(&mut self, mut page: Replayed, hello: Option<ControlFrame>) {
        if self.end.as_ref().is_some_and(|end| end.epoch != page.place.epoch) {
            page = Replayed { frames: Arc::default(), place: page.from, ..page };
        }
        let unread = self.reader.replayed(&page);
        self.backlog.take_page(page, unread, hello);
    }

    /// The next frame of the hub itself, if any.
    fn send_control_frame(&mut self, now: Instant) -> Option<Bytes> {
        let ControlFrame { place, bytes } = self.backlog.control_frames.pop_front()?;
        if self.backlog.control_frames.is_empty() {
            self.backlog.control_frames = VecDeque::new();
        }
        self.sent = place.unwrap_or(self.sent);
        self.last_sent = now;
        Some(bytes)
    }

    /// Why the stream has ended, or ends when this is dropped.
    #[doc(hidden)]
    pub fn close_reason(&self) -> CloseReason {
        self.ended.unwrap_or(CloseReason::Client)
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Whether everything that is in the feeds has been sent.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.backlog.control_frames.is_empty()
            && self.backlog.page.is_none()
            && self.replay.is_none()
            && self.sent == self.reader.place
            && self.reader.live_place() == self.hub.state.engine.feeds.head()
    }

    pub(super) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        // Before looking, so that what arrives between looking and sleeping wakes this task.
        self.waker.register(context.waker());
        self.enlist();
        self.take_edits();
        let now = Instant::now();
        // A gap that was found is reported even by a stream that ends: the id of its closing frames
        // may be after the gap.
        if let Some(bytes) = self.send_control_frame(now) {
            return self.hand_over(bytes, 0);
        }
        self.join_closing();
        self.join_endings(now);
        if let Poll::Ready(bytes) = self.poll_end(now) {
            return Poll::Ready(bytes);
        }
        if let Some(bytes) = self.announce_end(now) {
            return self.hand_over(bytes, 0);
        }
        loop {
            if let Some(bytes) = self.send_control_frame(now) {
                return self.hand_over(bytes, 0);
            }
            if let Some((place, bytes)) = self.backlog.next_event() {
                self.sent = place;
                self.last_sent = now;
                return self.hand_over(bytes, 1);
            }
            if let Some(replay) = &mut self.replay {
                match Pin::new(replay).poll(context) {
                    Poll::Ready(page) => {
                        self.replay = None;
                        self.take_page(page, None);
                        continue;
                    }
                    Poll::Pending => return self.poll_timer(context),
                }
            }
            if self.end.is_some() && !self.reader.has_stages() {
                self.ended = Some(CloseReason::Client);
                self.sent = self.reader.place;
                return self.hand_over(Notice::End.encode(self.sent, None), 0);
            }
            let step = self.reader.step(&self.hub.state.engine.feeds);
            self.sent = self.reader.place;
            match step {
                Step::Send(frame) => {
                    self.last_sent = now;
                    self.measure(&frame);
                    return self.hand_over(frame.event(), 1);
                }
                Step::Replay => {
                    let request = self.replay_request();
                    self.replay = Some(self.hub.state.engine.read_page(request));
                }
                Step::Wait if self.ends_when_caught_up => {
                    self.ended = Some(CloseReason::Client);
                    return Poll::Ready(None);
                }
                Step::Wait => return self.poll_timer(context),
            }
        }
    }

    /// When it is polled for the first time, lets itself be woken by those who end or change it.
    fn enlist(&mut self) {
        if self.is_to_end.is_some() {
            return;
        }
        let endings = &self.hub.state.engine.endings;
        self.is_to_end = Some(endings.add_pulled(self.reader.connection, &self.waker));
        if let Some(editable) = &self.editable {
            let waker = Arc::clone(&self.waker);
            editable.notify_with(move || waker.wake());
        }
    }

    /// Changes the topics as was requested.
    fn take_edits(&mut self) {
        let Some(editable) = &self.editable else { return };
        let matchers_max = editable.matchers_max;
        for waiting in editable.take() {
            // Nobody may wait for the answer any more.
            let _ = waiting.answer.send(self.edit(&waiting.edit, matchers_max));
        }
    }

    /// Changes the topics from the reader's place on, which is after the page that it may have.
    fn edit(&mut self, edit: &TopicEdit, matchers_max: usize) -> Result<Edited, EditError> {
        let engine = &self.hub.state.engine;
        edit.check(&self.reader.filter.matchers, matchers_max)?;
        self.reader.settle(&engine.feeds);
        self.reader.remove_feeds(&engine.feeds, edit);
        self.reader.add_feeds(&engine.feeds, edit, &self.waker);
        self.reader.take_matchers(edit);
        // A page that is being read was requested for the topics before.
        self.replay = None;
        if let Some(membership) = &mut self.membership {
            membership.change(&self.reader.filter.matchers);
        }
        Ok(Edited::new(&self.reader.filter.matchers, self.reader.place))
    }

    /// Sleeps until a heartbeat or an end is due. Events move the heartbeat without touching the
    /// timer: it fires at the old time, finds nothing due and is set again.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let heartbeat_at = self.last_sent + self.heartbeat;
            let end_at = self.ends.iter().map(|end| Instant::from_std(end.next_at())).min();
            let due = end_at.map_or(heartbeat_at, |end_at| end_at.min(heartbeat_at));
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if end_at.is_some_and(|end_at| end_at <= now) {
                return match self.announce_end(now) {
                    Some(bytes) => self.hand_over(bytes, 0),
                    None => self.poll_end(now),
                };
            }
            if heartbeat_at <= now {
                self.last_sent = now;
                return self.hand_over(Bytes::from_static(tidings_sse::HEARTBEAT), 0);
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// Counts bytes that are about to be returned, and the events in them. The application's own
    /// subscriptions are not counted.
    fn hand_over(&self, bytes: Bytes, events: u64) -> Poll<Option<Bytes>> {
        if self.membership.is_some() {
            let delivered = Delivered { events, bytes: bytes.len() as u64 };
            self.hub.state.engine.counts.of(Driver::Pulled).deliveries.add(delivered);
        }
        Poll::Ready(Some(bytes))
    }

    /// Measures how long an event took that is followed on its way.
    fn measure(&self, frame: &Frame) {
        let engine = &self.hub.state.engine;
        if self.membership.is_some()
            && frame.key().ephemeral == 0
            && let Some(mark) = engine.feeds.sampled.at(frame.position())
        {
            engine.counts.of(Driver::Pulled).lag.record(mark.elapsed());
        }
    }

    /// A hub that hands over ends its streams one by one: this one draws its moment, once.
    fn join_closing(&mut self) {
        let closing = &self.hub.state.engine.closing;
        if closing.has_begun() && self.ends.iter().all(|end| end.reason != EndReason::Shutdown) {
            let ends_at = closing.ends_at(random_share());
            self.ends.extend(ends_at.map(|at| End::new(at.into_std(), EndReason::Shutdown)));
        }
    }

    /// The announcement of an end, if it is due.
    fn announce_end(&mut self, now: Instant) -> Option<Bytes> {
        let notice = self.ends.iter_mut().find_map(|end| end.announcement(now.into_std()))?;
        self.last_sent = now;
        Some(notice.encode(self.sent, None))
    }

    /// The end of this stream may have been requested.
    fn join_endings(&mut self, now: Instant) {
        if self.is_to_end.as_ref().is_some_and(|is_to_end| is_to_end.load(Ordering::Acquire)) {
            self.ends.insert(0, End::new(now.into_std(), EndReason::Revoked));
        }
    }

    /// The closing frames of a stream whose end is due.
    fn poll_end(&mut self, now: Instant) -> Poll<Option<Bytes>> {
        let due = self.ends.iter().find(|end| end.at <= now.into_std()).map(|end| end.reason);
        let Some(reason) =
            due.or_else(|| self.hub.state.engine.closing.is_closed(now).then_some(EndReason::Shutdown))
        else {
            return Poll::Pending;
        };
        self.ended = Some(reason.into());
        let retry_millis = jittered_millis(self.hub.state.engine.settings.retry_millis);
        self.hand_over(reason.notice().encode(self.sent, Some(retry_millis)), 0)
    }
}

impl Subscription {
    /// Takes the subscription apart. It has not been polled yet.
    pub(crate) fn into_parts(mut self) -> (Hub, Parts) {
        let parts = Parts {
            reader: self.reader.take(),
            backlog: std::mem::take(&mut self.backlog),
            sent: self.sent,
            ends: std::mem::take(&mut self.ends),
            heartbeat: self.heartbeat,
            membership: self.membership.take().expect("only this takes it"),
            editable: self.editable.take(),
        };
        (self.hub.clone(), parts)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let engine = &self.hub.state.engine;
        if self.is_to_end.is_some() {
            engine.endings.remove_pulled(&self.reader.connection);
            if self.membership.is_some() {
                engine.counts.closed.count(self.close_reason());
            }
        }
        self.reader.leave(&engine.feeds);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.get_mut().poll_bytes(context)
    }
}

impl http_body::Body for Subscription {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.get_mut().poll_bytes(context).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tidings_topic::NewEvent;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_has_caught_up_keeps_no_memory_of_its_history() {
        let hub = Hub::in_memory().await;
        for _ in 0..1_000 {
            hub.publish(NewEvent::new("chat", "x")).await.expect("published");
        }
        let chat = hub.validator().exact("chat").expect("valid");
        let ask = Subscribe::new([chat]).since(Since::Earliest);
        let mut subscription = hub.subscribe(ask).await.expect("the memory log is always available");
        assert!(subscription.backlog.page.is_some());
        for _ in 0..1_001 {
            subscription.next().await.expect("the preface and every event");
        }
        assert!(subscription.backlog.page.is_none());
        assert_eq!(subscription.backlog.control_frames.capacity(), 0);
    }

    #[tokio::test]
    async fn a_subscription_that_was_dropped_is_remembered_nowhere() {
        let hub = Hub::in_memory().await;
        let _other = hub.subscribe("chat").await.expect("the memory log is always available");
        let mut subscription = hub.subscribe("chat").await.expect("the memory log is always available");
        subscription.next().await.expect("the preface");
        let waker = Arc::downgrade(&subscription.waker);
        drop(subscription);
        assert_eq!(waker.strong_count(), 0);
    }

    /// Each moment that is drawn would bring the end forward.
    #[tokio::test(start_paused = true)]
    async fn a_stream_of_a_hub_that_hands_over_draws_its_end_once() {
        let hub = Hub::in_memory().await;
        let mut subscription = hub.subscribe("chat").await.expect("the memory log is always available");
        subscription.next().await.expect("the preface");
        hub.close_over(Duration::from_secs(1_000));
        for _ in 0..100 {
            let _ = subscription.next().now_or_never();
        }
        assert_eq!(subscription.ends.len(), 1);
    }

    #[test]
    fn an_idle_subscription_is_small() {
        let bytes = size_of::<Subscription>();
        assert!(bytes <= 384, "{bytes}");
    }
}
