//! Server push with axum alone, as its documentation suggests: `Sse` over a tokio `broadcast`
//! channel for each topic.
//!
//!     tidings-bench-axum ADDRESS:PORT
//!
//! No ids, no history; a reader that falls 1,024 events behind loses them silently.

use std::{
    collections::HashMap,
    convert::Infallible,
    env, io,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Path, Query, State},
    response::sse::{Event, KeepAlive, Sse},
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::broadcast::{Sender, channel, error::RecvError},
};

const CAPACITY: usize = 1_024;

type Topics = Arc<Mutex<HashMap<String, Sender<Arc<str>>>>>;

#[derive(Deserialize)]
struct Subscription {
    topic: String,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        stream.set_nodelay(true).ok();
    });
    let routes = Router::new().route("/stream", get(subscribe)).route("/topics/{topic}", post(publish));
    axum::serve(listener, routes.with_state(Topics::default())).await
}

async fn publish(State(topics): State<Topics>, Path(topic): Path<String>, data: String) -> &'static str {
    if let Some(sender) = topics.lock().expect("no code panics while it holds the lock").get(&topic) {
        sender.send(data.into()).ok();
    }
    "ok"
}

async fn subscribe(
    State(topics): State<Topics>,
    Query(Subscription { topic }): Query<Subscription>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut topics = topics.lock().expect("no code panics while it holds the lock");
    let receiver = topics.entry(topic).or_insert_with(|| channel(CAPACITY).0).subscribe();
    let events = stream::unfold(receiver, |mut receiver| async {
        loop {
            match receiver.recv().await {
                Ok(data) => return Some((Ok(Event::default().data(data)), receiver)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
