//! A hub whose log is in files, for tests that kill it.
//!
//!     tidings-durable DIRECTORY
//!
//! It serves behind the socket that it is started with (`LISTEN_FDS`), prints its address when it does, and ends at SIGTERM.

use std::{env, path::Path, sync::Arc};

use anyhow::Context;
use tidings::{
    Hub,
    log::{Clock, SegmentLog, SegmentSettings},
};
use tidings_server::{ConnectionMetrics, ConnectionSettings, Drain, Listener, Settings, faces, serve};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let directory = env::args().nth(1).context("say DIRECTORY")?;
    let mut ended = signal(SignalKind::terminate())?;
    let log = SegmentLog::open(Path::new(&directory), SegmentSettings::default(), Clock::system())?;
    let listener = Listener::inherited()?.context("start it with a listening socket (LISTEN_FDS)")?;
    let address = listener.local_addr()?;
    let hub = Hub::builder().log(log).start().await?;
    println!("http://{address}");
    let ended = async {
        ended.recv().await;
        hub.close();
        Drain::AtOnce
    };
    let service = faces(hub.clone(), None, Settings::default());
    serve(listener, service, ConnectionSettings::default(), Arc::<ConnectionMetrics>::default(), ended).await;
    Ok(())
}
