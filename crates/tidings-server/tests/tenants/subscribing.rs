//! How a tenant subscribes: which API, which matchers, from where; and what may follow from it.

use http::{Method, StatusCode};
use http_body_util::BodyExt;

use crate::{
    people::{Kind, one_match},
    reading::{FirstGap, Reading},
    requests::{Asking, headers_of},
    support::{HUB, within},
    topics::{Match, cover_any},
    world::{World, path_of},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// `/stream`.
    Stream,
    /// `/topics/…`.
    Topic,
    /// `POST /stream`.
    Posted,
    Mercure,
}

/// Where a stream is to begin.
#[derive(Clone, Debug)]
enum Start {
    Now,
    Earliest,
    Hour,
    Last(usize),
    Id(String),
}

impl World {
    pub(crate) async fn subscribe(&mut self) {
        let tenant = self.someone();
        let way = *self.random.pick(&[
            Way::Stream,
            Way::Stream,
            Way::Topic,
            Way::Posted,
            Way::Mercure,
            Way::Mercure,
        ]);
        let (matchers, named) = self.matchers(tenant, way);
        let start = self.start(way);
        let mut asking = asking(way, if named { &matchers } else { &[] });
        let hello = way != Way::Mercure && self.random.percent(40);
        let json = way != Way::Mercure && self.random.percent(40);
        if hello {
            asking.parameter("hello", "1");
        }
        if json {
            asking.parameter("format", "json");
        }
        match &start {
            Start::Now => {}
            Start::Earliest if way == Way::Mercure => asking.parameter("lastEventID", "earliest"),
            Start::Earliest => asking.parameter("since", "earliest"),
            Start::Hour => asking.parameter("since", "1h"),
            Start::Last(count) => asking.parameter("since", format!("-{count}")),
            Start::Id(id) if self.random.percent(60) => asking.header("last-event-id", &**id),
            Start::Id(id) => asking.parameter("lastEventID", &**id),
        }
        if way == Way::Posted {
            asking = asking.into_form();
        }
        self.sign(&mut asking, tenant);
        let is_browser = way != Way::Posted && !asking.has_header("authorization") && self.random.percent(30);
        if is_browser {
            asking.header("accept", "text/event-stream");
            asking.header("cache-control", "no-cache");
        }

        let who = self.tenants[tenant].clone();
        let response = self.send(&asking).await;
        let (status, headers) = (response.status(), headers_of(&response));
        if !World::may_subscribe(&who, &matchers, way != Way::Mercure) {
            let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
            let body = String::from_utf8_lossy(&body);
            let noticed = is_browser && who.revoked && status == StatusCode::OK && body.contains("revoked");
            assert!(noticed || matches!(status.as_u16(), 401 | 403), "{status} {asking:?} {who:?}: {body}");
            return self.search(&asking, &format!("{headers}{body}"), |_, _| false);
        }
        assert_eq!(status, StatusCode::OK, "{asking:?} {who:?}");
        let mut stream = Reading::new(tenant, asking, who.subscribe, headers, response.into_body());
        (stream.matchers, stream.json) = (matchers, json);
        self.begin(&mut stream, &start).await;
        if way == Way::Mercure {
            self.check_echo(&stream, &start).await;
        }
        if hello || self.random.percent(50) {
            stream.read_available().await;
        }
        if hello {
            stream.read_hello();
            assert!(stream.connection.is_some(), "no hello: {}", stream.text());
        }
        self.keep_open(stream).await;
    }

    /// What the subscription is for, and whether the request names it.
    fn matchers(&mut self, tenant: usize, way: Way) -> (Vec<Match>, bool) {
        let who = &self.tenants[tenant];
        let own = who.subscribe.clone();
        let is_ticket = who.kind == Kind::Ticket;
        if is_ticket && way != Way::Topic && self.random.percent(40) {
            return (distinct(own), false);
        }
        let count = if way == Way::Topic { 1 } else { self.random.between(1, 4) };
        let mut matchers = Vec::new();
        while matchers.len() < count {
            let matcher = if !own.is_empty() && self.random.percent(if is_ticket { 85 } else { 40 }) {
                self.random.pick(&own).clone()
            } else if self.random.percent(12) {
                Match::Any
            } else {
                one_match(&mut self.random)
            };
            if way != Way::Topic || matcher.exact_or_pattern().is_ok() {
                matchers.push(matcher);
            } else {
                matchers.push(Match::Exact("chat".to_owned()));
            }
        }
        (distinct(matchers), true)
    }

