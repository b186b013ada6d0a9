//! The life cycle of a subscription: connect, read, wait, reconnect. Sockets are behind
//! [`Connect`], so that every time-out can be tested on a stopped clock.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tidings_sse::{Item, ParsedEvent, Parser};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    ClientError, Notice,
    backoff::{Backoff, JITTER_MAX},
    notice,
};

/// How long a server may send nothing, not even a comment, before the connection counts as dead. A
/// hub sends a heartbeat every 15 s, so two may be lost.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// What happens to a subscription.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A connection is established; at the beginning, and again after each wait.
    Open,
    /// An event.
    Message(Message),
    /// A notice of the hub about the stream itself. A gap means that events are lost for good.
    Notice(Notice),
    /// There is no connection; the next attempt follows after a pause.
    Waiting {
        /// How long the pause is.
        delay: Duration,
        /// The error that ended the connection.
        reason: ClientError,
    },
}

/// An event as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The type, `message` if the event has none.
    pub event_type: String,
    /// The data, its lines joined with line feeds.
    pub data: String,
    /// The id in force: use it to resume after this event. Empty if there is none.
    pub id: String,
}

/// What arrives on one connection.
pub(crate) type Body = BoxStream<'static, Result<Bytes, ClientError>>;

/// Opens an event stream.
pub(crate) trait Connect: Send {
    /// Opens the stream after the event with this id, or at the beginning if it is empty. `None`
    /// tells the client to stop.
    fn connect(&self, last_event_id: &str) -> impl Future<Output = Result<Option<Body>, ClientError>> + Send;
}

pub(crate) struct Driver<C> {
    source: C,
    parser: Parser,
    backoff: Backoff,
    state: State,
}

enum State {
    Unconnected,
    Waiting(Duration),
    Reading(Reading),
    Ended,
}

struct Reading {
    body: Body,
    unread: Bytes,
    opened: Instant,
}

impl<C: Connect> Driver<C> {
    pub(crate) fn new(source: C, last_event_id: &str) -> Self {
        let parser = Parser::new().resuming_from(last_event_id);
        Self { source, parser, backoff: Backoff::default(), state: State::Unconnected }
    }

    /// The next event of the subscription; `None` after the end. Each call must be polled to
    /// completion, as with a stream.
    pub(crate) async fn next(&mut self) -> Option<Result<ClientEvent, ClientError>> {
        loop {
            match &mut self.state {
                State::Ended => return None,
                State::Waiting(delay) => {
                    sleep(*delay).await;
                    self.state = State::Unconnected;
                }
                State::Unconnected => {
                    let attempt = self.source.connect(self.parser.last_event_id());
                    match timeout(IDLE_TIMEOUT, attempt)
                        .await
                        .unwrap_or(Err(ClientError::Silent(IDLE_TIMEOUT)))
                    {
                        Ok(Some(body)) => {
                            let reading = Reading { body, unread: Bytes::new(), opened: Instant::now() };
                            self.state = State::Reading(reading);
                            return Some(Ok(ClientEvent::Open));
                        }
                        Ok(None) => self.state = State::Ended,
                        Err(error) => return Some(self.failed(error)),
                    }
                }
                State::Reading(reading) => match self.parser.next(&mut reading.unread) {
                    Some(Ok(Item::Event(event))) => {
                        self.backoff.succeeded();
                        return Some(Ok(from_wire(event)));
                    }
                    Some(Ok(Item::Retry(millis))) => self.backoff.retry(millis),
                    Some(Ok(Item::Comment(_))) => {}
                    Some(Err(error)) => return Some(self.failed(error.into())),
                    None => match timeout(IDLE_TIMEOUT, reading.body.next()).await {
                        Ok(Some(Ok(bytes))) => reading.unread = bytes,
                        Ok(Some(Err(error))) => return Some(self.failed(error)),
                        Ok(None) => return Some(self.failed(ClientError::Ended)),
                        Err(_) => return Some(self.failed(ClientError::Silent(IDLE_TIMEOUT))),
                    },
                },
            }
        }
    }

