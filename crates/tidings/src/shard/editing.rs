//! Changes the topics of subscribers of a shard.

use std::{sync::Arc, time::Instant};

use futures_util::task::AtomicWaker;

use super::{Key, Shard, Visiting, wire::Wire};
use crate::{
    edits::{EditError, Edited, TopicEdit},
    engine::Engine,
    shard::inbox::FeedNotifier,
};

impl<W: Wire> Shard<W> {
    /// How the driver is called when the topics of this subscriber are to be changed, if they can
    /// be.
    pub(crate) fn notify_of_edits(&self, key: Key, notify: impl Fn() + Send + 'static) {
        if let Some(editable) = self.editable.get(&key.slot) {
            editable.notify_with(notify);
        }
    }

    /// Changes the topics of this subscriber as was requested. What is due is sent before, so that a
    /// stream that is read changes at the end of what has been written.
    pub(crate) fn edit(
        &mut self,
        key: Key,
        new_notifier: impl Fn(u32) -> FeedNotifier,
        engine: &Engine,
        now: Instant,
    ) {
        if self.subscriber_mut(key).is_none() {
            return;
        }
        let Some(editable) = self.editable.get(&key.slot) else { return };
        let matchers_max = editable.matchers_max;
        for waiting in editable.take() {
            self.visit(key.slot, Visiting::OutOfTurn, engine, now);
            let edited = self.edit_one(key, &waiting.edit, matchers_max, &new_notifier, engine);
            // Nobody may wait for the answer any more.
            let _ = waiting.answer.send(edited);
        }
    }

    fn edit_one(
        &mut self,
        key: Key,
        edit: &TopicEdit,
        matchers_max: usize,
        new_notifier: &impl Fn(u32) -> FeedNotifier,
        engine: &Engine,
    ) -> Result<Edited, EditError> {
        let subscriber = self.subscriber_mut(key).filter(|subscriber| !subscriber.is_ending());
        let subscriber = subscriber.ok_or(EditError::Unknown)?;
        edit.check(&subscriber.reader.filter.matchers, matchers_max)?;
        let feeds = &engine.feeds;
        self.change(key, |subscriber, _| subscriber.settle(feeds));
        let subscriber = self.subscriber_mut(key).expect("it is here");
        let filter = Arc::clone(&subscriber.reader.filter);
        let removed = subscriber.reader.remove_feeds(feeds, edit);
        let left: Vec<_> = removed.into_iter().map(|index| subscriber.members.remove(index)).collect();
        // A shard wakes this reader, not the waker.
        subscriber.reader.add_feeds(feeds, edit, &Arc::new(AtomicWaker::new()));
        subscriber.reader.hand_over();
        subscriber.reader.take_matchers(edit);
        let added: Vec<_> = subscriber.reader.feeds().skip(subscriber.members.len()).cloned().collect();
        for member in left {
            self.leave_group(member);
        }
        let joined: Vec<_> =
            added.iter().map(|feed| self.groups.join(feed, key.slot, new_notifier)).collect();
        self.filters.release(&filter);
        let Self { subscribers, filters, .. } = self;
        let subscriber = &mut subscribers[key.slot as usize];
        subscriber.members.extend(joined);
        subscriber.filter_number = filters.intern(&mut subscriber.reader.filter);
        subscriber.membership.change(&subscriber.reader.filter.matchers);
        let edited = Edited::new(&subscriber.reader.filter.matchers, subscriber.reader.place);
        self.enqueue(key);
        Ok(edited)
    }
}
