//! The bare loop: server push with nothing but what the work itself takes, the physical limit that
//! `make bench` compares with.
//!
//!     tidings-bench-bare ADDRESS:PORT
//!
//! One thread, one byte log per topic, a cursor per subscriber, one `send` of everything due. No
//! keys, heartbeats, retention or limits per client; names and bodies are taken as they are. It
//! prints its URL, then serves the load client until it is killed. Linux only.

#[cfg(target_os = "linux")]
mod hub;
#[cfg(target_os = "linux")]
mod request;
#[cfg(target_os = "linux")]
mod topic;

fn main() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let listener = std::net::TcpListener::bind(address)?;
        println!("http://{}", listener.local_addr()?);
        hub::Hub::new(listener)?.run()?;
    }
    Ok(())
}
