//! The chat of the 2012 answer, on Tidings.
//!
//! `POST /post` publishes, `GET /stream` subscribes, and the hub does everything in between: it
//! keeps the messages, sends each to every browser in the same order, and resumes after a lost
//! connection. Read down from [`app`].

use std::collections::{BTreeSet, HashMap};
use std::{net::IpAddr, net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};

use axum::extract::{ConnectInfo, DefaultBodyLimit, Form, FromRef, FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response, Result};
use axum::{Router, middleware, middleware::Next, routing::get, routing::post};
use axum_extra::extract::cookie::{Cookie, Key, SameSite, SignedCookieJar};
use jiff::Zoned;
use tidings::web::{HostNames, Initiator, initiator, is_same_origin};
use tidings::{Error, Hub, HubBuilder, NewEvent, Presence, Since, Subscribe, Subscription};
use tidings_presence::PresenceList;
use tokio::{select, sync::Notify, time::Instant, time::sleep};

/// Messages that a new user sees.
const HISTORY: usize = 50;
/// Longest message; a longer one is answered 413.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Longest name; the form is shown again for a longer one.
const NAME_CHARS_MAX: usize = 32;
/// Largest form: fits a message in which every character takes twelve bytes (`%F0%9F%98%80`). A
/// larger one is answered 413.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// Forms that an address may post at once; one more is answered 429. Behind a proxy all clients
/// share the proxy's address.
const BURST: u32 = 20;
/// The interval after which an address may post one more form.
const PAUSE: Duration = Duration::from_millis(200);
/// Addresses below their limit of forms at the same time; beyond this number every form is answered
/// 429.
const ADDRESSES_MAX: usize = 10_000;
/// The presence list is published at most this often, however many subscribers join and leave.
const PRESENCE_PAUSE: Duration = Duration::from_millis(200);
/// A process publishes its own joins and leaves; after this time the others check whether it has.
const OTHERS_PAUSE: Duration = Duration::from_secs(1);
/// The pages load and run only their own files, and cannot be framed.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; style-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The state that handlers share.
#[derive(Clone, FromRef)]
struct Chat {
    hub: Hub,
    clock: fn() -> Zoned,
    #[from_ref(skip)]
    print: fn(&str),
    key: Key,
    hosts: Arc<HostNames>,
    /// When each address may post its full number of forms again.
    spent: Arc<Mutex<HashMap<Option<IpAddr>, Instant>>>,
}

/// Starts a chat on a hub that is put together so far: the routes to serve, and the hub behind
/// them, which ends the open streams when it is closed. Requests may be addressed to this machine
/// and to the names in `hosts`. The clock sets the time in front of each message;
/// [`Zoned::now`] is local time, as the system or `TZ` has it. `print` gets each message, without
/// control characters; it is called by a thread that serves, so it must not wait. Chats on hubs
/// that share a log and a cluster are one: wait until the list of those who are present is
/// [withdrawn](PresenceList::withdrawn) after the hub was closed.
pub async fn app(
    hub: HubBuilder,
    hosts: HostNames,
    clock: fn() -> Zoned,
    print: fn(&str),
) -> anyhow::Result<(Hub, PresenceList, Router)> {
    let changes: [Arc<Notify>; 2] = Default::default();
    let [ours, theirs] = changes.clone();
    let notify = move |who: &Presence| if who.is_local { &ours } else { &theirs }.notify_one();
    let (hub, presence) = PresenceList::start(hub, notify).await?;
    // A name from one process is valid at all.
    let key = Key::try_from(&*hub.agree("chat/key", Key::generate().master()).await?)?;
    tokio::spawn(publish_presence(hub.clone(), presence.clone(), changes));

    let chat = Chat { hub: hub.clone(), clock, print, key, hosts: Arc::new(hosts), spent: Arc::default() };
    let file = |kind, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    let routes = Router::new()
        .route("/", get(home))
        .route("/login", get(async || login_page("")).post(login))
        .route("/logout", post(logout))
        .route("/post", post(say))
        .route("/stream", get(stream))
        .route("/chat.js", file("text/javascript", include_str!("../page/chat.js")))
        .route("/chat.css", file("text/css", include_str!("../page/chat.css")))
        .route("/chat.svg", file("image/svg+xml", include_str!("../page/chat.svg")))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn_with_state(chat.clone(), guard))
        .with_state(chat);
    Ok((hub, presence, routes))
}

