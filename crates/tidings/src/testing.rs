//! For tests of applications: no sockets and no sleeps.
//!
//! A test [listens](crate::Hub::listen) as a user of the application would, with the request that
//! the application makes for that user, and checks what arrives and what does not.
//!
//! ```
//! use tidings::{Hub, NewEvent, Subscribe, testing};
//!
//! /// What a user of the application receives.
//! fn stream_of(user: &str) -> Subscribe {
//!     Subscribe::topics(["news".to_owned(), format!("user-{user}")]).grant([format!("user-{user}")])
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), tidings::Error> {
//!     let hub = Hub::in_memory().await;
//!     let mut ann = hub.listen(stream_of("ann")).await?;
//!     let mut bob = hub.listen(stream_of("bob")).await?;
//!     hub.publish(NewEvent::new("user-ann", "your order was shipped").private()).await?;
//!     assert_eq!(testing::next(&mut ann).await.data, "your order was shipped");
//!     testing::expect_none(&mut bob).await;
//!     Ok(())
//! }
//! ```
//!
//! Events age by a clock, which may be one that the test moves:
//!
//! ```
//! use std::time::Duration;
//! use tidings::{Hub, MemoryLimits, MemoryLog, NewEvent, log::{Clock, Timestamp}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tidings::Error> {
//! let clock = Clock::manual(Timestamp::from_millis(0));
//! let day = Duration::from_secs(24 * 60 * 60);
//! let limits = MemoryLimits { age_max: Some(day), ..MemoryLimits::default() };
//! let hub = Hub::builder().log(MemoryLog::with_clock(limits, clock.clone())).start().await?;
//! hub.publish(NewEvent::new("chat", "hello")).await?;
//! clock.advance(2 * day);
//! assert!(hub.last_events(10, "chat").await?.entries.is_empty());
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::{task::yield_now, time::timeout};

use crate::subscriber::listener::{Listener, Received, ReceivedEvent};

/// How long [`next`] waits for an event. Only a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The next event.
///
/// # Panics
///
/// If a gap or the end of the subscription comes first, and if nothing arrives within ten seconds.
pub async fn next(listener: &mut Listener) -> ReceivedEvent {
    let received = timeout(PATIENCE, listener.next()).await.expect("no event within ten seconds");
    match received {
        Some(Received::Event(event)) => event,
        other => panic!("expected an event, received {other:?}"),
    }
}

/// Checks that nothing is to be received: everything that has been published was for others, or
/// has been received before.
///
/// # Panics
///
/// If there is something to be received, and if the log cannot be reached.
pub async fn expect_none(listener: &mut Listener) {
    let end = listener.hub().bounds().await.expect("the log is available").newest_cursor();
    loop {
        let has_fanned_out = listener.hub().has_fanned_out(end);
        if let Some(received) = listener.next().now_or_never() {
            panic!("expected nothing, received {received:?}");
        }
        if has_fanned_out && listener.has_caught_up() {
            return;
        }
        // The fan-out has something to do, in another task.
        yield_now().await;
    }
}
