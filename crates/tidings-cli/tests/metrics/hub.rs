//! What moves the metrics of the hub itself.

use tidings_testkit::{EventStream, Hub, RedisServer};

use crate::moves::{
    Case,
    Change::{By, To, Up},
};

pub(crate) const CASES: &[Case] = &[
    Case {
        action: "subscribers of a topic and of a pattern connect, and an event is published",
        series: &[
            ("tidings_subscribers", By(2.0)),
            ("tidings_feeds", By(2.0)),
            ("tidings_patterns", By(1.0)),
            ("tidings_feed_bytes", Up),
            ("tidings_ready", To(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                moves.before(hub.address()).await;
                let _topic = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                let mut pattern = EventStream::open(hub.address(), "/stream?pattern=/a/:id").await.unwrap();
                hub.publish("/a/1", "x").await.unwrap();
                assert_eq!(pattern.messages(1).await.unwrap(), ["x"]);
                moves.after().await
            })
        },
    },
    Case {
        action: "the store is killed",
        series: &[("tidings_ready", To(0.0))],
        run: |mut moves| {
            Box::pin(async move {
                let mut server = RedisServer::start().await.unwrap();
                let hub = Hub::serve(&["--store", &server.url()]).await.unwrap();
                moves.before(hub.address()).await;
                server.kill().await.unwrap();
                moves.after().await
            })
        },
    },
];
