//! The part of the configuration that only other crates can check, at the start and at a reload.

use tidings::{Matcher, Validator};
use tidings_auth::Authenticator;
use tidings_server::hub_path_is_free;
use url::Url;

use crate::{
    config::{HUB_PATH, ServeConfig},
    failure::Failure,
};

/// See the module's documentation.
pub(super) struct Rules {
    pub(super) validator: Validator,
    pub(super) authenticator: Option<Authenticator>,
    pub(super) default_topics: Vec<Matcher>,
}

impl Rules {
    pub(super) fn new(config: &ServeConfig, hub_url: &Url) -> Result<Self, Failure> {
        if !hub_path_is_free(hub_url.path()) {
            let reason = format!("the hub uses the path {} itself: choose another", hub_url.path());
            return Err(config.refuse("public_url", &reason));
        }
        let mut validator = Validator::new(hub_url.clone());
        validator.topics_max = config.topics_max;
        validator.matchers_max = config.matchers_max;
        let default_topics = config
            .streams
            .iter()
            .map(|topic| validator.exact(topic))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| config.refuse("stream", &error.to_string()))?;
        validator
            .matchers_count(default_topics.len())
            .map_err(|error| config.refuse("stream", &error.to_string()))?;
        let authenticator = config
            .has_credentials()
            .then(|| Authenticator::new(config.auth.clone(), &validator))
            .transpose()
            .map_err(|error| {
                Failure::usage(format!("{} in the configuration file: {}", error.setting(), error.reason()))
            })?;
        Ok(Self { validator, authenticator, default_topics })
    }
}

/// The public URL of a hub that is reached at this one.
pub(super) fn hub_url(config: &ServeConfig, base_url: &str) -> Url {
    config.public_url.clone().unwrap_or_else(|| {
        format!("{base_url}{HUB_PATH}").parse().expect("an address is a valid host of a URL")
    })
}
