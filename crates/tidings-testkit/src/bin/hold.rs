//! Holds a listening socket and starts and ends hubs behind it, for tests that are not written in
//! Rust.
//!
//!     tidings-hold serve --stream chat
//!
//! It answers on standard output, one line each: `listening ADDR:PORT` at once; then to every
//! command on standard input: `start` → `started PID`, `kill` (SIGKILL) → `killed`, `upgrade`
//! (SIGUSR2) → `upgraded PID`, `stop` (SIGTERM) → `stopped STATUS`. A command that fails is
//! answered `failed REASON`. Lines of the hub are printed as `hub LINE`. At the end of standard
//! input the hub is killed and this process ends, so that neither outlives the test.

use std::env;

use tidings_testkit::Hub;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut hub = Hub::not_started(env::args().skip(1))?;
    println!("listening {}", hub.address());
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        match obey(&mut hub, &command).await {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("failed {}", format!("{error:#}").replace('\n', " | ")),
        }
    }
    if hub.pid().is_some() {
        hub.kill().await?;
    }
    Ok(())
}

async fn obey(hub: &mut Hub, command: &str) -> anyhow::Result<String> {
    match command.trim() {
        "start" => {
            hub.start_again().await?;
            forward_output(hub);
            Ok(format!("started {}", hub.pid().unwrap_or_default()))
        }
        "kill" => hub.kill().await.map(|()| "killed".to_owned()),
        "upgrade" => {
            hub.upgrade().await?;
            Ok(format!("upgraded {}", hub.pid().unwrap_or_default()))
        }
        "stop" => hub.stop().await.map(|status| format!("stopped {status}")),
        other => anyhow::bail!("unknown command {other:?}: start, kill, upgrade or stop"),
    }
}

fn forward_output(hub: &Hub) {
    let Some(mut output) = hub.watch_output() else { return };
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            let lines = output.borrow_and_update()[seen..].to_vec();
            seen += lines.len();
            for line in lines {
                println!("hub {line}");
            }
            if output.changed().await.is_err() {
                return;
            }
        }
    });
}
