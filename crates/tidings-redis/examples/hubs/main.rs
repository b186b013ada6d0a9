//! Many hubs on one Redis, and very many subscribers to one topic:
//!
//!     make hubs HUBS=10 SUBSCRIBERS=15000
//!
//! Starts a Redis, the given number of `tidings serve`, and for each of them a process of
//! subscribers, all on this machine. One event is published, then more, one a second. It reports
//! the memory of each part and how long it took until all subscribers had an event; a missing,
//! duplicated or unordered event is an error.

#[cfg(target_os = "linux")]
mod measured;
#[cfg(target_os = "linux")]
mod subscribers;

#[cfg(target_os = "linux")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["subscribers", address, count, events] => {
            subscribers::run(address.parse()?, count.parse()?, events.parse()?).await
        }
        [] => measured::run(10, 15_000, 21).await,
        [hubs, subscribers] => measured::run(hubs.parse()?, subscribers.parse()?, 21).await,
        _ => anyhow::bail!("expected: how many hubs, and how many subscribers each has"),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("it reads memory and processor time from /proc, which only Linux has");
}
