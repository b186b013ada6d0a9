//! What the hooks of this hub report on: who is present, and which subscriptions are active.

use std::{collections::HashSet, future::pending, sync::Arc};

use tidings_presence::{PresenceIndex, SubscriptionIndex};

use super::change::Member;

/// See the [module documentation](self). What is absent is not reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) presence: Option<Arc<PresenceIndex>>,
    pub(crate) subscriptions: Option<Arc<SubscriptionIndex>>,
}

impl Watched {
    /// Begins to collect changes, and returns all who are present now.
    pub(super) fn follow(&self) -> HashSet<Member> {
        let presence = self.presence.iter().flat_map(|index| index.follow()).map(Member::Presence);
        let subscriptions = self.subscriptions.iter().flat_map(|index| index.follow());
        presence.chain(subscriptions.map(Member::Subscription)).collect()
    }

    /// Ends what [`follow`](Self::follow) began.
    pub(super) fn unfollow(&self) {
        self.presence.iter().for_each(|index| index.unfollow());
        self.subscriptions.iter().for_each(|index| index.unfollow());
    }

    /// Who came or left since the last call.
    pub(super) fn take_changed(&self) -> HashSet<Member> {
        let presence = self.presence.iter().flat_map(|index| index.take_changed()).map(Member::Presence);
        let subscriptions = self.subscriptions.iter().flat_map(|index| index.take_changed());
        presence.chain(subscriptions.map(Member::Subscription)).collect()
    }

    /// Waits until there may be something to [take](Self::take_changed). Cancel safe.
    pub(super) async fn changed(&self) {
        let presence = async {
            match &self.presence {
                Some(index) => index.changed().await,
                None => pending().await,
            }
        };
        let subscriptions = async {
            match &self.subscriptions {
                Some(index) => index.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = presence => {}
            () = subscriptions => {}
        }
    }

    /// Whether this hub can know if the member is present. Another hub of the store may be configured
    /// to report others.
    pub(super) fn covers(&self, member: &Member) -> bool {
        match member {
            Member::Presence(_) => self.presence.is_some(),
            Member::Subscription(_) => self.subscriptions.is_some(),
        }
    }

    pub(super) fn is_present(&self, member: &Member) -> bool {
        match member {
            Member::Presence(member) => self.presence.as_ref().is_some_and(|index| index.is_present(member)),
            Member::Subscription(subscription) => {
                self.subscriptions.as_ref().is_some_and(|index| index.get(&subscription.key).is_some())
            }
        }
    }
}
