//! Subscribing: the core that every API with streams uses.
//!
//! An API parses its parameters into a [`StreamRequest`]; from there on there is one path:
//! permissions, a slot, the hub, the response. A slot belongs to the open stream and is released
//! with it, however the stream ends and whatever writes it (`open_stream`).

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tidings::{
    EditProof, Error, EventId, Format, Matcher, PatternSyntax, PatternsFull, Payloads, Requested, Since,
    Subscribe, Subscription, Until, log::Cursor, log::Position,
};
use tidings_auth::{Access, Subject, proof_of_secret};

use crate::{
    access::{client_address, expires_in, stay_within_ticket},
    app::App,
    limit_log::Limit,
    metrics::counts::StreamRejection,
    open_stream::{FiniteRead, OpenStream, StreamHandle, StreamKeep},
    problem::{APPLICATION, Problem, StreamNotice},
    revocation::{Issued, Withheld},
    shedding::{retry_after_secs, shed},
    slots::{COMPILING_PER_ADDRESS_MAX, NoSlot, Slot},
};

/// A subscription request, whichever API it came through.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) start: Requested,
    /// Where each matcher starts if the request has no id; empty where all start at `start`.
    pub(crate) starts: Vec<Since>,
    /// Where a finite read ends. The hub does not need the socket of one: it is pulled like any body.
    pub(crate) until: Option<Until>,
    pub(crate) format: Format,
    /// Begin with a `hello` notice, which names the connection.
    pub(crate) hello: bool,
    /// The headers that report where the stream continues (the Mercure protocol, "Reconciliation").
    pub(crate) cursor_headers: &'static [&'static str],
}

