//! What TLS of the hub costs for each delivery, compared with nginx that terminates TLS in front of
//! a hub without it.
//!
//!     cargo build --release -p tidings-cli -p tidings-bench-tls
//!     target/release/tidings-bench-tls [SUBSCRIBERS [EVENTS [ROUNDS]]]
//!
//! Each round measures a hub without TLS, one with it, and nginx, one after the other. All
//! subscribers are on one topic, over TLS 1.3 with the same cipher suite, and an event is published
//! when all have received the one before. What is measured is the processor time of the hub and of
//! all processes of nginx. Linux only; nginx must be installed.

#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod nginx;

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    compare::run().await
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("processor time is read from /proc, which only Linux has");
}
