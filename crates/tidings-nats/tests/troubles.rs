//! A log during an outage of its server, after its return, and after its replacement.
//!
//! Needs: nats-server.

mod support;

use std::{fs, path::Path, time::Duration};

use tidings_log::cluster::{Change, Cluster};
use tidings_log::{
    AppendError, Appended, Batch, Event, EventId, Filter, Grants, IdempotencyKey, Located, Log, Position,
};
use tidings_nats::{Nats, NatsAddress, NatsLog, NatsSettings};
use tidings_testkit::{NatsDomains, NatsServer, PATIENCE};
use tidings_topic::{NewEvent, Validator};
use tokio::time::timeout;

use support::{
    connect, eventually, fresh_address,
    log::{
        PLENTY, answers, append, append_at_last, data, event, everything, exact, follow_to, holds, open,
        open_with, texts, topic, try_to_append,
    },
};

#[tokio::test]
async fn during_an_outage_publishing_is_refused_and_tails_wait() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let (log, other) = (open(&address).await, open(&address).await);
    let (_, mut tail) = other.tail().await.unwrap();
    append(&log, "before").await;
    for round in 0..3 {
        if round % 2 == 0 {
            server.stop().unwrap();
        } else {
            server.kill().unwrap();
        }
        eventually("both hubs notice", async || log.health().await.is_err() && other.health().await.is_err())
            .await;
        let refused = try_to_append(&log, "never", None).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        log.read(Position::BEFORE_ALL, &everything(), PLENTY).await.expect_err("it cannot be asked");
        log.bounds().await.expect_err("it cannot be asked");
        server.start_again().unwrap();
        append_at_last(&log, &format!("after {round}")).await;
    }
    assert_eq!(follow_to(&mut tail, "after 2").await, ["before", "after 0", "after 1", "after 2"]);
    answers(&other).await;
    assert_eq!(log.bounds().await.unwrap().epochs.iter().count(), 1, "nothing was lost");
    assert_eq!(texts(&other).await, texts(&log).await);
    eventually("it is healthy again", async || log.health().await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_hangs_leaves_the_outcome_unknown_and_a_key_settles_it() {
    let server = NatsServer::start().unwrap();
    let log = open(&fresh_address(&server)).await;
    append(&log, "before").await;
    server.freeze(true).unwrap();
    let unknown = try_to_append(&log, "once", Some("k")).await;
    assert!(matches!(unknown, Err(AppendError::OutcomeUnknown(_))), "{unknown:?}");
    server.freeze(false).unwrap();
    eventually("the repeat is answered", async || try_to_append(&log, "once", Some("k")).await.is_ok()).await;
    answers(&log).await;
    assert_eq!(texts(&log).await, ["before", "once"]);
}

#[tokio::test]
async fn a_key_survives_restarts_of_the_server_and_the_hub() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let own = Validator::default().event(NewEvent::new("a", "own").id("urn:own")).unwrap();
    let named = Batch { events: vec![own], key: IdempotencyKey::new("named") };
    let log = open(&address).await;
    let Appended::New { ids, .. } = try_to_append(&log, "once", Some("k")).await.unwrap() else { panic!() };
    log.append(named.clone()).await.unwrap();
    drop(log);
    server.kill().unwrap();
    server.start_again().unwrap();
    let log = open(&address).await;
    let first_id = ids[0].clone();
    assert_eq!(try_to_append(&log, "twice", Some("k")).await, Ok(Appended::Duplicate { first_id }));
    let first_id = EventId::from_stored("urn:own").unwrap();
    assert_eq!(log.append(named).await, Ok(Appended::Duplicate { first_id }));
    assert_eq!(texts(&log).await, ["once", "own"]);
}

