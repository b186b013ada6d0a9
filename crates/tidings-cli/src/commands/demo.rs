//! `tidings demo`: runs the example chat.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request},
    middleware::map_request,
};
use clap::Args;
use tidings::web::{HostName, HostNames};
use tidings_server::{Client, ConnectionMetrics, ConnectionSettings};
use tokio::runtime::Builder;

use super::{
    listening::{Listening, UPGRADE_SECS},
    log_filter::LogFilter,
    runtime::block_on,
    sockets::{Addresses, shown},
};
use crate::{
    config::{LOG_LEVEL, Listen, LogFormat, StoreFlags, unknown_variables},
    failure::Failure,
    output,
    store::Keeping,
};

/// Run the example chat: open its address in two windows
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Address to listen on: ADDR:PORT, localhost:PORT or another host name, :PORT for every
    /// address, unix:PATH; port 0 picks a free port; repeatable
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TIDINGS_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:8080",
        value_delimiter = ','
    )]
    listen: Vec<Listen>,
    /// Accept requests for this host name; *.example.com accepts every subdomain; IP addresses and
    /// localhost are always accepted; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "TIDINGS_ALLOW_HOST",
        hide_env_values = true,
        value_delimiter = ','
    )]
    allow_host: Vec<HostName>,
    #[command(flatten)]
    store: StoreFlags,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let keeping = self.store.keeping()?;
        if let Some(listen) = self.listen.iter().find(|listen| listen.needs_tls()) {
            return Err(Failure::usage(format!(
                "--listen: {} has tls=true, and the example has no certificate",
                listen.address
            )));
        }
        LogFilter::start(LogFormat::Text, LOG_LEVEL)?;
        for warning in unknown_variables(&[]) {
            tracing::warn!("configuration: {warning}");
        }
        let hosts = self.allow_host.into_iter().collect();
        block_on(Builder::new_multi_thread(), chat(self.listen, hosts, keeping))
    }
}

async fn chat(listens: Vec<Listen>, hosts: HostNames, keeping: Keeping) -> Result<(), Failure> {
    let mut listening =
        Listening::start(&Addresses { listens: &listens, ..Addresses::default() }, Duration::ZERO)?;
    let addresses = listening.addresses(false);
    let store = listening.open(&keeping).await?;
    output::STDOUT.start().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    let (hub, presence, routes) =
        tidings_chat::app(store.hub(), hosts, jiff::Zoned::now, |line| output::STDOUT.add(line.as_bytes()))
            .await
            .map_err(|error| Failure::runtime(format!("{error:#}")))?;
    // The chat is written for axum's own server, which provides the client's address under another
    // type, and knows TCP only.
    let routes = routes.layer(map_request(async |mut request: Request| {
        if let Some(client) = request.extensions().get::<Client>() {
            let ip = client.address.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            request.extensions_mut().insert(ConnectInfo(SocketAddr::new(ip, 0)));
        }
        request
    }));
    let url = listening.base_url();
    let banner = format!(
        "The chat is at {url}/ - open it in two windows, one of them private.\n\n  \
         read:   curl -N {url}/stream\n  \
         write:  curl -d message=hello {url}/post\n"
    );
    output::STDOUT.add(banner.as_bytes());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), url, address = %shown(&addresses), "listening");
    let (settings, metrics) = (ConnectionSettings::default(), Arc::<ConnectionMetrics>::default());
    let drain_secs = settings.drain_secs;
    let ending = hub.clone();
    let serve = |listeners, ended| {
        let serving = tidings_server::serve(listeners, routes, settings, metrics, ended);
        async move {
            serving.await;
            ending.close();
            // While the store is still open.
            presence.withdrawn().await;
        }
    };
    listening.serve(hub, store, drain_secs, UPGRADE_SECS, serve).await
}
