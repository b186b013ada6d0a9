//! A log whose stream is changed without its hubs: an operator purges it, erases a message, deletes
//! the stream and makes another one of the same name.
//!
//! Needs: nats-server.

mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context, stream::Stream};
use tidings_log::{
    AppendError, Appended, Batch, Filter, Grants, Located, Log, Position, TailItem,
    cluster::{Change, Cluster, ClusterError},
};
use tidings_nats::{NatsAddress, NatsSettings};
use tidings_testkit::{FaultProxy, NatsServer, PATIENCE};
use tidings_topic::{Matcher, NewEvent, Validator};
use tokio::time::timeout;

use support::{
    connect, eventually, fresh_address,
    log::{
        PLENTY, answers, append, append_at_last, data, event, everything, exact, follow_to, holds, next,
        open, open_with, texts, topic, try_to_append,
    },
};

const HOUR: Duration = Duration::from_secs(3_600);

async fn jetstream(server: &NatsServer) -> Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("the server can be reached"))
}

async fn stream(jetstream: &Context, address: &NatsAddress) -> Stream {
    jetstream.get_stream(address.name()).await.expect("the stream exists")
}

/// Deletes the stream and makes an empty one of the same name. The connections of hubs last.
async fn replace_stream(jetstream: &Context, address: &NatsAddress) {
    let config = stream(jetstream, address).await.cached_info().config.clone();
    jetstream.delete_stream(address.name()).await.expect("it is deleted");
    jetstream.create_stream(config).await.expect("it is made again");
}

fn pattern(text: &str, grants: Grants) -> Filter {
    let matcher = Validator::default().pattern(text).expect("a pattern");
    Filter { matchers: vec![matcher], grants }
}

/// A hub that has not noticed the replacement would read back the sequence of an older event.
#[tokio::test]
async fn no_event_is_acknowledged_at_a_position_of_a_replaced_stream() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    let old = append(&log, "old").await;
    replace_stream(&jetstream(&server).await, &address).await;
    match try_to_append(&log, "early", None).await {
        Ok(Appended::New { last, .. }) => assert_ne!(last.epoch, old.epoch, "{last:?}"),
        Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)) => {}
        other => panic!("{other:?}"),
    }
    append_at_last(&log, "new").await;
    answers(&log).await;
    let found = texts(&log).await;
    assert!(found == ["new"] || found == ["early", "new"], "{found:?}");
    let bounds = log.bounds().await.unwrap();
    assert_eq!(bounds.epochs.locate(old, bounds.newest), Located::Earlier(Position::BEFORE_ALL));
}

/// A hub fetches an older event by its sequence, at which a new stream has another one.
#[tokio::test]
async fn an_event_of_a_replaced_stream_is_not_read_as_another() {
    let server = NatsServer::start().unwrap();
    let jetstream = jetstream(&server).await;
    for is_private in [true, false] {
        let (address, elsewhere) = (fresh_address(&server), fresh_address(&server));
        let other = NewEvent::new("a", "other");
        let other = if is_private { other.private() } else { other };
        let other = Validator::default().event(other).unwrap();
        open(&elsewhere).await.append(Batch { events: vec![other], key: None }).await.unwrap();
        let message = stream(&jetstream, &elsewhere).await.get_raw_message(1).await.unwrap();

        let log = open_with(&address, NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() }).await;
        let old = append(&log, "old").await;
        replace_stream(&jetstream, &address).await;
        let published = jetstream.publish(format!("{}.events", address.name()), message.payload).await;
        assert_eq!(published.unwrap().await.unwrap().sequence, 1);
        if let Ok(page) = log.read(Position::BEFORE_ALL, &exact("a"), PLENTY).await {
            let found = data(&page.entries);
            assert!(page.epoch != old.epoch || found.is_empty(), "{found:?} at a position of another event");
            assert!(!is_private || found.is_empty(), "{found:?} is private");
        }
    }
}

