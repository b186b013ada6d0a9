//! Which subscriber receives what, in which order and in which bytes.

use std::time::Duration;

use tidings::{
    Error, Event, Filter, Format, Grants, Hub, HubSettings, IdempotencyKey, MemoryLimits, MemoryLog,
    NewEvent, Since, Subscribe,
    log::{Clock, Timestamp},
};

use crate::stage::{
    Listener, Received, StageLog, grants, hub, hub_on, numbers, publish, publish_numbers, settle, since_id,
    to,
};

#[tokio::test(start_paused = true)]
async fn an_event_reaches_every_subscriber_of_its_topic() {
    let hub = hub().await;
    let mut first = Listener::open(&hub, to(&hub, &["chat"])).await;
    let mut second = Listener::open(&hub, to(&hub, &["chat"])).await;
    let mut other = Listener::open(&hub, to(&hub, &["news"])).await;
    let ids = publish_numbers(&hub, "chat", 1, 3).await;
    for listener in [&mut first, &mut second] {
        assert_eq!(listener.data(3).await, numbers(1, 3));
        assert_eq!(listener.last_event_id(), ids[2].as_str());
    }
    other.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn a_publisher_learns_the_id_that_subscribers_see() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    let published = hub.publish(NewEvent::new("chat", "x").id("own")).await.expect("published");
    let id = published.id.expect("it is stored");
    assert_eq!((id.as_str(), published.duplicate), ("own", false));
    assert_eq!(listener.next().await.id(), "own");
    let published = hub.publish(NewEvent::new("chat", "x")).await.expect("published");
    let id = published.id.expect("it is stored");
    assert_eq!(listener.next().await.id(), id.as_str());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_batch_is_delivered_once() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    let events = || -> Vec<Event> {
        let event = |data: &str| hub.validator().event(NewEvent::new("chat", data)).expect("valid");
        vec![event("a"), event("b")]
    };
    let key = IdempotencyKey::new("once");
    let first = hub.publish_events(events(), key.clone()).await.expect("published");
    let again = hub.publish_events(events(), key).await.expect("known");
    assert!(again.len() == 1 && again[0].duplicate && again[0].id == first[0].id);
    assert_eq!(listener.data(2).await, ["a", "b"]);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_is_that_of_a_batch_and_given_with_its_first_event_only() {
    let hub = hub().await;
    let [first, second] = ["a", "b"].map(|data| NewEvent::new("chat", data));
    let refused = hub.publish_batch([first.clone(), second.clone().key("late")]).await;
    assert!(matches!(refused, Err(Error::Key)), "{refused:?}");
    let published = hub.publish_batch([first.key("once"), second]).await.expect("published");
    assert_eq!(published.len(), 2);
    let again = hub.publish(NewEvent::new("chat", "a").key("once")).await.expect("known");
    assert!(again.duplicate && again.id == published[0].id);
    assert_eq!(hub.stats().published, 2);
}

#[tokio::test(start_paused = true)]
async fn several_matchers_deliver_an_event_once_and_all_events_in_order() {
    let hub = hub().await;
    let matchers = || {
        let validator = hub.validator();
        let exact = ["/room/1", "/room/2", "news"].map(|topic| validator.exact(topic).expect("valid"));
        let patterns = ["/room/:n", "*"].map(|pattern| validator.pattern(pattern).expect("valid"));
        exact.into_iter().chain(patterns)
    };
    let mut live = Listener::open(&hub, Subscribe::new(matchers())).await;
    for number in 1..=40 {
        let topics: &[&str] = match number % 4 {
            0 => &["/room/1", "/room/2", "news"],
            1 => &["news"],
            2 => &["/room/3", "/room/3"],
            _ => &["elsewhere", "/room/1"],
        };
        let topics = topics.iter().map(ToString::to_string).collect();
        hub.publish(NewEvent { topics, data: number.to_string(), ..NewEvent::default() })
            .await
            .expect("published");
    }
    assert_eq!(live.data(40).await, numbers(1, 40));
    live.receives_nothing_more().await;
    let replayed = Subscribe::new(matchers()).since(Since::Earliest);
    assert_eq!(Listener::open(&hub, replayed).await.data(40).await, numbers(1, 40));
}

#[tokio::test(start_paused = true)]
async fn a_private_event_reaches_only_granted_subscribers_live_and_replayed() {
    let hub = hub().await;
    let ask = |since: Since| to(&hub, &["a", "b"]).since(since);
    let secret = NewEvent::new("a", "secret").also("alias").private();
    let granted = || [grants(&hub, &["a"]), grants(&hub, &["alias"]), Grants::all()];
    let denied = || [Grants::NONE, grants(&hub, &["b"])];

    let mut receiving = Vec::new();
    for grants in granted() {
        receiving.push(Listener::open(&hub, ask(Since::Now).grants(grants)).await);
    }
    let mut deaf = Vec::new();
    for grants in denied() {
        deaf.push(Listener::open(&hub, ask(Since::Now).grants(grants)).await);
    }
    hub.publish(secret).await.expect("published");
    publish(&hub, "b", "public").await;
    for grants in granted() {
        receiving.push(Listener::open(&hub, ask(Since::Earliest).grants(grants.clone())).await);
        receiving.push(Listener::open(&hub, ask(Since::Last(2)).grants(grants)).await);
    }
    for grants in denied() {
        deaf.push(Listener::open(&hub, ask(Since::Earliest).grants(grants.clone())).await);
        deaf.push(Listener::open(&hub, ask(Since::Last(2)).grants(grants)).await);
    }
    for listener in &mut receiving {
        assert_eq!(listener.data(2).await, ["secret", "public"]);
    }
    for listener in &mut deaf {
        assert_eq!(listener.data(1).await, ["public"]);
    }
    let filter = Filter { matchers: vec![hub.validator().exact("a").expect("valid")], grants: Grants::NONE };
    assert_eq!(hub.last_events(10, filter).await.expect("a snapshot").entries, []);
}

#[tokio::test(start_paused = true)]
async fn an_event_on_a_private_topic_is_private() {
    let log = StageLog::new(None);
    let private = "inbox*".parse().expect("a glob");
    let hub = hub_on(&log, |settings| settings.private_topics = vec![private]).await;
    let mut stranger = Listener::open(&hub, to(&hub, &["inbox"])).await;
    let mut owner = Listener::open(&hub, to(&hub, &["inbox"]).grants(grants(&hub, &["inbox"]))).await;
    publish(&hub, "inbox", "for you").await;
    assert_eq!(owner.data(1).await, ["for you"]);
    stranger.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn replaced_private_topics_hold_for_later_events() {
    let hub = hub().await;
    let mut stranger = Listener::open(&hub, to(&hub, &["inbox"])).await;
    let mut owner = Listener::open(&hub, to(&hub, &["inbox"]).grants(grants(&hub, &["inbox"]))).await;
    publish(&hub, "inbox", "public").await;
    hub.set_private_topics(&["inbox".parse().expect("a glob")]);
    publish(&hub, "inbox", "private").await;
    hub.set_private_topics(&[]);
    publish(&hub, "inbox", "public again").await;
    assert_eq!(owner.data(3).await, ["public", "private", "public again"]);
    assert_eq!(stranger.data(2).await, ["public", "public again"]);
    let mut late = Listener::open(&hub, to(&hub, &["inbox"]).since(Since::Earliest)).await;
    assert_eq!(late.data(2).await, ["public", "public again"]);
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_an_event_leaves_out_does_not_receive_it() {
    // Without capacity for feeds everything is served from the log.
    for feed_bytes_max in [0, 1 << 20] {
        let hub = hub_on(&StageLog::new(None), |settings| settings.feed_bytes_max = feed_bytes_max).await;
        let mut author = Listener::open(&hub, to(&hub, &["chat"])).await;
        let mut other = Listener::open(&hub, to(&hub, &["chat"])).await;
        let connection = author.subscription.connection();
        hub.publish(NewEvent::new("chat", "mine").except(connection)).await.expect("published");
        publish(&hub, "chat", "for all").await;
        assert_eq!(other.data(2).await, ["mine", "for all"]);
        assert_eq!(author.data(1).await, ["for all"]);
    }
}

#[tokio::test(start_paused = true)]
async fn replayed_events_have_the_same_bytes_as_live_ones() {
    let hub = hub().await;
    for format in [Format::Plain, Format::Json] {
        let ask = || to(&hub, &[&format!("{format:?}")]).format(format);
        let mut live = Listener::open(&hub, ask()).await;
        let event =
            NewEvent::new(format!("{format:?}"), "a\nb\r\nc").event_type("greeting").retry_millis(700);
        hub.publish(event.id("own")).await.expect("published");
        let mut replayed = Listener::open(&hub, ask().since(Since::Earliest)).await;
        let mut bytes = Vec::new();
        for listener in [&mut live, &mut replayed] {
            use futures_util::StreamExt;
            let _preface = listener.subscription.next().await;
            bytes.push(listener.subscription.next().await.expect("the event"));
        }
        assert_eq!(bytes[0], bytes[1]);
        assert!(bytes[0].starts_with(if format == Format::Plain {
            b"event: greeting\n"
        } else {
            b"retry: 700\nid: own"
        }));
    }
}

#[tokio::test(start_paused = true)]
async fn json_distinguishes_topics_in_one_handler() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["alias"]).format(Format::Json)).await;
    let id = hub
        .publish(NewEvent::new("chat", "a \"b\"\nc").also("alias").event_type("greeting"))
        .await
        .expect("published")
        .id
        .expect("it is stored");
    let Received::Event { data, event_type, .. } = listener.next().await else { panic!("an event") };
    let json: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(event_type, "message");
    assert_eq!(json["topic"], "chat");
    assert_eq!(json["id"], id.as_str());
    assert_eq!(json["type"], "greeting");
    assert_eq!(json["data"], "a \"b\"\nc");
    assert!(json["time"].as_str().is_some_and(|time| time.ends_with('Z')));
}

