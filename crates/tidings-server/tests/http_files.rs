//! What happens when the process runs out of open files. It is alone in its test binary, because it lowers the limit of the process.

#![cfg(target_os = "linux")]

mod http_support;

use std::{fs::File, os::fd::AsRawFd, sync::atomic::Ordering::Relaxed, time::Duration};

use http_support::{Client, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings_server::ConnectionSettings;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const CLIENTS: usize = 20;
const FILES_LEFT: u64 = 5;

/// The descriptor that the next file would get.
fn next_file() -> u64 {
    let file = File::open("/dev/null").expect("a file");
    u64::try_from(file.as_raw_fd()).expect("a descriptor is not negative")
}

fn limit_files(current: Option<u64>) {
    setrlimit(Resource::Nofile, Rlimit { current, ..getrlimit(Resource::Nofile) })
        .expect("below the hard limit");
}

async fn answer(client: &mut Client) {
    timeout(Duration::from_secs(3_600), client.read_until("hello")).await.expect("an answer");
}

/// The time is the runtime's own and jumps ahead when nothing else is to do: no second of it passes on a clock.
#[tokio::test(start_paused = true)]
async fn without_files_accepting_pauses_and_recovers_while_open_connections_go_on() {
    let server = Server::start_with(ConnectionSettings { keep_alive_secs: 100_000, ..Default::default() });
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        // The kernel completes these connections; the server has not run yet.
        let stream = std::net::TcpStream::connect(server.address).expect("a connection");
        stream.set_nonblocking(true).expect("an option");
        clients.push(Client(TcpStream::from_std(stream).expect("a runtime")));
    }
    let before = getrlimit(Resource::Nofile).current;
    limit_files(Some(next_file() + FILES_LEFT));
    for client in &mut clients {
        client.send(GET).await;
    }

    sleep(Duration::from_secs(10)).await;
    let accepted = server.metrics.accepted.load(Relaxed);
    assert!((1..=FILES_LEFT).contains(&accepted), "{accepted} accepted: the others find no file");
    let pauses = server.metrics.accept_pauses.load(Relaxed);
    assert!((10..=15).contains(&pauses), "{pauses} pauses in ten seconds, each twice as long up to a second");
    answer(&mut clients[0]).await;
    clients[0].send(GET).await;
    answer(&mut clients[0]).await;

    limit_files(before);
    for client in &mut clients[1..] {
        answer(client).await;
    }
    assert_eq!(server.metrics.accepted.load(Relaxed), CLIENTS as u64);
    server.stop().await;
}
