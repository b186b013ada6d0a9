//! What moves the metric of streams that have ended, reason by reason, and what moves those of a
//! hub at its limits.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tidings_testkit::{Application, Connection, EventStream, Hub, Reply};

use crate::moves::{
    Case,
    Change::{By, Up},
};

/// A hub whose application grants every stream these parameters.
async fn granting(grant: &'static str, more: &[&str]) -> (Application, Hub) {
    let application = Application::start(move |_| Reply::subscribe(grant)).await.unwrap();
    let url = application.url("/");
    let hub = Hub::serve(&[&["--authorize", &url], more].concat()).await.unwrap();
    (application, hub)
}

async fn read_to_end(stream: &mut EventStream) {
    while stream.next_or_end().await.unwrap().is_some() {}
}

pub(crate) const CASES: &[Case] = &[
    Case {
        action: "a credential expires while its stream is open",
        series: &[(r#"tidings_streams_closed_total{reason="expired"}"#, By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let (_application, hub) = granting("topic=chat&expires=1", &[]).await;
                moves.before(hub.address()).await;
                let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
                read_to_end(&mut stream).await;
                moves.after().await
            })
        },
    },
    Case {
        action: "what a stream was granted is revoked",
        series: &[(r#"tidings_streams_closed_total{reason="revoked"}"#, By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let (_application, hub) = granting("topic=chat&label=user-42", &[]).await;
                let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
                moves.before(hub.address()).await;
                let revoked = hub.request("POST /revoke", br#"{"label":"user-42"}"#).await.unwrap();
                assert_eq!(revoked.status, 204, "{revoked}");
                read_to_end(&mut stream).await;
                moves.after().await
            })
        },
    },
    Case {
        action: "a stream reaches its maximum age",
        series: &[(r#"tidings_streams_closed_total{reason="lifetime"}"#, By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&["--stream-lifetime-secs-max", "1"]).await.unwrap();
                moves.before(hub.address()).await;
                let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                read_to_end(&mut stream).await;
                moves.after().await
            })
        },
    },
    Case {
        action: "a client sends too much on its stream",
        series: &[(r#"tidings_streams_closed_total{reason="error"}"#, By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                moves.before(hub.address()).await;
                // The hub may end the stream before it has read all of this.
                let _ = stream.connection().send(vec![b'x'; 1 << 20]).await;
                moves.after().await
            })
        },
    },
    Case {
        action: "the process has no descriptors left",
        series: &[("tidings_accept_pauses_total", Up)],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                moves.before(hub.address()).await;
                let pid = Pid::from_raw(hub.pid().unwrap().cast_signed());
                let files = Rlimit { current: Some(8), maximum: Some(8) };
                prlimit(pid, Resource::Nofile, files).unwrap();
                let _waiting = Connection::open(hub.address()).await.unwrap();
                moves.after().await
            })
        },
    },
];