#[tokio::test]
async fn a_message_that_an_operator_erases_is_reported_as_a_gap() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open_with(&address, NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() }).await;
    let (_, mut tail) = log.tail().await.unwrap();
    append(&log, "1").await;
    let erased = append(&log, "2").await.position;
    append(&log, "3").await;
    stream(&jetstream(&server).await, &address).await.delete_message(2).await.unwrap();
    let TailItem::Entries(entries) = next(&mut tail).await else { panic!("the first event is there") };
    assert_eq!(data(&entries), ["1"]);
    assert_eq!(next(&mut tail).await, TailItem::Skipped { through: erased });
    assert_eq!(follow_to(&mut tail, "3").await, ["3"]);
    assert_eq!(texts(&log).await, ["1", "3"]);

    // The same for a reader, at a hub where no tail has found it missing.
    let address = fresh_address(&server);
    let log = open_with(&address, NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() }).await;
    append(&log, "1").await;
    let erased = append(&log, "2").await.position;
    stream(&jetstream(&server).await, &address).await.delete_message(2).await.unwrap();
    let page = log.read(Position::BEFORE_ALL, &exact("a"), PLENTY).await.unwrap();
    assert_eq!((data(&page.entries), page.floor), (vec!["1".to_owned()], Some(erased)));
}

#[tokio::test]
async fn events_that_an_operator_purges_are_reported_as_a_gap() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    let (_, mut tail) = log.tail().await.unwrap();
    append(&log, "1").await;
    let purged = append(&log, "2").await.position;
    let kept = append(&log, "3").await.position;
    let stream = stream(&jetstream(&server).await, &address).await;
    stream.purge().sequence(3).await.unwrap();
    eventually("the hub drops them", async || texts(&log).await == ["3"]).await;
    assert_eq!(log.bounds().await.unwrap().oldest, Some(kept));
    let floor = async |filter: &Filter| log.read(Position::BEFORE_ALL, filter, PLENTY).await.unwrap().floor;
    assert_eq!(floor(&exact("a")).await, Some(purged));
    assert_eq!(floor(&exact("quiet")).await, None, "no false alarm");
    assert_eq!(next(&mut tail).await, TailItem::Skipped { through: purged });
    assert_eq!(follow_to(&mut tail, "3").await, ["3"]);

    // A hub that starts now does not know who could have received them: everybody may have missed
    // something.
    let late = open(&address).await;
    for filter in [exact("a"), exact("quiet"), pattern("/*", Grants::NONE), everything()] {
        let page = late.read(Position::BEFORE_ALL, &filter, PLENTY).await.unwrap();
        assert!(page.floor >= Some(purged) && page.floor < Some(kept), "{filter:?}: {:?}", page.floor);
    }

    // Nothing is left that could be read.
    stream.purge().await.unwrap();
    let late = open(&address).await;
    assert_eq!(texts(&late).await, [""; 0]);
    assert!(append(&late, "4").await.position > kept);
    assert_eq!(texts(&late).await, ["4"]);
}

/// A pattern, or a private event, is looked up by the audience of what is gone.
#[tokio::test]
async fn retention_before_a_hub_started_is_reported_to_each_audience() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    let batch = |data: &str| Batch {
        events: ["/a/1", "/b/1", "/c/1"]
            .map(|topic| event(topic, data))
            .into_iter()
            .chain(["/p/1", "/q/1"].map(|topic| {
                Validator::default().event(NewEvent::new(topic, data).private()).expect("a valid event")
            }))
            .collect(),
        key: None,
    };
    log.append(batch("old")).await.unwrap();
    let Appended::New { last, .. } = log.append(batch("young")).await.unwrap() else { panic!() };
    // This hub leaves the audiences of what it has read.
    open(&address).await.bounds().await.unwrap();
    stream(&jetstream(&server).await, &address).await.purge().sequence(2).await.unwrap();
    let late = open(&address).await;
    let granted = |text: &str| [Validator::default().pattern(text).expect("a pattern")].into_iter().collect();
    for filter in [
        pattern("/a/*", Grants::NONE),
        pattern("/b/*", Grants::NONE),
        pattern("/c/*", Grants::NONE),
        pattern("/p/*", granted("/p/*")),
        pattern("/q/*", granted("/q/*")),
        exact("/b/1"),
        everything(),
    ] {
        let page = late.read(Position::BEFORE_ALL, &filter, PLENTY).await.unwrap();
        assert!(page.floor.is_some_and(|floor| floor < last.position), "{filter:?}: {:?}", page.floor);
    }
    for filter in [pattern("/none/*", Grants::all()), pattern("/p/*", Grants::NONE), exact("/p/1")] {
        let page = late.read(Position::BEFORE_ALL, &filter, PLENTY).await.unwrap();
        assert_eq!(page.floor, None, "{filter:?} has missed nothing");
    }
}