/// Answers a subscription.
pub(crate) async fn stream(
    app: &App,
    parts: &Parts,
    access: Access,
    request: StreamRequest,
) -> Result<Response, Problem> {
    stay_within_ticket(&access, &request.matchers)?;
    app.hub
        .validator()
        .matchers_count(request.matchers.len())
        .map_err(|invalid| Problem::of_matcher(&invalid))?;
    if parts.method == Method::HEAD {
        return Ok(without_stream(app));
    }
    let slot = match slot(app, parts) {
        Ok(slot) => slot,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let issued = Issued::At(access.issued_at);
    open(app, parts, slot, access, request, issued).await
}

/// The response to HEAD. RFC 9110, section 9.3.2: it is as that to GET, so it has no length. No
/// client would read a stream, so none is opened.
pub(crate) fn without_stream(app: &App) -> Response {
    let unread = futures_util::stream::empty::<Result<Bytes, Infallible>>();
    (headers(app), Body::from_stream(unread)).into_response()
}

/// The permissions of a request for a stream. A refusal that is temporary, or because the credential has
/// expired or was revoked, is in the form after which this client reconnects.
pub(crate) fn subscriber(app: &App, parts: &Parts) -> Result<Access, Problem> {
    app.subscriber(parts).map_err(|problem| match problem.notice() {
        Some(StreamNotice::Expired | StreamNotice::Revoked) => shed(app, parts, problem),
        _ if problem.is_temporary() => reject(app, parts, problem),
        _ => problem,
    })
}

/// A slot for a stream of this client.
pub(crate) fn slot(app: &App, parts: &Parts) -> Result<Slot, Problem> {
    app.slots.take(client_address(parts)).map_err(|reason| no_slot(app, parts, reason))
}

/// Opens a stream in a slot.
pub(crate) async fn open(
    app: &App,
    parts: &Parts,
    mut slot: Slot,
    access: Access,
    request: StreamRequest,
    issued: Issued,
) -> Result<Response, Problem> {
    let counted = slot.take_patterns(&request.matchers).and_then(|()| slot.take_holders(&access));
    if let Err(reason) = counted {
        return Ok(no_slot(app, parts, reason).into_response());
    }
    let mut headers = headers(app);
    let cursor_headers = if request.start == Requested::Nothing { &[][..] } else { request.cursor_headers };
    let matchers = if request.starts.is_empty() {
        Subscribe::new(request.matchers)
    } else {
        let starts = request.matchers.into_iter().zip(request.starts);
        starts.fold(Subscribe::default(), |all, (matcher, since)| all.matcher_since(matcher, since))
    };
    let mut subscribe = matchers
        .since(request.start.since())
        .format(request.format)
        .hello(request.hello)
        .grants(access.subscribe.clone());
    // An application has decided about these topics, and no others.
    if request.hello && access.subject != Subject::Application {
        subscribe = editable(app, parts, subscribe);
    }
    if let Some(until) = request.until {
        subscribe = subscribe.until(until);
    }
    if let Some(expires_in) = expires_in(&access) {
        subscribe = subscribe.expires_in(expires_in);
    }
    if let Some(secs) = access.limits.stream_lifetime_secs_max {
        subscribe = subscribe.lifetime_max(Duration::from_secs(secs.get()));
    }
    if let Some(label) = access.presence_label() {
        subscribe = subscribe.label(label);
    }
    if app.settings.mercure_subscriptions.is_some() && access.has_payloads() {
        subscribe = subscribe.payloads(payloads(access.clone()));
    }
    let subscription = match app.hub.subscribe(subscribe).await {
        Ok(subscription) => subscription,
        Err(error @ Error::Unavailable(_)) => return Ok(reject(app, parts, error.into()).into_response()),
        Err(Error::TooManyPatterns(full)) => {
            return Ok(reject(app, parts, too_many_patterns(app, full)).into_response());
        }
        Err(error) => return Err(error.into()),
    };
    if !cursor_headers.is_empty() {
        let resumed = resumed_from(&subscription);
        headers.extend(resumed.into_iter().flat_map(|id| {
            cursor_headers.iter().map(move |name| (HeaderName::from_static(name), id.clone()))
        }));
    }
    let end = subscription.end();
    let listed = match app.revocations.list(&access, issued, subscription.connection()) {
        Ok(listed) => listed,
        Err(withheld) => {
            return Ok(reject(app, parts, withheld_stream(app, issued, withheld)).into_response());
        }
    };
    let keep = StreamKeep::new(slot, &app.counts, parts.version.into());
    let handle = StreamHandle::of(OpenStream { subscription, keep, listed, on_end: None });
    let mut response = (headers, Body::new(handle.body())).into_response();
    match end {
        Some(end) => {
            response.headers_mut().extend([cursor_header(&end)]);
            response.extensions_mut().insert(FiniteRead);
        }
        None => drop(response.extensions_mut().insert(handle)),
    }
    Ok(response)
}

/// What the token says about each subscription (the Mercure protocol, "Active subscriptions").
fn payloads(access: Access) -> Payloads {
    Payloads::new(move |matcher| {
        let payload = access.payload(matcher)?;
        Some(serde_json::to_string(payload).expect("it was JSON in the token"))
    })
}

/// The topics can be changed with the credential of this request, or with a secret that only the
/// client receives.
fn editable(app: &App, parts: &Parts, subscribe: Subscribe) -> Subscribe {
    if let Some(proof) = app.authorizer.proof(parts) {
        return subscribe.editable(EditProof(proof), None);
    }
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the system provides random numbers");
    let secret = format!("{:032x}", u128::from_be_bytes(bits));
    subscribe.editable(EditProof(proof_of_secret(&secret)), Some(secret))
}

fn headers(app: &App) -> HeaderMap {
    let mut headers = Subscription::headers();
    if app.settings.charset_utf8 {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    }
    headers
}

/// The matchers of exact names, URL Patterns, and selectors of the older revision of the Mercure
/// protocol, which are names or URI Templates. A stream whose patterns cannot be compiled now is
/// rejected.
pub(crate) async fn matchers(
    app: &App,
    parts: &Parts,
    exact: &[&str],
    patterns: &[&str],
    selectors: &[&str],
) -> Result<Vec<Matcher>, Problem> {
    let validator = app.hub.validator();
    // Counted before anything is compiled.
    validator
        .matchers_count(exact.len() + patterns.len() + selectors.len())
        .map_err(|invalid| Problem::of_matcher(&invalid))?;
    let patterns = patterns.iter().map(|text| (PatternSyntax::UrlPattern, *text));
    let selectors = selectors.iter().map(|text| (PatternSyntax::UriTemplate, *text));
    let patterns: Vec<_> = patterns.chain(selectors).collect();
    let bytes: usize = patterns.iter().map(|(_, text)| text.len()).sum();
    let bytes_max = app.settings.pattern_bytes_max;
    if bytes > bytes_max {
        return Err(Problem::bad_request(
            "pattern_bytes_max",
            format!(
                "The patterns have {bytes} bytes together; the limit is {bytes_max}: use shorter ones, or several streams."
            ),
        ));
    }
    let exact = exact.iter().map(|text| validator.exact(text));
    let mut matchers: Vec<_> =
        exact.collect::<Result<_, _>>().map_err(|invalid| Problem::of_matcher(&invalid))?;
    for (syntax, text) in patterns {
        let _waiting = if validator.known_matcher(syntax, text).is_some() {
            None
        } else {
            let waiting = app.slots.compiling(client_address(parts), text);
            Some(waiting.map_err(|reason| no_slot(app, parts, reason))?)
        };
        matchers.push(app.hub.matcher(syntax, text).await.map_err(|error| {
            if let Error::Invalid(invalid) = error {
                return Problem::of_matcher(&invalid);
            }
            let detail = "Too many new patterns are waiting to be compiled. Try again later.";
            let problem = Problem::unavailable("patterns", detail).limit(&Limit::Fixed("new patterns"));
            reject(app, parts, problem.retry_after(retry_after_secs(app)))
        })?);
    }
    Ok(matchers)
}

/// The Mercure protocol, "Reconciliation": the id before the first event that is sent, `earliest`
/// if there is none. Ids have no control characters, so their bytes can stand in a header as they
/// are.
fn resumed_from(subscription: &Subscription) -> Option<HeaderValue> {
    let place = subscription.place();
    let id = subscription.resumed_from().map_or_else(|| or_earliest(&place), |resumed| resumed.as_str());
    HeaderValue::from_bytes(id.as_bytes()).ok()
}

/// This id, or `earliest` for one that no event has because all come after it.
pub(crate) fn or_earliest(id: &EventId) -> &str {
    let cursor = Cursor::parse(id.as_str());
    let is_before_all = cursor.is_ok_and(|cursor| cursor.position == Position::BEFORE_ALL);
    if is_before_all { "earliest" } else { id.as_str() }
}

/// The position after which a stream continues a finite read or a summary.
pub(crate) fn cursor_header(cursor: &EventId) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(cursor.as_str()).expect("a generated id is visible ASCII");
    (HeaderName::from_static("tidings-cursor"), value)
}

