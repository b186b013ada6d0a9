//! The server is killed, and all subscribers reconnect at once.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Bench, load};
use crate::{BenchError, Step, engine::Engine, process::Server};

/// As many connects as a server's backlog holds; further ones follow as it accepts.
const STORM_AT_ONCE_MAX: usize = 511;
/// How long the server may take to accept again.
const RESTART_TIME_MAX: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(20);

impl Bench<'_> {
    pub(super) fn storm(&mut self) -> Result<Vec<Step>, BenchError> {
        let (Some(server), Some(command)) = (self.server, self.plan.restart_command.as_deref()) else {
            return Err(BenchError::plan(
                "storm: --server-pid and --restart-command are missing: the server is killed and restarted",
            ));
        };
        let shape = self.shape;
        let calm = self.idle("before", shape)?;
        let mut engine = self.engine(shape)?;
        for _ in 0..shape.subscribers {
            engine.ledger.subscribe(0);
            engine.add_subscriber(0, crate::engine::Manner::default());
        }
        self.connect(&mut engine, super::CONNECTING_MAX)?;
        engine.expect_endings();
        server.kill()?;
        while engine.streaming() > 0 {
            engine.turn(TURN)?;
        }
        let mut restarted = Restarted::start(command)?;
        restarted.wait_until_it_accepts(engine.requests.subscribe_address)?;
        self.server = Some(restarted.server()?);
        let back = self.come_back(&mut engine, shape)?;
        Ok(vec![calm, back])
    }

    fn come_back(&mut self, engine: &mut Engine, shape: crate::plan::Shape) -> Result<Step, BenchError> {
        engine.reconnect_ended();
        let connecting = self.connect(engine, STORM_AT_ONCE_MAX)?;
        engine.linger(self.plan.settle)?;
        let settled = self.memory()?;
        engine.add_publishers(shape.publishers)?;
        let traffic = self.publish(engine, load(shape))?;
        let after = self.memory()?;
        let step = self.step("after kill -9", shape, engine);
        engine.hang_up();
        let memory = settled.zip(after);
        // There is no moment without subscribers: all memory of the process counts as theirs.
        let memory = memory
            .map(|(settled, after)| super::per_subscriber((0, None), settled, after, shape.subscribers));
        Ok(Step { connecting: Some(connecting), traffic: Some(traffic), memory, ..step })
    }
}

/// A server that this run started. Dropping this value kills it.
struct Restarted(Child);

impl Restarted {
    fn start(command: &str) -> Result<Self, BenchError> {
        Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|error| BenchError::machine("--restart-command: cannot start a shell", error))
    }

    fn server(&self) -> Result<Server, BenchError> {
        Server::new(self.0.id())
    }

    fn wait_until_it_accepts(&mut self, address: SocketAddr) -> Result<(), BenchError> {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Err(BenchError::plan(format!(
                    "--restart-command: the server exited at once ({status})"
                )));
            }
            if began.elapsed() > RESTART_TIME_MAX {
                return Err(BenchError::hub(format!(
                    "the server did not accept within {} s after its restart",
                    RESTART_TIME_MAX.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        if let Ok(server) = self.server() {
            server.kill().ok();
        }
        self.0.wait().ok();
    }
}
