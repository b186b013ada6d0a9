//! The measured hub and its requests: templates of URLs, headers and bodies.

use std::net::{SocketAddr, ToSocketAddrs};

use tidings_net::redacted;

use crate::BenchError;

/// The requests of a hub. `{topic}` is replaced by the topic, and in bodies `{data}` by the
/// payload.
///
/// Topics and payloads are letters, digits and `-`, `:`, `~`, so they need no escaping in URLs,
/// forms and JSON.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name of the hub in reports.
    pub name: String,
    /// Such as `http://127.0.0.1:8080/stream?topic={topic}`.
    pub subscribe: String,
    /// Such as `http://127.0.0.1:8080/topics/{topic}`.
    pub publish: String,
    /// Further headers of a subscription, such as `Accept: text/event-stream`.
    pub subscribe_headers: Vec<String>,
    /// Further headers of a publish request.
    pub publish_headers: Vec<String>,
    /// The body of a publish request.
    pub body: String,
    /// Deletes a topic, with the method DELETE and the headers of a publish request, if this hub can.
    pub delete: Option<String>,
    /// How an event is marked as private, if this hub has private events.
    pub private: Option<Private>,
    /// The ways to resume after the last received event, the usual one first; empty if the hub has
    /// no history.
    pub resume: Vec<Resume>,
    /// Sent with each publish request, and with each subscription unless `subscribe_tokens` are
    /// given.
    pub token: Option<String>,
    /// Sent with subscriptions, in rotation.
    pub subscribe_tokens: Vec<String>,
}

/// How an event is marked as private.
#[derive(Clone, Debug)]
pub enum Private {
    /// By this addition to the URL.
    Url(String),
    /// By this addition to the body.
    Body(String),
}

/// How a subscriber sends the id of the last event that it received.
#[derive(Clone, Debug)]
pub enum Resume {
    /// In the header of this name.
    Header(String),
    /// In the query parameter of this name.
    Parameter(String),
}

/// Hubs whose requests are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Tidings, by its native API.
    Tidings,
    /// nginx with nchan: a publisher location `/pub/…`, an EventSource subscriber location
    /// `/sub/…`.
    Nchan,
    /// A Mercure hub.
    Mercure,
    /// Pushpin: streams through its front, events to its control port on 5561 of the same host.
    Pushpin,
    /// Centrifugo, by its unidirectional Server-Sent Events and its HTTP API; `--publish-header` gives
    /// the API key.
    Centrifugo,
    /// The axum handler of `bench/axum`.
    Axum,
}

impl Preset {
    /// All of them, in the order of `--help`.
    pub const ALL: [Self; 6] =
        [Self::Tidings, Self::Nchan, Self::Mercure, Self::Pushpin, Self::Centrifugo, Self::Axum];

    /// The name for `--hub`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tidings => "tidings",
            Self::Nchan => "nchan",
            Self::Mercure => "mercure",
            Self::Pushpin => "pushpin",
            Self::Centrifugo => "centrifugo",
            Self::Axum => "axum",
        }
    }
}

impl Target {
    /// The requests that a measurement of this hub would send, one to subscribe and one to publish;
    /// tokens are hidden. Fails as the measurement would if a template cannot be used.
    pub fn sample_requests(&self) -> Result<String, BenchError> {
        Ok(Requests::new(self, "TOPIC".to_owned())?.samples())
    }

