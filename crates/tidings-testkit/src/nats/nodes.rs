//! Three servers of NATS that keep streams together.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::NatsServer;
use crate::{PATIENCE, port::Port};

/// The fewest of which one may be away.
const NODES: usize = 3;
/// How long to wait before something is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// An answer that takes longer is none.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Three `nats-server` processes in one cluster, with JetStream. They die with this value, and what they stored goes with them.
///
/// Its methods block, as those of [`NatsServer`] do.
#[derive(Debug)]
pub struct NatsNodes {
    nodes: Vec<NatsServer>,
    /// Where the nodes talk to each other.
    _routes: Vec<Port>,
}

impl NatsNodes {
    /// Starts the nodes and waits until streams can be made.
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
        // They have found each other when they can keep something together.
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

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Which node leads a stream: it answers who publishes.
    pub fn leader_of(&self, stream: &str) -> anyhow::Result<usize> {
        let mut leader = None;
        until("the stream to have a leader", || {
            let reported = self.ask(&format!("STREAM.INFO.{stream}"), "")?;
            leader = (0..NODES).find(|at| reported.contains(&format!("\"leader\":\"{}\"", name(*at))));
            Ok(leader.is_some())
        })?;
        leader.context("the stream has no leader")
    }

    /// Waits until every node has all of a stream that three keep.
    pub fn is_whole(&self, stream: &str) -> anyhow::Result<()> {
        until("the stream to be whole at each node", || {
            let reported = self.ask(&format!("STREAM.INFO.{stream}"), "")?;
            Ok(reported.matches("\"current\":true").count() == NODES - 1)
        })
    }

    /// What the first node that runs says to a question of JetStream.
    fn ask(&self, what: &str, payload: &str) -> anyhow::Result<String> {
        let node = self.nodes.iter().find(|node| node.running.is_some()).context("no node runs")?;
        let stream = TcpStream::connect(node.address())?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        let mut lines = BufReader::new(&stream);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        ensure!(line.starts_with("INFO "), "a server that says {line:?}");
        (&stream).write_all(
            format!(
                "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{what} answer {}\r\n{payload}\r\n",
                payload.len()
            )
            .as_bytes(),
        )?;
        loop {
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "the server ended the connection");
            if let Some(message) = line.strip_prefix("MSG ") {
                let bytes: u64 = message.trim_end().rsplit(' ').next().unwrap_or_default().parse()?;
                let mut answer = String::new();
                lines.by_ref().take(bytes).read_to_string(&mut answer)?;
                return Ok(answer);
            }
        }
    }
}

fn name(at: usize) -> String {
    format!("node{at}")
}

/// Looks again and again. What cannot be asked at the moment is no.
fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().unwrap_or(false) {
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
