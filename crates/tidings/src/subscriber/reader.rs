//! The cursor of one subscriber: what it receives next.
//!
//! A [`Reader`] is plain data and does no I/O: it looks at feeds and returns the next step. Two
//! drivers move the bytes: the pulled stream ([`Subscription`](crate::Subscription)) for HTTP and
//! library users, and the [shard](crate::shard) for sockets.

use std::sync::Arc;

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use tidings_log::{Cursor, Epoch, Position};
use tidings_topic::{ConnectionId, Filter, PatternsFull};

use crate::{
    edits::TopicEdit,
    feed::encode::Format,
    feed::feed::{Feed, Peek},
    feed::feeds::Feeds,
    feed::frames::{Audience, Frame},
    feed::place::LivePlace,
    replay::{ReplayRequest, Replayed},
    subscriber::stages::Stages,
};

/// A subscriber's position, and everything that decides what it receives from there.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) filter: Arc<Filter>,
    pub(crate) format: Format,
    pub(crate) connection: ConnectionId,
    /// Everything up to here has been delivered or was not for this subscriber.
    pub(crate) place: Cursor,
    /// The number of the last ephemeral event that was delivered or was not for this subscriber, as
    /// those that were written before it joined.
    pub(crate) ephemeral: u64,
    /// Gaps up to here have been reported. `None` before the first page, for a start that promises
    /// nothing.
    pub(crate) reported: Option<Position>,
    feeds: SmallVec<[(Arc<Feed>, u64); 1]>,
    /// The epoch of the feeds when this reader last looked, which is before the page is read that
    /// it may be waiting for.
    looked_in: Epoch,
    /// What is left of a history in which the matchers start one after the other.
    stages: Option<Box<Stages>>,
    /// The log is in a later epoch than that, and has been read to its end: wait until the feeds
    /// leave theirs.
    waits_for_epoch: bool,
}

/// What a reader's driver has to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this event.
    Send(Frame),
    /// Read the log from the reader's position and pass the page to [`Reader::replayed`].
    Replay,
    /// Nothing now: the waker is woken when there is more.
    Wait,
}

impl Reader {
    /// A reader of history, which receives nothing from feeds.
    pub(crate) fn of_history(
        feeds: &Feeds,
        filter: Arc<Filter>,
        format: Format,
        connection: ConnectionId,
    ) -> Self {
        let LivePlace { log: place, ephemeral } = feeds.routed();
        Self {
            filter,
            format,
            connection,
            place,
            ephemeral,
            reported: Some(place.position),
            feeds: SmallVec::new(),
            looked_in: place.epoch,
            stages: None,
            waits_for_epoch: false,
        }
    }

    /// A reader that receives events from now on. Fails where the limit of
    /// patterns allows no feed for one of its patterns.
    pub(crate) fn join(
        feeds: &Feeds,
        filter: Arc<Filter>,
        format: Format,
        connection: ConnectionId,
        waker: &Arc<AtomicWaker>,
    ) -> Result<Self, PatternsFull> {
        let mut reader = Self::of_history(feeds, filter, format, connection);
        let filter = Arc::clone(&reader.filter);
        for matcher in &filter.matchers {
            match feeds.join(matcher, format, waker) {
                Ok(joined) => {
                    reader.feeds.push((joined.feed, joined.reader));
                    // All of them receive what comes after the last of these.
                    reader.place = joined.after.log;
                    reader.ephemeral = joined.after.ephemeral;
                }
                Err(full) => {
                    reader.leave(feeds);
                    return Err(full);
                }
            }
        }
        reader.reported = Some(reader.place.position);
        reader.looked_in = reader.place.epoch;
        Ok(reader)
    }

    /// Continues from the end of the log as it was before this reader joined. Returns whether the
    /// feeds reach back to it; otherwise the log has to be read.
    pub(crate) fn begin_at_end(&mut self, end: Cursor) -> bool {
        let led = self.place.epoch == end.epoch;
        if led {
            self.place.position = self.place.position.max(end.position);
            self.reported = Some(self.place.position);
        }
        led
    }

    /// Continues from the log, where some of the matchers start later than others, or all end.
    pub(crate) fn begin_with(&mut self, stages: Option<Box<Stages>>) {
        self.stages = stages;
    }

    /// Whether history remains to be read before anything of the feeds.
    pub(crate) fn has_stages(&self) -> bool {
        self.stages.is_some()
    }

    /// Leaves the feeds.
    pub(crate) fn leave(&mut self, feeds: &Feeds) {
        for (feed, reader) in self.feeds.drain(..) {
            feeds.leave(&feed, reader);
        }
    }