#[tokio::test(start_paused = true)]
async fn now_means_events_published_from_now_on() {
    let hub = hub().await;
    publish_numbers(&hub, "chat", 1, 3).await;
    settle().await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish_numbers(&hub, "chat", 4, 5).await;
    assert_eq!(listener.data(2).await, numbers(4, 5));
}

#[tokio::test(start_paused = true)]
async fn now_means_now_even_while_the_fan_out_lags() {
    for lost in [None, Some(1)] {
        let log = StageLog::new(None);
        let hub = hub_on(&log, |_| {}).await;
        log.tail_runs.send_replace(false);
        publish_numbers(&hub, "chat", 1, 3).await;
        lost.map(|count| log.far.lose_end(count));
        let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
        publish(&hub, "chat", "4").await;
        log.tail_runs.send_replace(true);
        assert_eq!(listener.data(1).await, ["4"], "{lost:?}");
        listener.receives_nothing_more().await;
    }
}

#[tokio::test(start_paused = true)]
async fn earliest_means_everything_that_is_kept() {
    let hub = hub_on(&StageLog::new(Some(3)), |_| {}).await;
    publish_numbers(&hub, "chat", 1, 5).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    assert_eq!(listener.data(3).await, numbers(3, 5));
    publish(&hub, "chat", "6").await;
    assert_eq!(listener.data(1).await, ["6"]);
}