    fn start(&mut self, way: Way) -> Start {
        let ids: Vec<_> = self.events.iter().filter_map(|event| event.own_id.clone()).collect();
        let cursors: Vec<_> = self.events.iter().map(|event| event.cursor.clone()).collect();
        match self.random.between(0, 100) {
            0..20 => Start::Now,
            20..35 => Start::Earliest,
            35..50 if way != Way::Mercure => Start::Last(self.random.between(1, 6)),
            50..55 if way != Way::Mercure => Start::Hour,
            55..80 if !ids.is_empty() => Start::Id(self.random.pick(&ids).clone()),
            80..92 if !cursors.is_empty() => Start::Id(self.random.pick(&cursors).clone()),
            92..96 => Start::Id("#3854XXHUBp5.7".to_owned()),
            _ => Start::Id("an id that nobody has used".to_owned()),
        }
    }

    /// Where the stream begins by the model, and what it has to report.
    async fn begin(&mut self, stream: &mut Reading, start: &Start) {
        let kept = self.kept().await;
        match start {
            Start::Now => stream.after = self.events.len(),
            Start::Earliest | Start::Hour => {}
            Start::Last(count) => {
                let newest = (0..self.events.len()).rev();
                let visible =
                    newest.filter(|number| kept.contains(number) && stream.is_for(&self.events[*number]));
                stream.after = visible.take(*count).last().unwrap_or(self.events.len());
            }
            Start::Id(id) => {
                stream.promises = true;
                let by_cursor = |number: &usize| self.events[*number].cursor == *id;
                let is_visible = |number: &usize| {
                    let event = &self.events[*number];
                    event.own_id.as_ref() == Some(id)
                        && kept.contains(number)
                        && (!event.private || cover_any(&stream.grants, &event.topics))
                };
                let found = if id.starts_with('#') {
                    (0..self.events.len()).find(by_cursor)
                } else {
                    (0..self.events.len()).find(is_visible)
                };
                match found {
                    Some(number) => stream.after = number + 1,
                    None if id.starts_with('#') => stream.first_gap = FirstGap::OtherLog(id.clone()),
                    None => stream.first_gap = FirstGap::Unknown(id.clone()),
                }
            }
        }
    }

    /// The Mercure protocol, "Reconciliation": the header names the id from which the stream
    /// continues, if the client misses nothing after it, and none that the client may not know.
    async fn check_echo(&self, stream: &Reading, start: &Start) {
        let kept = self.kept().await;
        let mut after = self.events.iter().enumerate().skip(stream.after);
        let is_complete = after.all(|(number, event)| kept.contains(&number) || !stream.is_for(event));
        let echoed = stream.headers.lines().find_map(|line| line.strip_prefix("mercure-last-event-id: "));
        let expected = match start {
            Start::Now => None,
            Start::Id(id) if stream.first_gap == FirstGap::None && is_complete => Some(id.as_str()),
            _ => Some("earliest"),
        };
        assert_eq!(echoed, expected, "{:?}", stream.asking);
    }
}

fn distinct(matchers: Vec<Match>) -> Vec<Match> {
    let mut distinct = Vec::new();
    for matcher in matchers {
        if !distinct.contains(&matcher) {
            distinct.push(matcher);
        }
    }
    distinct
}

/// A subscription with these matchers.
pub(crate) fn asking(way: Way, matchers: &[Match]) -> Asking {
    let (method, path, exact, pattern) = match way {
        Way::Stream => (Method::GET, "/stream".to_owned(), "topic", "pattern"),
        Way::Posted => (Method::POST, "/stream".to_owned(), "topic", "pattern"),
        Way::Mercure => (Method::GET, HUB.to_owned(), "match", "match_urlpattern"),
        Way::Topic => {
            let topic =
                matchers.first().and_then(|matcher| matcher.exact_or_pattern().ok()).expect("a topic");
            return Asking::new(Method::GET, path_of(topic));
        }
    };
    let mut asking = Asking::new(method, path);
    for matcher in matchers {
        match matcher.exact_or_pattern() {
            Ok(topic) => asking.parameter(exact, topic),
            Err(text) => asking.parameter(pattern, text),
        }
    }
    asking
}
