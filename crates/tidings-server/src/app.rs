//! The state that all handlers share.

use std::sync::Arc;

use http::request::Parts;
use tidings::{
    Hub,
    web::{HostName, HostNames},
};
use tidings_auth::{Access, Authenticator};

use crate::{
    AllowedHosts, Settings, access::Authorizer, connection::BodyBudget, metrics::counts::Counts,
    origin::Origins, problem::Problem, refusals::RefusalLog, revocation::Revocations, slots::Slots,
};

/// The hub, and everything that its APIs need besides it. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) authorizer: Authorizer,
    pub(crate) origins: Origins,
    /// The hosts that requests may be addressed to; `None` allows every host.
    pub(crate) hosts: Option<HostNames>,
    pub(crate) revocations: Revocations,
    pub(crate) slots: Slots,
    pub(crate) bodies: BodyBudget,
    /// What clients have not yet read of summaries, and of what applications have answered. It is
    /// apart from the bodies of requests, so that clients that read nothing keep nobody from
    /// publishing.
    pub(crate) responses: BodyBudget,
    pub(crate) counts: Arc<Counts>,
    pub(crate) refusals: RefusalLog,
    pub(crate) settings: Settings,
}

impl App {
    pub(crate) fn new(hub: Hub, authenticator: Option<Authenticator>, settings: Settings) -> Self {
        let is_keyless = authenticator.is_none();
        let own_host = hub.validator().hub_url().host_str().and_then(|host| host.parse::<HostName>().ok());
        let hosts = match settings.allow_hosts.clone() {
            AllowedHosts::Any => None,
            AllowedHosts::Listed(mut names) => {
                names.extend(own_host);
                Some(names)
            }
        };
        Self(Arc::new(Shared {
            hosts,
            authorizer: Authorizer {
                authenticator,
                keyless: settings.keyless,
                anonymous_subscribers: settings.anonymous_subscribers,
                older_revision_path: settings
                    .older_mercure_revision
                    .then(|| hub.validator().hub_url().path().to_owned()),
            },
            origins: Origins::new(hub.validator().hub_url(), settings.allow_origins.clone(), is_keyless),
            revocations: Revocations::new(
                hub.clone(),
                settings.revocation_file.clone(),
                settings.shared_revocations.as_ref(),
            ),
            slots: Slots::new(settings.slot_limits()),
            bodies: BodyBudget::new(settings.bodies_bytes_max),
            responses: BodyBudget::of_responses(settings.responses_bytes_max),
            counts: Arc::default(),
            refusals: RefusalLog::default(),
            settings,
            hub,
        }))
    }
}

impl Shared {
    /// The permissions of a request that reads: subscribes, or asks for a summary.
    pub(crate) fn subscriber(&self, parts: &Parts) -> Result<Access, Problem> {
        let access = self.authorizer.subscriber(parts)?;
        self.revocations.check(&access)?;
        Ok(access)
    }

    /// The permissions of a request that writes: publishes, deletes, or makes a ticket. Events must
    /// also pass [`cover_events`](crate::access::cover_events).
    pub(crate) fn publisher(&self, parts: &Parts) -> Result<Access, Problem> {
        let access = self.authorizer.publisher(parts, &self.origins)?;
        self.revocations.check(&access)?;
        Ok(access)
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
