//! Who is subscribed, at this hub and at the others of its store, and the hooks that report it. A hub
//! that is configured for neither has none of it.

use std::{error::Error as _, sync::Arc, time::Duration};

use tidings::{Error, Hub, HubBuilder, log::Log};
use tidings_presence::{PresenceIndex, PresenceList};
use tidings_server::Settings;

use crate::{
    config::ServeConfig,
    failure::Failure,
    hooks::{HookSources, Hooks},
};

/// See the module's documentation. Clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Attendance {
    present: Option<(PresenceList, Arc<PresenceIndex>)>,
    hooks: Option<Arc<Hooks>>,
}

impl Attendance {
    /// Starts the hub with what is configured. Where there are hooks, the store has a journal.
    pub(super) async fn start(
        hub: HubBuilder,
        config: &ServeConfig,
        journal: Option<Arc<dyn Log>>,
    ) -> Result<(Hub, Self), Failure> {
        if !config.presence {
            return Ok((hub.start().await.map_err(|error| not_started(&error))?, Self::default()));
        }
        let index = Arc::<PresenceIndex>::default();
        let noting = Arc::clone(&index);
        let started = PresenceList::start(hub, move |presence| noting.note(presence)).await;
        let (hub, list) = started.map_err(|error| not_started(&error))?;
        let sources = |journal| HookSources {
            hub: hub.clone(),
            list: list.clone(),
            index: Arc::clone(&index),
            journal,
            grace: Duration::from_secs(config.presence_grace_secs),
            has_events: config.presence_events,
        };
        let hooks = journal.map(|journal| Hooks::start(config.hooks.clone(), sources(journal)));
        let hooks = hooks.transpose().map_err(Failure::runtime)?.map(Arc::new);
        Ok((hub, Self { present: Some((list, index)), hooks }))
    }

    /// Has the server show it.
    pub(super) fn add_to(&self, settings: &mut Settings) {
        settings.presence = self.present.as_ref().map(|(_, index)| Arc::clone(index));
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
        if let Some((list, _)) = &self.present {
            list.withdrawn().await;
        }
    }
}

fn not_started(error: &Error) -> Failure {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::runtime(format!("{error}{cause}"))
}