#[tokio::test]
async fn events_that_are_gone_before_a_hub_reads_them_are_reported_as_a_gap() {
    let server = NatsServer::start().unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let address = fresh_address(&server);
    let far: NatsAddress = format!("nats://{}/{}", proxy.address(), address.name()).parse().unwrap();
    let (log, away) = (open(&address).await, open(&far).await);
    let (_, mut tail) = away.tail().await.unwrap();
    let read = append(&log, "1").await.position;
    assert_eq!(follow_to(&mut tail, "1").await, ["1"]);
    proxy.pause();
    proxy.cut();
    append(&log, "2").await;
    let unread = append(&log, "3").await.position;
    append(&log, "4").await;
    stream(&jetstream(&server).await, &address).await.purge().sequence(4).await.unwrap();
    proxy.resume();
    let TailItem::Skipped { through } = next(&mut tail).await else { panic!("a gap is reported") };
    assert!(through >= unread);
    assert_eq!(follow_to(&mut tail, "4").await, ["4"]);
    answers(&away).await;
    assert_eq!(texts(&away).await, ["4"]);
    for filter in [exact("a"), exact("quiet"), everything()] {
        let page = away.read(read, &filter, PLENTY).await.unwrap();
        assert!(page.floor >= Some(unread), "{filter:?}: {:?}", page.floor);
    }
}

#[tokio::test]
async fn a_deletion_is_reported_after_the_stream_was_replaced() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    append(&log, "old").await;
    let first = log.delete(&topic("a"), &Grants::all()).await.unwrap();
    let (_, mut tail) = log.tail().await.unwrap();
    replace_stream(&jetstream(&server).await, &address).await;
    append_at_last(&log, "new").await;
    assert_eq!(follow_to(&mut tail, "new").await, ["new epoch", "new"]);
    answers(&log).await;
    let second = log.delete(&topic("a"), &Grants::all()).await.unwrap();
    assert!(second.count == 1 && second.serial > first.serial, "{second:?} after {first:?}");
    assert_eq!(next(&mut tail).await, TailItem::Deleted { serial: second.serial });
}

/// The erasure of an event waits until its key has expired.
#[tokio::test]
async fn an_erasure_does_not_affect_the_stream_that_replaced_its_own() {
    const KEYS_AGE: Duration = Duration::from_secs(4);
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let settings = NatsSettings { keys_age_max: KEYS_AGE, ..NatsSettings::default() };
    let log = open_with(&address, settings).await;
    try_to_append(&log, "old", Some("k")).await.unwrap();
    assert_eq!(log.delete(&topic("a"), &Grants::all()).await.unwrap().count, 1);
    let deleted = Instant::now();
    let jetstream = jetstream(&server).await;
    replace_stream(&jetstream, &address).await;
    let _ = try_to_append(&log, "new", None).await;
    append_at_last(&log, "last").await;
    eventually("the key has expired", async || deleted.elapsed() > KEYS_AGE + KEYS_AGE / 2).await;
    answers(&log).await;
    let stream = stream(&jetstream, &address).await;
    stream.get_raw_message(1).await.expect("it is not erased");
}

/// The messages of a deletion name the audiences, but not of any number.
#[tokio::test]
async fn a_hub_started_after_a_deletion_of_many_audiences_reports_it_to_each() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    append(&log, "before").await;
    let events = (0..1_100).map(|number| {
        let new = NewEvent::new("crowd", "deleted").also(format!("member/{number}"));
        Validator::default().event(new).expect("a valid event")
    });
    let Ok(Appended::New { last, .. }) = log.append(Batch { events: events.collect(), key: None }).await
    else {
        panic!("expected new events")
    };
    assert_eq!(log.delete(&topic("crowd"), &Grants::all()).await.unwrap().count, 1_100);
    append(&log, "after").await;
    eventually("it is erased", async || !holds(&server.store(), b"deleted")).await;
    let late = open(&address).await;
    for member in [0, 500, 1_099] {
        for log in [&log, &late] {
            let filter = exact(&format!("member/{member}"));
            let page = log.read(Position::BEFORE_ALL, &filter, PLENTY).await.unwrap();
            assert!(page.entries.is_empty() && page.floor.is_some(), "{member}: {:?}", page.floor);
            assert!(page.floor <= Some(last.position));
        }
    }
    let filter = Filter { matchers: vec![Matcher::Any], grants: Grants::NONE };
    let page = late.read(last.position, &filter, PLENTY).await.unwrap();
    assert_eq!((data(&page.entries), page.floor), (vec!["after".to_owned()], None), "no false alarm");
}