#[tokio::test]
async fn a_lost_end_begins_a_new_epoch_on_which_all_hubs_agree() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let hubs = [open(&address).await, open(&address).await];
    let kept = append(&hubs[0], "kept").await;
    server.stop().unwrap();
    let saved = server.save_store().unwrap();
    server.start_again().unwrap();
    let mut tails = Vec::new();
    for hub in &hubs {
        answers(hub).await;
        tails.push(hub.tail().await.unwrap().1);
    }
    append(&hubs[0], "lost 1").await;
    let lost = append(&hubs[1], "lost 2").await;
    for tail in &mut tails {
        assert_eq!(follow_to(tail, "lost 2").await, ["lost 1", "lost 2"]);
    }
    server.kill().unwrap();
    server.restore_store(&saved).unwrap();
    server.start_again().unwrap();
    append_at_last(&hubs[1], "new 1").await;
    append_at_last(&hubs[0], "new 2").await;
    for (hub, tail) in hubs.iter().zip(&mut tails) {
        assert_eq!(follow_to(tail, "new 2").await, ["new epoch", "new 1", "new 2"]);
        answers(hub).await;
        assert_eq!(texts(hub).await, ["kept", "new 1", "new 2"]);
        let bounds = hub.bounds().await.unwrap();
        assert_eq!(bounds.epochs.iter().count(), 2);
        assert_eq!(bounds.epochs, hubs[0].bounds().await.unwrap().epochs);
        let Located::Earlier(place) = bounds.epochs.locate(lost, bounds.newest) else {
            panic!("never misread")
        };
        let page = hub.read(place, &everything(), PLENTY).await.unwrap();
        assert_eq!(data(&page.entries), ["new 1", "new 2"], "it continues after what was kept");
        assert_eq!(bounds.epochs.locate(kept, bounds.newest), Located::Earlier(kept.position));
    }
    let late = open(&address).await;
    assert_eq!(late.bounds().await.unwrap().epochs, hubs[0].bounds().await.unwrap().epochs);
    assert_eq!(texts(&late).await, ["kept", "new 1", "new 2"]);
}

#[tokio::test]
async fn a_loss_while_no_hub_runs_is_detected_by_the_saved_mark() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    append(&open(&address).await, "kept").await;
    server.stop().unwrap();
    let saved = server.save_store().unwrap();
    server.start_again().unwrap();
    let lost = append(&open(&address).await, "lost").await;
    // It leaves a mark when it has read the stream.
    open(&address).await.bounds().await.unwrap();
    server.stop().unwrap();
    // Only the stream loses its end, as if it had not been synced.
    let stream = Path::new("jetstream/$G/streams").join(address.name());
    let (current, old) = (server.store().join(&stream), saved.path().join("store").join(&stream));
    fs::remove_dir_all(&current).unwrap();
    fs::rename(old, current).unwrap();
    server.start_again().unwrap();
    let log = open(&address).await;
    let bounds = log.bounds().await.unwrap();
    assert_eq!((texts(&log).await, bounds.epochs.iter().count()), (vec!["kept".to_owned()], 2));
    append(&log, "new").await;
    let bounds = log.bounds().await.unwrap();
    assert!(matches!(bounds.epochs.locate(lost, bounds.newest), Located::Earlier(_)), "never misread");
    let again = open(&address).await;
    assert_eq!(again.bounds().await.unwrap().epochs, bounds.epochs, "it is noticed once");
}

#[tokio::test]
async fn an_emptied_server_is_another_log() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let hubs = [open(&address).await, open(&address).await];
    let old = append(&hubs[0], "old").await;
    let mut tails = Vec::new();
    for hub in &hubs {
        tails.push(hub.tail().await.unwrap().1);
    }
    server.kill().unwrap();
    fs::remove_dir_all(server.store()).unwrap();
    server.start_again().unwrap();
    append_at_last(&hubs[0], "new").await;
    for (hub, tail) in hubs.iter().zip(&mut tails) {
        assert_eq!(follow_to(tail, "new").await, ["new epoch", "new"]);
        answers(hub).await;
        let bounds = hub.bounds().await.unwrap();
        assert_eq!(bounds.epochs.locate(old, bounds.newest), Located::Unknown);
        assert_eq!(texts(hub).await, ["new"]);
    }
}

#[tokio::test]
async fn a_hub_that_starts_later_finds_everything() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let first = open(&address).await;
    let deleted = append(&first, "deleted").await.position;
    for (name, id) in [("b", "one"), ("c", "two")] {
        let event = Validator::default().event(NewEvent::new(name, id).id(id)).unwrap();
        first.append(Batch { events: vec![event], key: None }).await.unwrap();
    }
    first.delete(&topic("a"), &Grants::all()).await.unwrap();
    append(&first, "again").await;
    // The bytes of what was deleted have left the stream before it starts.
    eventually("they have left", async || !holds(&server.store(), b"deleted")).await;
    let late = open(&address).await;
    assert_eq!(texts(&late).await, ["one", "two", "again"]);
    for filter in [exact("a"), exact("b"), exact("c"), everything()] {
        let page = async |log: &NatsLog| log.read(Position::BEFORE_ALL, &filter, PLENTY).await.unwrap();
        let (here, there) = (page(&first).await, page(&late).await);
        assert_eq!(here.entries, there.entries);
        let missed = filter.matchers == exact("a").matchers || filter == everything();
        assert_eq!(there.floor, missed.then_some(deleted), "{filter:?}");
        assert_eq!(here.floor, there.floor, "{filter:?}");
    }
    let id = EventId::from_stored("two").unwrap();
    let place = late.resolve(&id, &Grants::NONE).await.unwrap();
    assert!(place.is_some() && place == first.resolve(&id, &Grants::NONE).await.unwrap());
}

