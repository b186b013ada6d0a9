//! Limits on the streams of one subject and of one key, and the response to each client.

use std::sync::Arc;

use http::StatusCode;
use tidings_server::Settings;
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    Api, CHAT_KEY, HUB, KEY, authenticator_with, hub, ticket_with, token, with_keys_and, within,
};

fn per_subject(streams: u32) -> Settings {
    let mut settings = Settings::default();
    settings.streams_per_subject_max = std::num::NonZeroU32::new(streams);
    settings
}

fn labelled(label: &str) -> String {
    let ticket = ticket_with(&["chat"], |ticket| ticket.label = Some(label.to_owned()));
    format!("/stream?ticket={ticket}")
}

#[tokio::test]
async fn a_subject_at_its_limit_gets_429_or_a_notice_and_others_are_served() {
    let api = with_keys_and(per_subject(2)).await;
    let token = token(&[], &["chat"]);
    let open = [
        api.get("/stream?topic=chat").bearer(&token).from("192.0.2.1:1").stream().await,
        api.get(&format!("{HUB}?match=chat")).bearer(&token).from("192.0.2.2:1").stream().await,
    ];
    let answer = api.get("/stream?topic=chat").bearer(&token).from("192.0.2.3:1").answer().await;
    let detail = answer.refused(429);
    assert!(detail.contains("limit of 2 open streams"), "{detail}");
    assert!(detail.contains("`streams_per_subject_max`") && detail.contains("`--streams-per-subject-max`"));
    let secs: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((15..=45).contains(&secs), "{secs}");
    // Nobody else is affected: other subjects, keys, and clients without a credential.
    let others = [
        api.get(&labelled("somebody")).stream().await,
        api.get("/stream?topic=chat").bearer(KEY).stream().await,
        api.get("/stream?topic=chat").bearer(KEY).stream().await,
        api.get("/stream?topic=chat").bearer(KEY).stream().await,
        api.get("/stream?topic=chat").stream().await,
    ];
    drop(open);
    api.get("/stream?topic=chat").bearer(&token).stream().await;
    drop(others);
}

/// An error status would close it for good.
#[tokio::test]
async fn a_native_event_source_of_a_subject_at_its_limit_gets_a_notice_and_an_end() {
    let api = with_keys_and(per_subject(1)).await;
    let target = labelled("user-42");
    let open = api.get(&target).stream().await;
    let answer = api.get(&target).like_a_browser().answer().await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.contains("event: tidings\n") && answer.body.contains(r#"{"kind":"over-limit"}"#));
    let retry = answer.body.lines().find_map(|line| line.strip_prefix("retry: ")).expect("a retry");
    assert!((15_000..=45_000).contains(&retry.parse::<u64>().expect("milliseconds")), "{retry}");
    drop(open);
    api.get(&target).like_a_browser().stream().await.until("retry: ").await;
}

#[tokio::test]
async fn a_key_with_a_limit_of_streams_gets_429_beyond_and_others_are_served() {
    let hub = hub().await;
    let authenticator = authenticator_with(&hub, |config| {
        let chat = config.keys.iter_mut().find(|key| key.name == "chat").expect("it is there");
        chat.streams_max = std::num::NonZeroU32::new(1);
    });
    let api = Api::new(hub, Some(authenticator), Settings::default());
    let ask = |key: &str| api.get("/stream?topic=chat").bearer(key);
    let open = ask(CHAT_KEY).stream().await;
    let detail = ask(CHAT_KEY).answer().await.refused(429);
    assert!(detail.contains("limit of 1 open streams") && detail.contains("`[[key]]`"), "{detail}");
    let _others = [ask(KEY).stream().await, ask(KEY).stream().await];
    drop(open);
    ask(CHAT_KEY).stream().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_streams_that_a_subject_opens_at_once_as_many_as_it_may_have_are_open() {
    const CLIENTS: usize = 32;
    const LIMIT: usize = 5;
    let api = Arc::new(with_keys_and(per_subject(5)).await);
    let token = token(&[], &["chat"]);
    for _ in 0..5 {
        let barrier = Arc::new(Barrier::new(CLIENTS));
        let mut asking = JoinSet::new();
        for _ in 0..CLIENTS {
            let ask = api.get("/stream?topic=chat").bearer(&token);
            let barrier = Arc::clone(&barrier);
            asking.spawn(async move {
                barrier.wait().await;
                ask.send().await
            });
        }
        let responses = within(asking.join_all()).await;
        let (open, refused): (Vec<_>, Vec<_>) =
            responses.into_iter().partition(|response| response.status() == StatusCode::OK);
        assert_eq!(open.len(), LIMIT);
        assert!(refused.iter().all(|response| response.status() == StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(api.hub.stats().subscribers, LIMIT);
        // All are free again at once.
        drop(open);
    }
}

/// Then its client presents its token again, which may have been withdrawn meanwhile.
#[tokio::test(start_paused = true)]
async fn a_stream_with_a_token_is_as_old_as_its_issuer_allows_and_no_older() {
    let hub = hub().await;
    let authenticator = authenticator_with(&hub, |config| {
        config.issuers[0].stream_lifetime_secs_max = std::num::NonZeroU64::new(10);
    });
    let api = Api::new(hub, Some(authenticator), Settings::default());
    let of_key = api.get("/stream?topic=chat").bearer(KEY).stream().await;
    let began = tokio::time::Instant::now();
    let mut stream = api.get("/stream?topic=chat").bearer(&token(&[], &["chat"])).stream().await;
    let notice = stream.notice().await;
    assert_eq!((&notice["kind"], &notice["reason"]), (&"reconnect".into(), &"lifetime".into()));
    let secs = began.elapsed().as_secs_f64();
    assert!((7.0..=10.1).contains(&secs), "{secs}");
    drop(of_key);
}
