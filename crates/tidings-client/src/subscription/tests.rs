//! A subscription to scripted attempts, on a stopped clock.

use std::{
    collections::VecDeque,
    future::{pending, ready},
    sync::{Arc, Mutex},
};

use futures_util::stream;
use tokio::time::sleep;

use crate::Message;

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
#[derive(Default)]
struct Script {
    attempts: Mutex<VecDeque<Attempt>>,
    ids: Mutex<Vec<String>>,
}

impl Connect for Arc<Script> {
    fn connect(&self, last_event_id: &str) -> super::Attempt {
        self.ids.lock().unwrap().push(last_event_id.to_owned());
        let body = |steps: Vec<(u64, &'static str)>| {
            stream::iter(steps).then(|(seconds, text)| async move {
                sleep(Duration::from_secs(seconds)).await;
                Ok(Bytes::from_static(text.as_bytes()))
            })
        };
        let opened = match self.attempts.lock().unwrap().pop_front() {
            None => Ok(None),
            Some(Attempt::Fails(error)) => Err(error),
            Some(Attempt::Ends(steps)) => Ok(Some(body(steps).boxed())),
            Some(Attempt::FallsSilent(steps)) => Ok(Some(body(steps).chain(stream::pending()).boxed())),
            Some(Attempt::NeverAnswers) => return pending().boxed(),
        };
        ready(opened).boxed()
    }
}

/// A subscription to a script, with what it requested.
fn scripted(options: Options, attempts: impl IntoIterator<Item = Attempt>) -> (Subscription, Arc<Script>) {
    let attempts = Mutex::new(attempts.into_iter().collect());
    let script = Arc::new(Script { attempts, ..Script::default() });
    (Subscription::new(Box::new(Arc::clone(&script)), options), script)
}

fn subscription(attempts: impl IntoIterator<Item = Attempt>) -> Subscription {
    scripted(Options::default(), attempts).0
}

