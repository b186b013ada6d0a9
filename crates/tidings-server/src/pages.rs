//! Pages for people: what this is, and a live view of what passes.
//!
//! They load nothing from elsewhere and run no script but their own. Whatever an event says is data: the script puts it into text nodes,
//! and the policy in the headers keeps the browser from running anything else.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header};

use crate::{accept::accepts_html, problem::Problem, router::App, streams::vary_accept};

const INDEX_HTML: &str = include_str!("pages/index.html");
const INDEX_TEXT: &str = include_str!("pages/index.txt");
const VIEWER_HTML: &str = include_str!("pages/viewer.html");
const STYLESHEET: &str = include_str!("pages/tidings.css");
const SCRIPT: &str = include_str!("pages/viewer.js");

/// Everything comes from here, nothing is written into the page as script or style, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`: what this is and how it is used. The live view of everything is there where everybody may see everything, and for
/// whoever has the right to.
pub(crate) async fn index(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers();
    // `/` is for everybody; a credential that does not hold is told so here as anywhere.
    let may_see_all = app.door.rights(headers, request.uri().query())?.subscribe.is_all();
    let base = base_url(&app, headers);
    let mut response = if accepts_html(headers) {
        let live = if may_see_all {
            live_section("/stream?topic=*", None, app.door.is_keyless())
        } else {
            String::new()
        };
        page(fill(INDEX_HTML, &[("base", &escape_html(&base)), ("live", &live)]))
    } else {
        fill(INDEX_TEXT, &[("base", &base)]).into_response()
    };
    vary_accept(response.headers_mut());
    Ok(response)
}

/// The live view of one stream: the same address, streamed. `topic` is where its form publishes, if it has one.
pub(crate) fn viewer(app: &App, title: &str, topic: Option<&str>) -> Response {
    let live = live_section("", topic, topic.is_some() && app.door.is_keyless());
    page(fill(VIEWER_HTML, &[("title", &escape_html(title)), ("live", &live)]))
}

/// The stylesheet of all pages.
pub(crate) async fn stylesheet() -> Response {
    asset("text/css; charset=utf-8", STYLESHEET)
}

/// The script of the live view.
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// The part of a page that the script fills. An empty source is the address of the page itself.
fn live_section(source: &str, topic: Option<&str>, can_publish: bool) -> String {
    let form = if can_publish {
        let topic_field = match topic {
            Some(topic) => format!(r#"<input type="hidden" name="topic" value="{}">"#, escape_html(topic)),
            None => r#"<input name="topic" value="chat" aria-label="Topic" required size="8">"#.to_owned(),
        };
        format!(
            r#"<form id="say">{topic_field}<input name="data" aria-label="Data" placeholder="Say something" autocomplete="off"><button>Publish</button></form>"#
        )
    } else {
        String::new()
    };
    format!(
        r#"<section id="live" data-source="{}"><p id="state" role="status">connecting …</p>{form}<ol id="events"></ol>
<noscript><p>The live view needs JavaScript; <code>curl -N</code> shows the same.</p></noscript></section>
<script src="/assets/viewer.js" defer></script>"#,
        escape_html(source)
    )
}

/// Where the reader of a page reaches this hub: as it just did, if that can be said, or by the public URL.
fn base_url(app: &App, headers: &HeaderMap) -> String {
    let public = app.hub.validator().hub_url();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|_| app.door.is_keyless_loopback());
    match host {
        Some(host) => format!("http://{host}"),
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

/// A page is looked at for longer than it takes to update a hub: its assets are asked for again each time.
fn asset(media_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// Puts values in the places of a template. What a value says is not looked at again.
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
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}