    /// A known hub at `base`, such as `http://127.0.0.1:8080`.
    pub fn preset(preset: Preset, base: &str) -> Self {
        let base = base.trim_end_matches('/');
        let native = Self {
            name: "tidings".to_owned(),
            subscribe: format!("{base}/stream?topic={{topic}}"),
            publish: format!("{base}/topics/{{topic}}"),
            subscribe_headers: vec!["Accept: text/event-stream".to_owned()],
            publish_headers: vec!["Content-Type: text/plain".to_owned()],
            body: "{data}".to_owned(),
            delete: None,
            private: None,
            resume: vec![Resume::Header("Last-Event-ID".to_owned())],
            token: None,
            subscribe_tokens: Vec::new(),
        };
        match preset {
            Preset::Tidings => Self {
                delete: Some(native.publish.clone()),
                private: Some(Private::Url("?private=true".to_owned())),
                resume: [native.resume, vec![Resume::Parameter("since".to_owned())]].concat(),
                ..native
            },
            Preset::Nchan => Self {
                name: "nchan".to_owned(),
                subscribe: format!("{base}/sub/{{topic}}"),
                publish: format!("{base}/pub/{{topic}}"),
                ..native
            },
            Preset::Mercure => Self {
                name: "mercure".to_owned(),
                subscribe: format!("{base}/.well-known/mercure?topic={{topic}}"),
                publish: format!("{base}/.well-known/mercure"),
                publish_headers: vec!["Content-Type: application/x-www-form-urlencoded".to_owned()],
                body: "topic={topic}&data={data}".to_owned(),
                private: Some(Private::Body("&private=on".to_owned())),
                ..native
            },
            Preset::Pushpin => Self {
                name: "pushpin".to_owned(),
                publish: format!("{}:5561/publish/", without_port(base)),
                publish_headers: vec!["Content-Type: application/json".to_owned()],
                body: r#"{"items":[{"channel":"{topic}","formats":{"http-stream":{"content":"data: {data}\n\n"}}}]}"#
                    .to_owned(),
                resume: Vec::new(),
                ..native
            },
            Preset::Centrifugo => Self {
                name: "centrifugo".to_owned(),
                // {"subs":{"TOPIC":{}}}
                subscribe: format!(
                    "{base}/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{{topic}}%22%3A%7B%7D%7D%7D"
                ),
                publish: format!("{base}/api/publish"),
                publish_headers: vec!["Content-Type: application/json".to_owned()],
                body: r#"{"channel":"{topic}","data":"{data}"}"#.to_owned(),
                resume: Vec::new(),
                ..native
            },
            Preset::Axum => Self { name: "axum".to_owned(), resume: Vec::new(), ..native },
        }
    }
}

fn without_port(base: &str) -> &str {
    match base.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => base,
    }
}

/// A prepared [`Target`]: addresses resolved, templates parsed.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) subscribe_address: SocketAddr,
    pub(crate) publish_address: SocketAddr,
    subscribe: Request,
    publish: Request,
    /// The path of a DELETE, at the same address as `publish`.
    delete: Option<Template>,
    subscribe_tokens: Vec<String>,
    private: Option<Private>,
    resume: Vec<Resume>,
    topic_prefix: String,
}

#[derive(Debug)]
struct Request {
    host: String,
    path: Template,
    /// All header lines except Host, Content-Length and those that a subscription adds.
    headers: String,
    body: Template,
}

impl Requests {
    /// `topic_prefix` makes the topics of this run different from those of every other.
    pub(crate) fn new(target: &Target, topic_prefix: String) -> Result<Self, BenchError> {
        let (subscribe_address, host, path) = resolve("--subscribe", &target.subscribe)?;
        let mut headers = header_lines("--subscribe-header", &target.subscribe_headers)?;
        if let Some(token) = target.token.as_ref().filter(|_| target.subscribe_tokens.is_empty()) {
            headers.push_str(&authorization(token)?);
        }
        let subscribe = Request { host, path: Template::new(&path), headers, body: Template::new("") };
        let (publish_address, host, path) = resolve("--publish", &target.publish)?;
        let mut headers = header_lines("--publish-header", &target.publish_headers)?;
        if let Some(token) = &target.token {
            headers.push_str(&authorization(token)?);
        }
        let body = Template::new(&target.body);
        if !body.0.contains(&Piece::Data) {
            return Err(BenchError::plan("--body: {data} is missing, so events could not be recognised"));
        }
        let publish = Request { host, path: Template::new(&path), headers, body };
        let delete = target.delete.as_deref().map(|url| resolve("the URL to delete", url)).transpose()?;
        let delete = delete.map(|(_, _, path)| Template::new(&path));
        // Without it all streams would receive everything, and a hub that mixes up topics would
        // pass.
        if !subscribe.path.0.contains(&Piece::Topic) {
            return Err(BenchError::plan(format!(
                "--subscribe `{}`: {{topic}} is missing, so topics could not be distinguished",
                redacted(&target.subscribe)
            )));
        }
        if ![&publish.path, &publish.body].iter().any(|template| template.0.contains(&Piece::Topic)) {
            return Err(BenchError::plan(format!(
                "--publish `{}`: {{topic}} is missing, and --body has none either",
                redacted(&target.publish)
            )));
        }
        Ok(Self {
            subscribe_address,
            publish_address,
            subscribe,
            publish,
            delete,
            subscribe_tokens: target
                .subscribe_tokens
                .iter()
                .map(|token| authorization(token))
                .collect::<Result<_, _>>()?,
            private: target.private.clone(),
            resume: target.resume.clone(),
            topic_prefix,
        })
    }

