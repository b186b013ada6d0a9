//! A NATS cluster of three servers.

use anyhow::Context;

use super::{
    NatsServer,
    request::{ask, until},
};
use crate::port::Port;

/// The smallest cluster that tolerates the loss of one server.
const NODES: usize = 3;

/// Three `nats-server` processes in one cluster, with JetStream. Dropping this value kills them and
/// deletes their data.
///
/// Its methods block, as those of [`NatsServer`] do.
#[derive(Debug)]
pub struct NatsNodes {
    nodes: Vec<NatsServer>,
    /// The ports of the cluster routes.
    _routes: Vec<Port>,
}

impl NatsNodes {
    /// Starts the nodes and waits until streams can be created.
    pub fn start() -> anyhow::Result<Self> {
        let routes = (0..NODES).map(|_| Port::reserve()).collect::<anyhow::Result<Vec<_>>>()?;
        let all: Vec<_> =
            routes.iter().map(|port| format!("\"nats://127.0.0.1:{}\"", port.number())).collect();
        let mut nodes = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            let cluster = format!(
                "cluster {{ name: tidings, listen: \"127.0.0.1:{}\", routes: [{}] }}",
                route.number(),
                all.join(", ")
            );
            nodes.push(NatsServer::start_with(&[&format!("server_name: {}", name(at)), &cluster])?);
        }
        let cluster = Self { nodes, _routes: routes };
        // The cluster is formed once it can create a replicated stream.
        let probe = r#"{"name":"probe","subjects":["probe"],"storage":"memory","num_replicas":3}"#;
        until("a stream on all nodes", || {
            let made = cluster.ask("STREAM.CREATE.probe", probe)?;
            Ok(!made.contains("\"error\""))
        })?;
        cluster.ask("STREAM.DELETE.probe", "")?;
        Ok(cluster)
    }

    /// `nats://…` with all nodes.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("nats://{}", addresses.join(","))
    }

    /// One of the nodes.
    pub fn node(&mut self, at: usize) -> &mut NatsServer {
        &mut self.nodes[at]
    }

    /// The number of nodes.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The node that leads a stream, which acknowledges publications.
    pub fn leader_of(&self, stream: &str) -> anyhow::Result<usize> {
        let mut leader = None;
        until("the stream to have a leader", || {
            let reported = self.ask(&format!("STREAM.INFO.{stream}"), "")?;
            leader = (0..NODES).find(|at| reported.contains(&format!("\"leader\":\"{}\"", name(*at))));
            Ok(leader.is_some())
        })?;
        leader.context("the stream has no leader")
    }

    /// Waits until every node has all of a stream with three replicas.
    pub fn is_whole(&self, stream: &str) -> anyhow::Result<()> {
        until("the stream to be complete at each node", || {
            let reported = self.ask(&format!("STREAM.INFO.{stream}"), "")?;
            Ok(reported.matches("\"current\":true").count() == NODES - 1)
        })
    }

    /// The answer of the first running node to a request of the JetStream API.
    fn ask(&self, what: &str, payload: &str) -> anyhow::Result<String> {
        let node = self.nodes.iter().find(|node| node.running.is_some()).context("no node runs")?;
        ask(node.address(), &format!("$JS.API.{what}"), payload)
    }
}

fn name(at: usize) -> String {
    format!("node{at}")
}