/// Appends each event for itself, with one call. Returns their positions as numbers.
async fn append_together(log: &NatsLog, events: Vec<Event>) -> Vec<u64> {
    let batches = events.into_iter().map(|event| Batch { events: vec![event], key: None }).collect();
    let numbers = log.append_all(batches).await.into_iter().map(|outcome| match outcome {
        Ok(Appended::New { last, .. }) => tidings_log::parts::number(last.position),
        other => panic!("expected a new event, got {other:?}"),
    });
    numbers.collect()
}

#[tokio::test]
async fn an_event_of_a_shared_message_is_deleted_at_once_and_erased_with_the_last() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let settings = || NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() };
    let log = open_with(&address, settings()).await;
    let events = vec![event("b", "one"), event("a", "deleted"), event("b", "two")];
    let numbers = append_together(&log, events).await;
    assert!(numbers.is_sorted_by(|one, next| one + 1 == *next), "they share a message: {numbers:?}");
    let deleted = log.delete(&topic("a"), &Grants::all()).await.unwrap();
    assert_eq!(deleted.count, 1);
    for log in [&log, &open_with(&address, settings()).await] {
        assert_eq!(texts(log).await, ["one", "two"]);
        let page = log.read(Position::BEFORE_ALL, &exact("a"), PLENTY).await.unwrap();
        assert_eq!(page.floor, Some(tidings_log::parts::position(numbers[1])), "it is reported");
    }
    log.delete(&topic("b"), &Grants::all()).await.unwrap();
    assert_eq!(texts(&log).await, [""; 0]);
    eventually("the message is erased", async || !holds(&server.store(), b"deleted")).await;
}

/// The hub knows what the server accepts, but not what the stream does.
#[tokio::test]
async fn events_that_do_not_fit_into_one_message_of_the_stream_are_stored_one_by_one() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut config = jetstream.get_stream(address.name()).await.unwrap().cached_info().config.clone();
    config.max_message_size = 1_000;
    jetstream.update_stream(config).await.unwrap();
    let events = ["x", "y", "z"].map(|letter| event("a", &letter.repeat(600)));
    append_together(&log, events.to_vec()).await;
    let mut lengths: Vec<_> = texts(&log).await.iter().map(String::len).collect();
    assert_eq!(lengths, [600; 3]);
    let sizes = [600, 2_000, 600];
    let batches = sizes.map(|size| Batch { events: vec![event("a", &"x".repeat(size))], key: None });
    let outcomes = log.append_all(batches.to_vec()).await;
    let [Ok(_), Err(AppendError::Full(_)), Ok(_)] = &outcomes[..] else { panic!("{outcomes:?}") };
    lengths = texts(&log).await.iter().map(String::len).collect();
    assert_eq!(lengths, [600; 5]);
}

#[tokio::test]
async fn an_acknowledged_event_is_visible_at_every_hub_at_once() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let (one, other) = (open(&address).await, open(&address).await);
    for number in 0..200 {
        let cursor = append(&one, &number.to_string()).await;
        match number % 3 {
            0 => assert_eq!(other.bounds().await.unwrap().newest_cursor(), cursor),
            1 => assert_eq!(other.tail().await.unwrap().0, cursor),
            _ => {
                let page = other.last(1, &everything(), PLENTY).await.unwrap();
                assert_eq!(page.entries[0].cursor, cursor);
            }
        }
        let page = other.read(cursor.position, &everything(), PLENTY).await.unwrap();
        assert!(page.at_end && page.entries.is_empty());
    }
}

