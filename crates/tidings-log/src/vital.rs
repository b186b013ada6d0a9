//! Tasks that go on for as long as what they belong to.
//!
//! A task or thread that panics ends alone: no subscriber is notified, and what it did is not done any more. So the one that starts one that must not end
//! catches the panic, and ends what the task belonged to in a way that can be seen: tails end, calls fail, health says why.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// A task has panicked, and this is what it said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// Runs a task to its end. What it worked on may be left half done by a panic, and is not to be used afterwards.
pub async fn catch_panic<T>(task: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut task = pin!(task);
    std::future::poll_fn(|context| match run(|| task.as_mut().poll(context)) {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

/// The same for the work of a thread.
pub fn run<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(&*payload)))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_with_its_message_and_everything_else_passes() {
        assert_eq!(catch_panic(async { 1 }).await, Ok(1));
        let caught = catch_panic(async {
            tokio::task::yield_now().await;
            panic!("at the {} step", "second");
        });
        let caught: Result<(), _> = caught.await;
        assert_eq!(caught.unwrap_err().to_string(), "it panicked: at the second step");
    }
}