fn too_many_patterns(app: &App, full: PatternsFull) -> Problem {
    let (limit, detail) = match full {
        PatternsFull::Count => (
            &Limit::Setting("patterns_max"),
            "The hub has reached its limit of distinct patterns (`patterns_max`). Try again later.",
        ),
        PatternsFull::Weight => (
            &Limit::Setting("pattern_weight_max"),
            "Patterns with this literal beginning have reached the limit of work for one topic (`pattern_weight_max`). Try again \
             later, or use a pattern that begins with more text, such as `/users/:id`.",
        ),
    };
    Problem::unavailable(limit.name(), detail).limit(limit).retry_after(retry_after_secs(app))
}

/// The refusal of a stream whose credential was revoked, or may have been.
fn withheld_stream(app: &App, issued: Issued, withheld: Withheld) -> Problem {
    match issued {
        Issued::At(_) => withheld.into(),
        Issued::After(_) => {
            Problem::unavailable("revoked", "The stream was revoked while it was being opened. Try again.")
                .retry_after(retry_after_secs(app))
        }
    }
}

/// The rejection of a stream that has no slot.
fn no_slot(app: &App, parts: &Parts, no_slot: NoSlot) -> Problem {
    let limits = app.slots.limits();
    let (reason, limit, detail) = match no_slot {
        NoSlot::Total => (
            "streams",
            Some(&Limit::Setting("streams_max")),
            format!("The hub has reached its limit of {} open streams. Try again later.", limits.total_max),
        ),
        NoSlot::Address => (
            "streams_per_address",
            Some(&Limit::Setting("streams_per_address_max")),
            format!(
                "Your address has reached its limit of {} open streams: one stream can carry many topics, as in `/stream?topic=a&topic=b`.",
                limits.per_address_max
            ),
        ),
        NoSlot::Key(streams_max) => (
            "key_streams",
            Some(&Limit::Fixed("streams_max of a key")),
            format!(
                "The key has reached its limit of {streams_max} open streams (`streams_max` of its `[[key]]`): close one; one stream can \
                 carry many topics, as in `/stream?topic=a&topic=b`."
            ),
        ),
        NoSlot::Subject(streams_max) => (
            "streams_per_subject_max",
            Some(&Limit::Setting("streams_per_subject_max")),
            format!(
                "The subject of this stream (the `sub` of its token, or its label) has reached its limit of {streams_max} open streams \
                 (`streams_per_subject_max`, the flag `--streams-per-subject-max`): close one; one stream can carry many topics."
            ),
        ),
        NoSlot::Ticket(streams_max) => (
            "ticket_streams",
            // It is the ticket that has the limit.
            None,
            format!(
                "The ticket has reached its limit of {streams_max} open streams (`streams_max` in the ticket): close one, or use a ticket \
                 with a higher limit."
            ),
        ),
        NoSlot::Patterns(PatternsFull::Count) => (
            "patterns_per_address_max",
            Some(&Limit::Setting("patterns_per_address_max")),
            format!(
                "This subscription exceeds the {} distinct patterns that your address may have (`patterns_per_address_max`): one \
                 pattern can match many topics, such as `/users/:id`.",
                limits.patterns.count_max
            ),
        ),
        NoSlot::Patterns(PatternsFull::Weight) => (
            "pattern_weight_per_address_max",
            Some(&Limit::Setting("pattern_weight_per_address_max")),
            format!(
                "This subscription exceeds the {} units of work that comparing one topic with the patterns of your address may take \
                 (`pattern_weight_per_address_max`): use patterns that begin with more text, such as `/users/:id`, or without regular expressions.",
                limits.patterns.weight_max
            ),
        ),
        NoSlot::Compiling => (
            "patterns",
            Some(&Limit::Fixed("new patterns of one address")),
            format!(
                "Your address has reached its limit of {COMPILING_PER_ADDRESS_MAX} new patterns at a time."
            ),
        ),
    };
    let is_full = no_slot == NoSlot::Total;
    let status = if is_full { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::TOO_MANY_REQUESTS };
    let mut problem = Problem::new(status, reason, detail).retry_after(retry_after_secs(app));
    if matches!(no_slot, NoSlot::Key(_) | NoSlot::Subject(_) | NoSlot::Ticket(_)) {
        problem = problem.noticed(StreamNotice::OverLimit);
    }
    if let Some(limit) = limit {
        problem = problem.limit(limit);
    }
    reject(app, parts, problem)
}

