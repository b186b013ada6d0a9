//! The audiences of events, and what a hub hands on to those that start later and cannot read the
//! events any more.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use tidings_log::{Topic, parts::Audience};

use super::{Index, Mark, Span, last_number_of, sequence_of};
use crate::format::{Audiences, KnownAudience};

impl Index {
    /// What a hub that starts later cannot read any more when retention has taken it: the
    /// audiences, the newest first, as many as fit into this many bytes.
    pub(crate) fn audiences(&self, bytes_max: usize) -> Audiences {
        let (mut forgotten_through, gone) = self.floors.known();
        let mut all: HashMap<&Audience, KnownAudience> = HashMap::new();
        for (audience, Span { first, newest }) in &self.audiences {
            let known = KnownAudience {
                audience: Audience::clone(audience),
                gone: 0,
                first: *first,
                newest: *newest,
            };
            all.insert(audience, known);
        }
        for (number, audience) in gone {
            let nothing_kept =
                || KnownAudience { audience: audience.clone(), gone: 0, first: 0, newest: number };
            all.entry(audience).or_insert_with(nothing_kept).gone = number;
        }
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_unstable_by_key(|known| Reverse(known.newest));
        let mut bytes = 0;
        let fitting = all.iter().take_while(|known| {
            bytes += known.audience.topics.iter().map(|topic| topic.as_str().len() + 4).sum::<usize>() + 29;
            bytes <= bytes_max
        });
        let fitting = fitting.count();
        if let Some(left_out) = all.get(fitting) {
            forgotten_through = forgotten_through.max(left_out.newest);
        }
        all.truncate(fitting);
        Audiences { through: self.read.sequence, forgotten_through, known: all }
    }

    /// The stream begins at this message, and what came before was never read here. Its audiences
    /// are known from another hub, if that has read all of it.
    pub(crate) fn begin_at_knowing(&mut self, sequence: u64, audiences: Audiences) {
        let gone_through = last_number_of(sequence.saturating_sub(1));
        let is_known = audiences.through + 1 >= sequence && sequence > 1 && self.read.sequence == 0;
        if !is_known {
            return self.begin_at(sequence);
        }
        self.floors.forget_through(audiences.forgotten_through.min(gone_through));
        let newest =
            audiences.known.iter().map(|known| known.newest).filter(|newest| *newest <= gone_through).max();
        // A floor is found by its number, so each audience below needs one of its own. These count
        // down from the end of the last message that is gone: only a batch of nearly as many events
        // as a message can have has used them.
        let mut unused = gone_through;
        self.note_missed(audiences.known.into_iter().filter_map(|known| {
            let gone = if known.newest <= gone_through {
                known.newest
            } else if known.first > gone_through {
                known.gone
            } else {
                // Some of it is gone and some is not: which was the last that is gone is not known.
                unused -= 1;
                unused
            };
            (gone > 0).then_some((known.audience, gone))
        }));
        self.front = gone_through;
        self.newest = self.newest.max(newest.unwrap_or(gone_through));
        self.read = Mark { sequence: sequence - 1, nanos: 0 };
    }

    /// Events that are no longer readable here: records which audiences missed them.
    pub(crate) fn note_missed(&mut self, missed: impl IntoIterator<Item = (Audience, u64)>) {
        for (audience, newest) in missed {
            self.floors.record(newest, audience, &self.floor_limits);
        }
    }

    /// This message, and perhaps some behind it, had been erased before they were read.
    pub(crate) fn note_erased(&mut self, sequence: u64) {
        self.first_erased.get_or_insert(sequence);
    }

    /// A deletion hid events up to here without naming all audiences. Of those that were erased before
    /// they were read it is not known who missed them.
    pub(crate) fn forget_unread(&mut self, through: u64) {
        if self.first_erased.is_some_and(|sequence| sequence <= sequence_of(through)) {
            self.floors.forget_through(through);
        }
    }

    /// The audiences that can receive the events of a topic, how many events there are and which is
    /// the newest, for each audience; the newest event of the log.
    pub(crate) fn bearing(&self, topic: &Topic) -> (Vec<(Arc<Audience>, u64, u64)>, u64) {
        let mut bearing: HashMap<&Arc<Audience>, (u64, u64)> = HashMap::new();
        for number in self.topics.get(topic).into_iter().flatten() {
            if let Some(record) = self.record(*number) {
                let (count, newest) = bearing.entry(&record.audience).or_default();
                (*count, *newest) = (*count + 1, *number);
            }
        }
        let bearing =
            bearing.into_iter().map(|(audience, (count, newest))| (Arc::clone(audience), count, newest));
        (bearing.collect(), self.newest)
    }

    /// The shared instance of this audience, which has its newest event now.
    pub(super) fn shared_audience(&mut self, audience: Audience, number: u64) -> Arc<Audience> {
        if let Some((known, span)) =
            self.audiences.get_key_value(&audience).map(|(known, span)| (known, *span))
        {
            let known = Arc::clone(known);
            self.audiences.insert(Arc::clone(&known), Span { newest: number, ..span });
            return known;
        }
        let shared = Arc::new(audience);
        self.audiences.insert(Arc::clone(&shared), Span { first: number, newest: number });
        shared
    }
}
