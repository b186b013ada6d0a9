//! The record of published and delivered events: it proves that each subscriber received each event
//! once, in order.
//!
//! Publishers number their events per topic, without holes. For each stream and publisher the next
//! number is therefore known; any other is a fault. A fold of all numbers in their order of arrival
//! shows whether the streams of one topic agree on one order across publishers, which the numbers
//! alone do not show.

use std::collections::{HashMap, HashSet};

use crate::{mark::Mark, report::Faults};

/// Holes that are remembered one by one, to distinguish a late event from a lost one. Beyond, a
/// late event counts as duplicated.
const HOLES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Ledger {
    run: u8,
    publishers: usize,
    /// Next number to publish: by topic, then publisher.
    published: Vec<u32>,
    /// Streams of each topic.
    audience: Vec<u32>,
    streams: Vec<Stream>,
    /// Next number to arrive: by stream, then publisher.
    arriving: Vec<u32>,
    holes: HashSet<(u32, u8, u32)>,
    /// Entries of `arriving` for which the hub reported a gap: events missing before the next one
    /// are reported, not lost.
    excused: HashSet<usize>,
    gaps: u64,
    reported: u64,
    duplicated: u64,
    reordered: u64,
    strays: u64,
    /// The first stray: the topic of the stream that it reached, and which event it was.
    first_stray: Option<(u32, Mark)>,
    delivered: u64,
    expected: u64,
}

/// How many events each publisher had published on each topic at some time.
#[derive(Debug)]
pub(crate) struct Published(Vec<u32>);

#[derive(Clone, Copy, Debug)]
struct Stream {
    topic: u32,
    /// How many earlier events it does not receive.
    missed: u32,
    order: u64,
}

impl Ledger {
    pub(crate) fn new(run: u8, topics: usize, publishers: usize) -> Self {
        Self {
            run,
            publishers,
            published: vec![0; topics * publishers],
            audience: vec![0; topics],
            streams: Vec::new(),
            arriving: Vec::new(),
            holes: HashSet::new(),
            excused: HashSet::new(),
            gaps: 0,
            reported: 0,
            duplicated: 0,
            reordered: 0,
            strays: 0,
            first_stray: None,
            delivered: 0,
            expected: 0,
        }
    }

    /// Adds a stream, which is to receive everything from here on. Streams are numbered in this
    /// order.
    pub(crate) fn subscribe(&mut self, topic: u32) {
        let first = topic as usize * self.publishers;
        let from = self.published[first..first + self.publishers].to_vec();
        self.enter(topic, &from);
    }

    /// Adds a stream, which is to receive what was published after the first event of publisher 0.
    pub(crate) fn subscribe_behind_the_first(&mut self, topic: u32) {
        let mut from = vec![0; self.publishers];
        from[0] = 1;
        self.enter(topic, &from);
        let first = topic as usize * self.publishers;
        let published: u32 = self.published[first..first + self.publishers].iter().sum();
        self.expected += u64::from(published.saturating_sub(1));
    }

    fn enter(&mut self, topic: u32, from: &[u32]) {
        self.audience[topic as usize] += 1;
        self.streams.push(Stream { topic, missed: from.iter().sum(), order: 0 });
        self.arriving.extend_from_slice(from);
    }

    /// Numbers an event that is about to be published.
    pub(crate) fn publish(&mut self, publisher: u8, topic: u32, due_nanos: u64) -> Mark {
        let next = &mut self.published[topic as usize * self.publishers + usize::from(publisher)];
        let mark = Mark { run: self.run, publisher, topic, sequence: *next, due_nanos };
        *next += 1;
        self.expected += u64::from(self.audience[topic as usize]);
        mark
    }

