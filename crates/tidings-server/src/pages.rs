//! HTML pages: an introduction, and a live view of events.
//!
//! They load nothing from other origins and run only their own script. The content of an event is
//! data: the script puts it into text nodes, and the Content-Security-Policy keeps the browser from
//! running anything else.

pub(crate) mod client;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};

use crate::{Client, accept::names, app::App, problem::Refused, streams::vary_accept};

const INDEX_HTML: &str = include_str!("pages/index.html");
const INDEX_TEXT: &str = include_str!("pages/index.txt");
const LIVE_HTML: &str = include_str!("pages/live.html");
const PROBLEM_HTML: &str = include_str!("pages/problem.html");
const VIEWER_HTML: &str = include_str!("pages/viewer.html");
const STYLESHEET: &str = include_str!("pages/tidings.css");
const SCRIPT: &str = include_str!("pages/tidings.js");

/// The paths of the assets, named so that an application behind the hub has no others there.
pub(crate) const STYLESHEET_PATH: &str = "/assets/tidings.css";
pub(crate) const SCRIPT_PATH: &str = "/assets/tidings.js";

/// Only assets of this origin, no inline scripts or styles, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`: the live view, and how to use the hub. The page is the same for every client. On a hub
/// without keys for this machine it connects at once, elsewhere when the user asks it to, with the
/// credential that the user pastes.
pub(crate) async fn index(State(app): State<App>, request: Request) -> Response {
    let headers = request.headers();
    let base = base_url(&app, &request);
    let mut response = if names(headers, "text/html") {
        let start = if app.authorizer.is_keyless_loopback() { Start::AtOnce } else { Start::OnRequest };
        let topic = r#"<input name="topic" value="chat" aria-label="Topic" required size="8">"#;
        // Where an application decides about streams, it knows no parameters of the hub.
        let all = if app.settings.authorize.deciding_about("/stream").is_some() {
            "/topics/*"
        } else {
            "/stream?topic=*"
        };
        let live = live_section(&app, all, start, Some(topic));
        let script = escape_html(&client::tag(&base));
        page(fill(INDEX_HTML, &[("base", &escape_html(&base)), ("live", &live), ("script", &script)]))
    } else {
        fill(INDEX_TEXT, &[("base", &base), ("script", &client::tag(&base))]).into_response()
    };
    vary_accept(response.headers_mut());
    response
}

/// The live view of one stream, whose source is the URL of the page. `topic` is where its form
/// publishes, if it has one.
pub(crate) fn viewer(app: &App, title: &str, topic: Option<&str>) -> Response {
    let field =
        topic.map(|topic| format!(r#"<input type="hidden" name="topic" value="{}">"#, escape_html(topic)));
    let live = live_section(app, "", Start::AtOnce, field.as_deref());
    let mut response = page(fill(VIEWER_HTML, &[("title", &escape_html(title)), ("live", &live)]));
    vary_accept(response.headers_mut());
    response
}

/// A refusal as a page, for a browser that navigates; any other response as it is.
pub(crate) fn of_problem(response: Response) -> Response {
    let Some(refused) = response.extensions().get::<Refused>() else { return response };
    let title = response.status().to_string();
    let page = page(fill(
        PROBLEM_HTML,
        &[("title", &escape_html(&title)), ("detail", &escape_html(&refused.detail))],
    ));
    let (mut parts, _) = response.into_parts();
    let (page, body) = page.into_parts();
    parts.headers.extend(page.headers);
    Response::from_parts(parts, body)
}

/// The stylesheet of all pages.
pub(crate) async fn stylesheet() -> Response {
    asset("text/css; charset=utf-8", STYLESHEET)
}

/// The script of the live view.
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// When a live view connects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    AtOnce,
    OnRequest,
}

/// The part of a page that the script fills. An empty source is the URL of the page itself. `topic`
/// is the input of the form that publishes, if there is one.
fn live_section(app: &App, source: &str, start: Start, topic: Option<&str>) -> String {
    let has_keys = !app.authorizer.is_keyless();
    let credential = if has_keys {
        r#"<input type="password" name="credential" aria-label="Key or token" placeholder="Key or token" autocomplete="off">"#
    } else {
        ""
    };
    let credential = if has_keys || start == Start::OnRequest {
        format!("<form id=\"credential\">{credential}<button>Watch</button></form>\n")
    } else {
        String::new()
    };
    let publish = topic.map(|topic| {
        format!(
            "<form id=\"publish\">{topic}<input name=\"data\" aria-label=\"Data\" placeholder=\"Say something\" autocomplete=\"off\">\
             <button>Publish</button></form>\n"
        )
    });
    let (start, state) = match start {
        Start::AtOnce => (" data-start", "connecting …"),
        Start::OnRequest if has_keys => ("", "paste a key or a token; without one, public events are shown"),
        Start::OnRequest => ("", "not connected"),
    };
    fill(
        LIVE_HTML,
        &[
            ("source", &escape_html(source)),
            ("start", start),
            ("credential", &credential),
            ("state", state),
            ("publish", publish.as_deref().unwrap_or_default()),
        ],
    )
}

/// The base URL of this hub for the user of a page: the one of this request, if it is known, or the
/// public URL.
fn base_url(app: &App, request: &Request) -> String {
    let public = app.hub.validator().hub_url();
    let is_encrypted = request.extensions().get::<Client>().is_some_and(|client| client.is_encrypted);
    let scheme = if is_encrypted { "https" } else { "http" };
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|_| app.authorizer.is_keyless_loopback());
    match host {
        Some(host) => format!("{scheme}://{host}"),
        None => public.origin().ascii_serialization(),
    }
}

fn page(html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, html).into_response()
}

/// A page may stay open across an upgrade of the hub: its assets are revalidated each time.
fn asset(media_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// Fills the placeholders of a template. Values are not expanded again.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut pieces = template.split("{{");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or_default();
        filled.extend(values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value));
        filled.push_str(rest);
    }
    filled
}

fn escape_html(text: &str) -> String {
    // The ampersand first, since the others become entities.
    let entities = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&#39;")];
    entities.iter().fold(text.to_owned(), |escaped, (character, entity)| escaped.replace(character, entity))
}
