//! The hub as a protected resource of OAuth 2.0 (RFC 9728; the Mercure protocol, "Authorization"): a
//! document from which a client learns what to ask for a token, and the reference to it in a refusal.
//!
//! Everything in both is of the configuration. The `Host` of a request only selects among the
//! resource identifiers, for hubs with several names, so it cannot lead a client elsewhere.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tidings_auth::ProtectedResource;
use url::Url;

use crate::{app::App, metadata_path::metadata_path, problem::Problem};

#[derive(Serialize)]
struct Document {
    resource: String,
    // RFC 9728, section 3.2: a claim without elements is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_servers: Vec<String>,
    authorization_details_types_supported: [&'static str; 1],
    bearer_methods_supported: [&'static str; 1],
    mercure_cookie: String,
    mercure_matcher_types_supported: [&'static str; 2],
    mercure_subscriptions: bool,
}

/// `GET`: the metadata. It is public, as the document of RFC 9728 is.
pub(crate) async fn metadata(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let protected = app.authorizer.protected_resource().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "issuer",
            "This hub accepts no tokens, so it has no metadata for clients that would obtain one: its configuration has no [[issuer]].",
        )
    })?;
    let document = Document {
        resource: identifier(&app, &protected, headers.get(header::HOST)).to_owned(),
        authorization_servers: protected.authorization_servers,
        authorization_details_types_supported: [protected.detail_type],
        bearer_methods_supported: ["header"],
        mercure_cookie: protected.cookie,
        mercure_matcher_types_supported: ["exact", "urlpattern"],
        mercure_subscriptions: app.settings.mercure_subscriptions.is_some(),
    };
    // Which identifier it is depends on the host, which is a part of the URL for every cache.
    Ok(Json(document).into_response())
}

/// The challenge of a refusal with the URL of the metadata (RFC 9728, section 5.1).
pub(crate) fn with_metadata(
    app: &App,
    challenge: &HeaderValue,
    host: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let protected = app.authorizer.protected_resource()?;
    let url = metadata_url(app, identifier(app, &protected, host))?;
    let challenge = challenge.to_str().ok()?;
    // Parameters of a challenge are separated by commas; the first follows the scheme.
    let separator = if challenge.contains('=') { "," } else { "" };
    HeaderValue::try_from(format!("{challenge}{separator} resource_metadata=\"{url}\"")).ok()
}

/// The resource identifier for a client that addressed this host: that of its host, otherwise the
/// hub's URL, otherwise the first of the configuration.
fn identifier<'a>(app: &App, protected: &'a ProtectedResource, host: Option<&HeaderValue>) -> &'a str {
    let hub_url = app.hub.validator().hub_url();
    let is_asked = |identifier: &&String| {
        identifier.parse::<Url>().is_ok_and(|url| {
            url.path() == hub_url.path()
                && host.is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(url.authority().as_bytes()))
        })
    };
    let identifiers = &protected.identifiers;
    let found = identifiers.iter().find(is_asked);
    let found = found.or_else(|| identifiers.iter().find(|identifier| **identifier == hub_url.as_str()));
    found.unwrap_or(&identifiers[0])
}

/// Where the metadata of this resource are; nowhere if the identifier is not a URL of this path.
fn metadata_url(app: &App, identifier: &str) -> Option<Url> {
    let mut url: Url = identifier.parse().ok()?;
    let hub_path = app.hub.validator().hub_url().path();
    if !matches!(url.scheme(), "http" | "https") || url.path() != hub_path {
        return None;
    }
    url.set_path(&metadata_path(hub_path));
    Some(url)
}