/// All events of the subscription, with the second in which each happens.
async fn history(subscription: &mut Subscription) -> Vec<(u64, String)> {
    let start = Instant::now();
    let mut history = Vec::new();
    while let Some(event) = subscription.next().await {
        let text = match event {
            Ok(ClientEvent::Open) => "open".to_owned(),
            Ok(ClientEvent::Message(message)) => format!("{}={}", message.id, message.data),
            Ok(ClientEvent::Notice { notice, id }) => format!("{id}={notice:?}"),
            Ok(ClientEvent::Comment(text)) => format!(":{text}"),
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
    let (mut subscription, script) = scripted(Options::default(), [Attempt::FallsSilent(steps)]);
    let expected = [(0, "open"), (132, "1=a"), (177, "the server was silent for 45 s")];
    assert_eq!(history(&mut subscription).await, expected.map(|(second, text)| (second, text.to_owned())));
    assert_eq!(*script.ids.lock().unwrap(), ["", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_retried() {
    let mut subscription = subscription([Attempt::NeverAnswers, Attempt::Ends(vec![])]);
    let expected = ["the server was silent for 45 s", "open", "the server ended the stream"];
    assert_eq!(texts(history(&mut subscription).await), expected);
}

const HELLO: &str =
    "event: tidings\nid: 0\ndata: {\"kind\":\"hello\",\"connection\":\"c\",\"heartbeat_secs\":30}\n\n";

#[tokio::test(start_paused = true)]
async fn silence_of_three_announced_heartbeats_is_no_failure() {
    // What a hub with a heartbeat of 30 s announces holds for its connection, not for the next.
    let attempts =
        [Attempt::FallsSilent(vec![(0, HELLO), (89, "data: a\n\n")]), Attempt::FallsSilent(vec![])];
    let history = history(&mut subscription(attempts)).await;
    assert_eq!(history[2], (89, "0=a".to_owned()));
    assert_eq!(history[3], (179, "the server was silent for 90 s".to_owned()));
    assert_eq!(history[5].1, "the server was silent for 45 s");
    // A longer time-out than the heartbeat asks for is kept.
    let options = Options { idle_timeout: Some(Duration::from_secs(200)), ..Options::default() };
    let (mut subscription, _) = scripted(options, [Attempt::FallsSilent(vec![(0, HELLO)])]);
    assert_eq!(self::history(&mut subscription).await[2].0, 200);
}

#[tokio::test(start_paused = true)]
async fn without_heartbeats_or_time_out_silence_lasts_for_any_time() {
    let year = 365 * 24 * 60 * 60;
    let quiet = "event: tidings\ndata: {\"kind\":\"hello\",\"connection\":\"c\",\"heartbeat_secs\":0}\n\n";
    let mut announced = subscription([Attempt::Ends(vec![(0, quiet), (year, "data: a\n\n")])]);
    assert_eq!(history(&mut announced).await[2], (year, "=a".to_owned()));

    for idle_timeout in [None, Some(Duration::MAX)] {
        let options = Options { idle_timeout, ..Options::default() };
        let (mut subscription, _) = scripted(options, [Attempt::Ends(vec![(year, "data: a\n\n")])]);
        assert_eq!(history(&mut subscription).await[1], (year, "=a".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_pauses_does_not_make_the_server_silent() {
    let mut subscription = subscription([Attempt::Ends(vec![(0, "data: a\n\n"), (0, "data: b\n\n")])]);
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(format!("{:?}", subscription.next().await.unwrap().unwrap()));
        sleep(Duration::from_secs(100)).await;
    }
    assert!(texts[1].contains("\"a\"") && texts[2].contains("\"b\""), "{texts:?}");
}

#[tokio::test(start_paused = true)]
async fn comments_are_items_on_request() {
    let attempt = || [Attempt::Ends(vec![(0, ": one\n:two\ndata: a\n: three\n\n")])];
    let options = Options { comments: true, ..Options::default() };
    let (mut subscription, _) = scripted(options, attempt());
    assert_eq!(texts(history(&mut subscription).await)[1..5], [":one", ":two", ":three", "=a"]);
    assert_eq!(texts(history(&mut self::subscription(attempt())).await)[1], "=a");
}

#[tokio::test(start_paused = true)]
async fn the_last_event_id_is_that_of_the_last_item_returned() {
    let options = Options { last_event_id: "0".to_owned(), ..Options::default() };
    let stream = "event: tidings\nid: 1\ndata: x\n\nid: 2\ndata: a\n\ndata: b\n\nid: 3\n\nid: 4\ndata: c\n\n";
    let (mut subscription, script) = scripted(options, [Attempt::Ends(vec![(0, stream)])]);
    let mut ids = vec![subscription.last_event_id().to_owned()];
    while let Some(event) = subscription.next().await {
        if let ClientEvent::Message(Message { id, .. }) | ClientEvent::Notice { id, .. } = event.unwrap() {
            assert_eq!(id, subscription.last_event_id());
        }
        ids.push(subscription.last_event_id().to_owned());
    }
    // Open, four items, the wait.
    assert_eq!(ids, ["0", "0", "1", "2", "2", "4", "4"]);
    assert_eq!(*script.ids.lock().unwrap(), ["0", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_connects_at_once_after_the_last_id() {
    let busy = || ClientError::Unavailable {
        status: 503,
        detail: String::new(),
        retry_after: Some(Duration::from_secs(60)),
    };
    let refused = ClientError::Refused { status: 403, detail: String::new() };
    let (mut subscription, script) = scripted(
        Options::default(),
        [
            Attempt::FallsSilent(vec![(0, "id: 1\ndata: a\n\nid: 2\ndata: b")]),
            Attempt::Fails(busy()),
            Attempt::Fails(refused),
        ],
    );
    let start = Instant::now();
    // While a connection is open, in a pause, and after the end.
    for received in ["Open", "Message", "restart", "Waiting", "restart", "Refused", "restart"] {
        match received {
            "restart" => subscription.restart(),
            _ => assert!(format!("{:?}", subscription.next().await.unwrap()).contains(received)),
        }
    }
    assert!(subscription.next().await.is_none());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(*script.ids.lock().unwrap(), ["", "1", "1", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_delay_holds_until_the_server_sends_its_own() {
    let options = Options { reconnect_delay: Some(Duration::from_secs(5)), ..Options::default() };
    let attempts =
        [Attempt::Ends(vec![(0, "data: a\n\n")]), Attempt::Ends(vec![(0, "retry: 7000\ndata: b\n\n")])];
    let (mut subscription, _) = scripted(options, attempts);
    let mut delays = Vec::new();
    while let Some(event) = subscription.next().await {
        if let ClientEvent::Waiting { delay, .. } = event.unwrap() {
            delays.push(delay.as_secs());
        }
    }
    assert_eq!(delays, [5, 7]);
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_lines_and_events_are_settable() {
    let limits = Limits { line_bytes_max: 20, event_bytes_max: 10 };
    for (stream, fatal) in [
        ("data: 1234567890\n\n", None),
        ("data: 12345678901\n\n", Some("fatal: the stream contains an event of more than 10 bytes")),
        (": a comment of 21 bytes\n", Some("fatal: the stream contains a line of more than 20 bytes")),
    ] {
        let options = Options { limits, ..Options::default() };
        let (mut subscription, _) = scripted(options, [Attempt::Ends(vec![(0, stream)])]);
        let texts = texts(history(&mut subscription).await);
        assert_eq!(texts.iter().find(|text| text.starts_with("fatal")).map(String::as_str), fatal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_holds_at_once_and_over_reconnects() {
    let mut subscription = subscription([
        Attempt::Ends(vec![(0, "data: a\n\nretry: 7000\n")]),
        Attempt::Ends(vec![(0, "data: b\n\n")]),
    ]);
    let seconds: Vec<_> = history(&mut subscription).await.into_iter().map(|(second, _)| second).collect();
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
    let mut subscription = subscription([Attempt::Fails(busy), Attempt::Ends(vec![])]);
    let history = history(&mut subscription).await;
    assert_eq!(history[0], (0, "the server answered 503: full".to_owned()));
    assert_eq!(history[1].1, "open");
    assert!((20..=21).contains(&history[1].0), "{history:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_grow_while_nothing_arrives_and_reset_when_something_does() {
    let empty = || Attempt::Ends(vec![]);
    let attempts = (0..8).map(|_| empty()).chain([Attempt::Ends(vec![(0, "data: a\n\n")]), empty()]);
    let mut subscription = subscription(attempts);
    let mut delays = Vec::new();
    while let Some(event) = subscription.next().await {
        if let ClientEvent::Waiting { delay, .. } = event.unwrap() {
            delays.push(delay);
        }
    }
    assert_eq!(delays.len(), 10);
    for (delay, ceiling) in delays.iter().zip([1, 2, 4, 8, 16, 30, 30, 30, 1, 2]) {
        assert!(*delay <= Duration::from_secs(ceiling), "{delays:?}");
    }
    assert_eq!(subscription.backoff.delay(None, 1.0), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_that_lasted_is_no_failure() {
    let mut subscription =
        subscription([Attempt::Ends(vec![]), Attempt::Ends(vec![]), Attempt::Ends(vec![(40, ": hb\n")])]);
    history(&mut subscription).await;
    assert_eq!(subscription.backoff.delay(None, 1.0), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_an_item_and_never_swallowed() {
    let stream = "event: tidings\ndata: {\"kind\":\"reconnect\",\"reason\":\"shutdown\"}\n\nevent: tidings\nid: 5\ndata: ?\n\n";
    let (mut subscription, script) = scripted(Options::default(), [Attempt::Ends(vec![(0, stream)])]);
    let expected =
        ["open", "=Reconnect { reason: Shutdown }", r#"5=Other("?")"#, "the server ended the stream"];
    assert_eq!(texts(history(&mut subscription).await), expected);
    assert_eq!(*script.ids.lock().unwrap(), ["", "5"]);
}

#[tokio::test(start_paused = true)]
async fn resuming_does_not_skip_an_unfinished_event() {
    let attempts = [Attempt::Ends(vec![(0, "id: 1\ndata: a\n\nid: 2\ndata: b")])];
    let (mut subscription, script) = scripted(Options::default(), attempts);
    assert_eq!(texts(history(&mut subscription).await)[1..2], ["1=a"]);
    assert_eq!(*script.ids.lock().unwrap(), ["", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_subscription_with_one_error() {
    let refused = ClientError::Refused { status: 401, detail: "the token expired".to_owned() };
    let mut subscription = subscription([Attempt::Fails(refused), Attempt::Ends(vec![])]);
    assert_eq!(
        texts(history(&mut subscription).await),
        ["fatal: the server answered 401: the token expired"]
    );
    assert!(subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_endless_line_ends_the_subscription() {
    let mebibyte: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    let mut subscription = subscription([Attempt::FallsSilent(vec![(0, mebibyte); 100])]);
    let texts = texts(history(&mut subscription).await);
    assert!(texts[1].starts_with("fatal: the stream contains a line of more than"), "{texts:?}");
}