/// Rejects a stream, in the form after which this client reconnects.
pub(crate) fn reject(app: &App, parts: &Parts, problem: Problem) -> Problem {
    app.counts.streams_rejected.count(rejection(&problem));
    shed(app, parts, problem)
}

/// The reason of a rejection, for metrics.
fn rejection(problem: &Problem) -> StreamRejection {
    match problem.reason() {
        "streams" => StreamRejection::Full,
        "streams_per_address" => StreamRejection::Address,
        "key_streams" | "ticket_streams" => StreamRejection::Credential,
        "streams_per_subject_max" => StreamRejection::Subject,
        "patterns"
        | "patterns_max"
        | "pattern_weight_max"
        | "patterns_per_address_max"
        | "pattern_weight_per_address_max" => StreamRejection::Patterns,
        APPLICATION => StreamRejection::Application,
        "log" => StreamRejection::Store,
        "revoked" | "revocations" => StreamRejection::Revocation,
        _ => StreamRejection::Other,
    }
}

/// The problem for a subscription that names no topic.
pub(crate) fn nothing_named(example: &str) -> Problem {
    Problem::bad_request(
        "topic",
        format!("The request names no topic: name at least one, as in `{example}`."),
    )
}

/// Adds the headers of a response that depends on what the client accepts.
pub(crate) fn vary_accept(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
}
