//! A request of a tenant, kept as text, so that a test knows what the client itself has said.

use axum::body::Body;
use http::{Method, Response};
use url::form_urlencoded::Serializer;

use crate::support::{Api, within};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Asking {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn parameter(&mut self, name: &str, value: impl Into<String>) {
        self.query.push((name.to_owned(), value.into()));
    }

    pub(crate) fn header(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.push((name, value.into()));
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| *known == name)
    }

    /// Moves the parameters into the body, except the ticket.
    pub(crate) fn into_form(mut self) -> Self {
        let (stay, go): (Vec<_>, Vec<_>) = self.query.into_iter().partition(|(name, _)| name == "ticket");
        self.query = stay;
        self.body = form(&go);
        self.header("content-type", "application/x-www-form-urlencoded");
        self
    }

    /// Everything that the client says, for a search.
    pub(crate) fn text(&self) -> String {
        format!("{self:?}")
    }

    pub(crate) async fn send(&self, api: &Api) -> Response<Body> {
        let query = form(&self.query);
        let target = if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) };
        let mut ask = api.ask(self.method.clone(), &target);
        for (name, value) in &self.headers {
            ask = ask.header(name, value);
        }
        within(ask.body(self.body.clone()).send()).await
    }
}

pub(crate) fn form(pairs: &[(String, String)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The headers of a response as text, without those that every response has.
pub(crate) fn headers_of(response: &Response<Body>) -> String {
    let fields = response.headers().iter();
    let lines = fields.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    lines.collect::<Vec<_>>().join("\n")
}