#[tokio::test]
async fn expired_events_are_hidden_at_once_and_reported() {
    let server = NatsServer::start().unwrap();
    let age_max = Some(Duration::from_secs(2));
    let log = open_with(&fresh_address(&server), NatsSettings { age_max, ..NatsSettings::default() }).await;
    let old = append(&log, "old").await.position;
    eventually("it is too old", async || texts(&log).await.is_empty()).await;
    let page = log.read(Position::BEFORE_ALL, &exact("a"), PLENTY).await.unwrap();
    assert_eq!(page.floor, Some(old));
    assert_eq!(log.read(Position::BEFORE_ALL, &exact("quiet"), PLENTY).await.unwrap().floor, None);
    let bounds = log.bounds().await.unwrap();
    assert_eq!((bounds.oldest, bounds.newest), (None, old));
    let young = append(&log, "young").await.position;
    assert_eq!(log.bounds().await.unwrap().oldest, Some(young));
}

#[tokio::test]
async fn a_hub_started_after_retention_knows_the_affected_audiences() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let settings = || NatsSettings { age_max: Some(Duration::from_secs(2)), ..NatsSettings::default() };
    let log = open_with(&address, settings()).await;
    let old = append(&log, "old").await.position;
    // This hub leaves the audiences of what it has read.
    drop(open_with(&address, settings()).await);
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream(address.name()).await.unwrap();
    let first = async || stream.get_info().await.unwrap().state.first_sequence;
    eventually("the server has dropped it", async || first().await > 1).await;
    append(&log, "young").await;
    let late = open_with(&address, settings()).await;
    let floor = async |filter: Filter| late.read(Position::BEFORE_ALL, &filter, PLENTY).await.unwrap().floor;
    assert_eq!(floor(exact("a")).await, Some(old));
    assert_eq!(floor(everything()).await, Some(old));
    assert_eq!(floor(exact("quiet")).await, None, "no false alarm");
}

#[tokio::test]
async fn an_index_that_is_full_counts_the_oldest_as_dropped() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let settings = NatsSettings { index_bytes_max: 20_000, ..NatsSettings::default() };
    let log = open_with(&address, settings).await;
    for number in 0..200 {
        append(&log, &number.to_string()).await;
    }
    let kept = texts(&log).await;
    assert!((20..180).contains(&kept.len()), "{} fit", kept.len());
    assert_eq!(kept.last().map(String::as_str), Some("199"));
    let page = log.read(Position::BEFORE_ALL, &exact("a"), PLENTY).await.unwrap();
    assert!(page.floor.is_some(), "it is reported");
    assert_eq!(texts(&open(&address).await).await.len(), 200, "the server has them");
}

#[tokio::test]
async fn many_events_are_read_in_bounded_steps() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open_with(&address, NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() }).await;
    append(&log, "first").await;
    for batch in 0..50 {
        let events = (0..100).map(|number| event("crowd", &format!("{batch}/{number}"))).collect();
        log.append(Batch { events, key: None }).await.unwrap();
    }
    append(&log, "last").await;
    let pattern = |text: &str| Filter {
        matchers: vec![Validator::default().pattern(text).expect("a pattern")],
        grants: Grants::NONE,
    };
    for (filter, expected) in
        [(everything(), 5_002), (exact("crowd"), 5_000), (exact("a"), 2), (pattern("/none"), 0)]
    {
        let (mut after, mut received, mut pages) = (Position::BEFORE_ALL, Vec::new(), 0);
        loop {
            let page = log.read(after, &filter, PLENTY).await.unwrap();
            assert!(page.at_end || page.through > after);
            (after, pages) = (page.through, pages + 1);
            received.extend(page.entries);
            if page.at_end {
                break;
            }
        }
        assert_eq!(received.len(), expected, "{filter:?}");
        assert!(received.is_sorted_by(|one, next| one.cursor.position < next.cursor.position));
        assert!(pages < 10, "{pages} pages of {filter:?}");
        let newest = log.last(expected + 1, &filter, PLENTY).await.unwrap();
        assert_eq!(newest.entries, received, "{filter:?}");
    }
}

#[tokio::test]
async fn a_time_ago_is_measured_by_the_servers_clock() {
    let server = NatsServer::start().unwrap();
    let log = open(&fresh_address(&server)).await;
    let old = append(&log, "old").await.position;
    eventually("it is old", async || log.position_ago(Duration::from_secs(1)).await == Ok(old)).await;
    append(&log, "young").await;
    assert_eq!(log.position_ago(Duration::from_secs(1)).await, Ok(old));
    assert_eq!(log.position_ago(Duration::from_secs(3_600)).await, Ok(Position::BEFORE_ALL));
}

