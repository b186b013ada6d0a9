//! The labels by which `/metrics` distinguishes requests: whatever a client sends, they are of fixed lists.

use http::{Method, StatusCode};

use crate::{metadata_path::is_metadata_path, pages::client, subscription_paths::is_hub_or_subscriptions};

labels! {
    /// What a request is addressed to.
    Route "route" {
        Index = "/",
        Stream = "/stream",
        Topics = "/topics",
        Topic = "/topics/{topic}",
        Connections = "/connections/{id}",
        Tickets = "/tickets",
        /// The path of the hub's URL, and that of its metadata.
        Mercure = "mercure",
        /// Another path that an application decides about.
        Authorize = "authorize",
        /// The application behind the hub.
        Upstream = "upstream",
        Assets = "/assets",
        Revoke = "/revoke",
        Reload = "/reload",
        Healthz = "/healthz",
        Readyz = "/readyz",
        Metrics = "/metrics",
        Other = "other",
    }
}

labels! {
    /// The method of a request.
    RequestMethod "method" {
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Delete = "DELETE",
        Options = "OPTIONS",
        Other = "other",
    }
}

labels! {
    /// The class of the status of a response.
    StatusClass "status" {
        Informational = "1xx",
        Successful = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }
}

impl Route {
    /// The route of a path, as the router compares it. Applications decide about other paths, too.
    pub(crate) fn of(path: &str, hub_path: &str) -> Self {
        // First what busy hubs are asked for.
        if path.starts_with("/topics/") {
            return Self::Topic;
        }
        match path {
            _ if is_hub_or_subscriptions(hub_path, path) => Self::Mercure,
            "/" => Self::Index,
            "/stream" => Self::Stream,
            "/topics" => Self::Topics,
            "/tickets" => Self::Tickets,
            "/revoke" => Self::Revoke,
            "/reload" => Self::Reload,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            _ if is_metadata_path(hub_path, path) => Self::Mercure,
            _ if path.starts_with("/assets/") || client::is_path(path) => Self::Assets,
            _ if path.starts_with("/connections/") => Self::Connections,
            _ => Self::Other,
        }
    }
}

impl From<&Method> for RequestMethod {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

impl From<StatusCode> for StatusClass {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            100..200 => Self::Informational,
            200..300 => Self::Successful,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_and_methods_have_no_labels_of_their_own() {
        for (path, route) in [
            ("/topics/chat", Route::Topic),
            ("/topics//..", Route::Topic),
            ("/topics", Route::Topics),
            ("/hub", Route::Mercure),
            ("/.well-known/oauth-protected-resource/hub", Route::Mercure),
            ("/.well-known/oauth-protected-resource", Route::Other),
            ("/.well-known/oauth-protected-resource/hub/x", Route::Other),
            ("/hub/", Route::Other),
            ("/metrics/", Route::Other),
            ("/Stream", Route::Other),
            ("*", Route::Other),
            ("", Route::Other),
            ("/assets/x", Route::Assets),
            ("/tidings.js", Route::Assets),
            ("/tidings-x.js", Route::Other),
            ("/connections/x", Route::Connections),
            ("/connections", Route::Other),
        ] {
            assert_eq!(Route::of(path, "/hub"), route, "{path}");
        }
        let odd = Method::from_bytes(b"PROPFIND").expect("a method");
        assert_eq!(RequestMethod::from(&odd), RequestMethod::Other);
        assert_eq!(StatusClass::from(StatusCode::from_u16(999).expect("a status")), StatusClass::ServerError);
    }
}