#[tokio::test(start_paused = true)]
async fn a_count_counts_only_events_that_the_subscriber_may_receive() {
    let hub = hub().await;
    for number in 1..=6 {
        publish(&hub, "chat", number.to_string()).await;
        publish(&hub, "news", "noise").await;
        hub.publish(NewEvent::new("chat", "secret").private()).await.expect("published");
    }
    for (count, from) in [(0, 7), (1, 6), (2, 5), (6, 1), (100, 1)] {
        let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Last(count))).await;
        assert_eq!(listener.data(7 - from as usize).await, numbers(from, 6), "{count}");
        listener.receives_nothing_more().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_duration_means_events_published_since_then() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let log = MemoryLog::with_clock(MemoryLimits::default(), clock.clone());
    let hub = Hub::builder().log(log).settings(HubSettings::default()).start().await.expect("a hub");
    for number in 1..=5 {
        publish(&hub, "chat", number.to_string()).await;
        clock.advance(Duration::from_secs(60));
    }
    let since = "150s".parse().expect("a value of `since`");
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(since)).await;
    assert_eq!(listener.data(2).await, numbers(4, 5));
}

#[tokio::test(start_paused = true)]
async fn an_id_means_the_events_after_it() {
    let hub = hub().await;
    let ids = publish_numbers(&hub, "chat", 1, 5).await;
    hub.publish(NewEvent::new("news", "x").id("own")).await.expect("published");
    publish_numbers(&hub, "chat", 6, 7).await;
    let after = |id: &str| to(&hub, &["chat"]).since(since_id(id));
    let mut generated = Listener::open(&hub, after(ids[2].as_str())).await;
    assert_eq!(generated.data(4).await, numbers(4, 7));
    assert_eq!(generated.subscription.resumed_from().map(tidings::Resumed::as_str), Some(ids[2].as_str()));
    let mut own = Listener::open(&hub, after("own")).await;
    assert_eq!(own.data(2).await, numbers(6, 7));
    assert_eq!(own.subscription.resumed_from().map(tidings::Resumed::as_str), Some("own"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missing_between_a_snapshot_and_a_subscription_after_it() {
    let hub = hub().await;
    publish_numbers(&hub, "chat", 1, 4).await;
    let filter = Filter::everything_public();
    let snapshot = hub.last_events(2, filter).await.expect("a snapshot");
    let data: Vec<_> = snapshot.entries.iter().map(|entry| entry.event.data.clone()).collect();
    assert_eq!(data, numbers(3, 4));
    publish_numbers(&hub, "chat", 5, 6).await;
    let after = to(&hub, &["chat"]).since(since_id(snapshot.end.as_str()));
    assert_eq!(Listener::open(&hub, after).await.data(2).await, numbers(5, 6));
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_a_comment_and_a_retry_time() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.retry_millis = 1_000).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    assert!(matches!(listener.next_item().await, Received::Comment(_)));
    let Received::Retry(millis) = listener.next_item().await else { panic!("a time") };
    assert!((500..=1_500).contains(&millis));
}

#[tokio::test(start_paused = true)]
async fn hello_names_the_connection_and_moves_no_cursor() {
    let hub = hub().await;
    publish_numbers(&hub, "chat", 1, 3).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Last(2)).hello(true)).await;
    let hello = listener.next().await;
    assert_eq!(hello.notice("hello")["connection"], listener.subscription.connection().to_string());
    let again = to(&hub, &["chat"]).since(since_id(hello.id()));
    assert_eq!(Listener::open(&hub, again).await.data(2).await, numbers(2, 3));
    assert_eq!(listener.data(2).await, numbers(2, 3));
}

#[tokio::test(start_paused = true)]
async fn an_empty_or_too_long_list_of_matchers_is_refused() {
    let hub = hub().await;
    assert!(hub.subscribe(Subscribe::new([])).await.is_err());
    let many =
        (0..=hub.validator().matchers_max).map(|n| hub.validator().exact(&n.to_string()).expect("valid"));
    assert!(hub.subscribe(Subscribe::new(many)).await.is_err());
}