/// `GET /`: the page with the last messages, and the position from which its stream continues, so
/// that none is missed in between.
async fn home(State(hub): State<Hub>, jar: SignedCookieJar) -> Result<Response, Error> {
    let Some(name) = name(&jar) else { return Ok(Redirect::to("/login").into_response()) };
    let past = hub.last_events(HISTORY, "chat").await?;
    let item = |text: &str| format!("<li>{}</li>", escape(text));
    let messages: String = past.entries.iter().rev().map(|entry| item(&entry.event.data)).collect();
    let page = include_str!("../page/chat.html").replace("{since}", &escape(past.end.as_str()));
    Ok(Html(page.replace("{name}", &escape(&name)).replace("{messages}", &messages)).into_response())
}

/// `POST /post`: publishes a message, under the name of the session or as `anonymous`.
async fn say(State(chat): State<Chat>, jar: SignedCookieJar, request: Request) -> Result<Response> {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_page_without_script = accept.is_some_and(|accept| accept.contains("text/html"));
    let message = message_of(request).await?;
    if message.chars().count() > MESSAGE_CHARS_MAX {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "A message has at most 1,000 characters.").into());
    }
    let name = name(&jar).unwrap_or_else(|| "anonymous".to_owned());
    let text = format!("[{}] {name}: {message}", (chat.clock)().strftime("%H:%M:%S"));
    // A terminal executes control characters, so they are removed.
    (chat.print)(&text.replace(char::is_control, " "));
    chat.hub.publish(NewEvent::new("chat", text)).await?;
    if is_page_without_script {
        return Ok(Redirect::to("/").into_response());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The form field `message`, urlencoded or multipart.
async fn message_of(request: Request) -> Result<String> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"multipart/form-data")) {
        let mut form = Multipart::from_request(request, &()).await?;
        while let Some(field) = form.next_field().await? {
            if field.name() == Some("message") {
                return Ok(field.text().await?);
            }
        }
    } else {
        let Form(fields) = Form::<Vec<(String, String)>>::from_request(request, &()).await?;
        if let Some((_, message)) = fields.into_iter().find(|(name, _)| name == "message") {
            return Ok(message);
        }
    }
    Err((StatusCode::BAD_REQUEST, "The form field `message` is missing.").into())
}

