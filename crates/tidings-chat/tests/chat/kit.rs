//! A chat under test: requests go directly to its routes, streams use a real connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use jiff::Zoned;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tidings::Hub;
use tidings_testkit::EventStream;
use tokio::net::TcpListener;
use tower::ServiceExt;

/// The time of every message: when the old answer was half a day old.
pub(crate) fn noon() -> Zoned {
    "2012-07-01T12:34:56[Europe/Berlin]".parse().expect("a time")
}

pub(crate) struct Chat {
    pub(crate) hub: Hub,
    routes: Router,
    address: SocketAddr,
    next_peer: AtomicU32,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Chat {
    pub(crate) async fn start() -> Self {
        let hosts = ["chat.test".parse().expect("a host name")].into_iter().collect();
        let app = tidings_chat::app(Hub::builder(), hosts, noon, |_| ()).await;
        let (hub, _presence, routes) = app.expect("a log in memory always opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(axum::serve(listener, routes.clone()).into_future());
        Self { hub, routes, address, next_peer: AtomicU32::new(1) }
    }

    /// Sends a request from an unused address, so that the rates of others do not count.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let peer = Ipv4Addr::from_bits(self.next_peer.fetch_add(1, Ordering::Relaxed));
        self.send_from(peer.into(), request).await
    }

    pub(crate) async fn send_from(&self, peer: IpAddr, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer, 1)));
        let response = self.routes.clone().oneshot(request).await.expect("routes are infallible");
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8(bytes.into()).expect("text");
        Answer { status: head.status, headers: head.headers, text }
    }

    pub(crate) async fn get(&self, path: &str, cookie: &str) -> Answer {
        let mut request = Request::get(path).header(header::HOST, "chat.test");
        if !cookie.is_empty() {
            request = request.header(header::COOKIE, cookie);
        }
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    /// Posts a message as a page of the chat does.
    pub(crate) async fn say(&self, cookie: &str, message: &str) -> Answer {
        self.send(post("/post", cookie, &format!("message={}", encode(message)))).await
    }

    /// Logs in and returns the cookie.
    pub(crate) async fn log_in(&self, name: &str) -> String {
        let answer = self.send(post("/login", "", &format!("user={}", encode(name)))).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        let cookie = answer.headers[header::SET_COOKIE].to_str().expect("text");
        cookie.split(';').next().expect("a cookie").to_owned()
    }

    pub(crate) async fn stream(&self, target: &str, fields: &[&str]) -> anyhow::Result<EventStream> {
        EventStream::open_with(self.address, target, fields).await
    }
}

/// A form as our own page posts it.
pub(crate) fn post(path: &str, cookie: &str, form: &str) -> Request<Body> {
    let mut request = Request::post(path)
        .header(header::HOST, "chat.test")
        .header(header::ORIGIN, "http://chat.test")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if !cookie.is_empty() {
        request = request.header(header::COOKIE, cookie);
    }
    request.body(Body::from(form.to_owned())).expect("a request")
}

/// Encodes text as a form does.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
