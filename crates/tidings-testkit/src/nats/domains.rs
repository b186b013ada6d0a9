//! A server and a leaf node, each with a JetStream domain of its own.

use super::{
    NatsServer,
    request::{ask, until},
};
use crate::port::Port;

/// A server with the JetStream domain `hub`, and a leaf node of it with the domain `leaf`.
#[derive(Debug)]
pub struct NatsDomains {
    /// The server to which the leaf node is connected.
    pub hub: NatsServer,
    /// The leaf node.
    pub leaf: NatsServer,
    /// The port for leaf nodes.
    _leaf_port: Port,
}

impl NatsDomains {
    /// Starts both, and waits until JetStream of the server can be reached through the leaf node.
    pub fn start() -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        let address = format!("127.0.0.1:{}", port.number());
        let hub = start("hub", &format!("leafnodes {{ listen: \"{address}\" }}"))?;
        let leaf = start(
            "leaf",
            &format!("leafnodes {{ reconnect: 1, remotes: [ {{ url: \"nats-leaf://{address}\" }} ] }}"),
        )?;
        until("the leaf node to be connected", || {
            Ok(ask(leaf.address(), "$JS.hub.API.INFO", "")?.contains("account_info_response"))
        })?;
        Ok(Self { hub, leaf, _leaf_port: port })
    }
}

fn start(domain: &'static str, options: &str) -> anyhow::Result<NatsServer> {
    let mut server = NatsServer::not_started(&[options, &format!("server_name: {domain}")])?;
    server.domain = Some(domain);
    server.start_again()?;
    Ok(server)
}
