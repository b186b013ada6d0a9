//! Which URLs stay on the machine of the client that uses them.

use url::{Host, Url};

/// Whether browsers take the host for their own machine (Secure Contexts, 3.1): no network is on
/// the way, so `http` is as safe as `https`. Other programs may look up the names below `localhost`.
pub(crate) fn is_on_this_machine(url: &Url) -> bool {
    url.host().is_some_and(|host| match host {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    })
}