    /// Takes the reader out of its driver, which keeps one that reads nothing.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            filter: Arc::clone(&self.filter),
            connection: self.connection,
            feeds: std::mem::take(&mut self.feeds),
            stages: self.stages.take(),
            ..*self
        }
    }

    /// The feeds of this reader, one for each matcher.
    pub(crate) fn feeds(&self) -> impl ExactSizeIterator<Item = &Arc<Feed>> {
        self.feeds.iter().map(|(feed, _)| feed)
    }

    pub(crate) fn first_feed(&self) -> &Arc<Feed> {
        &self.feeds[0].0
    }

    /// From now on a shard wakes this reader.
    pub(crate) fn hand_over(&self) {
        for (feed, number) in &self.feeds {
            feed.hand_over(*number);
        }
    }

    /// The next step. An event is sent once, however many of the matchers it matches.
    pub(crate) fn step(&mut self, feeds: &Feeds) -> Step {
        // The head first: what it covers is in every feed, so the smallest position found is the
        // next of all.
        let head = feeds.head();
        let same_epoch = std::mem::replace(&mut self.looked_in, head.log.epoch) == head.log.epoch;
        self.waits_for_epoch &= same_epoch && self.place.epoch != head.log.epoch;
        if self.stages.is_some() {
            return Step::Replay;
        }
        if self.place.epoch != head.log.epoch {
            return if self.waits_for_epoch { Step::Wait } else { Step::Replay };
        }
        loop {
            match self.peek_all(head) {
                Peek::Behind => return Step::Replay,
                Peek::Nothing => {
                    self.place.position = self.place.position.max(head.log.position);
                    self.ephemeral = self.ephemeral.max(head.ephemeral);
                    return Step::Wait;
                }
                Peek::Frame(frame) => {
                    self.place.position = frame.position();
                    self.ephemeral = self.ephemeral.max(frame.key().ephemeral);
                    if frame.audience().is_none_or(|audience| self.may_receive(audience)) {
                        return Step::Send(frame);
                    }
                }
            }
        }
    }

    /// Where nothing of its feeds is left for this reader, moves to the end of what all feeds hold:
    /// what was written there before is not for it.
    pub(crate) fn settle(&mut self, feeds: &Feeds) {
        let head = feeds.head();
        if self.stages.is_none()
            && self.place.epoch == head.log.epoch
            && matches!(self.peek_all(head), Peek::Nothing)
        {
            self.place.position = self.place.position.max(head.log.position);
            self.ephemeral = self.ephemeral.max(head.ephemeral);
        }
    }

    /// Leaves the feeds of matchers that are removed, and returns which they were, by their index:
    /// each counts after those before it were removed.
    pub(crate) fn remove_feeds(&mut self, feeds: &Feeds, edit: &TopicEdit) -> Vec<usize> {
        let mut removed = Vec::new();
        while let Some(index) = self.feeds.iter().position(|(feed, _)| edit.remove.contains(&feed.matcher)) {
            let (feed, number) = self.feeds.remove(index);
            feeds.leave(&feed, number);
            removed.push(index);
        }
        removed
    }

    /// Joins the feeds of matchers that are added and not there yet. Where one of them begins after
    /// the place of this reader, the log is read up to it.
    pub(crate) fn add_feeds(&mut self, feeds: &Feeds, edit: &TopicEdit, waker: &Arc<AtomicWaker>) {
        for matcher in &edit.add {
            if self.feeds.iter().all(|(feed, _)| feed.matcher != *matcher) {
                let joined = feeds.join(matcher, self.format, waker).expect("only patterns are limited");
                self.feeds.push((joined.feed, joined.reader));
            }
        }
    }

    /// From its place on, this reader has the matchers of the feeds that it reads now.
    pub(crate) fn take_matchers(&mut self, edit: &TopicEdit) {
        let matchers = self.feeds.iter().map(|(feed, _)| feed.matcher.clone()).collect();
        self.filter = Arc::new(Filter { matchers, grants: self.filter.grants.clone() });
        if let Some(stages) = &mut self.stages {
            stages.edit(edit);
        }
    }

    /// Where this reader is in its feeds.
    pub(crate) fn live_place(&self) -> LivePlace {
        LivePlace { log: self.place, ephemeral: self.ephemeral }
    }

    /// Returns to where it was in this epoch: what came after that could not be sent.
    pub(crate) fn go_back(&mut self, place: LivePlace) {
        self.place = place.log;
        self.ephemeral = place.ephemeral;
    }

    /// Whether a matching event may be delivered to this subscriber.
    pub(crate) fn may_receive(&self, audience: &Audience) -> bool {
        audience.admits(&self.connection, |topics| self.filter.grants.cover_any(topics))
    }

    /// What a replay has to know to read the next page.
    pub(crate) fn replay_request(&self, feeds: &Feeds) -> ReplayRequest {
        let stage = self.stages.as_ref().map(|stages| stages.current());
        let end = self.stages.as_ref().and_then(|stages| stages.end());
        ReplayRequest {
            filter: Arc::clone(stage.map_or(&self.filter, |stage| &stage.filter)),
            until: stage.map(|stage| stage.until),
            format: self.format,
            connection: self.connection,
            place: self.place,
            // A finite read may end after what was routed by now.
            routed: end.unwrap_or_else(|| feeds.routed().log),
            reported: self.reported,
            requested: None,
            gap: None,
        }
    }

    /// Moves to the position that a replay has reached. Returns what [`unread`](Self::unread) needs
    /// if the page is not sent.
    pub(crate) fn replayed(&mut self, page: &Replayed) -> Option<Box<Stages>> {
        self.place = page.place;
        self.reported = page.reported;
        let unread = self.stages.clone();
        self.stages = self.stages.take().and_then(|stages| {
            if page.place.epoch != stages.epoch {
                // Positions of one epoch mean nothing in another: all matchers continue here.
                return None;
            }
            if !page.at_end && page.place.position < stages.current().until {
                return Some(stages);
            }
            stages.next()
        });
        // The page is at least as new as the feeds were then. The feeds may be newer than the page
        // by now.
        self.waits_for_epoch = page.at_end && page.place.epoch != self.looked_in;
        unread
    }

    /// Goes back to a place within a page that was replayed, to read the rest of it again.
    pub(crate) fn unread(&mut self, place: Cursor, unread: Option<Box<Stages>>) {
        self.place = place;
        if unread.is_some() {
            self.stages = unread;
        }
    }

    /// The next frame of all feeds.
    fn peek_all(&self, head: LivePlace) -> Peek {
        let mut first: Option<Frame> = None;
        for (feed, _) in &self.feeds {
            match feed.peek(self.live_place(), head) {
                Peek::Behind => return Peek::Behind,
                Peek::Nothing => {}
                Peek::Frame(frame) => {
                    if first.as_ref().is_none_or(|first| frame.key() < first.key()) {
                        first = Some(frame);
                    }
                }
            }
        }
        first.map_or(Peek::Nothing, Peek::Frame)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tidings_delayed_log::{DelayedLog, Faults};
    use tidings_log::{Entry, Log, MemoryLimits, Tail, TailItem, Timestamp};
    use tidings_topic::{Event, Matcher, NewEvent, PatternLimits, Validator};

    use super::*;
    use crate::{feed::feeds::FeedWriter, replay::Replays};

    /// What may happen, in any order.
    #[derive(Clone, Debug)]
    enum Act {
        /// A publisher appends an event with these topics.
        Append(Vec<u8>),
        /// The writer writes an ephemeral event with these topics.
        WriteEphemeral(Vec<u8>),
        /// The writer takes one item from the tail.
        Write,
        /// The reader continues until it has nothing to do.
        Read,
        /// A page that the reader waits for is read, but has not arrived.
        ReadPage,
        LoseEnd(u64),
        Replace,
        /// A publisher deletes this topic.
        Delete(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => prop::collection::vec(0..4_u8, 1..3).prop_map(Act::Append),
            6 => prop::collection::vec(0..4_u8, 1..3).prop_map(Act::WriteEphemeral),
            6 => Just(Act::Write),
            6 => Just(Act::Read),
            4 => Just(Act::ReadPage),
            1 => (0..4_u64).prop_map(Act::LoseEnd),
            1 => Just(Act::Replace),
            2 => (0..4_u8).prop_map(Act::Delete),
        ]
    }

    const TOPICS: [&str; 4] = ["/a/1", "/a/2", "b", "c"];

    fn matchers(validator: &Validator, chosen: u8) -> Vec<Matcher> {
        let all = [
            validator.exact(TOPICS[0]),
            validator.exact(TOPICS[2]),
            validator.pattern("/a/:number"),
            validator.exact("*"),
        ];
        let all = all.map(|matcher| matcher.expect("valid")).into_iter().enumerate();
        all.filter(|(bit, _)| chosen & (1 << bit) != 0).map(|(_, matcher)| matcher).collect()
    }

    /// A log, a writer and one reader, each moved by hand.
    struct Stage {
        log: Arc<DelayedLog>,
        tail: Box<dyn Tail>,
        feeds: Feeds,
        writer: FeedWriter,
        replays: Replays,
        reader: Reader,
        wants_page: bool,
        page: Option<Replayed>,
        received: Vec<String>,
        /// The numbers of the ephemeral events that it has received.
        ephemeral: Vec<usize>,
        gaps: usize,
    }

    impl Stage {
        fn new(chosen: u8, feed_bytes_max: usize) -> Self {
            let log = Arc::new(DelayedLog::new(1, Faults::default(), MemoryLimits::default()));
            let (head, tail) = now(log.tail()).expect("the log is available");
            let limits = PatternLimits { count_max: 1, weight_max: 10 };
            let (feeds, writer) = Feeds::new(head, feed_bytes_max, limits);
            let filter = Filter { matchers: matchers(&Validator::default(), chosen), ..Filter::default() };
            let connection = ConnectionId::from_random([7; 16]);
            let reader = Reader::join(&feeds, Arc::new(filter), Format::Plain, connection, &Arc::default())
                .expect("one pattern at most");
            let replays = Replays::new(Arc::clone(&log) as Arc<dyn Log>, 1, 300);
            Self {
                log,
                tail,
                feeds,
                writer,
                replays,
                reader,
                wants_page: false,
                page: None,
                received: Vec::new(),
                ephemeral: Vec::new(),
                gaps: 0,
            }
        }

        fn append(&self, data: usize, topics: &[u8]) -> Event {
            let event = event(data, topics);
            self.log.append_foreign(vec![event.clone()]).expect("there is capacity");
            event
        }

        fn write_ephemeral(&mut self, data: usize, topics: &[u8]) -> Event {
            let event = event(data, topics);
            let entry = Entry::new(self.feeds.head().log, Timestamp::from_millis(0), event.clone());
            assert_eq!(self.writer.write_ephemeral(&self.feeds, &[entry]), 1);
            event
        }

        /// Whether there was something to write.
        fn write(&mut self) -> bool {
            let item = self.tail.next(1).now_or_never().map(|item| item.expect("the log is available"));
            let Self { feeds, writer, .. } = self;
            match &item {
                None => {}
                Some(TailItem::Entries(entries)) => assert_eq!(writer.write(feeds, entries), entries.len()),
                Some(TailItem::Skipped { through }) => {
                    writer.restart(feeds, Cursor { position: *through, ..feeds.head().log });
                }
                Some(TailItem::Deleted { .. }) => {
                    writer.forget(feeds);
                    self.replays.forget();
                }
                Some(TailItem::NewEpoch(start)) => {
                    writer.restart(feeds, Cursor { epoch: start.epoch, position: start.after });
                }
            }
            item.is_some()
        }

        fn read_page(&mut self) {
            if self.wants_page && self.page.is_none() {
                let request = self.reader.replay_request(&self.feeds);
                self.page = Some(now(self.replays.next_page(request)).expect("the log is available"));
            }
        }

        /// The reader takes what has arrived and continues until it needs a page or has to wait.
        fn read(&mut self) {
            if self.wants_page {
                let Some(page) = self.page.take() else { return };
                self.reader.replayed(&page);
                self.wants_page = false;
                self.gaps += usize::from(page.gap.is_some());
                let frames = (0..).map_while(|index| Frame::new(&page.frames, index));
                self.received.extend(frames.map(|frame| data_of(&frame)));
            }
            loop {
                match self.reader.step(&self.feeds) {
                    Step::Send(frame) if frame.key().ephemeral > 0 => {
                        self.ephemeral.push(data_of(&frame).parse().expect("a number"));
                    }
                    Step::Send(frame) => self.received.push(data_of(&frame)),
                    Step::Replay => break self.wants_page = true,
                    Step::Wait => break,
                }
            }
        }

        /// Until nothing is left to do, which happens soon.
        fn settle(&mut self) {
            for _ in 0..1_000 {
                let wrote = self.write();
                self.read_page();
                self.read();
                if !wrote && !self.wants_page {
                    return;
                }
            }
            panic!("the reader asks for one page after the other: {:?}", self.reader);
        }
    }

    fn event(data: usize, topics: &[u8]) -> Event {
        let topics = topics.iter().map(|topic| TOPICS[usize::from(*topic)].to_owned()).collect();
        let new = NewEvent { topics, data: data.to_string(), ..NewEvent::default() };
        Validator::default().event(new).expect("valid")
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::task::unconstrained(future).now_or_never().expect("this log never waits")
    }

    fn data_of(frame: &Frame) -> String {
        let event = frame.event();
        let text = std::str::from_utf8(&event).expect("text");
        text.split("data: ").nth(1).expect("an event has data").trim().to_owned()
    }

    proptest! {
        /// However writing, reading, pages on their way and lost ends interleave, the reader
        /// receives each event once and in order, and in the end everything that the log still has.
        /// Ephemeral events between them change nothing of that; they come at most once and in
        /// order, too.
        #[test]
        fn a_reader_receives_every_remaining_event_once_and_in_order(
            acts in prop::collection::vec(act(), 0..60),
            chosen in 1..16_u8,
            feed_bytes_max in prop::sample::select(vec![0, 1_000, 1 << 20]),
        ) {
            let mut stage = Stage::new(chosen, feed_bytes_max);
            let mut said: Vec<(String, Event)> = Vec::new();
            let mut ephemeral: Vec<Event> = Vec::new();
            let (mut epochs, mut deletions) = (0, 0);
            for act in acts {
                match act {
                    Act::Append(topics) => {
                        let event = stage.append(said.len(), &topics);
                        said.push((event.data.clone(), event));
                    }
                    Act::WriteEphemeral(topics) => {
                        let event = stage.write_ephemeral(ephemeral.len(), &topics);
                        ephemeral.push(event);
                    }
                    Act::Write => drop(stage.write()),
                    Act::Read => stage.read(),
                    Act::ReadPage => stage.read_page(),
                    Act::LoseEnd(count) => {
                        stage.log.lose_end(count);
                        epochs += 1;
                    }
                    Act::Delete(topic) => {
                        let topic = Validator::default().topic(TOPICS[usize::from(topic)]).expect("a topic");
                        now(stage.log.delete(&topic, &tidings_topic::Grants::all())).expect("the log is available");
                        deletions += 1;
                    }
                    Act::Replace => {
                        stage.log.replace();
                        epochs += 1;
                    }
                }
            }
            stage.settle();

            let everything = Filter { grants: tidings_topic::Grants::all(), ..Filter::everything_public() };
            let left = now(stage.log.read(Position::BEFORE_ALL, &everything, usize::MAX)).expect("there");
            let received: HashSet<_> = stage.received.iter().collect();
            for entry in left.entries.iter().filter(|entry| stage.reader.filter.accepts(&entry.event)) {
                prop_assert!(received.contains(&entry.event.data), "{} is missing of {:?}", entry.event.data, stage.received);
            }
            prop_assert_eq!(received.len(), stage.received.len(), "doubled: {:?}", stage.received);
            let numbers: Vec<usize> = stage.received.iter().map(|data| data.parse().expect("a number")).collect();
            prop_assert!(numbers.is_sorted(), "out of order: {:?}", numbers);
            let wished = |number: &usize| stage.reader.filter.accepts(&said[*number].1);
            prop_assert!(numbers.iter().all(wished), "not asked for: {:?}", numbers);
            let numbers = &stage.ephemeral;
            prop_assert!(numbers.is_sorted_by(|one, next| one < next), "repeated or out of order: {numbers:?}");
            prop_assert!(numbers.iter().all(|number| stage.reader.filter.accepts(&ephemeral[*number])));
            prop_assert!(stage.gaps <= epochs + deletions);
            if epochs == 0 {
                let is_missing = |(data, event): &(String, Event)| {
                    stage.reader.filter.accepts(event) && !received.contains(data)
                };
                prop_assert_eq!(stage.gaps > 0, said.iter().any(is_missing), "silent or false: {}", stage.gaps);
            }
            prop_assert_eq!(stage.reader.place, left_end(&stage.log));
        }
    }

    fn left_end(log: &DelayedLog) -> Cursor {
        now(log.bounds()).expect("the log is available").newest_cursor()
    }

    #[test]
    fn a_page_older_than_the_feeds_does_not_block_the_reader() {
        let mut stage = Stage::new(2, 1 << 20);
        stage.append(0, &[2]);
        stage.log.lose_end(0);
        while stage.write() {}
        stage.read();
        stage.read_page();
        // While the page is on its way, the log loses its end again, and the feeds are there first.
        stage.log.lose_end(0);
        stage.append(1, &[2]);
        while stage.write() {}
        stage.settle();
        assert_eq!(stage.received, ["0", "1"]);
    }

    /// The log is in a new epoch, which the feeds learn later. Until then another page would be the
    /// same page.
    #[test]
    fn a_reader_at_the_end_of_a_new_epoch_waits_for_the_feeds() {
        let mut stage = Stage::new(1, 0);
        stage.append(0, &[0]);
        stage.write();
        stage.log.replace();
        stage.read();
        stage.read_page();
        stage.read();
        assert!(!stage.wants_page);
        stage.settle();
        stage.append(1, &[0]);
        stage.settle();
        assert_eq!(stage.received.last().map(String::as_str), Some("1"));
    }
}