#[tokio::test]
async fn the_stream_has_the_limits_of_the_hub_that_opened_it_last() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let jetstream = jetstream(&server).await;
    let limits = async || {
        let config = stream(&jetstream, &address).await.cached_info().config.clone();
        (config.max_bytes, config.max_messages, config.max_age, config.duplicate_window)
    };
    open(&address).await;
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let (bytes, messages, age, window) = limits().await;
    assert!(bytes >= 1 << 30 && messages == -1, "{bytes} bytes, {messages} messages");
    assert_eq!((age, window), (Duration::ZERO, minutes(10)));
    let settings = NatsSettings {
        bytes_max: 1 << 20,
        count_max: Some(1_000),
        age_max: Some(minutes(5)),
        keys_age_max: minutes(2),
        ..NatsSettings::default()
    };
    open_with(&address, settings.clone()).await;
    let (bytes, messages, age, window) = limits().await;
    assert!((1 << 20..1 << 30).contains(&bytes) && messages >= 1_000, "{bytes} bytes, {messages} messages");
    assert_eq!((age, window), (minutes(5), minutes(2)));
    open_with(&address, NatsSettings { keys_age_max: minutes(9), ..settings }).await;
    assert_eq!(limits().await.3, minutes(5), "no longer than the events");
}

/// The server would accept it, and no hub could read it.
#[tokio::test]
async fn a_batch_with_more_events_than_a_message_has_positions_is_refused() {
    let server = NatsServer::start_with(&["max_payload: 8MB"]).unwrap();
    let log = open(&fresh_address(&server)).await;
    let batch = |count| Batch { events: vec![event("a", ""); count], key: None };
    let refused = log.append(batch((1 << 16) + 1)).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    let Ok(Appended::New { last, .. }) = log.append(batch(1 << 16)).await else { panic!("it fits") };
    assert_eq!(log.bounds().await.unwrap().newest, last.position);
    assert!(append(&log, "next").await.position > last.position);
    assert_eq!(log.stats().unwrap().events, (1 << 16) + 1);
}

#[tokio::test]
async fn keys_of_a_bucket_that_was_replaced_are_gone() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let cluster = connect(&address, NatsSettings::default()).await.cluster().await.unwrap();
    let mut watch = cluster.watch("").await.unwrap();
    cluster.set("key", b"value", HOUR).await.unwrap();
    assert_eq!(watch.next().await.unwrap().len(), 1);
    let jetstream = jetstream(&server).await;
    let bucket = format!("KV_{}-cluster", address.name());
    let config = jetstream.get_stream(&bucket).await.unwrap().cached_info().config.clone();
    jetstream.delete_stream(&bucket).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    let reported = timeout(PATIENCE, watch.next()).await.expect("it is reported");
    assert_eq!(reported, Ok(vec![Change::Gone { key: "key".to_owned() }]));
    assert_eq!(cluster.list("").await, Ok(vec![]));
}

#[tokio::test]
async fn a_full_cluster_refuses_values_and_keeps_what_it_has() {
    let server = NatsServer::start().unwrap();
    let cluster = connect(&fresh_address(&server), NatsSettings::default()).await.cluster().await.unwrap();
    cluster.acquire("bridge", HOUR).await.unwrap().expect("it is free");
    cluster.set("first", b"value", HOUR).await.unwrap();
    let large = vec![b'x'; 1_000_000];
    let mut refused = Ok(());
    for number in 0..100 {
        refused = cluster.set(&number.to_string(), &large, HOUR).await;
        if refused.is_err() {
            break;
        }
    }
    assert!(matches!(refused, Err(ClusterError::Full(_))), "{refused:?}");
    assert_eq!(cluster.get("first").await, Ok(Some(b"value".to_vec())));
    assert_eq!(cluster.acquire("bridge", HOUR).await, Ok(None), "it is still held");
}

#[tokio::test]
async fn what_exceeds_the_message_size_of_the_server_is_refused_as_full() {
    let server = NatsServer::start_with(&["max_payload: 64KB"]).unwrap();
    let address = fresh_address(&server);
    let nats = connect(&address, NatsSettings::default()).await;
    let (log, cluster) = (nats.log().await.unwrap(), nats.cluster().await.unwrap());
    let large = "x".repeat(100_000);
    let refused = try_to_append(&log, &large, None).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    let refused = cluster.send("channel", large.as_bytes()).await;
    assert!(matches!(refused, Err(ClusterError::Full(_))), "{refused:?}");
    let refused = cluster.set("key", large.as_bytes(), HOUR).await;
    assert!(matches!(refused, Err(ClusterError::Full(_))), "{refused:?}");
    append(&log, "small").await;
    assert_eq!(texts(&log).await, ["small"]);
}
