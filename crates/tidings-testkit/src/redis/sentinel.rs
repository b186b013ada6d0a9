//! A master with replicas, monitored by Sentinels.

use anyhow::{Context, bail};

use super::{RedisServer, until};

/// Sentinels of one set; two of them make a majority.
const SENTINELS: usize = 3;
/// The time in milliseconds after which Sentinels consider a silent master down: longer than delays
/// of a busy machine, so that only tests cause failovers.
const DOWN_AFTER_MILLIS: u32 = 10_000;

/// A master, its replicas and three Sentinels. Dropping this value kills them.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// The name of the service that the Sentinels monitor.
    pub const SERVICE: &str = "tidings-test";

    /// Starts a master with one replica, and waits until every Sentinel knows of all of them.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Like `start`, with further lines of configuration for the master and the replica.
    pub async fn start_with(lines: &[&str]) -> anyhow::Result<Self> {
        let lines = [lines, &["repl-diskless-sync-delay 0", "repl-ping-replica-period 1"]].concat();
        let master = RedisServer::start_with(&lines).await?;
        let replicaof = format!("replicaof 127.0.0.1 {}", master.port());
        let replica = RedisServer::start_with(&[&lines[..], &[&replicaof]].concat()).await?;
        until("the replica follows", async || {
            Ok(master.command(&["INFO", "replication"]).await?.contains("state=online"))
        })
        .await?;
        let service = Self::SERVICE;
        let monitor = format!("sentinel monitor {service} 127.0.0.1 {} 2", master.port());
        let down_after = format!("sentinel down-after-milliseconds {service} {DOWN_AFTER_MILLIS}");
        let failover = format!("sentinel failover-timeout {service} 3000");
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            let mut sentinel = RedisServer::not_started_bare(&[&monitor, &down_after, &failover])?;
            sentinel.launch("redis-sentinel", &[], "Sentinel ID is").await?;
            sentinels.push(sentinel);
        }
        let set = Self { servers: vec![master, replica], sentinels };
        set.wait_until_whole().await?;
        Ok(set)
    }

    /// `redis+sentinel://…` with all Sentinels.
    pub fn url(&self) -> String {
        let addresses: Vec<_> =
            self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis+sentinel://{}/{}", addresses.join(","), Self::SERVICE)
    }

    /// The current master according to the Sentinels.
    pub async fn master(&self) -> anyhow::Result<&RedisServer> {
        let port = self.master_port().await?;
        self.servers
            .iter()
            .find(|server| server.port() == port)
            .context("the master is not one of these servers")
    }

    /// Kills the master, makes a Sentinel promote its replica, and restarts the old master as the
    /// replica.
    pub async fn fail_over(&mut self) -> anyhow::Result<()> {
        let port = self.master_port().await?;
        let old = self.servers.iter().position(|server| server.port() == port).context("no such master")?;
        self.servers[old].kill().await?;
        until("a Sentinel to begin a failover", async || {
            Ok(self.sentinels[0].command(&["SENTINEL", "FAILOVER", Self::SERVICE]).await? == "OK")
        })
        .await?;
        until("the Sentinels chose another master", async || Ok(self.master_port().await? != port)).await?;
        // A replica that was cut off must follow again when it becomes one. Sentinels made it save
        // its configuration.
        let master = self.master().await?;
        master.command(&["CONFIG", "SET", "masterauth", ""]).await?;
        master.command(&["CONFIG", "REWRITE"]).await?;
        let master = self.master_port().await?.to_string();
        self.servers[old].start_as(&["--replicaof", "127.0.0.1", &master]).await?;
        self.wait_until_whole().await
    }

    /// Cuts the replica off from further writes, until the next failover.
    pub async fn cut_replica_off(&mut self) -> anyhow::Result<()> {
        let port = self.master_port().await?;
        let master = self.master().await?;
        let replica = self.servers.iter().find(|server| server.port() != port).context("no replica")?;
        // The master has no password, and refuses a replica that sends one.
        replica.command(&["CONFIG", "SET", "masterauth", "wrong"]).await?;
        master.command(&["CLIENT", "KILL", "TYPE", "replica"]).await?;
        until("the replica is cut off", async || {
            Ok(replica.command(&["INFO", "replication"]).await?.contains("master_link_status:down"))
        })
        .await
    }

    async fn master_port(&self) -> anyhow::Result<u16> {
        let [sentinel, ..] = &self.sentinels[..] else { bail!("there is no Sentinel") };
        let answer = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::SERVICE]).await?;
        answer.lines().nth(1).context("no master")?.parse().context("not a port")
    }

    /// Waits until every Sentinel knows the others and the same master, which has a replica that
    /// follows it.
    async fn wait_until_whole(&self) -> anyhow::Result<()> {
        until("the Sentinels agree", async || {
            let port = self.master_port().await?;
            for sentinel in &self.sentinels {
                let known = sentinel.command(&["SENTINEL", "MASTER", Self::SERVICE]).await?;
                let field =
                    |name: &str| known.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
                let others = (SENTINELS - 1).to_string();
                let is_whole = field("num-other-sentinels") == Some(others)
                    && field("num-slaves").is_some_and(|count| count != "0")
                    && field("port") == Some(port.to_string())
                    && field("flags").as_deref() == Some("master");
                if !is_whole {
                    return Ok(false);
                }
            }
            let master = self.master().await?;
            Ok(master.is_running()
                && master.command(&["INFO", "replication"]).await?.contains("state=online"))
        })
        .await
    }
}