    /// Records an arrival. True if it is an event of this stream that it did not have before.
    #[inline]
    pub(crate) fn deliver(&mut self, stream: u32, mark: Mark) -> bool {
        let known = &mut self.streams[stream as usize];
        if mark.run != self.run || mark.topic != known.topic || usize::from(mark.publisher) >= self.publishers
        {
            self.strays += 1;
            self.first_stray.get_or_insert((known.topic, mark));
            return false;
        }
        known.order = (known.order.rotate_left(5) ^ mark.number()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let next = &mut self.arriving[stream as usize * self.publishers + usize::from(mark.publisher)];
        if mark.sequence == *next && self.excused.is_empty() {
            *next += 1;
            self.delivered += 1;
            return true;
        }
        self.deliver_out_of_turn(stream, mark)
    }

    #[cold]
    fn deliver_out_of_turn(&mut self, stream: u32, mark: Mark) -> bool {
        let place = stream as usize * self.publishers + usize::from(mark.publisher);
        let next = self.arriving[place];
        let excused = self.excused.remove(&place);
        if excused && mark.sequence >= next {
            self.reported += u64::from(mark.sequence - next);
            self.arriving[place] = mark.sequence + 1;
        } else if mark.sequence == next {
            self.arriving[place] = next + 1;
        } else if mark.sequence > next {
            for hole in next..mark.sequence {
                if self.holes.len() < HOLES_MAX {
                    self.holes.insert((stream, mark.publisher, hole));
                }
            }
            self.arriving[place] = mark.sequence + 1;
        } else if self.holes.remove(&(stream, mark.publisher, mark.sequence)) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
            return false;
        }
        self.delivered += 1;
        true
    }

    /// Records a gap notice of this stream, which may continue with any later event.
    pub(crate) fn excuse(&mut self, stream: u32) {
        self.gaps += 1;
        let first = stream as usize * self.publishers;
        self.excused.extend(first..first + self.publishers);
    }

    /// The number of reported gaps.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Whether everything that was published has arrived, or is covered by a gap notice.
    pub(crate) fn complete(&self) -> bool {
        self.delivered + self.reported + self.unreported() >= self.expected
    }

    /// What streams with a gap have not received, because no event followed the gap.
    fn unreported(&self) -> u64 {
        let missing = |place: &usize| {
            let stream = self.streams[place / self.publishers];
            let published = self.published[stream.topic as usize * self.publishers + place % self.publishers];
            u64::from(published - self.arriving[*place])
        };
        self.excused.iter().map(missing).sum()
    }

    /// Whether there is a fault that later events cannot resolve: a duplicate, a stray, or a stream
    /// that has skipped an event.
    pub(crate) fn faulty(&self) -> bool {
        !self.holes.is_empty() || self.duplicated + self.reordered + self.strays > 0
    }

    /// What has been published so far, to be compared with what has arrived some time later.
    pub(crate) fn published(&self) -> Published {
        Published(self.published.clone())
    }

    /// Whether the stream has all of that, or got a gap notice.
    pub(crate) fn has_all(&self, stream: u32, Published(published): &Published) -> bool {
        let first = self.streams[stream as usize].topic as usize * self.publishers;
        let mut places =
            (stream as usize * self.publishers..).zip(&published[first..first + self.publishers]);
        places.all(|(place, published)| self.arriving[place] >= *published || self.excused.contains(&place))
    }

    /// Each event counts once per stream.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Describes the first event that reached a stream of another topic, or that another run
    /// published.
    pub(crate) fn first_stray(&self) -> Option<String> {
        let (topic, mark) = self.first_stray?;
        Some(if mark.run == self.run {
            format!(
                "event {} of publisher {} on topic {} arrived at a stream of topic {topic}",
                mark.sequence, mark.publisher, mark.topic
            )
        } else {
            format!(
                "an event of an earlier run, on topic {}, arrived at a stream of topic {topic}",
                mark.topic
            )
        })
    }

    /// The faults so far. What has not arrived counts as lost, so call this at the end.
    pub(crate) fn faults(&self, one_order: bool) -> Faults {
        Faults {
            lost: self.expected.saturating_sub(self.delivered + self.reported + self.unreported()),
            duplicated: self.duplicated,
            reordered: self.reordered,
            strays: self.strays,
            disagreeing: if one_order { self.disagreeing() } else { 0 },
            ..Faults::default()
        }
    }