    /// A subscription and a publication as they are sent, in readable form.
    pub(crate) fn samples(&self) -> String {
        let (mut scratch, mut publish) = (Vec::new(), Vec::new());
        self.publish(0, b"DATA", false, &mut scratch, &mut publish);
        let subscribe = self.subscribe(0, 0, None, 0);
        let requests = [(&subscribe, self.subscribe_address), (&publish, self.publish_address)];
        let texts = requests.map(|(request, address)| {
            let request = String::from_utf8_lossy(request).replace("\r\n", "\n");
            let hidden = request.lines().map(|line| match line.split_once(": Bearer ") {
                Some((name, _)) => format!("{name}: Bearer (hidden)"),
                None => line.to_owned(),
            });
            format!("to {address}:\n{}", hidden.collect::<Vec<_>>().join("\n"))
        });
        texts.join("\n\n")
    }

    pub(crate) fn can_resume(&self) -> bool {
        !self.resume.is_empty()
    }

    /// The request of subscriber `number` for this topic, resuming after `last_event_id` if there
    /// is one. `way` selects how to send that id.
    pub(crate) fn subscribe(
        &self,
        number: usize,
        topic: u32,
        last_event_id: Option<&str>,
        way: usize,
    ) -> Vec<u8> {
        let resume = self.resume.get(way % self.resume.len().max(1)).zip(last_event_id);
        let mut out = b"GET ".to_vec();
        self.subscribe.path.render(&self.topic(topic), &[], &mut out);
        if let Some((Resume::Parameter(name), id)) = resume {
            let joint = if out.contains(&b'?') { '&' } else { '?' };
            out.extend_from_slice(format!("{joint}{name}={}", escape(id)).as_bytes());
        }
        let Request { host, headers, .. } = &self.subscribe;
        out.extend_from_slice(format!(" HTTP/1.1\r\nHost: {host}\r\n{headers}").as_bytes());
        if !self.subscribe_tokens.is_empty() {
            let token = &self.subscribe_tokens[number % self.subscribe_tokens.len()];
            out.extend_from_slice(token.as_bytes());
        }
        if let Some((Resume::Header(name), id)) = resume {
            out.extend_from_slice(format!("{name}: {id}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Replaces `out` with the request that publishes `payload`; `scratch` is a reusable buffer.
    pub(crate) fn publish(
        &self,
        topic: u32,
        payload: &[u8],
        private: bool,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        use std::io::Write;
        let private = self.private.as_ref().filter(|_| private);
        let topic = self.topic(topic);
        scratch.clear();
        self.publish.body.render(&topic, payload, scratch);
        if let Some(Private::Body(addition)) = private {
            scratch.extend_from_slice(addition.as_bytes());
        }
        out.clear();
        out.extend_from_slice(b"POST ");
        self.publish.path.render(&topic, &[], out);
        if let Some(Private::Url(addition)) = private {
            out.extend_from_slice(addition.as_bytes());
        }
        let Request { host, headers, .. } = &self.publish;
        let length = scratch.len();
        write!(out, " HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n")
            .expect("writing to memory cannot fail");
        out.extend_from_slice(scratch);
    }

    /// The request that deletes a topic; none if the hub cannot.
    pub(crate) fn delete(&self, topic: u32) -> Option<Vec<u8>> {
        let mut out = b"DELETE ".to_vec();
        self.delete.as_ref()?.render(&self.topic(topic), &[], &mut out);
        let Request { host, headers, .. } = &self.publish;
        out.extend_from_slice(format!(" HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").as_bytes());
        Some(out)
    }

    fn topic(&self, number: u32) -> String {
        format!("{}-{number}", self.topic_prefix)
    }
}

/// Text with placeholders.
#[derive(Debug)]
struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Data,
}

impl Template {
    fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let place = [("{topic}", Piece::Topic), ("{data}", Piece::Data)];
            if let Some((name, piece)) = place.into_iter().find(|(name, _)| rest.starts_with(name)) {
                pieces.extend((!plain.is_empty()).then(|| Piece::Text(std::mem::take(&mut plain))));
                pieces.push(piece);
                rest = &rest[name.len()..];
            } else {
                plain.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
        pieces.extend((!plain.is_empty()).then_some(Piece::Text(plain)));
        Self(pieces)
    }

    fn render(&self, topic: &str, data: &[u8], out: &mut Vec<u8>) {
        for piece in &self.0 {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Topic => topic.as_bytes(),
                Piece::Data => data,
            });
        }
    }
}

/// The address, the Host header and the path of a template.
fn resolve(flag: &str, url: &str) -> Result<(SocketAddr, String, String), BenchError> {
    let wrong = |why: &str| BenchError::plan(format!("{flag} `{}`: {why}", redacted(url)));
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| wrong("only plain http:// can be measured, such as http://127.0.0.1:8080/…"))?;
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.bytes().any(|byte| byte <= b' ' || byte == b'#' || byte == 0x7f) {
        return Err(wrong("spaces, control characters and # must be percent-encoded"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let lookup = if has_port { host.to_owned() } else { format!("{host}:80") };
    let address = lookup
        .to_socket_addrs()
        .map_err(|error| wrong(&format!("cannot find the host: {error}")))?
        .next()
        .ok_or_else(|| wrong("the host has no address"))?;
    Ok((address, host.to_owned(), path))
}

fn header_lines(flag: &str, headers: &[String]) -> Result<String, BenchError> {
    let mut lines = String::new();
    for header in headers {
        let named = header.split_once(':').is_some_and(|(name, _)| !name.trim().is_empty());
        if !named || header.chars().any(char::is_control) {
            return Err(BenchError::plan(format!("{flag} `{}`: write `Name: value`", header.escape_debug())));
        }
        lines.push_str(header);
        lines.push_str("\r\n");
    }
    Ok(lines)
}

fn authorization(token: &str) -> Result<String, BenchError> {
    if token.is_empty() || token.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return Err(BenchError::plan("a token is one word of visible ASCII characters"));
    }
    Ok(format!("Authorization: Bearer {token}\r\n"))
}

/// Percent-encodes all except letters, digits, `-`, `_`, `.` and `~`.
fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(target: &Target) -> Requests {
        Requests::new(target, "run".to_owned()).unwrap()
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_subscription_contains_topic_token_and_last_id() {
        let mut target = Target::preset(Preset::Tidings, "http://127.0.0.1:8080/");
        target.subscribe_tokens = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            text(&requests(&target).subscribe(3, 9, Some("#x"), 0)),
            "GET /stream?topic=run-9 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer b\r\nLast-Event-ID: #x\r\n\r\n"
        );
        assert!(
            text(&requests(&target).subscribe(0, 9, Some("#x"), 1))
                .starts_with("GET /stream?topic=run-9&since=%23x ")
        );
    }

    #[test]
    fn a_publish_request_has_the_length_of_its_body() {
        let target = Target::preset(Preset::Mercure, "http://127.0.0.1:3000");
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        requests(&target).publish(2, b"hello", true, &mut scratch, &mut out);
        assert_eq!(
            text(&out),
            "POST /.well-known/mercure HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 33\r\n\r\n\
             topic=run-2&data=hello&private=on"
        );
    }

    #[test]
    fn a_topic_is_deleted_where_it_is_published_to() {
        let target = Target::preset(Preset::Tidings, "http://127.0.0.1:8080");
        assert_eq!(
            text(&requests(&target).delete(2).unwrap()),
            "DELETE /topics/run-2 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: text/plain\r\n\r\n"
        );
        let target = Target::preset(Preset::Nchan, "http://127.0.0.1:8080");
        assert_eq!(requests(&target).delete(2), None);
    }

    #[test]
    fn pushpin_takes_json_at_its_control_port() {
        let target = Target::preset(Preset::Pushpin, "http://127.0.0.1:7999");
        assert_eq!(target.publish, "http://127.0.0.1:5561/publish/");
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        requests(&target).publish(0, b"hello", false, &mut scratch, &mut out);
        assert!(text(&out).ends_with(
            r#"{"items":[{"channel":"run-0","formats":{"http-stream":{"content":"data: hello\n\n"}}}]}"#
        ));
    }

    #[test]
    fn an_invalid_target_is_refused_with_the_name_of_the_flag() {
        for (change, part) in [
            (
                Box::new(|t: &mut Target| t.subscribe = "https://x/".into()) as Box<dyn Fn(&mut Target)>,
                "--subscribe `https://x/`",
            ),
            (Box::new(|t: &mut Target| t.publish = "http://127.0.0.1:1/a b".into()), "--publish"),
            (Box::new(|t: &mut Target| t.body = "hello".into()), "{data}"),
            (Box::new(|t: &mut Target| t.publish_headers = vec!["nonsense".into()]), "`nonsense`"),
            (Box::new(|t: &mut Target| t.token = Some("a\nb".into())), "token"),
        ] {
            let mut target = Target::preset(Preset::Tidings, "http://127.0.0.1:8080");
            change(&mut target);
            let error = Requests::new(&target, String::new()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
