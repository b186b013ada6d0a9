//! A shop that notifies its customers: `cargo run`, and open the address in two browsers.

use std::collections::BTreeMap;

use axum::extract::{Form, FromRef, FromRequestParts, State};
use axum::http::{HeaderMap, StatusCode, Uri, request::Parts};
use axum::response::{Html, IntoResponse, Redirect};
use axum::{Router, routing::get, routing::post};
use axum_extra::extract::cookie::{Cookie, Key, SignedCookieJar};
use futures_util::StreamExt;
use tidings::{ConnectionId, Error, Hub, NewEvent, PresenceStream, Received, Since, Subscribe, Subscription};

type Result<T = StatusCode, E = Error> = std::result::Result<T, E>;

#[derive(Clone, FromRef)]
struct App {
    hub: Hub,
    key: Key,
}

/// What is on private topics is for those who are granted it, whichever line publishes it.
async fn start() -> Result<(App, Router)> {
    let hub = Hub::builder().private_topics(["user-*", "/orders/*"]).start().await?;
    tokio::spawn(confirm_orders(hub.clone()));
    tokio::spawn(publish_presence(hub.clone(), hub.presence()));
    let app = App { hub, key: Key::generate() };
    let routes = Router::new()
        .route("/", get(async |_: User| Html(include_str!("page.html"))))
        .route("/login", get(async || Html(include_str!("login.html"))).post(login))
        .route("/stream", get(stream))
        .route("/orders", post(order))
        .route("/typing", post(typing));
    Ok((app.clone(), routes.with_state(app)))
}

/// Open streams keep a server from ending, so the hub ends them, and browsers reconnect later.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (app, routes) = start().await?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}/", listener.local_addr()?);
    let stopped = app.hub.shutdown_on(tokio::signal::ctrl_c());
    Ok(axum::serve(listener, routes).with_graceful_shutdown(stopped).await?)
}

/// Everything that a user receives: the last 20 notifications, who is there, who types from now on.
fn stream_of(user: &str) -> Subscribe {
    let own = format!("user-{user}");
    Subscribe::topics(["typing"])
        .topic_since(&own, Since::Last(20))
        .topic_since("presence", Since::Last(1))
        .grant([own])
        .label(user)
}

/// A browser that lost its connection continues where it was. `hello` tells it its name.
async fn stream(State(hub): State<Hub>, user: User, headers: HeaderMap, uri: Uri) -> Result<Subscription> {
    hub.subscribe(stream_of(&user.0).hello(true).resume(&headers, uri.query())).await
}

async fn order(State(hub): State<Hub>, user: User, item: String) -> Result {
    hub.publish(NewEvent::new(format!("/orders/{}", user.0), item)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A consumer in the same process, which might as well send mail. It begins with the oldest order.
async fn confirm_orders(hub: Hub) -> Result<()> {
    let all = Subscribe::default().pattern("/orders/:user").since(Since::Earliest).grant(["*"]);
    let mut orders = hub.listen(all).await?;
    while let Some(received) = orders.next().await {
        let Received::Event(order) = received else { continue };
        let user = order.topic.trim_start_matches("/orders/");
        let confirmed = NewEvent::new(format!("user-{user}"), format!("Your {} was ordered", order.data));
        // The key confirms each order once, also if this begins anew.
        hub.publish(confirmed.key(format!("confirmed{}", order.id))).await?;
    }
    Ok(())
}

/// For everybody but the page that typed, which sends its name.
async fn typing(State(hub): State<Hub>, user: User, page: String) -> Result {
    let event = NewEvent::new("typing", user.0).event_type("typing").ephemeral();
    hub.publish(NewEvent { except: ConnectionId::parse(&page), ..event }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The names behind the open streams; a user may have several.
async fn publish_presence(hub: Hub, mut changes: PresenceStream) -> Result<()> {
    let mut streams = BTreeMap::<String, usize>::new();
    while let Some(who) = changes.next().await {
        let count = streams.entry(who.label.as_deref().unwrap_or_default().to_owned()).or_default();
        *count = if who.here { *count + 1 } else { *count - 1 };
        streams.retain(|_, count| *count > 0);
        let names = serde_json::json!(streams.keys().collect::<Vec<_>>()).to_string();
        hub.publish(NewEvent::new("presence", names).event_type("presence")).await?;
    }
    Ok(())
}

/// The user of the session, from a signed cookie.
struct User(String);

impl FromRequestParts<App> for User {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Redirect> {
        let jar = SignedCookieJar::from_headers(&parts.headers, app.key.clone());
        jar.get("user").map(|cookie| Self(cookie.value().to_owned())).ok_or(Redirect::to("/login"))
    }
}

async fn login(jar: SignedCookieJar, Form(form): Form<BTreeMap<String, String>>) -> impl IntoResponse {
    let is_name = |name: &&String| (1..=32).contains(&name.len()) && name.chars().all(char::is_alphanumeric);
    let Some(name) = form.get("user").filter(is_name) else { return (jar, Redirect::to("/login")) };
    (jar.add(Cookie::build(("user", name.clone())).path("/").http_only(true)), Redirect::to("/"))
}

#[cfg(test)]
mod tests;
