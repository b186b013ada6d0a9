//! Valid settings that would have no effect, alone or in combination with others.
//!
//! [`load`] is how a configuration is loaded: it refuses them.
//!
//! Such a setting is a silent mistake: the hub starts and does something else than its operator
//! expects. It is refused where it can have no effect, and warned about where it may have one
//! later, or elsewhere.
//!
//! A limit that can never be reached because another is lower (`streams_per_address_max` above
//! `streams_max`) is no such mistake: the requested limit holds.

use std::{collections::HashSet, path::Path};

use tidings_auth::{CookieName, MercureRevision};
use tidings_server::{AllowedHosts, ClientAddressSource};

use super::{Challenge, Listen, ServeConfig, layers::SettingFlags};
use crate::failure::Failure;

/// Reads and checks all sources. `room` is how many connections the file descriptor limit allows.
pub(crate) fn load(file: Option<&Path>, given: SettingFlags, room: usize) -> Result<ServeConfig, Failure> {
    let config = ServeConfig::read(file, given, room)?;
    check(&config)?;
    Ok(config)
}

/// Refuses settings that can have no effect.
fn check(config: &ServeConfig) -> Result<(), Failure> {
    if !config.has_credentials() && !config.anonymous {
        let reason = "there is no key and no issuer, so every client that reaches the hub may subscribe: add a key (`tidings key new` shows how)";
        return Err(config.refuse("anonymous", reason));
    }
    if !config.has_credentials() && config.auth.cookie_name != CookieName::default() {
        let reason = "there is no key, no issuer and no ticket secret, so the hub reads no credential: add one of them, or remove the setting";
        return Err(config.refuse("cookie_name", reason));
    }
    let is_older = |issuer: &&tidings_auth::IssuerConfig| issuer.revision == MercureRevision::Older;
    if let Some(issuer) = config.auth.issuers.iter().find(is_older)
        && !config.serves_older_mercure_revision()
    {
        return Err(Failure::usage(format!(
            "[[issuer]] `{}` has `revision = \"0.x\"`, and the hub does not serve that revision: set mercure_revisions = [\"1.0\", \"0.x\"]",
            issuer.issuer.escape_debug()
        )));
    }
    // Where anonymous clients may not subscribe, a key without grants is how to receive public
    // events.
    let is_useless =
        |key: &&tidings_auth::KeyConfig| key.publish.is_empty() && key.subscribe.is_empty() && !key.admin;
    if let Some(key) = config.auth.keys.iter().find(is_useless).filter(|_| config.anonymous) {
        return Err(Failure::usage(format!(
            "[[key]] `{}` grants nothing that is not permitted without it: add `publish = [\"*\"]`, `subscribe = [\"*\"]`, some topics, or `admin = true`",
            key.name
        )));
    }
    let decides = |path: &tidings_server::AuthorizedPath| path.path() == "/stream";
    if !config.streams.is_empty() && config.authorize.iter().any(decides) {
        let reason = "an application decides about /stream (authorize), so it also names the topics: remove one of the two";
        return Err(config.refuse("stream", reason));
    }
    let listens = config.listen.iter().chain(&config.admin_listen);
    if config.has_tls() && !listens.clone().any(Listen::has_tls) {
        return Err(config.refuse("listen", "no address has TLS, so the certificates have no effect"));
    }
    let is_by_http = config.acme.as_ref().is_some_and(|acme| acme.challenge == Challenge::Http01);
    if is_by_http && config.listen.iter().all(Listen::has_tls) {
        let reason = "every address has TLS, and the authority asks over plain HTTP (challenge = \"http-01\" in [acme]): add one that port 80 \
             leads to, as in :80?tls=false";
        return Err(config.refuse("listen", reason));
    }
    if config.admin_listen.iter().any(Listen::has_upstream_option) {
        let reason = "an address has the option upstream, and the application never answers operators";
        return Err(config.refuse("admin_listen", reason));
    }
    if config.upstream.is_none() && config.listen.iter().any(Listen::has_upstream_option) {
        return Err(config.refuse("listen", "an address has the option upstream, and there is no upstream"));
    }
    if config.upstream.is_some() && config.listen.iter().all(Listen::is_for_application) {
        let reason = "every address of --listen has upstream=false, so no client reaches the application";
        return Err(config.refuse("upstream", reason));
    }
    check_proxies(config)?;
    let mut leases = HashSet::new();
    if let Some(twice) = config.bridges.iter().find(|bridge| !leases.insert(bridge.lease_key())) {
        let reason = format!(
            "{twice} is given twice, and only one bridge of a name is active at a time: remove one, or give it another name (&name=…)"
        );
        return Err(config.refuse("bridge", &reason));
    }
    Ok(())
}