    /// Decides between another attempt and the end.
    fn failed(&mut self, error: ClientError) -> Result<ClientEvent, ClientError> {
        // A stream without events that lasted long enough counts like one with events.
        if let State::Reading(reading) = &self.state
            && reading.opened.elapsed() >= JITTER_MAX
        {
            self.backoff.succeeded();
        }
        self.parser.end_of_stream();
        if !error.is_transient() {
            self.state = State::Ended;
            return Err(error);
        }
        // Without randomness the wait is merely not spread.
        let delay = self.backoff.delay(error.retry_after(), tidings_net::random_share());
        self.state = State::Waiting(delay);
        Ok(ClientEvent::Waiting { delay, reason: error })
    }
}

fn from_wire(event: ParsedEvent) -> ClientEvent {
    if event.event_type == notice::EVENT_TYPE {
        return ClientEvent::Notice(Notice::parse(&event.data));
    }
    let ParsedEvent { event_type, data, last_event_id: id, .. } = event;
    ClientEvent::Message(Message { event_type, data, id })
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use futures_util::stream;

    use super::*;

    /// One attempt: an error, or bytes that arrive after pauses, then either the end or silence
    /// forever.
    enum Attempt {
        Fails(ClientError),
        Ends(Vec<(u64, &'static str)>),
        FallsSilent(Vec<(u64, &'static str)>),
        NeverAnswers,
    }

    /// Makes the attempts of a script and records the id that each began with. After the script the
    /// server tells the client to stop.
    struct Script {
        attempts: Mutex<VecDeque<Attempt>>,
        ids: Mutex<Vec<String>>,
    }

    impl Connect for Script {
        async fn connect(&self, last_event_id: &str) -> Result<Option<Body>, ClientError> {
            self.ids.lock().unwrap().push(last_event_id.to_owned());
            let attempt = self.attempts.lock().unwrap().pop_front();
            let body = |steps: Vec<(u64, &'static str)>| {
                stream::iter(steps).then(|(seconds, text)| async move {
                    sleep(Duration::from_secs(seconds)).await;
                    Ok(Bytes::from_static(text.as_bytes()))
                })
            };
            match attempt {
                None => Ok(None),
                Some(Attempt::Fails(error)) => Err(error),
                Some(Attempt::Ends(steps)) => Ok(Some(body(steps).boxed())),
                Some(Attempt::FallsSilent(steps)) => Ok(Some(body(steps).chain(stream::pending()).boxed())),
                Some(Attempt::NeverAnswers) => std::future::pending().await,
            }
        }
    }

    fn driver(attempts: impl IntoIterator<Item = Attempt>) -> Driver<Script> {
        let attempts = Mutex::new(attempts.into_iter().collect());
        Driver::new(Script { attempts, ids: Mutex::default() }, "")
    }

    /// All events of the subscription, with the second in which each happens.
    async fn history(driver: &mut Driver<Script>) -> Vec<(u64, String)> {
        let start = Instant::now();
        let mut history = Vec::new();
        while let Some(event) = driver.next().await {
            let text = match event {
                Ok(ClientEvent::Open) => "open".to_owned(),
                Ok(ClientEvent::Message(message)) => format!("{}={}", message.id, message.data),
                Ok(ClientEvent::Notice(notice)) => format!("{notice:?}"),
                Ok(ClientEvent::Waiting { reason, .. }) => reason.to_string(),
                Err(error) => format!("fatal: {error}"),
            };
            history.push((start.elapsed().as_secs(), text));
        }
        history
    }

    fn texts(history: Vec<(u64, String)>) -> Vec<String> {
        history.into_iter().map(|(_, text)| text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_heartbeats_keep_it() {
        let steps = vec![(44, ": hb\n"), (44, ": hb\n"), (44, "id: 1\ndata: a\n\n")];
        let mut driver = driver([Attempt::FallsSilent(steps)]);
        let expected = [(0, "open"), (132, "1=a"), (177, "the server was silent for 45 s")];
        assert_eq!(history(&mut driver).await, expected.map(|(second, text)| (second, text.to_owned())));
        assert_eq!(*driver.source.ids.lock().unwrap(), ["", "1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_retried() {
        let mut driver = driver([Attempt::NeverAnswers, Attempt::Ends(vec![])]);
        let expected = ["the server was silent for 45 s", "open", "the server ended the stream"];
        assert_eq!(texts(history(&mut driver).await), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_holds_at_once_and_over_reconnects() {
        let mut driver = driver([
            Attempt::Ends(vec![(0, "data: a\n\nretry: 7000\n")]),
            Attempt::Ends(vec![(0, "data: b\n\n")]),
        ]);
        let seconds: Vec<_> = history(&mut driver).await.into_iter().map(|(second, _)| second).collect();
        // Open, message, end; seven seconds later the same again.
        assert_eq!(seconds, [0, 0, 0, 7, 7, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_error_is_retried_after_the_time_the_server_named() {
        let busy = ClientError::Unavailable {
            status: 503,
            detail: "full".to_owned(),
            retry_after: Some(Duration::from_secs(20)),
        };
        let mut driver = driver([Attempt::Fails(busy), Attempt::Ends(vec![])]);
        let history = history(&mut driver).await;
        assert_eq!(history[0], (0, "the server answered 503: full".to_owned()));
        assert_eq!(history[1].1, "open");
        assert!((20..=21).contains(&history[1].0), "{history:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_while_nothing_arrives_and_reset_when_something_does() {
        let empty = || Attempt::Ends(vec![]);
        let attempts = (0..8).map(|_| empty()).chain([Attempt::Ends(vec![(0, "data: a\n\n")]), empty()]);
        let mut driver = driver(attempts);
        let mut delays = Vec::new();
        while let Some(event) = driver.next().await {
            if let ClientEvent::Waiting { delay, .. } = event.unwrap() {
                delays.push(delay);
            }
        }
        assert_eq!(delays.len(), 10);
        for (delay, ceiling) in delays.iter().zip([1, 2, 4, 8, 16, 30, 30, 30, 1, 2]) {
            assert!(*delay <= Duration::from_secs(ceiling), "{delays:?}");
        }
        assert_eq!(driver.backoff.delay(None, 1.0), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_that_lasted_is_no_failure() {
        let mut driver =
            driver([Attempt::Ends(vec![]), Attempt::Ends(vec![]), Attempt::Ends(vec![(40, ": hb\n")])]);
        history(&mut driver).await;
        assert_eq!(driver.backoff.delay(None, 1.0), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_notice_is_an_item_and_never_swallowed() {
        let stream = "event: tidings\ndata: {\"kind\":\"reconnect\",\"reason\":\"shutdown\"}\n\nevent: tidings\nid: 5\ndata: ?\n\n";
        let mut driver = driver([Attempt::Ends(vec![(0, stream)])]);
        let expected =
            ["open", "Reconnect { reason: Shutdown }", r#"Other("?")"#, "the server ended the stream"];
        assert_eq!(texts(history(&mut driver).await), expected);
        assert_eq!(*driver.source.ids.lock().unwrap(), ["", "5"]);
    }

    #[tokio::test(start_paused = true)]
    async fn resuming_does_not_skip_an_unfinished_event() {
        let mut driver = driver([Attempt::Ends(vec![(0, "id: 1\ndata: a\n\nid: 2\ndata: b")])]);
        assert_eq!(texts(history(&mut driver).await)[1..2], ["1=a"]);
        assert_eq!(*driver.source.ids.lock().unwrap(), ["", "1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_the_subscription_with_one_error() {
        let refused = ClientError::Refused { status: 401, detail: "the token expired".to_owned() };
        let mut driver = driver([Attempt::Fails(refused), Attempt::Ends(vec![])]);
        assert_eq!(texts(history(&mut driver).await), ["fatal: the server answered 401: the token expired"]);
        assert!(driver.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_line_ends_the_subscription() {
        let mebibyte: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
        let mut driver = driver([Attempt::FallsSilent(vec![(0, mebibyte); 100])]);
        let texts = texts(history(&mut driver).await);
        assert!(texts[1].starts_with("fatal: the stream contains a line of more than"), "{texts:?}");
    }
}
