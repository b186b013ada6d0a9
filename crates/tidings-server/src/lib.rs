//! The HTTP server of Tidings.
//!
//! The lower layer is a [`Listener`] and [`serve`]: sockets, request headers and bodies, with a
//! limit on everything that a client can make the server hold or wait for. The upper layer is the
//! [`router`](router()): the APIs of a hub. The native API and the Mercure API share one core,
//! which decides about permissions, limits and refusals. The two layers share only `http` types, so
//! that each is tested without the other.
//!
//! | to change | go to |
//! |---|---|
//! | what a parameter means | `native`, `mercure` |
//! | what a request may do | `access`; the credentials themselves are `tidings-auth`'s |
//! | which web pages may do what, which hosts are answered | `origin`; how a request is read for this: `tidings::web` |
//! | what an application decides about streams | `authorize` |
//! | the application that answers what is not the hub's | `upstream`; what both exchange: `application` |
//! | how streams are ended and refused before their credential expires | `revocation` |
//! | idempotency keys | `idempotency` |
//! | how a subscription or a publication is served | `streams`, `publishing`; what writes a stream: `open_stream` |
//! | which requests bypass the router | `apis` |
//! | what `POST /reload` calls | `reload` |
//! | a limit, its default, its response | `settings` |
//! | the text of a refusal | `problem`; load shedding: `shedding`; what the log says of it: `refusals` |
//! | what is logged of each request | `access_log`; its route: `route` |
//! | what all handlers share | `app` |
//! | what is measured, and what an operator does with it | `metrics` |
//! | requests and responses on the wire | `http1`; HTTP/2: `connection::http2` |
//! | where a server listens | `listener`; accepting: `acceptor` |
//! | certificates, handshakes, encryption | `tls` |
//! | whose address a request has | `client_address`; which proxies may state it: `proxies`; how they do: `forwarded`, `proxy_header` |
//! | the life cycle of a connection | `connection` |

mod accept;
mod acceptor;
mod access;
mod access_log;
mod active_subscriptions;
mod apis;
mod app;
mod application;
mod authorize;
mod client;
mod client_address;
mod component;
mod conditional;
mod connection;
mod descriptors;
mod forwarded;
mod http1;
mod http_challenges;
mod idempotency;
mod json_body;
mod leaving;
mod limit_log;
mod listener;
mod mercure;
mod metadata_path;
mod methods;
mod metrics;
mod native;
mod open_stream;
mod operations;
mod origin;
mod pages;
mod problem;
mod proxies;
mod proxy_header;
mod publishing;
mod query;
mod refusals;
mod relayed;
mod reload;
mod revocation;
mod route;
mod router;
mod settings;
mod shedding;
mod slots;
mod streams;
mod subscription_paths;
mod throttled_log;
mod tls;
mod upstream;

pub use active_subscriptions::subscription_updates;
pub use apis::apis;
pub use authorize::{Applications, AuthorizedPath, InvalidAuthorizedPath};
pub use client::Client;
pub use client_address::ClientAddress;
pub use component::{Component, Figure};
pub use connection::{BodyError, ConnectionMetrics, ConnectionSettings, Drain, NoCapacity, read_body, serve};
pub use descriptors::{connections_for_file_limit, raise_file_limit};
pub use http_challenges::HttpChallenges;
pub use http1::{RequestBody, RequestBodyError};
pub use leaving::Leaving;
pub use listener::{ListenError, Listener, ListenerRole, ListenerSettings, LocalAddress};
pub use metrics::metrics_reference;
pub use proxies::{ClientAddressSource, TrustedProxies, TrustedProxy};
pub use proxy_header::{InvalidProxyHeader, PROXY_HEADER_BYTES_MAX, ProxiedFrom, ProxyHeader};
pub use reload::{Reload, Reloaded};
pub use revocation::{OpenRevocationsError, RevocationFile, SharedRevocations};
pub use router::{hub_path_is_free, router, stream_path_is_free};
pub use settings::{
    AllowedHosts, AllowedOrigin, AllowedOrigins, Keyless, OriginsBelow, ParseOriginError, Settings,
};
pub use tls::{
    CertificateError, CertificateFiles, Certificates, ChallengeCertificate, InvalidChallenge, Tls,
};
pub use upstream::{Availability, InvalidUpstream, Upstream, UpstreamSettings};
