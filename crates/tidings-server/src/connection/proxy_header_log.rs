//! The log of trusted proxies that do not send a PROXY header where they have to.

use std::time::Duration;

use crate::{
    client_address::ClientAddress,
    throttled_log::{Summary, ThrottledLog},
};

/// The shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// The throttled log of connections that were closed for their header.
pub(super) type ProxyHeaderLog = ThrottledLog<RefusedHeader>;

/// Details of the last one.
pub(super) struct RefusedHeader {
    pub(super) peer: ClientAddress,
    pub(super) error: String,
}

pub(super) fn proxy_header_log() -> ProxyHeaderLog {
    ThrottledLog::new(INTERVAL, |summary: &Summary<RefusedHeader>| {
        let RefusedHeader { peer, error } = &summary.last;
        tracing::warn!(
            count = summary.count(),
            reasons = summary.reasons(),
            %peer,
            error,
            "connections of trusted proxies were closed, because they must begin with a PROXY header; peer and error are those of the last one"
        );
    })
}