    /// Streams that have everything, but not in the order of the first stream of their topic that
    /// is to have the same.
    fn disagreeing(&self) -> u64 {
        if self.delivered != self.expected || self.duplicated + self.strays > 0 {
            return 0;
        }
        let mut orders = HashMap::new();
        let disagrees = |stream: &&Stream| {
            *orders.entry((stream.topic, stream.missed)).or_insert(stream.order) != stream.order
        };
        self.streams.iter().filter(disagrees).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams of one topic, and the events of two publishers.
    fn ledger() -> (Ledger, [Mark; 4]) {
        let mut ledger = Ledger::new(7, 1, 2);
        ledger.subscribe(0);
        ledger.subscribe(0);
        let marks = [0, 1, 0, 1].map(|publisher| ledger.publish(publisher, 0, 0));
        (ledger, marks)
    }

    fn arrive(order: [&[usize]; 2]) -> Faults {
        let (mut ledger, marks) = ledger();
        for (stream, order) in (0..).zip(order) {
            for place in order {
                ledger.deliver(stream, marks[*place]);
            }
        }
        ledger.faults(true)
    }

    #[test]
    fn publishers_may_interleave_in_any_order_that_all_streams_share() {
        assert_eq!(arrive([&[0, 1, 2, 3], &[0, 1, 2, 3]]), Faults::default());
        assert_eq!(arrive([&[1, 3, 0, 2], &[1, 3, 0, 2]]), Faults::default());
        assert_eq!(arrive([&[1, 0, 2, 3], &[0, 1, 2, 3]]), Faults { disagreeing: 1, ..Faults::default() });
    }

    #[test]
    fn lost_duplicated_and_reordered_events_are_counted_separately() {
        assert_eq!(arrive([&[0, 1, 2], &[0, 1, 2, 3]]), Faults { lost: 1, ..Faults::default() });
        assert_eq!(arrive([&[1, 2, 3], &[0, 1, 2, 3]]), Faults { lost: 1, ..Faults::default() });
        assert_eq!(arrive([&[0, 1, 0, 2, 3], &[0, 1, 2, 3]]), Faults { duplicated: 1, ..Faults::default() });
        assert_eq!(arrive([&[2, 1, 0, 3], &[2, 1, 0, 3]]), Faults { reordered: 2, ..Faults::default() });
    }

    #[test]
    fn an_event_of_another_topic_or_run_is_a_stray() {
        let (mut ledger, marks) = ledger();
        assert!(!ledger.deliver(0, Mark { run: 8, ..marks[0] }));
        assert!(!ledger.deliver(0, Mark { topic: 1, ..marks[0] }));
        assert!(!ledger.deliver(0, Mark { publisher: 2, ..marks[0] }));
        assert_eq!(ledger.faults(true).strays, 3);
        let quoted = ledger.first_stray().expect("there is one");
        assert_eq!(quoted, "an event of an earlier run, on topic 0, arrived at a stream of topic 0");
    }

    #[test]
    fn events_in_a_reported_gap_are_not_lost_and_later_missing_ones_are() {
        let (mut ledger, marks) = ledger();
        let more = [0, 1].map(|publisher| ledger.publish(publisher, 0, 0));
        for mark in marks.iter().chain(&more) {
            ledger.deliver(0, *mark);
        }
        assert!(!ledger.complete());
        ledger.deliver(1, marks[0]);
        ledger.excuse(1);
        assert!(ledger.deliver(1, more[0]), "the second event of publisher 0 is gone");
        assert!(!ledger.faulty());
        assert!(ledger.complete(), "no event of publisher 1 followed the gap, and perhaps none can");
        assert_eq!((ledger.gaps(), ledger.faults(true)), (1, Faults::default()));
        let next = [0, 0, 1].map(|publisher| ledger.publish(publisher, 0, 0));
        for mark in &next {
            ledger.deliver(0, *mark);
        }
        assert!(ledger.deliver(1, next[1]));
        assert!(ledger.faulty(), "the excuse of publisher 0 has ended");
        assert!(ledger.deliver(1, next[2]));
        assert_eq!(ledger.faults(true), Faults { lost: 1, ..Faults::default() });
    }

    #[test]
    fn a_stream_that_is_behind_is_detected_while_events_arrive() {
        let (mut ledger, marks) = ledger();
        let then = ledger.published();
        for mark in marks {
            ledger.deliver(0, mark);
        }
        ledger.publish(0, 0, 0);
        assert!(ledger.has_all(0, &then));
        assert!(!ledger.has_all(1, &then));
    }

    #[test]
    fn a_late_stream_expects_the_events_it_requested() {
        let (mut ledger, marks) = ledger();
        ledger.subscribe(0);
        ledger.subscribe_behind_the_first(0);
        assert_eq!(ledger.expected(), 2 * 4 + 3);
        for place in [1, 2, 3] {
            assert!(ledger.deliver(3, marks[place]));
        }
        assert_eq!(ledger.delivered(), 3);
        let next = ledger.publish(0, 0, 0);
        assert!(ledger.deliver(2, next));
    }
}