/// `GET /stream`: the messages, and for `/stream?presence` also the users who are present. A
/// browser that lost its connection resumes; a new one begins with the last messages.
async fn stream(
    State(hub): State<Hub>,
    jar: SignedCookieJar,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Subscription, Error> {
    let shows_presence = uri.query().is_some_and(|query| query.split('&').any(|field| field == "presence"));
    let topics = ["chat"].into_iter().chain(shows_presence.then_some("presence"));
    let request = Subscribe::topics(topics).since(Since::Last(HISTORY)).resume(&headers, uri.query());
    hub.subscribe(request.label(name(&jar).unwrap_or_else(|| "anonymous".to_owned()))).await
}

/// Publishes the names behind the open streams of all processes whenever a stream opens or ends
/// here, which is also how a new subscriber receives them. Each process publishes its own changes;
/// if it died, another one that finds the last published list wrong does.
async fn publish_presence(hub: Hub, presence: PresenceList, [ours, theirs]: [Arc<Notify>; 2]) {
    loop {
        let is_ours = select! {
            () = hub.closed() => return,
            () = ours.notified() => true,
            () = async { theirs.notified().await; sleep(OTHERS_PAUSE).await } => false,
        };
        let present = presence.subscribers();
        let names: BTreeSet<_> = present.iter().filter_map(|who| who.label.as_deref()).collect();
        let names = serde_json::json!(names).to_string();
        if let Ok(published) = hub.last_events(1, "presence").await {
            let last = published.entries.last().filter(|_| !is_ours);
            if last.is_some_and(|last| last.event.data == names) {
                continue;
            }
            let event = NewEvent::new("presence", names).event_type("presence");
            // Of several processes that find it wrong, one publishes.
            let _ =
                hub.publish(NewEvent { key: last.map(|last| format!("after-{}", last.id)), ..event }).await;
        }
        // Check once more that it was published, and that other processes see the same.
        theirs.notify_one();
        sleep(PRESENCE_PAUSE).await;
    }
}

/// `POST /login`: colons are kept out of names, so that `[time] name: message` can be read in one
/// way only.
async fn login(jar: SignedCookieJar, Form(fields): Form<HashMap<String, String>>) -> Result<Response> {
    let name = fields.get("user").map_or("", |name| name.trim());
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains([':', '\n']) {
        let problem = "Please enter a name of 1 to 32 characters, without colons.";
        return Err((StatusCode::BAD_REQUEST, login_page(problem)).into());
    }
    let cookie = Cookie::build(("user", name.to_owned())).path("/").http_only(true).same_site(SameSite::Lax);
    Ok((jar.add(cookie), Redirect::to("/")).into_response())
}

fn login_page(problem: &str) -> Html<String> {
    Html(include_str!("../page/login.html").replace("{problem}", problem))
}

async fn logout(jar: SignedCookieJar) -> (SignedCookieJar, Redirect) {
    (jar.remove(Cookie::build("user").path("/")), Redirect::to("/login"))
}

fn name(jar: &SignedCookieJar) -> Option<String> {
    jar.get("user").map(|cookie| cookie.value().to_owned())
}

/// Runs before every route: refuses requests for another host, forms from other sites, and too many
/// forms.
async fn guard(State(chat): State<Chat>, request: Request, next: Next) -> Response {
    let mut response = if chat.hosts.check(request.uri(), request.headers()).is_err() {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "The chat accepts no requests for this host name; `tidings demo --allow-host NAME` allows it.",
        )
            .into_response()
    } else if request.method().is_safe() {
        next.run(request).await
    } else if !is_from_here(&request) {
        (StatusCode::FORBIDDEN, "This form was sent from another site.").into_response()
    } else if !chat.spend(&request) {
        let retry_after = [(header::RETRY_AFTER, "1")];
        (StatusCode::TOO_MANY_REQUESTS, retry_after, "Too many messages: please wait a second.")
            .into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Browsers send the origin of a form or script. Clients that do not, such as curl, may post
/// without a cookie.
fn is_from_here(request: &Request) -> bool {
    match initiator(request.headers()) {
        Initiator::SameOrigin => true,
        Initiator::Origin(origin) => is_same_origin(&origin, request.uri(), request.headers()),
        Initiator::Unstated => !request.headers().contains_key(header::COOKIE),
        _ => false,
    }
}

impl Chat {
    /// Whether an address may post one more form.
    fn spend(&self, request: &Request) -> bool {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let address = peer.map(|peer| peer.ip().to_canonical());
        let now = Instant::now();
        let mut spent = self.spent.lock().expect("nothing panics while it holds this");
        spent.retain(|_, earned_back| *earned_back > now);
        let earned_back = *spent.get(&address).unwrap_or(&now) + PAUSE;
        let may = earned_back <= now + PAUSE * BURST && spent.len() < ADDRESSES_MAX;
        if may {
            spent.insert(address, earned_back);
        }
        may
    }
}

/// Escapes HTML, and `{placeholder}`s of our pages.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;").replace('{', "&#123;")
}