#[tokio::test]
async fn a_message_that_no_hub_wrote_blocks_nothing() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    append(&log, "before").await;
    let mut stranger = std::net::TcpStream::connect(server.url().trim_start_matches("nats://")).unwrap();
    let subject = format!("{}.events", address.name());
    // A batch of one event of the topic "a" and the type "tidings", with the data "forged".
    let forged = b"\x01\x01\x04\x01\x01a\x07tidings\x06forged";
    let mut said = format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} 4\r\nrant\r\n").into_bytes();
    said.extend(format!("PUB {subject} {}\r\n", forged.len()).into_bytes());
    said.extend(forged);
    said.extend(b"\r\nPING\r\n");
    std::io::Write::write_all(&mut stranger, &said).unwrap();
    let received = std::io::BufRead::lines(std::io::BufReader::new(&stranger)).map_while(Result::ok);
    assert!(received.take(10).any(|line| line == "PONG"), "the server has accepted it");
    append(&log, "after").await;
    let other = open(&address).await;
    for log in [log, other] {
        assert_eq!(texts(&log).await, ["before", "after"]);
        assert_eq!(log.rejected_count(), 2);
    }
}

/// The permissions that docs/scaling-out.md documents.
fn permitted(api: &[&str]) -> String {
    format!(
        r#"authorization {{ users: [ {{ user: ada, password: "s:cret", permissions: {{
            publish: [ "tidings.>", "$JS.ACK.>", "$JS.FC.>", {} ]
            subscribe: [ "_INBOX.>", "tidings.cast.>" ]
        }} }} ] }}"#,
        api.join(", ")
    )
}

