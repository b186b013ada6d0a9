//! Who is subscribed, at this hub and at the others of its store, and the hooks that report it. A hub
//! that is configured for neither has none of it.

use std::{error::Error as _, sync::Arc, time::Duration};

use tidings::{Error, Hub, HubBuilder, log::Log};
use tidings_presence::{PresenceIndex, PresenceList, SubscriptionIndex};
use tidings_server::Settings;

use crate::{
    config::ServeConfig,
    failure::Failure,
    hooks::{HookSources, Hooks, Watched},
};

/// See the module's documentation. Clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Attendance {
    list: Option<PresenceList>,
    presence: Option<Arc<PresenceIndex>>,
    subscriptions: Option<Arc<SubscriptionIndex>>,
    hooks: Option<Arc<Hooks>>,
}

impl Attendance {
    /// Starts the hub with what is configured. Where there are hooks, the store has a journal.
    pub(super) async fn start(
        hub: HubBuilder,
        config: &ServeConfig,
        journal: Option<Arc<dyn Log>>,
    ) -> Result<(Hub, Self), Failure> {
        if !config.presence && !config.mercure_subscriptions {
            return Ok((hub.start().await.map_err(|error| not_started(&error))?, Self::default()));
        }
        let presence = config.presence.then(Arc::<PresenceIndex>::default);
        let subscriptions = config.mercure_subscriptions.then(Arc::<SubscriptionIndex>::default);
        let noting = (presence.clone(), subscriptions.clone());
        let started = PresenceList::start(hub, move |who| {
            noting.0.iter().for_each(|index| index.note(who));
            noting.1.iter().for_each(|index| index.note(who));
        });
        let started = started.await;
        let (hub, list) = started.map_err(|error| not_started(&error))?;
        let sources = |journal| HookSources {
            hub: hub.clone(),
            list: list.clone(),
            watched: Watched {
                presence: presence.clone().filter(|_| config.presence_events || !config.hooks.is_empty()),
                subscriptions: subscriptions.clone(),
            },
            journal,
            grace: Duration::from_secs(config.presence_grace_secs),
            has_events: config.presence_events,
            serves_older_mercure_revision: config.serves_older_mercure_revision(),
        };
        let hooks = journal.map(|journal| Hooks::start(config.hooks.clone(), sources(journal)));
        let hooks = hooks.transpose().map_err(Failure::runtime)?.map(Arc::new);
        Ok((hub, Self { list: Some(list), presence, subscriptions, hooks }))
    }

    /// Has the server show it.
    pub(super) fn add_to(&self, settings: &mut Settings) {
        settings.presence.clone_from(&self.presence);
        settings.mercure_subscriptions.clone_from(&self.subscriptions);
        settings.components.extend(self.hooks.iter().flat_map(|hooks| hooks.components()));
    }

    /// Stops the hooks, so that another hub can take over.
    pub(super) async fn stop_hooks(&self) {
        if let Some(hooks) = &self.hooks {
            hooks.stop().await;
        }
    }

    /// Waits until the other hubs know that this one, which is closed, has no subscribers any more.
    pub(super) async fn withdrawn(&self) {
        if let Some(list) = &self.list {
            list.withdrawn().await;
        }
    }
}

fn not_started(error: &Error) -> Failure {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::runtime(format!("{error}{cause}"))
}