/// Refuses a trusted proxy without a place where it states the addresses of its clients, and the
/// reverse.
fn check_proxies(config: &ServeConfig) -> Result<(), Failure> {
    let is_stated = |source: ClientAddressSource| source != ClientAddressSource::Peer;
    if !config.client_addresses().any(is_stated) {
        return match config.trusted_proxies.first() {
            None if !is_stated(config.client_address) => Ok(()),
            None => Err(config.refuse(
                "client_address",
                "every address has a source of its own: remove it, or one of these",
            )),
            Some(proxy) => {
                let reason = format!(
                    "{proxy} is trusted, and nothing says where it states the address of a client: add --client-address x-forwarded-for, \
                     forwarded or proxy-protocol"
                );
                Err(config.refuse("trusted_proxy", &reason))
            }
        };
    }
    if config.trusted_proxies.is_empty() {
        let reason = "no proxy is trusted, so no address that a proxy states counts: add --trusted-proxy with the proxy's address or network";
        return Err(config.refuse("client_address", reason));
    }
    let is_used = config.listen.iter().any(|listen| listen.client_address.is_none());
    if is_stated(config.client_address) && !is_used {
        return Err(config
            .refuse("client_address", "every address has a source of its own: remove it, or one of these"));
    }
    if !config.has_credentials() && !config.no_auth {
        let reason = "a hub without keys refuses what proxies forward, because every client of the proxy could publish: add a key \
             (`tidings key new` shows how), or let every client publish with --no-auth";
        return Err(config.refuse("client_address", reason));
    }
    Ok(())
}

/// Warnings for the operator before the hub serves. `room` is how many connections the file
/// descriptor limit allows.
pub(crate) fn warnings(config: &ServeConfig, room: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    // An application that `tidings run` serves has the names that its operator gives it.
    if config.hosts() == AllowedHosts::Any && !config.runs_application {
        warnings.push(
            "requests for any host name are accepted, so a web page can point a name of its own at this hub (DNS rebinding) and read what \
             anonymous clients may: set public_url, or --allow-host NAME"
                .to_owned(),
        );
    }
    if !config.private_topics.is_empty() && !config.has_credentials() {
        let consequence =
            if config.no_auth { "no client can receive" } else { "every client on this machine receives" };
        warnings.push(format!(
            "private_topics without a key or an issuer: {consequence} events on these topics (`tidings key new` shows how to add a key)"
        ));
    }
    let is_plain = config.public_url.as_ref().is_some_and(|url| url.scheme() == "http");
    if is_plain && config.has_tls() && config.listen.iter().all(Listen::has_tls) {
        warnings.push(
            "public_url begins with http://, and every address has TLS: browsers are sent to a URL that is answered 400".to_owned(),
        );
    }
    if let Some(proxy) = config.trusted_proxies.iter().find(|proxy| proxy.is_everybody()) {
        warnings.push(format!(
            "every peer is trusted as a proxy (trusted_proxy {proxy}), so every client can state any address: name only your proxies"
        ));
    }
    if config.connections_max > room {
        warnings.push(format!(
            "connections_max is {}, but the file descriptor limit allows only {room}: raise the limit (ulimit -n, LimitNOFILE)",
            config.connections_max
        ));
    }
    warnings
}
