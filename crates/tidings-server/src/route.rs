//! The route of a request in the log: the template of its path. What a client writes into a path or a
//! query is no part of it: topics, tickets and tokens are private, and of unlimited number.

use http::request::Parts;

use crate::{
    app::App,
    metrics::{labels::LabelValue, requests::Route},
    pages::{SCRIPT_PATH, STYLESHEET_PATH, client},
    upstream,
};

/// That of metrics, which count some paths together that are logged apart, and a path that an
/// application decides about as the hub's own.
pub(crate) fn route(app: &App, parts: &Parts) -> &'static str {
    let path = parts.uri.path();
    let route = if upstream::application_of(app, parts).is_some() {
        Route::Upstream
    } else if app.settings.authorize.deciding_about(path).is_some() {
        Route::Authorize
    } else {
        Route::of(path, app.hub.validator().hub_url().path())
    };
    match (route, path) {
        (Route::Topic, "/topics/") => "/topics/",
        (Route::Other, "*") => "*",
        (Route::Assets, STYLESHEET_PATH) => STYLESHEET_PATH,
        (Route::Assets, SCRIPT_PATH) => SCRIPT_PATH,
        (Route::Assets, _) if client::is_path(path) => client::PATH,
        (Route::Assets, _) => Route::Other.as_str(),
        _ => route.as_str(),
    }
}