#[tokio::test]
async fn a_user_with_the_permissions_of_the_documentation_can_do_everything() {
    let api = [r#""$KV.tidings-hub.>""#, r#""$KV.tidings-cluster.>""#, r#""$JS.API.>""#];
    let server = NatsServer::start_with(&[&permitted(&api)]).unwrap();
    can_do_everything(&server, "", &server).await;
}

/// The leaf node does not map the requests to another domain, as the server of the domain does.
#[tokio::test]
async fn a_user_of_a_leaf_node_with_the_documented_permissions_can_do_everything() {
    let NatsDomains { hub, leaf, .. } = &mut NatsDomains::start().unwrap();
    leaf.stop().unwrap();
    leaf.options().push(permitted(&[r#""$JS.hub.API.>""#]));
    leaf.start_again().unwrap();
    can_do_everything(leaf, "?domain=hub", hub).await;
}

/// At a server, with the data at another one or the same.
async fn can_do_everything(server: &NatsServer, parameters: &str, keeper: &NatsServer) {
    let at = server.url().replace("nats://", "nats://ada:s%3Acret@");
    let address: NatsAddress = format!("{at}{parameters}").parse().unwrap();
    let settings = NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() };
    // A leaf node that has just started is not connected yet.
    eventually("the server is reached", async || Nats::connect(&address, settings.clone()).await.is_ok())
        .await;
    let nats = connect(&address, settings).await;
    let (log, cluster) = (nats.log().await.unwrap(), nats.cluster().await.unwrap());
    append(&log, "deleted").await;
    log.delete(&topic("a"), &Grants::all()).await.unwrap();
    append(&log, "kept").await;
    eventually("it is erased", async || !holds(&keeper.store(), b"deleted")).await;
    assert_eq!(texts(&log).await, ["kept"]);
    log.health().await.unwrap();
    let hour = Duration::from_secs(3_600);
    let lease = cluster.acquire("lease", hour).await.unwrap().unwrap();
    assert_eq!(cluster.renew(&lease, hour).await, Ok(true));
    cluster.release(&lease).await.unwrap();
    cluster.set("key", b"value", hour).await.unwrap();
    assert_eq!(cluster.list("").await.unwrap().len(), 1);
    cluster.remove("key").await.unwrap();
    let mut messages = cluster.listen("channel").await.unwrap();
    cluster.send("channel", b"said").await.unwrap();
    assert_eq!(timeout(PATIENCE, messages.next()).await.expect("it comes"), Ok(b"said".to_vec()));
    let stranger: NatsAddress = server.url().parse().unwrap();
    let refused = Nats::connect(&stranger, NatsSettings::default()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot open"), "{refused}");
}

#[tokio::test]
async fn the_cluster_recovers_with_its_server_and_counts_no_hub_as_dead() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let open = async || connect(&address, NatsSettings::default()).await.cluster().await.unwrap();
    let (one, other) = (open().await, open().await);
    let (short, long) = (Duration::from_secs(2), Duration::from_secs(3_600));
    one.set("hub/1", b"alive", short).await.unwrap();
    let lease = one.acquire("bridge", long).await.unwrap().unwrap();
    let mut watch = other.watch("hub/").await.unwrap();
    assert_eq!(watch.next().await.unwrap().len(), 1);
    let mut messages = other.listen("channel").await.unwrap();
    server.kill().unwrap();
    let away = std::time::Instant::now();
    eventually("it is away", async || one.get("hub/1").await.is_err()).await;
    // Longer than the hub's value holds.
    eventually("time has passed", async || away.elapsed() > short + short / 2).await;
    server.start_again().unwrap();
    eventually("it is back", async || one.set("hub/1", b"alive", long).await.is_ok()).await;
    assert_eq!(one.renew(&lease, long).await, Ok(true));
    eventually("it is back", async || other.set("hub/2", b"new", long).await.is_ok()).await;
    let reported = timeout(PATIENCE, watch.next()).await.expect("something is reported").unwrap();
    assert_eq!(
        reported,
        [Change::Set { key: "hub/2".to_owned(), value: b"new".to_vec() }],
        "no hub counts as dead"
    );
    eventually("listeners receive again", async || {
        one.send("channel", b"again").await.is_ok()
            && timeout(Duration::from_millis(50), messages.next()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn an_acknowledged_event_can_be_found_and_deleted_at_every_hub_at_once() {
    let server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let (one, other) = (open(&address).await, open(&address).await);
    for number in 0..100 {
        let name = format!("id-{number}");
        let named = Validator::default().event(NewEvent::new("a", "").id(&name)).unwrap();
        let appended = one.append(Batch { events: vec![named], key: None }).await;
        let Ok(Appended::New { last, .. }) = appended else { panic!("{appended:?}") };
        if number % 2 == 0 {
            let id = EventId::from_stored(&name).unwrap();
            assert_eq!(other.resolve(&id, &Grants::NONE).await, Ok(Some(last.position)));
        } else {
            assert_eq!(other.delete(&topic("a"), &Grants::all()).await.unwrap().count, 2);
        }
    }
}

#[tokio::test]
async fn a_tail_returns_what_was_left_and_ends_with_its_log() {
    let server = NatsServer::start().unwrap();
    let log = open(&fresh_address(&server)).await;
    let (_, mut tail) = log.tail().await.unwrap();
    let (_, mut waiting) = log.tail().await.unwrap();
    append(&log, "last").await;
    assert_eq!(follow_to(&mut waiting, "last").await, ["last"]);
    let waiting = tokio::spawn(async move { waiting.next(PLENTY).await });
    drop(log);
    assert_eq!(timeout(PATIENCE, waiting).await.expect("it ends").unwrap(), None);
    assert_eq!(follow_to(&mut tail, "last").await, ["last"]);
    assert_eq!(timeout(PATIENCE, tail.next(PLENTY)).await.expect("it ends"), None);
}

/// A server that restarts learns its keys from its messages.
#[tokio::test]
async fn the_key_of_a_deleted_event_survives_a_restart_and_its_bytes_go_later() {
    let mut server = NatsServer::start().unwrap();
    let address = fresh_address(&server);
    let log = open(&address).await;
    let keyed = async |log: &NatsLog| try_to_append(log, "deleted with a key", Some("k")).await;
    let Ok(Appended::New { ids, .. }) = keyed(&log).await else { panic!("expected a new event") };
    append(&log, "deleted without a key").await;
    assert_eq!(log.delete(&topic("a"), &Grants::all()).await.unwrap().count, 2);
    eventually("the other is erased", async || !holds(&server.store(), b"deleted without a key")).await;
    drop(log);
    server.kill().unwrap();
    server.start_again().unwrap();
    let log = open(&address).await;
    assert_eq!(keyed(&log).await, Ok(Appended::Duplicate { first_id: ids[0].clone() }));
    assert_eq!(texts(&log).await, [""; 0]);
    drop(log);
    // The hub that deleted it is gone. Another one erases it when the key has expired.
    let keys_age_max = Duration::from_secs(1);
    let _log = open_with(&address, NatsSettings { keys_age_max, ..NatsSettings::default() }).await;
    eventually("it is erased", async || !holds(&server.store(), b"deleted with a key")).await;
}
