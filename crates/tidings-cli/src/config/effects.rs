//! Settings that are understood and would take no effect, by themselves or beside others.
//!
//! Such a setting is a mistake that nobody notices: the hub starts and does something else than its
//! operator believes. It is refused where it can have no meaning, and warned about where it may
//! have one later, or elsewhere.
//!
//! A limit that can never be reached because another is lower (`streams_per_address_max` above
//! `streams_max`) is no such mistake: what was asked for holds.

use std::collections::HashSet;

use tidings_server::AllowedHosts;

use super::ServeConfig;
use crate::failure::Failure;

/// Refuses what can take no effect.
pub(super) fn check(config: &ServeConfig) -> Result<(), Failure> {
    if !config.has_credentials() && !config.anonymous {
        let reason = "there is no key and no issuer, so whoever reaches the hub may subscribe: add a key (`tidings key new` shows how)";
        return Err(config.refuse("anonymous", reason));
    }
    // Where anonymous clients may not subscribe, a key without grants is how to receive public
    // events.
    let is_useless = |key: &&tidings_auth::KeyConfig| key.publish.is_empty() && key.subscribe.is_empty();
    if let Some(key) = config.auth.keys.iter().find(is_useless).filter(|_| config.anonymous) {
        return Err(Failure::usage(format!(
            "[[key]] `{}` permits nothing that is not permitted without it: add `publish = [\"*\"]`, `subscribe = [\"*\"]`, or some topics",
            key.name
        )));
    }
    let mut leases = HashSet::new();
    if let Some(twice) = config.bridges.iter().find(|bridge| !leases.insert(bridge.lease_key())) {
        let reason = format!(
            "{twice} is there twice, and one of a name bridges at a time: leave one out, or give it another name (&name=…)"
        );
        return Err(config.refuse("bridge", &reason));
    }
    Ok(())
}

/// What an operator should know before the hub serves. `room` is how many connections the limit of
/// file descriptors allows.
pub(super) fn warnings(config: &ServeConfig, room: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.hosts() == AllowedHosts::Any {
        warnings.push(
            "requests for any host name are answered, so a web page can point a name of its own at this hub (DNS rebinding) and read what \
             anonymous clients may: set public_url, or --allow-host NAME"
                .to_owned(),
        );
    }
    if !config.private_topics.is_empty() && !config.has_credentials() {
        let consequence =
            if config.no_auth { "nobody can receive" } else { "everybody on this machine receives" };
        warnings.push(format!(
            "private_topics without a key or an issuer: {consequence} what is published there (`tidings key new` shows how to add a key)"
        ));
    }
    if config.connections_max > room {
        warnings.push(format!(
            "connections_max is {}, and the limit of file descriptors leaves room for {room}: raise it (ulimit -n, LimitNOFILE)",
            config.connections_max
        ));
    }
    warnings
}
