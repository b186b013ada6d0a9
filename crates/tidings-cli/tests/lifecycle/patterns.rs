//! The real binary, and clients that subscribe to more patterns than its budget allows.

use tidings_testkit::{EventStream, Hub};

#[tokio::test]
async fn a_hub_refuses_patterns_beyond_its_budget_and_continues_to_deliver() {
    let mut hub = Hub::serve(&["--patterns-max", "50", "--pattern-weight-max", "1000"]).await.unwrap();
    let query: Vec<_> = (0..50).map(|number| format!("pattern=/p{number}/:id")).collect();
    let target = format!("/stream?{}", query.join("&"));
    let mut held = EventStream::open(hub.address(), &target).await.unwrap();

    let refused = hub.request("GET /stream?pattern=/more/:id", b"").await.unwrap();
    assert_eq!(refused.status, 503, "{refused}");
    assert!(
        refused.text().contains("`patterns_max`") && refused.header("retry-after").is_some(),
        "{refused}"
    );

    let second = EventStream::open(hub.address(), &target).await.unwrap();
    hub.publish("/p7/1", "seven").await.unwrap();
    assert_eq!(held.messages(1).await.unwrap(), ["seven"]);
    let metrics = hub.request("GET /metrics", b"").await.unwrap().text();
    assert!(metrics.contains("tidings_patterns 50\n"), "{metrics}");
    drop((held, second));
    assert!(hub.stop().await.unwrap().success());
}

#[tokio::test]
async fn patterns_without_a_literal_prefix_have_their_own_budget() {
    let mut hub = Hub::serve(&["--pattern-weight-max", "1000"]).await.unwrap();
    // The flood that was reported: each pattern takes a large expression, and is compared with
    // every topic.
    let large = "(a*)*".repeat(56);
    let query: Vec<_> = (0..50).map(|number| format!("pattern={large}{number}")).collect();
    let refused = hub.request(&format!("GET /stream?{}", query.join("&")), b"").await.unwrap();
    assert_eq!(refused.status, 503, "{refused}");
    assert!(refused.text().contains("`pattern_weight_max`"), "{refused}");

    let longer = format!("GET /stream?{}&{}", query.join("&"), query.join("x&"));
    let refused = hub.request(&longer, b"").await.unwrap();
    assert_eq!(refused.status, 400, "{refused}");
    assert!(refused.text().contains("bytes together; the limit is 16384"), "{refused}");

    let mut stream = EventStream::open(hub.address(), "/stream?pattern=/:a(\\d%2B)x").await.unwrap();
    hub.publish("/12x", "matched").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["matched"]);
    assert!(hub.stop().await.unwrap().success());
}
