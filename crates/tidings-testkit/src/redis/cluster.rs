//! A Redis Cluster of three nodes, each with a third of the slots.

use anyhow::Context;

use super::{RedisServer, redis_cli, until};
use crate::port::Port;

/// Masters; Redis refuses to create a cluster with fewer.
const NODES: usize = 3;

/// Three nodes without replicas. Dropping this value kills them.
#[derive(Debug)]
pub struct RedisNodes {
    nodes: Vec<RedisServer>,
    /// The ports of the cluster bus.
    _buses: Vec<Port>,
}

impl RedisNodes {
    /// Starts the nodes and waits until each of them serves all slots.
    pub async fn start() -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..NODES {
            let bus = Port::reserve()?;
            let bus_line = format!("cluster-port {}", bus.number());
            let lines = ["cluster-enabled yes", "cluster-node-timeout 2000", &bus_line];
            nodes.push(RedisServer::start_with(&lines).await?);
            buses.push(bus);
        }
        let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-yes", "--cluster-replicas", "0"]);
        redis_cli(nodes[0].port(), &create).await?;
        let cluster = Self { nodes, _buses: buses };
        cluster.wait_until_whole().await?;
        Ok(cluster)
    }

    /// `redis+cluster://…` with all nodes.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// The node that has this key.
    pub async fn owner(&mut self, key: &str) -> anyhow::Result<&mut RedisServer> {
        let mut owner = None;
        for (index, node) in self.nodes.iter().enumerate() {
            let answer = node.command(&["EXISTS", key]).await;
            if answer.is_ok_and(|answer| !answer.contains("MOVED")) {
                owner = Some(index);
            }
        }
        Ok(&mut self.nodes[owner.context("no node has this key")?])
    }

    /// Moves the slot of a key, with everything in it, to another node.
    pub async fn move_slot(&mut self, key: &str) -> anyhow::Result<()> {
        let slot = self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]).await?;
        let from = self.owner(key).await?.port();
        let node = |port: u16| self.nodes.iter().find(|node| node.port() == port);
        let from = node(from).context("no such node")?;
        let to = self.nodes.iter().find(|node| node.port() != from.port()).context("no other node")?;
        let (from_id, to_id) =
            (from.command(&["CLUSTER", "MYID"]).await?, to.command(&["CLUSTER", "MYID"]).await?);
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await?;
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await?;
        loop {
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await?;
            let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let port = to.port().to_string();
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys);
            from.command(&migrate).await?;
        }
        for node in [to, from] {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
        }
        for node in &self.nodes {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
        }
        Ok(())
    }

    /// Waits until every node reports that the cluster is complete.
    pub async fn wait_until_whole(&self) -> anyhow::Result<()> {
        until("the cluster is complete", async || {
            for node in &self.nodes {
                let info = node.command(&["CLUSTER", "INFO"]).await?;
                let nodes = format!("cluster_known_nodes:{NODES}");
                if !info.contains("cluster_state:ok") || !info.contains(&nodes) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }
}
